//! Answers that come in parts, and who takes them: slowly, from another shard, over protocols that have no parts.

use std::io::Read;

use super::client::Client;
use super::wire_client::WireClient;
use super::worker::{Worker, archive, await_log, conformance_function};

pub(super) fn deploy(worker: &Worker, name: &str, settings: &str) {
    let code = std::fs::read(conformance_function()).expect("the function is built");
    let manifest =
        format!("name = \"{name}\"\nruntime = \"rust\"\nhandler = \"bin/function\"\nmemory = \"128MiB\"\n{settings}\n");
    let files = archive(&[("function.toml", manifest.as_bytes(), 0o644), ("bin/function", &code, 0o755)]);
    assert_eq!(worker.deploy(name, &files).status, 201);
}

fn ask(client: &mut Client, name: &str, word: &str) {
    let head = format!("POST /fn/{name} HTTP/1.1\r\nhost: t\r\ncontent-length: {}\r\n\r\n{word}", word.len());
    client.send(head.as_bytes()).expect("sent");
}

#[test]
fn generators_of_python_answer_in_parts() {
    let worker = Worker::start();
    let code = "
import asyncio
def handler(event, context):
    context.content_type = 'text/plain'
    for number in range(event):
        yield f'{number};'
async def later(event, context):
    for number in range(event):
        await asyncio.sleep(0)
        yield b'%d;' % number
def wrong(event, context):
    yield 'text'
    yield 7
";
    for handler in ["handler", "later", "wrong"] {
        let manifest = format!("name = \"{handler}\"\nruntime = \"python\"\nhandler = \"main.{handler}\"\n");
        let files = archive(&[("function.toml", manifest.as_bytes(), 0o644), ("main.py", code.as_bytes(), 0o644)]);
        assert_eq!(worker.deploy(handler, &files).status, 201);
    }
    let mut client = worker.client();
    let answer = client.invoke("handler", b"3").expect(200);
    assert_eq!((answer.text(), answer.header("content-type")), ("0;1;2;", Some("text/plain")));
    assert_eq!(client.invoke("handler", b"0").expect(200).text(), "", "no parts are an empty answer");
    assert_eq!(client.invoke("later", b"2").expect(200).text(), "0;1;");
    ask(&mut client, "wrong", "0");
    client.read_head().expect("it begins");
    assert_eq!(client.read_chunk().expect("a part").expect("one"), b"text");
    client.read_chunk().expect_err("and is cut short");
    assert!(await_log(&worker, "wrong", 1).contains("yields bytes or str, not int"));
}

#[test]
fn the_example_that_ticks_is_the_one_of_the_readme_and_ticks() {
    const CODE: &str = include_str!("../../../isolate/runtimes/examples/ticks/main.py");
    let (_, handler) = CODE.split_once("\n\n\n").expect("a line of description, and the handler");
    assert!(include_str!("../../../README.md").contains(handler.trim_end()), "the README shows it");
    let worker = Worker::start();
    let manifest = include_str!("../../../isolate/runtimes/examples/ticks/function.toml");
    let files = archive(&[("function.toml", manifest.as_bytes(), 0o644), ("main.py", CODE.as_bytes(), 0o644)]);
    assert_eq!(worker.deploy("ticks", &files).status, 201);
    let event = include_bytes!("../../../isolate/runtimes/examples/ticks/event.json");
    let answer = worker.client().invoke("ticks", event).expect(200);
    assert_eq!(
        (answer.text(), answer.header("content-type")),
        ("data: 0\n\ndata: 1\n\ndata: 2\n\n", Some("text/event-stream"))
    );
}

