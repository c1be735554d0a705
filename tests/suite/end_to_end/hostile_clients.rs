//! Clients that ask and do not read, leave half-way, or arrive when nothing is left for them.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::client::Client;
use super::worker::{PATIENCE, Worker};

const LIVE: &[u8] = b"GET /livez HTTP/1.1\r\nhost: t\r\n\r\n";

/// More than the socket buffers of both sides hold.
const LARGE_BYTES: usize = 48 << 20;
const LARGE: &str = "import vilya\n@vilya.raw\ndef handler(request, context):\n    return bytes(48 << 20)\n";

#[test]
fn a_client_that_asks_and_never_reads_is_not_read_for_ever() {
    let worker = Worker::start();
    let stream = TcpStream::connect(worker.address).expect("the worker listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a TCP socket");
    stream.set_write_timeout(Some(Duration::from_secs(2))).expect("a TCP socket");
    let requests = LIVE.repeat(2048);
    let mut sent = 0;
    let stopped = loop {
        match (&stream).write(&requests[sent % LIVE.len()..]) {
            Ok(bytes) => sent += bytes,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break true,
            Err(error) => panic!("{error}"),
        }
        if sent > 96 << 20 {
            break false;
        }
    };
    assert!(stopped, "{sent} bytes of requests were taken in, and no answer was read");
    // Once it reads, it gets every answer, in one piece each.
    stream.set_nonblocking(false).expect("a TCP socket");
    let reader = {
        let stream = stream.try_clone().expect("a descriptor");
        std::thread::spawn(move || answers_of(&stream))
    };
    let rest = &LIVE[sent % LIVE.len()..];
    let rest = if rest.len() == LIVE.len() { &[] } else { rest };
    stream.set_write_timeout(Some(PATIENCE)).expect("a TCP socket");
    (&stream).write_all(rest).expect("there is room now");
    (&stream).write_all(b"GET /livez HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n").expect("there is room now");
    let asked = (sent + rest.len()) / LIVE.len() + 1;
    assert_eq!(reader.join().expect("answers"), asked);
}

/// Reads to the end of a stream and counts the answers in it.
fn answers_of(mut stream: &TcpStream) -> usize {
    const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\n";
    let (mut text, mut answers) = (Vec::new(), 0);
    let mut piece = vec![0; 1 << 20];
    loop {
        let read = stream.read(&mut piece).expect("the worker answers");
        text.extend_from_slice(&piece[..read]);
        let mut counted = 0;
        while let Some(at) = text[counted..].windows(HEAD.len()).position(|window| window == HEAD) {
            answers += 1;
            counted += at + HEAD.len();
        }
        let keep = counted.max(text.len().saturating_sub(HEAD.len() - 1));
        text.drain(..keep);
        if read == 0 {
            return answers;
        }
    }
}

#[test]
fn an_answer_on_its_way_reaches_a_client_that_has_sent_its_last() {
    let worker = Worker::start();
    for _ in 0..200 {
        let mut stream = TcpStream::connect(worker.address).expect("the worker listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a TCP socket");
        stream.write_all(LIVE).expect("sent");
        stream.shutdown(Shutdown::Write).expect("connected");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("no reset");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer:?}");
        assert!(answer.ends_with("live\n"), "{answer:?}");
    }
}

/// An answer that is not read stays in the lane it was written in, until somebody waits for that lane; then it is copied,
/// as far as `limits.bodies` allows.
#[test]
fn answers_that_nobody_reads_are_bounded() {
    let worker = Worker::start_with(&["cores.shards=1", "limits.bodies=64MiB", "limits.sandboxes_per_function=1"]);
    worker.deploy_python("large", LARGE, "memory = \"256MiB\"");
    let lazy = || {
        let mut lazy = worker.client();
        lazy.send(b"POST /fn/large HTTP/1.1\r\nhost: t\r\ncontent-length: 0\r\n\r\n").expect("sent");
        lazy.stream().peek(&mut [0; 1]).expect("an answer begins");
        lazy
    };
    let mut first = lazy();
    // The first answer moves out of the only lane, into the budget, and the second does not fit there beside it.
    let mut second = lazy();
    assert_eq!(worker.client().invoke("large", b"").expect(200).body.len(), LARGE_BYTES);
    assert!(second.read_answer().is_err(), "cut short: its client was slow and another waited");
    assert_eq!(first.read_answer().expect("it reads at last").expect(200).body.len(), LARGE_BYTES);
    // One that leaves gives its share back as well.
    drop(lazy());
    drop((first, second));
    worker.await_metric("vilya_connections_open", "", |open| open == 1.0);
    for _ in 0..3 {
        assert_eq!(worker.client().invoke("large", b"").expect(200).body.len(), LARGE_BYTES);
    }
}

