//! What functions reach of the host, when their manifest and the operator say so.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::Command;

use super::worker::{PATIENCE, Worker, archive, worker_command};

/// Asks at ports of its loopback: an answer, or why there is none, for each.
const ASKING: &str = r#"
import socket

def ask(port):
    try:
        with socket.create_connection(("127.0.0.1", port), 20) as stream:
            stream.sendall(b"ask\n")
            return stream.makefile().read()
    except OSError as error:
        return type(error).__name__

def handler(event, context):
    return {str(port): ask(port) for port in event}
"#;

/// A service on this host's loopback that answers every question with a word, until the test ends.
fn service(word: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let port = listener.local_addr().expect("its address").port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            stream.set_read_timeout(Some(PATIENCE)).expect("its mode");
            let mut question = [0; 4];
            if stream.read_exact(&mut question).is_ok() {
                let _ = stream.write_all(word.as_bytes());
            }
        }
    });
    port
}

fn refused(worker: &Worker, settings: &str) -> String {
    let manifest = format!("name = \"asks\"\nruntime = \"python\"\n{settings}\n");
    let files = [("function.toml", manifest.as_bytes(), 0o644), ("main.py", ASKING.as_bytes(), 0o644)];
    worker.deploy("asks", &archive(&files)).expect(400).text().to_string()
}

#[test]
fn a_function_reaches_the_ports_that_the_operator_named_and_nothing_else_of_the_host() {
    let (named, other) = (service("named"), service("other"));
    let worker = Worker::start_with(&[&format!("sandbox.host_loopback_ports=[{named}]")]);
    worker.deploy_python("asks", ASKING, "network = \"host-loopback\"");
    worker.deploy_python("alone", ASKING, "");
    let own = worker.address.port();
    let question = format!("[{named}, {other}, {own}]");
    let mut client = worker.client();
    let answer = client.invoke("asks", question.as_bytes()).expect(200).json();
    assert_eq!(answer[named.to_string()], "named");
    assert_eq!(answer[other.to_string()], "ConnectionRefusedError");
    assert_eq!(answer[own.to_string()], "ConnectionRefusedError", "the worker itself");
    let alone = client.invoke("alone", question.as_bytes()).expect(200).json();
    assert_eq!(alone[named.to_string()], "ConnectionRefusedError");
}

/// More sandboxes than a function has before its others are copied from a zygote, which would reach nothing.
#[test]
fn every_sandbox_of_a_function_reaches_them() {
    let named = service("named");
    let worker = Worker::start_with(&[&format!("sandbox.host_loopback_ports=[{named}]")]);
    let code = format!(
        "{ASKING}\nimport os\nhandler_of = handler\ndef handler(event, context):\n    if event == 'die': os._exit(1)\n    return handler_of(event, context)\n"
    );
    worker.deploy_python("asks", &code, "network = \"host-loopback\"");
    let mut client = worker.client();
    for _ in 0..5 {
        let answer = client.invoke("asks", format!("[{named}]").as_bytes()).expect(200);
        assert_eq!(answer.header("x-vilya-start"), Some("cold"));
        assert_eq!(answer.json()[named.to_string()], "named");
        client.invoke("asks", b"\"die\"").expect(502);
    }
}

#[test]
fn a_network_that_the_worker_cannot_give_is_refused_when_it_is_asked_for() {
    let worker = Worker::start();
    let said = refused(&worker, "network = \"host-loopback\"");
    assert!(said.contains("sandbox.host_loopback_ports"), "{said}");
    let said = refused(&worker, "network = \"hostloopback\"");
    assert!(said.contains("did you mean \\\"host-loopback\\\"?"), "{said}");
    let named = service("named");
    // What is deployed may be older than what the operator allows.
    let worker = Worker::start_with(&[&format!("sandbox.host_loopback_ports=[{named}]")]);
    worker.deploy_python("asks", ASKING, "network = \"host-loopback\"");
    worker.client().invoke("asks", b"[]").expect(200);
    let worker = Worker::start_on(worker.crash(), &[]);
    let said = worker.client().invoke("asks", b"[]").expect(502).text().to_string();
    assert!(said.contains("sandbox.host_loopback_ports"), "{said}");
}

#[test]
fn the_workers_own_ports_cannot_be_named() {
    let free = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address: SocketAddr = free.local_addr().expect("its address");
    drop(free);
    let output = Command::new(worker_command())
        .args(["serve", "--set", &format!("server.address={address}")])
        .args(["--set", &format!("sandbox.host_loopback_ports=[{}]", address.port())])
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("the worker's own port"), "{said}");
}
