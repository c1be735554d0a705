//! What every runtime promises, asked of a function that each of them has: the same requests, the same answers.
//!
//! The functions (`tests/suite/runtimes`, `tests/src/bin/conformance-function.rs`) echo the request, content type included,
//! or do what it says: `raise`, `exit`, `id`, `environment`, `meet` three others in the same sandbox, `large` (more than may be
//! answered), `print`, `remaining` milliseconds, `wait`, after printing so, until nobody waits for the answer; or they answer in `parts`, of
//! which there are `large` ones, or which `raise`, `exit` or are `endless` after the first. With `BROKEN` in the environment
//! they do not get as far as serving. A language that this machine lacks is skipped, and says so.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use super::client::Client;
use super::wire_client::{Frame, WINDOW, WireClient};
use super::worker::{Worker, archive, await_log, conformance_function};

const HEADER: &str = include_str!("../../../isolate/runtimes/c/include/vilya.h");
const EXAMPLE: &str = include_str!("../../../isolate/runtimes/examples/reverse/reverse.c");
const TYPE: &str = "application/x-thing; a=\"b\"";

/// A conformance function: the manifest's runtime and handler, and the file that is the handler.
struct Function {
    runtime: &'static str,
    handler: &'static str,
    path: &'static str,
    code: Vec<u8>,
}

#[test]
fn rust_conforms() {
    let code = std::fs::read(conformance_function()).expect("the function is built");
    conforms(&Function { runtime: "rust", handler: "bin/function", path: "bin/function", code });
}

#[test]
fn python_conforms() {
    let code = include_bytes!("../runtimes/main.py").to_vec();
    conforms(&Function { runtime: "python", handler: "main.handler", path: "main.py", code });
}

#[test]
fn c_conforms() {
    let Some(code) = compile(include_str!("../runtimes/function.c")) else { return };
    conforms(&Function { runtime: "c", handler: "bin/function", path: "bin/function", code });
}

#[test]
fn node_conforms() {
    let Some(settings) = super::node::settings() else { return };
    let code = include_bytes!("../runtimes/index.mjs").to_vec();
    let function = Function { runtime: "node", handler: "index.handler", path: "index.mjs", code };
    conforms_on(&[&settings], &function);
}

#[test]
fn the_example_in_c_reverses() {
    let Some(code) = compile(EXAMPLE) else { return };
    let worker = Worker::start();
    deploy(&worker, "reverse", &Function { runtime: "c", handler: "reverse", path: "reverse", code }, "");
    assert_eq!(worker.client().invoke("reverse", b"abc").expect(200).body, b"cba");
    let listed = worker.client().request("GET", "/v1/functions/reverse", b"").expect(200);
    assert_eq!(listed.json()["runtime"], "c");
}

/// A program of `source` and the library, or `None` where it cannot be made.
fn compile(source: &str) -> Option<Vec<u8>> {
    if Command::new("cc").arg("--version").output().is_err() {
        eprintln!("skipped: no cc here; install gcc");
        return None;
    }
    let folder = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(folder.path().join("vilya.h"), HEADER).expect("written");
    std::fs::write(folder.path().join("function.c"), source).expect("written");
    let made = Command::new("cc")
        .current_dir(folder.path())
        .args(["-std=c11", "-D_DEFAULT_SOURCE", "-Wall", "-Wextra", "-Werror", "-O1", "-I.", "function.c"])
        .arg(library())
        .args(["-lpthread", "-ldl", "-lm", "-o", "function"])
        .output()
        .expect("cc can be run");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    Some(std::fs::read(folder.path().join("function")).expect("cc made it"))
}

/// The newest library for C beside this test, where cargo puts what a test depends on.
fn library() -> PathBuf {
    let test = std::env::current_exe().expect("this test is a file");
    let beside = std::fs::read_dir(test.parent().expect("a folder")).expect("the folder can be read");
    let libraries = beside.filter_map(|entry| {
        let entry = entry.ok()?;
        let name = entry.file_name().into_string().ok()?;
        let is_library = name.starts_with("libvilya_c") && name.ends_with(".a");
        is_library.then_some((entry.metadata().ok()?.modified().ok()?, entry.path()))
    });
    libraries.max().expect("cargo builds libvilya_c.a before this test").1
}

fn deploy(worker: &Worker, name: &str, function: &Function, settings: &str) {
    let Function { runtime, handler, path, code } = function;
    let manifest = format!(
        "name = \"{name}\"\nruntime = \"{runtime}\"\nhandler = \"{handler}\"\nmemory = \"256MiB\"\n{settings}\n"
    );
    let files = archive(&[("function.toml", manifest.as_bytes(), 0o644), (path, code, 0o755)]);
    let answer = worker.deploy(name, &files);
    assert!(matches!(answer.status, 200 | 201), "{}", answer.text());
}