#[test]
fn uploads_whose_clients_leave_give_their_share_back() {
    const UPLOAD_BYTES: usize = 40 << 20;
    let worker = Worker::start_with(&["cores.shards=1", "limits.bodies=64MiB"]);
    let head = format!("PUT /v1/functions/f HTTP/1.1\r\nhost: t\r\ncontent-length: {UPLOAD_BYTES}\r\n\r\n");
    for whole in [true, false, true] {
        let mut leaving = worker.client();
        leaving.send(head.as_bytes()).expect("sent");
        // One that is refused for want of room is not read to its end.
        let _ = leaving.send(&vec![0; if whole { UPLOAD_BYTES } else { 1 << 20 }]);
    }
    worker.await_metric("vilya_connections_open", "", |open| open == 1.0);
    let answered = (0..1000).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        worker.deploy("f", &vec![0; UPLOAD_BYTES]).status == 400
    });
    assert!(answered, "there is no room for an upload any more");
}

#[test]
fn a_client_that_never_reads_does_not_keep_the_worker_from_stopping() {
    let mut worker = Worker::start_with(&["server.idle_timeout=1h"]);
    worker.deploy_python("large", LARGE, "memory = \"256MiB\"");
    let mut lazy = worker.client();
    lazy.send(b"POST /fn/large HTTP/1.1\r\nhost: t\r\ncontent-length: 0\r\n\r\n").expect("sent");
    lazy.stream().peek(&mut [0; 1]).expect("an answer begins");
    worker.signal(Signal::SIGTERM);
    assert_eq!(worker.await_end(), Some(0));
}

/// Three hundred bodies of forty kilobytes are there before the worker looks: several times what its buffers hold.
#[test]
fn more_arrives_at_once_than_there_are_buffers_for() {
    const BODY_BYTES: usize = 40_000;
    let worker = Worker::start_with(&["cores.shards=1"]);
    worker.deploy_echo("echo", "");
    worker.client().invoke("echo", b"x").expect(200);
    let mut clients: Vec<Client> = (0..300).map(|_| worker.client()).collect();
    for client in &mut clients {
        client.request("GET", "/livez", b"").expect(200);
    }
    worker.signal(Signal::SIGSTOP);
    for (number, client) in clients.iter_mut().enumerate() {
        let head = format!("POST /fn/echo HTTP/1.1\r\nhost: t\r\ncontent-length: {BODY_BYTES}\r\n\r\n");
        client.send(head.as_bytes()).expect("the socket's buffer has room");
        client.send(&[number as u8; BODY_BYTES]).expect("the socket's buffer has room");
    }
    worker.signal(Signal::SIGCONT);
    for (number, client) in clients.iter_mut().enumerate() {
        let answer = client.read_answer().expect("an answer").expect(200);
        assert!(answer.body.len() == BODY_BYTES && answer.body.iter().all(|&byte| byte == number as u8), "{number}");
    }
}

#[test]
fn connections_wait_while_no_descriptor_is_left() {
    let worker = Worker::start_under(96, &["cores.shards=1"]);
    worker.deploy_echo("echo", "");
    let mut served = worker.client();
    served.request("GET", "/livez", b"").expect(200);
    // The kernel completes connections that nobody has accepted.
    let mut crowd: Vec<Client> = (0..150).map(|_| worker.client()).collect();
    for client in &mut crowd {
        client.send(LIVE).expect("sent");
    }
    let mut enters = || {
        let answer = served.request("GET", "/metrics", b"").expect(200);
        let line = answer.text().lines().find(|line| line.starts_with("vilya_ring_enters_total{")).expect("a metric");
        line.rsplit(' ').next().expect("a value").parse::<u64>().expect("a number")
    };
    // A worker that asked again at once would enter the kernel thousands of times a second.
    let before = enters();
    std::thread::sleep(Duration::from_secs(1));
    let entered = enters() - before;
    assert!(entered < 1000, "{entered} calls in which nothing happened");
    // A sandbox cannot be had either; that is said, and nothing breaks.
    let refused = served.invoke("echo", b"x").expect(502);
    assert!(refused.json()["errorMessage"].is_string());
    // Those that were accepted leave, and the rest get their turn.
    for mut client in crowd {
        client.read_answer().expect("an answer").expect(200);
    }
    let served_again = (0..1000).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        served.invoke("echo", b"x").status == 200
    });
    assert!(served_again);
}
