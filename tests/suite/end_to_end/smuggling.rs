//! Descriptors that a function would have the worker take.

use nix::libc;

use super::worker::Worker;

/// Sends a descriptor of its own through every descriptor that it has, and says what became of each; the last is a pair of its own, by which
/// it can be seen that sending works.
const SENDS: &str = r#"
import os, socket

def send(fd, sent):
    try:
        with socket.socket(family=socket.AF_UNIX, type=socket.SOCK_STREAM, fileno=os.dup(fd)) as channel:
            return socket.send_fds(channel, [b'!'], [sent])
    except OSError as error:
        return -error.errno

def handler(event, context):
    open_here = []
    for fd in range(1024):
        try:
            os.fstat(fd)
            open_here.append(fd)
        except OSError:
            pass
    with open('/tmp/smuggled', 'w') as smuggled:
        ones_own, _other = socket.socketpair()
        return [open_here, [send(fd, smuggled.fileno()) for fd in [*open_here, ones_own.fileno()]]]
"#;

/// Of the worker's descriptors, those that lead to what was sent.
fn taken(worker: &Worker) -> Vec<String> {
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", worker.pid())).expect("it runs").flatten();
    let links = descriptors.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    links.map(|link| link.display().to_string()).filter(|link| link.contains("smuggled")).collect()
}

fn nothing_is_taken(settings: &[&str]) {
    let worker = Worker::start_with(settings);
    worker.deploy_python("sends", SENDS, "");
    let said = worker.client().invoke("sends", b"").expect(200).json();
    let sent: Vec<i32> = serde_json::from_value(said[1].clone()).expect("numbers");
    let (own, others) = sent.split_last().expect("its own");
    assert_eq!(*own, 1, "a descriptor can be sent: {said}");
    assert!(others.len() >= 6, "its input, its output, its rings and its doorbell: {said}");
    assert!(others.iter().all(|result| *result == -libc::ENOTSOCK), "{said}");
    assert_eq!(taken(&worker), Vec::<String>::new());
}

/// No channel to the worker carries any: neither of a copy, nor of one that was started from the beginning.
#[test]
fn no_descriptor_of_a_functions_is_taken() {
    nothing_is_taken(&[]);
    nothing_is_taken(&["limits.zygotes=0", "sandbox.prepared=0"]);
}
