//! Configurations that are right, and every kind of problem.

use super::*;
use crate::config::units::SECOND_NS;

fn host(cores: usize) -> Host {
    Host { cores: (0..cores).collect(), memory_bytes: 8 * GIB, state_directory: "/var/lib/vilya".into() }
}

fn load(text: &str, flags: &[(&str, &str)]) -> Result<Config, Vec<String>> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("vilya.toml");
    std::fs::write(&path, text).unwrap();
    let flags = flags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let sources = Sources { file: Some(path), flags, ..Sources::default() };
    let prefix = format!("{}/", directory.path().display());
    Config::load(&sources, &host(2))
        .map_err(|problems| problems.iter().map(|problem| problem.to_string().replace(&prefix, "")).collect())
}

#[test]
fn defaults_hold_on_every_size_of_machine() {
    for cores in [1, 2, 4, 16, 128, 1024] {
        let config = Config::load(&Sources::default(), &host(cores)).unwrap();
        assert_eq!(config.server.address.to_string(), "127.0.0.1:7878");
        assert_eq!(config.limits.memory_bytes, 6 * GIB);
        assert_eq!(config.limits.ahead_bytes, 60 * MIB);
        assert!(config.limits.starting as usize >= config.topology.shards.len());
    }
}

#[test]
fn every_problem_is_reported_at_once_with_its_line() {
    let text = "\
[server]
adress = \"127.0.0.1:1\"
max_payload = \"64mb\"
[limits]
memory = true
sandboxes = 4
sandboxes_per_function = 9
open_files = 1
[polices]
[policies]
queue = \"fcfc\"
";
    let problems = load(text, &[("server.idle_timeout", "3")]).unwrap_err();
    let expected = [
        "vilya.toml:2: server.adress: there is no such setting; did you mean \"server.address\"?",
        "vilya.toml:3: server.max_payload: \"64mb\" is not a size",
        "vilya.toml:5: limits.memory: expected a size such as \"64MiB\", found true or false",
        "vilya.toml:7: limits.sandboxes_per_function: 9 is more than limits.sandboxes = 4",
        "vilya.toml:8: limits.open_files: 1 is out of range: write 32 to 1048576",
        "vilya.toml:9: polices: there is no such section; did you mean \"policies\"?",
        "vilya.toml:11: policies.queue: \"fcfc\" is not one of \"fcfs\", \"sjf\"; did you mean \"fcfs\"?",
        "--set: server.idle_timeout: \"3\" is not a duration",
    ];
    assert_eq!(problems.len(), expected.len(), "{problems:#?}");
    for (problem, expected) in problems.iter().zip(expected) {
        assert!(problem.starts_with(expected), "{problem}\n{expected}");
    }
}

#[test]
fn only_loopback_is_served() {
    let refused = load("", &[("server.address", "0.0.0.0:80")]).unwrap_err();
    assert!(refused[0].contains("no credentials yet"), "{refused:?}");
    assert!(load("", &[("server.address", "127.0.0.1")]).is_err());
    assert!(load("", &[("server.address", "example.org:80")]).is_err());
    assert_eq!(load("", &[("server.address", "localhost:0")]).unwrap().server.address.to_string(), "127.0.0.1:0");
    assert!(load("", &[("server.address", "[::1]:7878")]).is_ok());
}

#[test]
fn the_binary_protocol_is_one_port_above_unless_it_is_said_where() {
    let wire = |flags: &[(&str, &str)]| load("", flags).unwrap().server.wire_address.map(|address| address.to_string());
    assert_eq!(wire(&[]).as_deref(), Some("127.0.0.1:7879"));
    assert_eq!(wire(&[("server.address", "[::1]:8080")]).as_deref(), Some("[::1]:8081"));
    assert_eq!(wire(&[("server.address", "127.0.0.1:0")]).as_deref(), Some("127.0.0.1:0"));
    assert_eq!(wire(&[("server.wire_address", "127.0.0.1:9000")]).as_deref(), Some("127.0.0.1:9000"));
    assert_eq!(wire(&[("server.wire_address", "off")]), None);
    assert!(load("", &[("server.wire_address", "0.0.0.0:7879")]).is_err());
}

