//! What a sandbox reaches of the host, when its spec names it, and that nothing of it outlives the sandbox.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use vilya_isolate::{Reach, Spec, SpecError, StartError};

use crate::support::{Room, python, spec};

const PATIENCE: Duration = Duration::from_secs(30);
/// Set for the process that counts.
const ROLE: &str = "VILYA_ISOLATE_TEST_FORWARDERS";

/// A service on this host's loopback that answers one connection with a word, and its port.
fn service(word: &'static str) -> (JoinHandle<()>, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let port = listener.local_addr().expect("its address").port();
    let served = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut asked = [0; 4];
        stream.read_exact(&mut asked).expect("a question");
        assert_eq!(&asked, b"ask\n");
        stream.write_all(word.as_bytes()).expect("an answer");
    });
    (served, port)
}

/// Asks at ports of its loopback; an answer, or why there is none, on a line each.
fn asking(ports: &[u16]) -> String {
    format!(
        r#"
import socket
for port in {ports:?}:
    try:
        with socket.create_connection(("127.0.0.1", port), 20) as stream:
            stream.sendall(b"ask\n")
            print(port, stream.makefile().read() or "nothing")
    except OSError as error: print(port, type(error).__name__)
"#
    )
}

fn forwarders() -> usize {
    let tasks = fs::read_dir("/proc/self/task").expect("this process has threads").flatten();
    tasks
        .filter(|task| fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name == "vilya-forward\n"))
        .count()
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").expect("this process has descriptors").count()
}

#[test]
fn named_ports_of_the_hosts_loopback_are_reached_and_no_others() {
    let mut room = Room::new();
    let (served, named) = service("answered");
    let other = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let other_port = other.local_addr().expect("its address").port();
    let mut probe = python(&asking(&[named, other_port]));
    probe.reach = Reach::HostLoopback { ports: vec![named] };
    let seen = room.run(&probe).answers();
    assert_eq!(seen.get(&named.to_string()).map(String::as_str), Some("answered"));
    assert_eq!(seen.get(&other_port.to_string()).map(String::as_str), Some("ConnectionRefusedError"));
    served.join().expect("the service");
    other.set_nonblocking(true).expect("its mode");
    assert!(other.accept().is_err(), "a port that was not named was reached");
    // The same host, without the name.
    let (_waiting, port) = service("never");
    let without = room.run(&python(&asking(&[port]))).answers();
    assert_eq!(without.get(&port.to_string()).map(String::as_str), Some("ConnectionRefusedError"));
}

#[test]
fn several_sandboxes_reach_the_same_port_at_once() {
    let mut room = Room::unprepared();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let port = listener.local_addr().expect("its address").port();
    let mut probe = python(&asking(&[port]));
    probe.reach = Reach::HostLoopback { ports: vec![port] };
    let mut other = probe.clone();
    other.name = format!("{}-other", probe.name);
    let (one, two) = (room.start(&probe).expect("it starts"), room.start(&other).expect("it starts"));
    let mut streams: Vec<_> = (0..2).map(|_| listener.accept().expect("a connection").0).collect();
    for (index, stream) in streams.iter_mut().enumerate() {
        stream.read_exact(&mut [0; 4]).expect("a question");
        stream.write_all(format!("answer{index}").as_bytes()).expect("it is taken");
    }
    drop(streams);
    let mut said: Vec<_> = [one, two].map(|ran| ran.finish().answers()[&port.to_string()].clone()).into();
    said.sort();
    assert_eq!(said, ["answer0", "answer1"]);
}

/// In a process of its own: other tests have threads and descriptors too.
#[test]
fn what_forwards_ends_with_the_sandbox() {
    if std::env::var_os(ROLE).is_none() {
        let own = std::env::current_exe().expect("this program");
        let arguments = ["--exact", "reach::what_forwards_ends_with_the_sandbox", "--nocapture", "--test-threads=1"];
        let output = Command::new(own).args(arguments).env(ROLE, "1").output().expect("it runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        return;
    }
    let mut room = Room::unprepared();
    let (_waiting, port) = service("never");
    let reach = Reach::HostLoopback { ports: vec![port] };
    let cycle = |room: &mut Room| {
        let probe = Spec { reach: reach.clone(), ..python("import time; print('up', flush=True); time.sleep(600)") };
        let mut running = room.start(&probe).expect("it starts");
        assert_eq!(running.line(), "up");
        // A thread gives itself its name.
        let since = Instant::now();
        while forwarders() != 1 {
            assert!(since.elapsed() < PATIENCE, "there is nothing that could be left");
            std::thread::yield_now();
        }
        running.started.remains.kill();
        running.finish();
        let failing = Spec { reach: reach.clone(), ..spec(&["/usr/bin/no-such-program"]) };
        assert!(matches!(room.start(&failing), Err(StartError::Step { .. })));
        // A thread that was joined may be seen for a moment more.
        let since = Instant::now();
        while forwarders() > 0 {
            assert!(since.elapsed() < PATIENCE, "a thread is left");
            std::thread::yield_now();
        }
    };
    // The first has opened what stays open.
    cycle(&mut room);
    let before = descriptors();
    (0..10).for_each(|_| cycle(&mut room));
    assert_eq!(descriptors(), before);
}

#[test]
fn ports_are_checked() {
    let probe = Spec { reach: Reach::HostLoopback { ports: vec![80, 80] }, ..spec(&["/usr/bin/true"]) };
    let refused = Room::unprepared().start(&probe);
    assert!(matches!(refused, Err(StartError::Spec(SpecError::Repeated { port: 80 }))));
}

/// The filter and the user of a sandbox leave it nothing that it could do to the sockets that the worker listens at.
#[test]
fn a_sandbox_cannot_take_a_forwarded_port_for_itself() {
    let mut room = Room::new();
    let (served, port) = service("the host's");
    let mut probe = python(&format!(
        r#"
import socket
for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
    own = socket.socket(); own.setsockopt(socket.SOL_SOCKET, option, 1)
    try: own.bind(("127.0.0.1", {port})); own.listen(); print("taken%d yes" % option)
    except OSError as error: print("taken%d" % option, type(error).__name__)
{}
"#,
        asking(&[port])
    ));
    probe.reach = Reach::HostLoopback { ports: vec![port] };
    let seen = room.run(&probe).answers();
    assert!(seen.iter().filter(|(name, _)| name.starts_with("taken")).all(|(_, what)| what == "OSError"), "{seen:?}");
    assert_eq!(seen.get(&port.to_string()).map(String::as_str), Some("the host's"));
    served.join().expect("the service");
}
