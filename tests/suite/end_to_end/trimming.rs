//! Memory that idle sandboxes give back.

use super::worker::Worker;

/// Leaves 64 MiB that nothing refers to and no collection has found, and says what its process has for itself.
const LEAVES: &str = "\
def handler(event, context):
    for _ in range(event):
        cycle = {'bytes': bytearray(1 << 20)}
        cycle['self'] = cycle
    resident, shared = map(int, open('/proc/self/statm').read().split()[1:3])
    return (resident - shared) * 4096
";

const LEFT_BYTES: u64 = 60 << 20;

#[test]
fn an_idle_sandbox_gives_back_what_it_does_not_need() {
    let worker = Worker::start_with(&["cores.shards=1", "policies.trim_after=100ms", "policies.freeze_after=off"]);
    let trims = || worker.metric("vilya_sandbox_trims_total", "shard");
    let memory = || {
        let listing = worker.client().request("GET", "/v1/sandboxes", b"").expect(200).json();
        listing["sandboxes"][0]["memory_bytes"].as_u64()
    };
    worker.deploy_python("leaves", LEAVES, "");
    let call = |event: &[u8]| worker.client().invoke("leaves", event).expect(200).json().as_u64().expect("a size");
    let before = call(b"64");
    worker.await_metric("vilya_sandbox_trims_total", "shard", |trims| trims >= 1.0);
    // Nobody asks for it: this is seen from outside.
    if nix::unistd::geteuid().is_root() {
        let since = std::time::Instant::now();
        while memory().is_none_or(|bytes| bytes + LEFT_BYTES > before) {
            assert!(since.elapsed() < super::worker::PATIENCE, "{:?} of {before} bytes are left", memory());
        }
    }
    let after = call(b"0");
    assert!(after + LEFT_BYTES < before, "{after} bytes of {before} are left");
    // Once an idle time, however long.
    worker.await_metric("vilya_sandbox_trims_total", "shard", |trims| trims >= 2.0);
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert_eq!(trims(), 2.0);
}

#[test]
fn what_a_sandbox_keeps_is_its_own_where_nothing_is_to_be_given_back() {
    let worker = Worker::start_with(&["cores.shards=1", "policies.trim_after=off", "policies.freeze_after=20ms"]);
    worker.deploy_python("leaves", LEAVES, "");
    let call = |event: &[u8]| worker.client().invoke("leaves", event).expect(200).json().as_u64().expect("a size");
    let before = call(b"64");
    let done = |metric| worker.metric(metric, "shard");
    let since = std::time::Instant::now();
    while done("vilya_sandbox_freezes_total") + done("vilya_sandbox_freezes_failed_total") == 0.0 {
        assert!(since.elapsed() < super::worker::PATIENCE, "its time to be frozen never comes");
    }
    assert_eq!(done("vilya_sandbox_trims_total"), 0.0);
    assert!(call(b"0") + LEFT_BYTES > before);
}

#[test]
fn functions_in_every_language_go_on_after_they_were_told() {
    // One shard: a function that keeps it busy would else be given to another, with a start there.
    let worker = Worker::start_with(&["cores.shards=1", "policies.trim_after=1ms", "policies.freeze_after=3ms"]);
    worker.deploy_echo("rust", "");
    worker.deploy_python("python", "def handler(event, context): return event", "concurrency = 2");
    for name in ["rust", "python"] {
        let mut client = worker.client();
        for round in 0..150_u64 {
            assert_eq!(client.invoke(name, b"17").expect(200).body, b"17");
            std::thread::sleep(std::time::Duration::from_micros(round * 37 % 5000));
        }
    }
    assert!(worker.metric("vilya_sandbox_trims_total", "shard") > 20.0);
    assert_eq!(worker.metric("vilya_sandboxes_poisoned_total", "shard"), 0.0);
    assert_eq!(worker.metric("faas_coldstarts_total", "faas_name"), 2.0);
}