#[test]
fn cores_are_understood_in_every_notation() {
    let shards = |value: &str| load(&format!("[cores]\nshards = {value}\n"), &[]).map(|config| config.cores.shards);
    assert_eq!(shards("\"auto\""), Ok(Shards::Auto));
    assert_eq!(shards("1"), Ok(Shards::Count(1)));
    assert_eq!(shards("[1, 0]"), Ok(Shards::Cores(vec![1, 0])));
    assert_eq!(shards("\"0-1\""), Ok(Shards::Cores(vec![0, 1])));
    assert!(shards("[0, 7]").unwrap_err()[0].contains("core 7 is not available"));
    assert!(shards("3").unwrap_err()[0].contains("vilya.toml:2"));
    assert!(shards("-1").is_err() && shards("\"1-0\"").is_err() && shards("[\"0\"]").is_err());
    let flag = |value: &str| load("", &[("cores.shards", value)]).map(|config| config.cores.shards);
    assert_eq!(flag("2"), Ok(Shards::Count(2)));
    assert_eq!(flag("[0, 1]"), Ok(Shards::Cores(vec![0, 1])));
    let near = load("[cores]\nsandboxes = \"near\"\n", &[]).unwrap();
    assert_eq!(near.cores.sandboxes, SandboxCores::Near);
}

#[test]
fn processor_time_and_spinning_are_understood() {
    let sandbox = |text: &str| load(&format!("[sandbox]\n{text}\n"), &[]).map(|config| config.sandbox);
    assert_eq!(sandbox("cpu = \"1.5\"").unwrap().cpu_millis, Some(1500));
    assert_eq!(sandbox("cpu = 2").unwrap().cpu_millis, Some(2000));
    assert_eq!(sandbox("cpu = \"none\"").unwrap().cpu_millis, None);
    assert!(sandbox("cpu = 0").is_err() && sandbox("cpu = nan").is_err() && sandbox("cpu = \"fast\"").is_err());
    assert_eq!(sandbox("spin = \"50us\"").unwrap().spin, Spin::Fixed(50_000));
    assert_eq!(sandbox("").unwrap().spin, Spin::Auto);
    assert!(sandbox("spin = \"1s\"").unwrap_err()[0].contains("10ms"));
}

#[test]
fn mechanisms_are_chosen_by_name() {
    let sandbox = |text: &str| load(&format!("[sandbox]\n{text}\n"), &[]).map(|config| config.sandbox);
    assert_eq!(sandbox("").unwrap().mechanism, MechanismKind::Native);
    assert_eq!(sandbox("mechanism = \"oci\"").unwrap().mechanism, MechanismKind::Oci);
    assert_eq!(sandbox("").unwrap().oci_runtime, None);
    assert_eq!(sandbox("oci_runtime = \"runc\"").unwrap().oci_runtime, Some(OciRuntime::Runc));
    assert_eq!(sandbox("mechanism = \"docker\"").unwrap().docker_socket, std::path::Path::new("/var/run/docker.sock"));
    assert!(sandbox("docker_socket = \"docker.sock\"").unwrap_err()[0].contains("absolute path"));
    let refused = sandbox("mechanism = \"podman\"\noci_runtime = \"cruun\"").unwrap_err();
    assert!(refused[0].contains("is not one of \"native\", \"oci\", \"docker\""), "{refused:?}");
    assert!(refused[1].contains("did you mean \"crun\"?"), "{refused:?}");
}

#[test]
fn ports_of_the_hosts_loopback_are_named_and_never_the_workers() {
    let ports = |text: &str| {
        let config = load(&format!("[sandbox]\nhost_loopback_ports = {text}\n"), &[]);
        config.map(|config| config.sandbox.network.host_loopback_ports)
    };
    assert_eq!(ports("[5432, 6379]"), Ok(vec![5432, 6379]));
    assert_eq!(ports("[]"), Ok(vec![]));
    for wrong in ["5432", "\"5432\"", "[0]", "[65536]", "[-1]", "[\"5432\"]", "[80, 80]"] {
        assert!(ports(wrong).unwrap_err()[0].contains("vilya.toml:2"), "{wrong}");
    }
    // HTTP, the binary protocol, and that of each of the two shards.
    for own in 7878..=7881 {
        assert!(ports(&format!("[5432, {own}]")).unwrap_err()[0].contains("the worker's own port"), "{own}");
    }
    assert_eq!(ports("[7877, 7882]"), Ok(vec![7877, 7882]));
    let flag = |text: &str| load("", &[("sandbox.host_loopback_ports", text)]);
    assert_eq!(flag("[5432, 6379]").unwrap().sandbox.network.host_loopback_ports, [5432, 6379]);
    assert_eq!(flag("5432").unwrap().sandbox.network.host_loopback_ports, [5432]);
    assert!(flag("http").is_err());
}

