//! What `vilya doctor` says is what a worker finds.

use std::net::TcpListener;
use std::process::{Command, Output};

use serde_json::Value;

use super::worker::worker_command;

/// A host with something taken away by the shell, which then becomes the command.
fn doctor(take_away: &str, settings: &[&str]) -> (Value, Output) {
    doctor_in(&[], take_away, settings)
}

/// The same in namespaces of its own.
fn doctor_in(namespaces: &[&str], take_away: &str, settings: &[&str]) -> (Value, Output) {
    let state = tempfile::Builder::new().prefix("vilya-test-").tempdir().expect("a temporary directory");
    let mut command = Command::new(if namespaces.is_empty() { "env" } else { "unshare" });
    command.args(namespaces).args(["sh", "-c", &format!("{take_away} exec \"$0\" \"$@\"")]).arg(worker_command());
    command.args(["doctor", "--json", "--set", "server.address=127.0.0.1:0"]);
    command.args(["--set", &format!("server.state_directory={}", state.path().display())]);
    for setting in settings {
        command.args(["--set", setting]);
    }
    let output = command.current_dir(state.path()).output().expect("the command runs");
    let left: Vec<_> = std::fs::read_dir(state.path()).expect("the state").flatten().collect();
    assert!(left.is_empty(), "it leaves nothing: {left:?}");
    let report = serde_json::from_slice(&output.stdout);
    (report.unwrap_or_else(|_| panic!("no JSON: {output:?}")), output)
}

#[track_caller]
fn status<'a>(report: &'a Value, name: &str) -> &'a str {
    let findings = report["findings"].as_array().expect("a list");
    let found = findings.iter().find(|finding| finding["name"] == name);
    found.and_then(|finding| finding["status"].as_str()).unwrap_or_else(|| panic!("{name}: {report:#}"))
}

#[test]
fn a_host_that_runs_this_suite_is_ready() {
    let (report, output) = doctor("", &[]);
    assert_eq!((report["ready"].as_bool(), output.status.code()), (Some(true), Some(0)), "{report:#}");
    for name in [
        "a trial sandbox",
        "io_uring",
        "openat2",
        "pidfd_open",
        "clone3",
        "seccomp",
        "state directory",
        "user namespace",
    ] {
        assert_eq!(status(&report, name), "ok", "{name}");
    }
    assert_ne!(status(&report, "python"), "missing");
}

#[test]
fn few_descriptors_are_found() {
    // As many as a worker needs to begin, and fewer than its connections may take.
    let (report, output) = doctor("ulimit -n 600;", &["server.connections=512", "cores.shards=1"]);
    assert_eq!((status(&report, "open files"), output.status.code()), ("limited", Some(0)), "{report:#}");
}

#[test]
fn an_address_that_is_taken_is_found() {
    let holder = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = holder.local_addr().expect("its address");
    let (report, output) = doctor("", &[&format!("server.wire_address={taken}"), "cores.shards=1"]);
    assert_eq!(status(&report, &format!("listen on {taken}")), "missing");
    assert_eq!((report["ready"].as_bool(), output.status.code()), (Some(false), Some(1)));
}

#[test]
fn a_port_for_functions_where_nobody_listens_is_found() {
    let holder = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = holder.local_addr().expect("its address").port();
    let (setting, name) = (format!("sandbox.host_loopback_ports=[{port}]"), format!("host loopback {port}"));
    assert_eq!(status(&doctor("", &[&setting]).0, &name), "ok");
    drop(holder);
    let (report, output) = doctor("", &[&setting]);
    assert_eq!((status(&report, &name), output.status.code()), ("limited", Some(0)));
}

#[test]
fn control_groups_that_cannot_be_written_are_found() {
    if !nix::unistd::geteuid().is_root() {
        println!("only root may take the control groups away");
        return;
    }
    let (report, output) = doctor_in(&["--mount"], "mount -t tmpfs -o ro none /sys/fs/cgroup;", &[]);
    for name in ["control groups", "memory limit", "process limit", "cpu limit"] {
        assert_eq!(status(&report, name), "limited", "{name}");
    }
    assert_eq!(output.status.code(), Some(0), "a worker serves without them");
}

#[test]
fn user_namespaces_that_are_used_up_are_found() {
    let take_away = "echo 0 > /proc/sys/user/max_user_namespaces;";
    let (report, output) = doctor_in(&["--user", "--map-root-user"], take_away, &[]);
    assert_eq!((status(&report, "a trial sandbox"), output.status.code()), ("missing", Some(1)), "{report:#}");
    let findings = report["findings"].as_array().expect("a list");
    let mend = findings.iter().find(|finding| finding["name"] == "a trial sandbox").map(|finding| &finding["mend"]);
    assert_eq!(mend, Some(&"sysctl -w user.max_user_namespaces=15000".into()));
}
