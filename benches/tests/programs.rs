//! Each measuring program runs with next to nothing to do, so that it cannot rot, and reports all that it promises.
//! What it measures then means nothing, and is not looked at.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// What `overhead` promises; `ratio` and `goal` come on top.
const SECTIONS: [(&str, &[&str]); 8] = [
    (
        "floor",
        &[
            "tcp_echo_p50_us",
            "tcp_echo_p99_us",
            "tcp_echo_rps_16",
            "cacheline_rtt_us",
            "futex_same_core_rtt_us",
            "eventfd_same_core_rtt_us",
        ],
    ),
    ("ring", &["spinning_rtt_us", "parked_rtt_us"]),
    ("binary", &["p50_us", "p99_us", "rps_16", "pipelined_per_core", "syscalls_per_invocation"]),
    ("http", &["p50_us", "p99_us", "rps_1", "rps_16", "rps_64", "rps_256"]),
    ("python", &["http_p50_us", "http_p99_us", "rps_16"]),
    ("payload", &["kib_1_us", "kib_64_us", "mib_1_us", "mib_16_us"]),
    ("glommio", &["p50_us", "rps_16", "rps_64"]),
    ("payload_cpu", &["kib_1_us", "kib_64_us", "mib_1_us", "mib_16_us"]),
];
/// Figures without a section.
const ALONE: [&str; 2] = ["mesh_hop_us", "idle_cpu_percent_1000_parked"];
/// Ratios that a goal is set for.
const GOALS: [&str; 11] = [
    "ring_spinning",
    "ring_parked",
    "binary_p50",
    "binary_p99",
    "binary_rps_16",
    "http_p50",
    "http_rps_16",
    "http_rps_256_to_16",
    "python_http_p50",
    "python_rps_16",
    "payload_cpu_mib_16",
];

/// Runs a program to its end; what it printed.
fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().expect("the program is built");
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} {arguments:?}: {}\n{said}\n{complained}", output.status);
    said.into_owned()
}

fn is_figure(value: &Value) -> bool {
    ["median", "least", "most"].iter().all(|part| value[part].is_number())
}

#[test]
fn overhead_reports_every_figure_of_its_contract() {
    let report: Value = serde_json::from_str(&run(env!("CARGO_BIN_EXE_overhead"), &["--json", "--quick"])).unwrap();
    for (section, names) in SECTIONS {
        let figures = report[section].as_object().unwrap_or_else(|| panic!("{section} is missing: {report:#}"));
        assert_eq!(figures.len(), names.len(), "{section}: {figures:?}");
        for name in names {
            let figure = figures.get(*name).unwrap_or_else(|| panic!("{section}.{name} is missing"));
            assert!(is_figure(figure), "{section}.{name}: {figure}");
        }
    }
    for name in ALONE {
        assert!(is_figure(&report[name]), "{name}: {}", report[name]);
    }
    for name in GOALS {
        let goal = &report["goal"][format!("ratio.{name}")];
        assert!(goal["at_most"].is_number() || goal["at_least"].is_number(), "{name}: {goal}");
        let ratio = &report["ratio"][name];
        assert!(is_figure(ratio), "ratio.{name}: {ratio}");
        assert!(goal["met"].is_boolean(), "{name}");
    }
}

#[test]
fn a_section_can_be_measured_alone_and_the_table_has_its_rows() {
    let table = run(env!("CARGO_BIN_EXE_overhead"), &["--quick", "--only", "floor,ring"]);
    for row in ["floor.tcp_echo_p50_us", "ring.parked_rtt_us", "mesh_hop_us", "ratio.ring_spinning"] {
        assert!(table.contains(row), "{row} is missing:\n{table}");
    }
    assert!(!table.contains("http.p50_us"), "{table}");
}