#[test]
fn the_number_running_is_understood() {
    let read = |value: &str| {
        load(&format!("[policies]\nconcurrency = {value}\n"), &[]).map(|config| config.policies.concurrency)
    };
    assert_eq!(read("\"unlimited\""), Ok(ConcurrencyPolicy::Unlimited));
    assert_eq!(read("8"), Ok(ConcurrencyPolicy::Fixed(8)));
    assert!(read("0").is_err() && read("\"many\"").is_err());
    assert!(read("1").unwrap_err()[0].contains("2 shards"));
    let flag = load("", &[("policies.concurrency", "9")]).unwrap();
    assert_eq!(flag.policies.concurrency, ConcurrencyPolicy::Fixed(9));
}

#[test]
fn limits_must_be_divisible_among_shards() {
    let refused = load("[limits]\nmemory = \"16MiB\"\nsandboxes = 1\nsandboxes_per_function = 1\n", &[]).unwrap_err();
    assert_eq!(refused.len(), 2, "{refused:?}");
    assert!(refused[0].contains("limits.memory") && refused[0].contains("92MiB"), "{refused:?}");
    assert!(refused[1].contains("limits.sandboxes"));
}

#[test]
fn what_is_made_ahead_has_its_part_of_the_memory() {
    let shares = |settings: &str| {
        let config = load(&format!("[limits]\nmemory = \"256MiB\"\n{settings}"), &[]).unwrap();
        let shards = config.topology.shards.len();
        (config.limits.ahead_bytes / MIB, config.limits.of_shard(0, shards).memory_bytes * shards as u64 / MIB)
    };
    assert_eq!(shares(""), (60, 196));
    assert_eq!(shares("[sandbox]\nnode_ahead = 0\nloaded = 4\nprepared = 2\n"), (29, 227));
    assert_eq!(shares("zygotes = \"0B\"\n"), (30, 226));
    assert_eq!(shares("[sandbox]\nprepared = 0\n"), (0, 256));
    assert_eq!(shares("[sandbox]\nmechanism = \"oci\"\n"), (0, 256));
}

#[test]
fn keep_alive_policies_are_known_by_their_names() {
    use crate::config::KeepAlivePolicy;
    let read = |name: &str| {
        load(&format!("[policies]\nkeep_alive = \"{name}\"\n"), &[]).map(|config| config.policies.keep_alive)
    };
    assert_eq!(read("lru"), Ok(KeepAlivePolicy::Lru));
    assert_eq!(read("ttl"), Ok(KeepAlivePolicy::Ttl));
    assert_eq!(read("greedy-dual"), Ok(KeepAlivePolicy::GreedyDual));
    assert!(read("greedy").unwrap_err()[0].contains("greedy-dual"));
}

#[test]
fn bounds_per_function_follow_the_whole() {
    let refused = load("[limits]\nsandboxes = 4\n", &[]);
    assert_eq!(refused.map(|config| config.limits.sandboxes_per_function), Ok(4));
    let refused = load("[limits]\ninvocations = 4\n", &[]);
    assert_eq!(refused.map(|config| config.limits.queue_per_function), Ok(4));
}

#[test]
fn durations_reach_their_fields() {
    let config = load("[server]\ndrain_timeout = \"5s\"\n[limits]\nstart_timeout = \"2s\"\n", &[]).unwrap();
    assert_eq!(config.server.drain_timeout_ns, 5 * SECOND_NS);
    assert_eq!(config.limits.start_timeout_ns, 2 * SECOND_NS);
    assert_eq!(config.origin("server.drain_timeout").unwrap().to_string().rsplit('/').next(), Some("vilya.toml:2"));
}
