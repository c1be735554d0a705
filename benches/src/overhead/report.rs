//! The report: every figure of the contract, the ratio of each to its floor, and whether a goal is met.

use serde_json::Value;
use vilya_benches::figures::Figures;
use vilya_benches::report::{Goal, assemble};
use vilya_benches::sample::Rounds;

use Goal::{AtLeast, AtMost};

/// Names that are always there, null where a section was left out.
#[rustfmt::skip]
pub(crate) const CONTRACT: &[&str] = &[
    "floor.tcp_echo_p50_us", "floor.tcp_echo_p99_us", "floor.tcp_echo_rps_16", "floor.cacheline_rtt_us",
    "floor.futex_same_core_rtt_us", "floor.eventfd_same_core_rtt_us",
    "ring.spinning_rtt_us", "ring.parked_rtt_us",
    "binary.p50_us", "binary.p99_us", "binary.rps_16", "binary.pipelined_per_core", "binary.syscalls_per_invocation",
    "http.p50_us", "http.p99_us", "http.rps_1", "http.rps_16", "http.rps_64", "http.rps_256",
    "python.http_p50_us", "python.http_p99_us", "python.rps_16",
    "payload.kib_1_us", "payload.kib_64_us", "payload.mib_1_us", "payload.mib_16_us",
    "payload_cpu.kib_1_us", "payload_cpu.kib_64_us", "payload_cpu.mib_1_us", "payload_cpu.mib_16_us",
    "mesh_hop_us", "idle_cpu_percent_1000_parked",
    "glommio.p50_us", "glommio.rps_16", "glommio.rps_64",

];

/// What Ilúvatar reached on a machine like this one with 16 clients, where the echo did 81 k/s, in requests a second.
const ILUVATAR_RPS_16: f64 = 9_300.0;
const ILUVATAR_ECHO_RPS_16: f64 = 81_000.0;

/// A figure over its floor.
struct Ratio {
    name: &'static str,
    of: &'static str,
    to: &'static str,
    goal: Option<Goal>,
}

const fn ratio(name: &'static str, of: &'static str, to: &'static str, goal: Option<Goal>) -> Ratio {
    Ratio { name, of, to, goal }
}