#[test]
fn contention_reports_each_stage_and_its_goal() {
    let report: Value = serde_json::from_str(&run(env!("CARGO_BIN_EXE_contention"), &["--json", "--quick"])).unwrap();
    for stage in ["alone", "slow_reader", "slow_writer", "idle_connections"] {
        assert!(is_figure(&report[stage]["p99_us"]), "{stage}: {report:#}");
        if stage != "alone" {
            assert!(is_figure(&report["ratio"][format!("{stage}_p99_us")]), "{stage}: {report:#}");
            assert!(report["goal"][format!("ratio.{stage}_p99_us")]["met"].is_boolean(), "{stage}: {report:#}");
        }
    }
}

#[test]
fn neighbours_reports_every_bomb_and_each_went_off() {
    let report: Value = serde_json::from_str(&run(env!("CARGO_BIN_EXE_neighbours"), &["--json", "--quick"])).unwrap();
    for kind in ["fork", "memory", "cpu", "disk", "log", "doorbell"] {
        for figure in ["alone_p99_us", "during_p99_us", "ratio"] {
            assert!(is_figure(&report["bombs"][kind][figure]), "{kind}.{figure}: {report:#}");
        }
        assert!(report["goal"][format!("bombs.{kind}.ratio")]["met"].is_boolean(), "{kind}: {report:#}");
        assert!(report["invocations_of_bombs"][kind].as_u64().is_some_and(|times| times > 0), "{kind}: {report:#}");
    }
}

#[test]
fn scaling_writes_a_row_a_shard_and_a_round() {
    let path = std::env::temp_dir().join(format!("vilya-scaling-{}.csv", std::process::id()));
    let file = path.to_str().expect("a temporary path is text");
    let said = run(env!("CARGO_BIN_EXE_scaling"), &["--json", "--quick", "--rounds", "2", "--csv", file]);
    let report: Value = serde_json::from_str(&said).unwrap();
    let rows = std::fs::read_to_string(&path).expect("the file was written");
    std::fs::remove_file(&path).expect("it is ours");
    let shards = report["shards"].as_array().expect("a list").iter().filter_map(Value::as_u64);
    let wanted = 2 * shards.sum::<u64>() as usize;
    for protocol in ["http", "binary"] {
        let found = rows.lines().filter(|row| row.starts_with(&format!("{protocol},"))).count();
        assert_eq!(found, wanted, "{protocol}:\n{rows}");
    }
    assert!(is_figure(&report["http_1_shards"]["per_second_a_shard"]), "{report:#}");
}

#[test]
fn steady_reports_its_tail_its_failures_and_the_memory() {
    let report: Value = serde_json::from_str(&run(env!("CARGO_BIN_EXE_steady"), &["--json", "--quick"])).unwrap();
    for (section, name) in [("ratio", "p999_to_p50"), ("steady", "failed"), ("ratio", "memory_after_to_before")] {
        assert!(is_figure(&report[section][name]), "{section}.{name}: {report:#}");
        assert!(report["goal"][format!("{section}.{name}")]["met"].is_boolean(), "{section}.{name}: {report:#}");
    }
    assert!(report["generator"]["saturated"].is_boolean(), "{report:#}");
}

