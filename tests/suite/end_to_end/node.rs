//! What Node functions are promised besides the suite of every runtime: modules of both kinds, JSON, errors with their stack,
//! signals, memory, and the package that brings the addon.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::worker::{Worker, archive, await_log};

const NODE: &str = "/usr/bin/node";

/// The setting that names the addon built with this test; `None`, with the reason printed, where there is no Node.
pub(super) fn settings() -> Option<String> {
    if !Path::new(NODE).exists() {
        eprintln!("skipped: no {NODE} here; install nodejs");
        return None;
    }
    Some(format!("runtimes.node.addon={}", addon().display()))
}

/// The addon beside this test, where cargo puts what a test depends on.
fn addon() -> PathBuf {
    let test = std::env::current_exe().expect("this test is a file");
    let beside = test.parent().expect("a folder").join("libvilya_node.so");
    assert!(beside.is_file(), "cargo builds {} before this test", beside.display());
    beside
}

fn start() -> Option<Worker> {
    Some(Worker::start_with(&[&settings()?]))
}

/// Deploys files, the first of which is the handler's module.
fn deploy(worker: &Worker, name: &str, files: &[(&str, &str)], settings: &str) {
    let manifest = format!("name = \"{name}\"\nruntime = \"node\"\n{settings}\n");
    let mut entries = vec![("function.toml", manifest.as_bytes(), 0o644)];
    entries.extend(files.iter().map(|(path, text)| (*path, text.as_bytes(), 0o644)));
    let answer = worker.deploy(name, &archive(&entries));
    assert!(matches!(answer.status, 200 | 201), "{}", answer.text());
}

#[test]
fn modules_of_both_kinds_take_and_return_json() {
    let Some(worker) = start() else { return };
    let mut client = worker.client();
    let common =
        "exports.handler = (event, context, callback) => callback(null, { got: event, is: context.functionName })";
    deploy(&worker, "common", &[("index.js", common)], "");
    let answer = client.invoke("common", b"{\"a\": [1, \"\xc3\xbc\"]}").expect(200);
    assert_eq!(answer.text(), "{\"got\":{\"a\":[1,\"ü\"]},\"is\":\"common\"}");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(client.invoke("common", b"").expect(200).json()["got"], serde_json::Value::Null);
    assert_eq!(client.invoke("common", b"{").expect(500).json()["errorType"], "Runtime.UnmarshalError");
    assert_eq!(client.invoke("common", b"\xff").expect(500).json()["errorType"], "Runtime.UnmarshalError");

    let typed = "import { twice } from './twice.js'; export const within = { handler: async (event) => twice(event) }";
    let files = [
        ("src/main.js", typed),
        ("src/twice.js", "export const twice = (x) => 2 * x"),
        ("package.json", "{\"type\": \"module\"}"),
    ];
    deploy(&worker, "typed", &files, "handler = \"src/main.within.handler\"");
    assert_eq!(client.invoke("typed", b"21").expect(200).text(), "42");

    let needs = "const { name } = require('thing'); exports.handler = () => name";
    let files = [
        ("index.cjs", needs),
        ("node_modules/thing/index.js", "exports.name = 'it'"),
        ("node_modules/thing/package.json", "{}"),
    ];
    deploy(&worker, "needs", &files, "");
    assert_eq!(client.invoke("needs", b"").expect(200).text(), "\"it\"");
}