fn conforms(function: &Function) {
    conforms_on(&[], function);
}

fn conforms_on(settings: &[&str], function: &Function) {
    // Whether one is started says whether the one before was kept.
    let worker = Worker::start_with(&[&["limits.sandboxes_per_function=1"], settings].concat());
    // A thousand parts take a while on a busy machine, where what runs for long gives way.
    deploy(&worker, "one", function, "timeout = \"10m\"\n[env]\nGREETING = \"grüß\"");
    payloads_and_types(&worker);
    what_it_is_told(&worker);
    failures(&worker);
    output(&worker);
    cancellation(&worker);
    answers_in_parts(&worker);
    answers_in_parts_over_the_binary_protocol(&worker);
    deploy(&worker, "many", function, "timeout = \"30s\"\nconcurrency = 4");
    concurrency(&worker);
    deploy(&worker, "short", function, "timeout = \"200ms\"");
    timeout(&worker);
    deploy(&worker, "broken", function, "[env]\nBROKEN = \"1\"");
    let broken = worker.client().invoke("broken", b"x");
    assert!(matches!(broken.status, 500 | 502), "{}", broken.text());
    assert_eq!(worker.stop(), Some(0), "its runtimes end when told to");
}

/// Inline, at the edge of a slot, in lanes, and beyond a lane's first pages.
fn payloads_and_types(worker: &Worker) {
    let mut client = worker.client();
    for length in [0, 1, 1215, 1216, 1217, 4095, 4096, 65_537, 1 << 20, (5 << 20) + 3] {
        let body: Vec<u8> = (0..length).map(|at: u32| at.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
        let answer = client.request_typed("POST", "/fn/one", TYPE, &body).expect(200);
        assert!(answer.body == body, "{length} bytes came back as {}", answer.body.len());
        assert_eq!(answer.header("content-type"), Some(TYPE), "{length} bytes");
    }
}

fn what_it_is_told(worker: &Worker) {
    let mut client = worker.client();
    let id = client.invoke("one", b"id").expect(200);
    assert_eq!(Some(id.text()), id.header("x-request-id"));
    assert_eq!(client.invoke("one", b"environment").expect(200).text(), "grüß");
    let remaining: u64 = client.invoke("one", b"remaining").expect(200).text().parse().expect("milliseconds");
    assert!((1..=600_000).contains(&remaining), "{remaining} ms of 10 min");
}

fn failures(worker: &Worker) {
    let mut client = worker.client();
    let raised = client.invoke("one", b"raise").expect(500).json();
    assert_eq!((&raised["errorType"], &raised["errorMessage"]), (&"Refused".into(), &"asked \"to\"".into()));
    client.invoke("one", b"large").expect(500);
    let next = client.invoke("one", b"x").expect(200);
    assert_eq!(next.header("x-vilya-start"), Some("warm"), "what raises keeps its sandbox");
    let died = client.invoke("one", b"exit").expect(502);
    assert!(died.text().contains("code 3"), "{}", died.text());
    assert_eq!(client.invoke("one", b"x").expect(200).header("x-vilya-start"), Some("cold"));
}

fn output(worker: &Worker) {
    let answer = worker.client().invoke("one", b"print").expect(200);
    let id = answer.header("x-request-id").expect("an id").to_owned();
    await_words(worker, &[&format!("{id} to stdout\n"), &format!("{id} to stderr\n")]);
}

/// Waits until the log has each of these; other lines are the runtime's affair.
fn await_words(worker: &Worker, words: &[&str]) {
    let since = Instant::now();
    loop {
        let log = await_log(worker, "one", 1);
        if words.iter().all(|word| log.contains(word)) {
            return;
        }
        assert!(since.elapsed() < Duration::from_secs(20), "{words:?} do not come:\n{log}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn cancellation(worker: &Worker) {
    let mut leaves = worker.client();
    leaves.send(b"POST /fn/one HTTP/1.1\r\nhost: t\r\ncontent-length: 4\r\n\r\nwait").expect("sent");
    await_words(worker, &["waiting"]);
    drop(leaves);
    await_words(worker, &["gave up"]);
}

fn ask(client: &mut Client, name: &str, word: &str) {
    let head = format!("POST /fn/{name} HTTP/1.1\r\nhost: t\r\ncontent-length: {}\r\n\r\n{word}", word.len());
    client.send(head.as_bytes()).expect("sent");
}

/// The chunks that are left of an answer.
fn rest(client: &mut Client) -> std::io::Result<Vec<u8>> {
    let mut all = Vec::new();
    while let Some(chunk) = client.read_chunk()? {
        all.extend(chunk);
    }
    Ok(all)
}

fn answers_in_parts(worker: &Worker) {
    let mut client = worker.client();
    for _ in 0..2 {
        let answer = client.invoke("one", b"parts").expect(200);
        assert_eq!((answer.text(), answer.header("content-length")), ("one,zwei,three", None));
        assert_eq!(answer.header("content-type"), Some("text/csv"));
        assert!(answer.header("x-request-id").is_some());
    }
    // More than an answer may have, through a lane that holds no more than one.
    let large = client.invoke("one", b"parts large").expect(200).body;
    assert_eq!(large.len(), 64 << 20);
    assert!((0..64_u8).all(|number| large[usize::from(number) << 20..][..1 << 20].iter().all(|&byte| byte == number)));
    // What begins well and does not end so is never whole; one that raises keeps its sandbox.
    for (word, start) in [("parts raise", "warm"), ("parts exit", "cold")] {
        let mut cut = worker.client();
        ask(&mut cut, "one", word);
        assert_eq!(cut.read_head().expect("it begins").status, 200);
        assert!(rest(&mut cut).is_err(), "{word}");
        assert_eq!(client.invoke("one", b"x").expect(200).header("x-vilya-start"), Some(start), "{word}");
    }
    // Its parts come while it goes on; when the client leaves, it hears of that.
    let mut leaves = worker.client();
    ask(&mut leaves, "one", "parts endless");
    leaves.read_head().expect("it begins");
    for _ in 0..3 {
        assert_eq!(leaves.read_chunk().expect("a part").expect("not the last"), b"tick\n");
    }
    drop(leaves);
    await_words(worker, &["not taken"]);
    assert_eq!(client.invoke("one", b"x").expect(200).header("x-vilya-start"), Some("warm"));
}

fn answers_in_parts_over_the_binary_protocol(worker: &Worker) {
    let mut client = WireClient::for_parts(worker.wire_address, WINDOW);
    for id in 1..=2 {
        let answer = client.invoke(id, "one", b"parts");
        assert_eq!((answer.status, answer.in_parts, &answer.body[..]), (200, true, &b"one,zwei,three"[..]));
        assert_eq!((&*answer.content_type, answer.cut), ("text/csv", None));
    }
    // What is whole stays whole.
    let answer = client.invoke(4, "one", b"x");
    assert_eq!((answer.in_parts, &answer.body[..]), (false, &b"x"[..]));
    for (word, status, why, start) in [("parts raise", 500, "in the middle", 2), ("parts exit", 502, "code 3", 1)] {
        let answer = client.invoke(5, "one", word.as_bytes());
        assert_eq!((answer.status, &answer.body[..]), (200, &b"begun"[..]), "{word}");
        let (cut, error) = answer.cut.expect("it is cut");
        assert!(cut == status && error.contains(why), "{word}: {cut} {error}");
        assert_eq!(client.invoke(5, "one", b"x").start, start, "{word}");
    }
    // When nobody wants more it hears of that, and keeps its sandbox.
    let told = || await_log(worker, "one", 1).matches("not taken").count();
    let before = told();
    client.request(6, "one", b"parts endless");
    client.next_of(6);
    client.cancel(6);
    assert!(matches!(client.last_of(6), Frame::Cut { status: 499, .. }));
    let since = Instant::now();
    while told() == before {
        assert!(since.elapsed() < Duration::from_secs(20), "it is not told that nobody takes its parts");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(client.invoke(6, "one", b"x").start, 2);
}

fn concurrency(worker: &Worker) {
    let address = worker.address;
    let threads: Vec<_> = (0..4)
        .map(|_| std::thread::spawn(move || Client::connect(address).invoke("many", b"meet").expect(200).body))
        .collect();
    for thread in threads {
        assert_eq!(thread.join().expect("answered"), b"met");
    }
}

fn timeout(worker: &Worker) {
    let mut client = worker.client();
    client.invoke("short", b"wait").expect(504);
    // On a busy machine its time may be over before it begins.
    let mut cut = loop {
        let mut client = worker.client();
        ask(&mut client, "short", "parts endless");
        match client.read_head().expect("an answer").status {
            504 => {}
            status => break (status, client),
        }
    };
    assert_eq!(cut.0, 200);
    assert!(rest(&mut cut.1).is_err(), "what takes too long is cut short");
    assert_eq!(client.invoke("short", b"again").expect(200).body, b"again");
}