#[rustfmt::skip]
const RATIOS: &[Ratio] = &[
    ratio("ring_spinning", "ring.spinning_rtt_us", "floor.cacheline_rtt_us", Some(AtMost(1.3))),
    ratio("ring_parked", "ring.parked_rtt_us", PAIR, Some(AtMost(1.15))),
    ratio("mesh_hop", "mesh_hop_us", HALF_APART, None),
    ratio("binary_p50", "binary.p50_us", "floor.tcp_echo_p50_us", Some(AtMost(1.2))),
    ratio("binary_p99", "binary.p99_us", "floor.tcp_echo_p99_us", Some(AtMost(1.5))),
    ratio("binary_rps_16", "binary.rps_16", "floor.tcp_echo_rps_16", Some(AtLeast(0.75))),
    ratio("binary_pipelined", "binary.pipelined_per_core", "floor.tcp_echo_rps_16", None),
    ratio("http_p50", "http.p50_us", "floor.tcp_echo_p50_us", Some(AtMost(1.3))),
    ratio("http_p99", "http.p99_us", "floor.tcp_echo_p99_us", None),
    ratio("http_rps_1", "http.rps_1", "beside.tcp_echo_rps_1", None),
    ratio("http_rps_16", "http.rps_16", "floor.tcp_echo_rps_16", Some(AtLeast(0.68))),
    ratio("http_rps_64", "http.rps_64", "floor.tcp_echo_rps_16", None),
    ratio("http_rps_256", "http.rps_256", "floor.tcp_echo_rps_16", None),
    ratio("http_rps_256_to_16", "http.rps_256", "http.rps_16", Some(AtLeast(0.95))),
    ratio("python_http_p50", "python.http_p50_us", "floor.tcp_echo_p50_us", Some(AtMost(1.6))),
    ratio("python_http_p99", "python.http_p99_us", "floor.tcp_echo_p99_us", None),
    ratio("python_rps_16", "python.rps_16", "floor.tcp_echo_rps_16",
        Some(AtLeast(6.0 * ILUVATAR_RPS_16 / ILUVATAR_ECHO_RPS_16))),
    ratio("payload_kib_1", "payload.kib_1_us", "beside.echo_kib_1_us", None),
    ratio("payload_kib_64", "payload.kib_64_us", "beside.echo_kib_64_us", None),
    ratio("payload_mib_1", "payload.mib_1_us", "beside.echo_mib_1_us", None),
    ratio("payload_mib_16", "payload.mib_16_us", "beside.echo_mib_16_us", None),
    ratio("payload_cpu_kib_1", "payload_cpu.kib_1_us", "beside.echo_cpu_kib_1_us", None),
    ratio("payload_cpu_kib_64", "payload_cpu.kib_64_us", "beside.echo_cpu_kib_64_us", None),
    ratio("payload_cpu_mib_1", "payload_cpu.mib_1_us", "beside.echo_cpu_mib_1_us", None),
    ratio("payload_cpu_mib_16", "payload_cpu.mib_16_us", "beside.echo_cpu_mib_16_us", Some(AtMost(1.0))),
    ratio("glommio_p50", "glommio.p50_us", "beside.reactor_p50_us", None),
    ratio("glommio_rps_16", "glommio.rps_16", "beside.reactor_rps_16", None),
    ratio("glommio_rps_64", "glommio.rps_64", "beside.reactor_rps_64", None),
    ratio("livez_p50", "beside.livez_p50_us", "floor.tcp_echo_p50_us", None),
    ratio("default_python_http_p50", "beside.default_python_http_p50_us", "floor.tcp_echo_p50_us", None),
];

/// Half of a futex round trip and half of an eventfd's: the rings are woken by the one and wake by the other.
const PAIR: &str = "a futex there, an eventfd back";
/// One way between two cores.
const HALF_APART: &str = "one way of an eventfd between two cores";

/// Figures that are held to a goal as they are.
const ABSOLUTE: &[(&str, Goal)] = &[
    ("binary.pipelined_per_core", AtLeast(300_000.0)),
    ("binary.syscalls_per_invocation", AtMost(0.1)),
    ("idle_cpu_percent_1000_parked", AtMost(0.5)),
];

/// The whole report as one object.
pub(crate) fn report(mut figures: Figures, facts: &Value) -> Value {
    let mut names = CONTRACT.to_vec();
    let ratio_names: Vec<String> = RATIOS.iter().map(|ratio| format!("ratio.{}", ratio.name)).collect();
    names.extend(ratio_names.iter().map(String::as_str));
    let mut goals: Vec<(String, Goal)> = ABSOLUTE.iter().map(|&(name, goal)| (name.to_owned(), goal)).collect();
    for (ratio, name) in RATIOS.iter().zip(&ratio_names) {
        goals.extend(ratio.goal.map(|goal| (name.clone(), goal)));
        let made = figures.get(ratio.of).zip(floor(&figures, ratio.to)).map(|(of, to)| of.over(&to));
        if let Some(made) = made {
            figures.insert(name, made);
        }
    }
    assemble(&figures, &names, &goals, facts)
}

fn floor(figures: &Figures, name: &str) -> Option<Rounds> {
    match name {
        PAIR => {
            let futex = figures.get("floor.futex_same_core_rtt_us")?;
            let eventfd = figures.get("floor.eventfd_same_core_rtt_us")?;
            Some(futex.with(eventfd, f64::midpoint))
        }
        HALF_APART => {
            let apart = figures.get("beside.eventfd_other_core_rtt_us")?;
            Some(apart.with(apart, |whole, _| whole / 2.0))
        }
        _ => figures.get(name).cloned(),
    }
}