#[test]
fn what_is_wrong_with_a_function_is_said() {
    let Some(worker) = start() else { return };
    let mut client = worker.client();
    let missing = worker.deploy(
        "missing",
        &archive(&[("function.toml", b"name = \"missing\"\nruntime = \"node\"\n", 0o644), ("main.js", b"", 0o644)]),
    );
    assert!(missing.status == 400 && missing.text().contains("index.mjs"), "{}", missing.text());
    for (name, code, error) in [
        ("syntax", "export const handler = (", "Runtime.UserCodeSyntaxError"),
        ("absent", "import 'not-there'; export const handler = 1", "Runtime.ImportModuleError"),
        ("export", "export const other = 1", "Runtime.HandlerNotFound"),
        ("thrown", "throw new RangeError('at import')", "RangeError"),
    ] {
        deploy(&worker, name, &[("index.mjs", code)], "");
        assert_eq!(client.invoke(name, b"1").expect(500).json()["errorType"], error, "{name}");
    }
    let code = "function deep() { throw new TypeError('no good') } export const handler = async () => deep()";
    deploy(&worker, "raises", &[("index.mjs", code)], "");
    let raised = client.invoke("raises", b"1").expect(500).json();
    assert_eq!(raised["errorType"], "TypeError");
    assert!(raised["stackTrace"][0].as_str().is_some_and(|line| line.contains("deep")), "{raised}");
    let log = await_log(&worker, "raises", 2);
    assert!(log.contains("[ERROR] TypeError: no good") && log.contains("at deep"), "{log}");
}