#[test]
fn parts_come_from_other_shards_and_several_answers_at_once() {
    let worker = Worker::start_with(&["cores.shards=2", "cores.pin=false", "policies.spread=off"]);
    deploy(&worker, "many", "concurrency = 4\ntimeout = \"50s\"");
    // The kernel spreads connections over the shards, of which one has the function.
    let address = worker.address;
    let clients: Vec<_> = (0..12)
        .map(|number| {
            std::thread::spawn(move || {
                let mut client = Client::connect(address);
                for _ in 0..3 {
                    assert_eq!(client.invoke("many", b"parts").expect(200).text(), "one,zwei,three");
                }
                if number < 4 {
                    let large = client.invoke("many", b"parts large").expect(200).body;
                    let is_right = |(at, &byte): (usize, &u8)| usize::from(byte) == at >> 20;
                    assert!(large.len() == 64 << 20 && large.iter().enumerate().all(is_right));
                }
            })
        })
        .collect();
    for client in clients {
        client.join().expect("every answer is right");
    }
    assert!(worker.metric("vilya_mesh_sent_total", "shard") > 0.0, "none of twelve came to the other shard");
    assert_eq!(worker.metric("vilya_sandboxes_poisoned_total", "shard"), 0.0);
}

#[test]
fn who_takes_parts_slowly_delays_nobody_else_and_is_given_up() {
    let settings = ["cores.shards=1", "server.idle_timeout=1s", "limits.sandboxes_per_function=1"];
    let worker = Worker::start_with(&settings);
    deploy(&worker, "large", "timeout = \"10m\"");
    worker.deploy_echo("other", "");
    let mut slow = worker.client();
    ask(&mut slow, "large", "parts large");
    slow.read_head().expect("it begins");
    // Nothing more is read: the socket fills, and the function waits. Its only sandbox serves the next when that is given up.
    let address = worker.address;
    let next = std::thread::spawn(move || Client::connect(address).invoke("large", b"x").expect(200));
    let mut other = worker.client();
    while !next.is_finished() {
        assert_eq!(other.invoke("other", b"x").expect(200).body, b"x");
    }
    assert_eq!(next.join().expect("an answer").header("x-vilya-start"), Some("warm"));
    let rest: std::io::Result<Vec<_>> = std::iter::from_fn(|| slow.read_chunk().transpose()).collect();
    rest.expect_err("the slow client sees that not all has come");
}

#[test]
fn who_has_no_parts_gets_the_answer_whole_if_it_is_no_larger_than_others() {
    let worker = Worker::start_with(&["cores.shards=1", "server.max_payload=16MiB"]);
    deploy(&worker, "parts", "timeout = \"50s\"");
    let mut wire = WireClient::connect(worker.wire_address, false, 1 << 30);
    let answer = wire.invoke(1, "parts", b"parts");
    assert_eq!((answer.status, &*answer.body, &*answer.content_type), (200, &b"one,zwei,three"[..], "text/csv"));
    let answer = wire.invoke(2, "parts", b"parts large");
    assert_eq!(answer.status, 501, "{}", String::from_utf8_lossy(&answer.body));
    let answer = wire.invoke(3, "parts", b"parts raise");
    assert_eq!(answer.status, 500);
    assert_eq!(wire.invoke(4, "parts", b"x").body, b"x");

    let mut old = worker.client();
    old.send(b"POST /fn/parts HTTP/1.0\r\ncontent-length: 5\r\n\r\nparts").expect("sent");
    let mut text = String::new();
    let mut stream = old.stream();
    stream.read_to_string(&mut text).expect("an answer, and the end");
    assert!(text.contains("content-length: 14\r\n") && text.ends_with("\r\n\r\none,zwei,three"), "{text}");
}

#[test]
fn the_next_request_of_a_connection_follows_an_answer_in_parts() {
    let worker = Worker::start();
    deploy(&worker, "parts", "");
    let mut client = worker.client();
    let request = "POST /fn/parts HTTP/1.1\r\nhost: t\r\ncontent-length: 5\r\n\r\nparts";
    client.send(request.repeat(3).as_bytes()).expect("sent");
    for _ in 0..3 {
        assert_eq!(client.read_answer().expect("an answer").text(), "one,zwei,three");
    }
    client.send(format!("{}\r\nconnection: close", request.replace("\r\n\r\nparts", "")).as_bytes()).expect("sent");
    client.send(b"\r\n\r\nparts").expect("sent");
    let last = client.read_answer().expect("an answer");
    assert_eq!((last.text(), last.header("connection")), ("one,zwei,three", Some("close")));
    assert!(client.is_closed());
}
