//! The report: every figure of the contract, the ratio of each to its floor, and whether a goal is met.

use Goal::{AtLeast, AtMost};
use serde_json::Value;
use vilya_benches::figures::Figures;
use vilya_benches::report::{Goal, assemble, nest};

#[rustfmt::skip]
const CONTRACT: &[&str] = &[
    "floor.clone3_us", "floor.clone3_all_namespaces_us", "floor.exec_true_us", "floor.python_bare_ms", "floor.docker_run_ms",
    "mechanisms.native.rust.p50_ms", "mechanisms.native.rust.p99_ms",
    "mechanisms.native.python.p50_ms", "mechanisms.native.python.p99_ms",
    "mechanisms.native.node.p50_ms", "mechanisms.native.node.p99_ms",
    "mechanisms.oci.rust.p50_ms", "mechanisms.oci.rust.p99_ms",
    "mechanisms.oci.python.p50_ms", "mechanisms.oci.python.p99_ms",
    "mechanisms.oci.node.p50_ms", "mechanisms.oci.node.p99_ms",
    "mechanisms.docker.rust.p50_ms", "mechanisms.docker.rust.p99_ms",
    "mechanisms.docker.python.p50_ms", "mechanisms.docker.python.p99_ms",
    "mechanisms.docker.node.p50_ms", "mechanisms.docker.node.p99_ms",
    "starts_per_second_per_core.1", "starts_per_second_per_core.8", "starts_per_second_per_core.64",
    "private_kib_idle.rust", "private_kib_idle.python", "private_kib_idle.node",
    "alive_max",
];

/// Name, figure, what it is held against, the factor between their units, and the goal.
type Ratio = (&'static str, &'static str, &'static str, f64, Goal);

const RATIOS: &[Ratio] = &[
    ("rust_p50_to_clone3", "mechanisms.native.rust.p50_ms", "floor.clone3_all_namespaces_us", 1000.0, AtMost(2.0)),
    ("rust_p99_to_clone3", "mechanisms.native.rust.p99_ms", "floor.clone3_all_namespaces_us", 1000.0, AtMost(4.0)),
    ("rust_p50_to_exec_true", "mechanisms.native.rust.p50_ms", "floor.exec_true_us", 1000.0, AtMost(1.0)),
    ("python_p50_to_bare", "mechanisms.native.python.p50_ms", "floor.python_bare_ms", 1.0, AtMost(0.25)),
    ("starts_p99_64_to_1", "starts_p99_ms.64", "starts_p99_ms.1", 1.0, AtMost(2.0)),
    ("docker_run_to_rust_p50", "floor.docker_run_ms", "mechanisms.native.rust.p50_ms", 1.0, AtLeast(100.0)),
    ("docker_run_to_python_p50", "floor.docker_run_ms", "mechanisms.native.python.p50_ms", 1.0, AtLeast(100.0)),
    ("oci_to_native_python", "mechanisms.oci.python.p50_ms", "mechanisms.native.python.p50_ms", 1.0, AtLeast(1.0)),
];

const ABSOLUTE: &[(&str, Goal)] = &[
    ("mechanisms.native.python.p50_ms", AtMost(2.0)),
    ("starts_per_second_per_core.8", AtLeast(1000.0)),
    ("starts_per_second_per_core.64", AtLeast(1000.0)),
    ("private_kib_idle.rust", AtMost(300.0)),
    ("private_kib_idle.python", AtMost(3072.0)),
    ("alive_idle_cpu_percent", AtMost(0.5)),
];

/// The whole report as one object.
pub(crate) fn report(mut figures: Figures, facts: &Value) -> Value {
    let mut names = CONTRACT.to_vec();
    let ratio_names: Vec<String> = RATIOS.iter().map(|ratio| format!("ratio.{}", ratio.0)).collect();
    names.extend(ratio_names.iter().map(String::as_str));
    let mut goals: Vec<(String, Goal)> = ABSOLUTE.iter().map(|&(name, goal)| (name.to_owned(), goal)).collect();
    for ((_, of, to, factor, goal), name) in RATIOS.iter().zip(&ratio_names) {
        goals.push((name.clone(), *goal));
        if let (Some(of), Some(to)) = (figures.get(of), figures.get(to)) {
            figures.insert(name, of.with(to, |of, to| of * factor / to));
        }
    }
    let mut report = assemble(&figures, &names, &goals, facts);
    for section in ["mechanisms", "stages"] {
        if let Some(flat) = report.get_mut(section).and_then(Value::as_object_mut) {
            *flat = nest(std::mem::take(flat));
        }
    }
    report
}