/// One that waits keeps nobody; whoever leaves fires the signal of its own invocation alone.
#[test]
fn handlers_that_wait_run_at_once_and_are_told_who_left() {
    let Some(worker) = start() else { return };
    let code = "let left = 0; export const handler = (event, context) => event !== 'wait' ? left : \
                new Promise((done) => { console.log('waiting'); context.signal.onabort = () => { left++; done() } })";
    deploy(&worker, "signals", &[("index.mjs", code)], "concurrency = 2\ntimeout = \"60s\"");
    let mut leaves = worker.client();
    leaves.send(b"POST /fn/signals HTTP/1.1\r\nhost: t\r\ncontent-length: 6\r\n\r\n\"wait\"").expect("sent");
    await_log(&worker, "signals", 1);
    let mut stays = worker.client();
    assert_eq!(stays.invoke("signals", b"1").expect(200).text(), "0");
    drop(leaves);
    let since = std::time::Instant::now();
    while stays.invoke("signals", b"1").expect(200).text() != "1" {
        assert!(since.elapsed() < super::worker::PATIENCE, "nobody is told that the client left");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

#[test]
fn a_heap_that_is_full_ends_its_sandbox_and_no_other() {
    let Some(worker) = start() else { return };
    let code = "let kept = []; export const handler = (event) => { \
                while (event === 'fill') kept.push(new Array(1000).fill(Math.random())); \
                return process.constrainedMemory?.() ?? 0 }";
    deploy(&worker, "heap", &[("index.mjs", code)], "memory = \"128MiB\"\ntimeout = \"60s\"");
    let mut client = worker.client();
    client.invoke("heap", b"1").expect(200);
    client.invoke("heap", b"\"fill\"").expect(502);
    assert_eq!(client.invoke("heap", b"1").expect(200).header("x-vilya-start"), Some("cold"));
}

/// As root with control groups: after the first start of a Node function others wait, which have booted, for whichever comes next.
#[test]
fn processes_that_were_started_ahead_become_the_function_they_are_told() {
    let Some(setting) = settings() else { return };
    let worker = Worker::start_with(&[&setting, "sandbox.node_ahead=1"]);
    let code = "import fs from 'node:fs'; let calls = 0; \
                export const handler = (event) => { if (event === 'exit') process.exit(0); console.log('called'); return { \
                ahead: process.argv[4] === 'ahead', calls: ++calls, cwd: process.cwd(), files: fs.readdirSync('/function'), \
                name: process.env.NAME, function: process.env.VILYA_FUNCTION, variables: Object.keys(process.env).length, \
                open: fs.readdirSync('/proc/self/fd').map((fd) => { try { return fs.readlinkSync('/proc/self/fd/' + fd) } \
                catch { return '' } }) } }";
    let functions = ["one", "two"];
    for name in functions {
        deploy(&worker, name, &[("index.mjs", code), (name, "")], &format!("[env]\nNAME = \"{name} ü\""));
    }
    let mut client = worker.client();
    let first = client.invoke("one", b"1").expect(200).json();
    assert_eq!(first["ahead"], false, "none is started before a function was");
    for (at, name) in (0..).zip(functions.into_iter().cycle().skip(1).take(4)) {
        let told = await_ahead(&worker, name);
        assert_eq!((&told["calls"], &told["cwd"]), (&1.into(), &"/function".into()), "{at}: {told}");
        assert_eq!((&told["name"], &told["function"]), (&format!("{name} ü").into(), &name.into()), "{at}: {told}");
        assert_eq!(told["files"], serde_json::json!(["function.toml", "index.mjs", name]), "{at}");
        assert_eq!(told["variables"], first["variables"], "{at}: {told}");
        let sockets = told["open"].as_array().expect("a list").iter().filter(|to| to.to_string().contains("socket:"));
        assert_eq!(sockets.count(), 0, "{at}: it was told once: {told}");
    }
    await_log(&worker, "two", 2);
    assert_eq!(worker.stop(), Some(0));
}

/// Invokes new sandboxes of a function until one is of a process that waited: it takes as long to boot as any.
fn await_ahead(worker: &Worker, name: &str) -> serde_json::Value {
    let since = std::time::Instant::now();
    let mut client = worker.client();
    loop {
        client.invoke(name, b"\"exit\"");
        let told = client.invoke(name, b"1").expect(200);
        assert_eq!(told.header("x-vilya-start"), Some("cold"));
        if told.json()["ahead"] == true {
            return told.json();
        }
        assert!(since.elapsed() < super::worker::PATIENCE, "no process of {name} was started ahead");
    }
}

/// It is looked whether those that wait are alive, so that nobody has to ask for one first.
#[test]
fn one_that_dies_while_it_waits_is_replaced_before_the_next_start() {
    let Some(setting) = settings() else { return };
    let worker = Worker::start_with(&[&setting, "sandbox.node_ahead=1"]);
    let code = "export const handler = (event) => event === 'exit' ? process.exit(0) : process.argv[4] === 'ahead'";
    deploy(&worker, "one", &[("index.mjs", code)], "");
    let mut client = worker.client();
    client.invoke("one", b"1").expect(200);
    // More often than processes may end one after the other: each time one is of use in between.
    for _ in 0..4 {
        let since = std::time::Instant::now();
        let await_other = |than: Option<i64>| loop {
            let listing = worker.client().request("GET", "/v1/sandboxes", b"").expect(200).json();
            let rows = listing["ahead"].as_array().cloned().unwrap_or_default();
            let pids = rows.iter().filter(|row| row["form"] == "process").filter_map(|row| row["pid"].as_i64());
            if let Some(waiting) = pids.into_iter().find(|pid| Some(*pid) != than) {
                return waiting;
            }
            assert!(since.elapsed() < super::worker::PATIENCE, "no process waits but {than:?}");
            std::thread::sleep(std::time::Duration::from_millis(5));
        };
        let first = await_other(None);
        let victim = nix::unistd::Pid::from_raw(i32::try_from(first).expect("a process id"));
        nix::sys::signal::kill(victim, nix::sys::signal::Signal::SIGKILL).expect("it is there");
        await_other(Some(first));
        client.invoke("one", b"\"exit\"").expect(502);
        let answer = client.invoke("one", b"1").expect(200);
        assert_eq!((answer.text(), answer.header("x-vilya-start")), ("true", Some("cold")));
    }
}

#[test]
fn one_that_died_while_it_waited_is_not_missed() {
    let Some(setting) = settings() else { return };
    let worker = Worker::start_with(&[&setting, "sandbox.node_ahead=1"]);
    deploy(&worker, "one", &[("index.mjs", "export const handler = (event) => event ?? process.exit(0)")], "");
    let mut client = worker.client();
    client.invoke("one", b"1").expect(200);
    let since = std::time::Instant::now();
    let waiting = loop {
        if let Some(waiting) = waiting_process(&worker) {
            break waiting;
        }
        assert!(since.elapsed() < super::worker::PATIENCE, "no process is started ahead");
        std::thread::sleep(std::time::Duration::from_millis(5));
    };
    nix::sys::signal::kill(waiting, nix::sys::signal::Signal::SIGKILL).expect("it is there");
    while waiting_process(&worker) == Some(waiting) {
        assert!(since.elapsed() < super::worker::PATIENCE, "it does not die");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    client.invoke("one", b"null").expect(502);
    assert_eq!(client.invoke("one", b"2").expect(200).header("x-vilya-start"), Some("cold"));
}

/// A process below the worker that waits for its function.
fn waiting_process(worker: &Worker) -> Option<nix::unistd::Pid> {
    let parent = |pid: i32| -> Option<i32> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
    };
    let is_below =
        |pid: i32| std::iter::successors(Some(pid), |pid| parent(*pid)).any(|pid| pid == worker.pid().as_raw());
    let pids =
        std::fs::read_dir("/proc").expect("proc").filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let mut waiting = pids.filter(|pid: &i32| {
        // That of one that is dead already is empty.
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        command.ends_with(b"\0ahead\0") && is_below(*pid)
    });
    waiting.next().map(nix::unistd::Pid::from_raw)
}

#[test]
fn the_example_in_node_reads_csv() {
    let Some(worker) = start() else { return };
    let manifest = include_str!("../../../isolate/runtimes/examples/csv/function.toml");
    let code = include_str!("../../../isolate/runtimes/examples/csv/index.mjs");
    let files = [("function.toml", manifest.as_bytes(), 0o644), ("index.mjs", code.as_bytes(), 0o644)];
    assert_eq!(worker.deploy("csv", &archive(&files)).status, 201);
    let mut client = worker.client();
    let cities = client.invoke("csv", include_bytes!("../../../isolate/runtimes/examples/csv/cities.csv"));
    let cities = cities.expect(200).json();
    assert_eq!(cities[0]["note"], "capital, in fact");
    assert_eq!((&cities[1]["city"], &cities[1]["note"]), (&"Zürich".into(), &"says \"Züri\"".into()));
    assert_eq!(cities.as_array().map(Vec::len), Some(2));
    assert_eq!(client.invoke("csv", b"a,b\n\"c").expect(500).json()["errorType"], "SyntaxError");
}

/// The package as `npm pack` makes it and `npm install` lays it out.
#[test]
fn the_package_brings_an_addon_that_works() {
    if settings().is_none() {
        return;
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../isolate/runtimes/node");
    if Command::new("npm").arg("--version").output().is_err() || std::fs::read_dir(&source).is_err() {
        eprintln!("skipped: no npm here (install npm), or {} cannot be read", source.display());
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary directory");
    let at = |name: &str| folder.path().join(name);
    let npm = |arguments: &[&str]| {
        let mut npm = Command::new("npm");
        npm.current_dir(at("package")).env("HOME", folder.path()).env("VILYA_ADDON", addon());
        let made = npm.args(arguments).arg("--offline").output().expect("npm can be run");
        assert!(made.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&made.stderr));
    };
    let copied = Command::new("cp").arg("-r").args([source, at("package")]).status().expect("cp can be run");
    assert!(copied.success());
    npm(&["pack"]);
    let prefix = at("installed");
    npm(&["install", "--global", "--prefix", prefix.to_str().expect("UTF-8"), "./vilya-runtime-0.1.0.tgz"]);
    let installed = prefix.join("lib/node_modules/@vilya/runtime");
    let setting = format!("runtimes.node.addon={}", installed.join("vilya.node").display());
    let worker = Worker::start_with(&[&setting]);
    deploy(&worker, "packed", &[("index.mjs", "export const handler = (event) => event + 1")], "");
    assert_eq!(worker.client().invoke("packed", b"1").expect(200).text(), "2");
    let typed = Command::new(NODE)
        .current_dir(&installed)
        .args(["-p", "typeof require('.').raw(() => 1)"])
        .output()
        .expect("node can be run");
    assert_eq!(typed.stdout, b"function\n", "{}", String::from_utf8_lossy(&typed.stderr));
}

#[test]
fn without_its_addon_a_node_function_says_what_to_do() {
    let worker = Worker::start_with(&["runtimes.node.addon=/nowhere/vilya.node"]);
    deploy(&worker, "lost", &[("index.mjs", "export const handler = () => 1")], "");
    let answer = worker.client().invoke("lost", b"1").expect(502);
    assert!(answer.text().contains("runtimes.node"), "{}", answer.text());
}