#[test]
fn coldstart_reports_every_figure_of_its_contract() {
    let report: Value = serde_json::from_str(&run(env!("CARGO_BIN_EXE_coldstart"), &["--json", "--quick"])).unwrap();
    for figure in ["clone3_us", "clone3_all_namespaces_us", "exec_true_us", "python_bare_ms"] {
        assert!(is_figure(&report["floor"][figure]), "floor.{figure}");
    }
    // Node is measured where there is one; what is told then is looked at below.
    let runtimes: &[&str] =
        if Path::new("/usr/bin/node").exists() { &["rust", "python", "node"] } else { &["rust", "python"] };
    for runtime in runtimes {
        for figure in ["p50_ms", "p99_ms"] {
            assert!(is_figure(&report["mechanisms"]["native"][runtime][figure]), "{runtime}.{figure}");
        }
        for stage in ["plan", "namespaces", "mounts", "cgroup", "fork", "runtime_ready", "first_answer"] {
            assert!(is_figure(&report["stages"][runtime][format!("{stage}_us")]), "{runtime}.{stage}");
        }
        assert!(is_figure(&report["private_kib_idle"][runtime]), "{runtime}");
    }
    for count in ["1", "8", "64"] {
        assert!(is_figure(&report["starts_per_second_per_core"][count]), "{count} at once");
    }
    assert_eq!(report["alive_max"]["median"], 8.0);
    // What was not measured is told, with the reason, and is null.
    let skipped = report["skipped"].as_array().expect("a list");
    for mechanism in ["oci", "docker"] {
        let is_skipped =
            skipped.iter().any(|why| why.as_str().is_some_and(|why| why.starts_with(&format!("{mechanism}.python:"))));
        assert_eq!(report["mechanisms"][mechanism]["python"]["p50_ms"].is_null(), is_skipped, "{mechanism}");
    }
}

#[test]
fn starts_stops_and_kills_leave_what_was_held_before() {
    let said = run(env!("CARGO_BIN_EXE_coldstart"), &["--cycles", "200", "--seed", "4"]);
    let report: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(report["cycles"], 200);
    // Both kinds of end happened, and something was there to be counted.
    for count in ["told_to_end", "killed"] {
        assert!(report[count].as_u64().is_some_and(|count| count > 50), "{count}: {report:#}");
    }
    for held in ["descriptors", "processes", "network_namespaces"] {
        let [before, after] = ["before", "after"].map(|when| report[when][held].as_u64().expect("a number"));
        assert!(before >= 1 && after <= before, "{held}: {report:#}");
    }
    assert_eq!(report["after"]["zombies"], 0);
}

#[test]
fn send_writes_a_row_a_round_a_size_and_a_kind() {
    let path = std::env::temp_dir().join(format!("vilya-send-{}.csv", std::process::id()));
    let file = path.to_str().expect("a temporary path is text");
    let said = run(env!("CARGO_BIN_EXE_send"), &["--json", "--quick", "--rounds", "2", "--csv", file]);
    let report: Value = serde_json::from_str(&said).unwrap();
    let rows = std::fs::read_to_string(&path).expect("the file was written");
    std::fs::remove_file(&path).expect("it is ours");
    for kind in ["send", "send_zc", "send_zc_registered"] {
        let of_kind = rows.lines().filter(|row| row.split(',').nth(2) == Some(kind)).count();
        assert_eq!(of_kind, 2 * 4, "{kind}:\n{rows}");
        for size in ["kib_16", "kib_64", "kib_256", "mib_1"] {
            assert!(is_figure(&report[kind][format!("{size}_cpu_us")]), "{kind} {size}: {report:#}");
        }
    }
    assert!(is_figure(&report["ratio"]["send_zc_registered_mib_1_cpu_us"]), "{report:#}");
}

#[test]
fn idle_reports_the_first_after_a_thaw_the_restless_and_the_memory() {
    let report: Value = serde_json::from_str(&run(env!("CARGO_BIN_EXE_idle"), &["--json", "--quick"])).unwrap();
    let frozen = [("first", "frozen_p50_us"), ("first", "frozen_p99_us"), ("restless", "frozen_cpu_percent")];
    let always = [("first", "awake_p50_us"), ("restless", "awake_cpu_percent")];
    let memory = ["first_kib", "left_kib", "trimmed_kib", "next_us", "after_it_us"].map(|name| ("memory", name));
    let freezes = report["freezes"].as_bool().expect("whether this host can freeze");
    for (section, name) in always.into_iter().chain(memory).chain(if freezes { frozen.to_vec() } else { Vec::new() }) {
        assert!(is_figure(&report[section][name]), "{section}.{name}: {report:#}");
    }
}
