//! Sandboxes that are copies of one that has done its imports.

use std::collections::BTreeSet;
use std::time::Instant;

use super::client::Client;
use super::worker::{PATIENCE, Worker, archive};

pub(super) const STARTS: &str = "vilya_sandbox_starts_total";

/// A worker whose sandboxes are made ahead.
fn worker() -> Worker {
    let worker = Worker::start_with(&["cores.shards=1"]);
    worker.deploy_echo("first", "");
    let since = Instant::now();
    // The first start may have to wait for one, which counts as made.
    while worker.metric(STARTS, "form=\"prepared\"") == 0.0 {
        assert!(since.elapsed() < PATIENCE, "no sandbox is made ahead");
        worker.client().invoke("first", b"x").expect(200);
        end_sandbox(&mut worker.client(), "first");
    }
    worker
}

/// Invokes a function, each time in a new sandbox, until so many copies have been started; what they answered.
pub(super) fn answers_of_copies(worker: &Worker, name: &str, body: &[u8], count: usize) -> Vec<Vec<u8>> {
    let copies = || worker.metric(STARTS, "form=\"copy\"");
    let mut client = worker.client();
    let since = Instant::now();
    let mut answers = Vec::new();
    while answers.len() < count {
        assert!(since.elapsed() < PATIENCE, "{} copies, {} of them here", copies(), answers.len());
        let before = copies();
        let answer = client.invoke(name, body).expect(200);
        if copies() > before {
            answers.push(answer.body.clone());
        }
        end_sandbox(&mut client, name);
    }
    answers
}

pub(super) fn end_sandbox(client: &mut Client, name: &str) {
    let body: &[u8] = if name.starts_with("py") { b"\"exit\"" } else { b"exit" };
    client.invoke(name, body).expect(502);
}

#[test]
fn python_functions_are_copied_and_what_must_differ_does() {
    let worker = worker();
    let code = "
import os, random, sys, tempfile
loaded = os.urandom(8).hex()
random.random()
next(tempfile._get_candidate_names())
def handler(event, context):
    if event == 'exit': os._exit(0)
    drawn = [random.random(), next(tempfile._get_candidate_names()), os.urandom(8).hex(), context.log_stream_name]
    return [loaded, drawn, 'colorsys' in sys.modules, context.request_id, os.environ.get('VILYA_ZYGOTE')]
";
    worker.deploy_python("py-copied", code, "preload = [\"colorsys\", \"no_such_module\"]");
    let answers = answers_of_copies(&worker, "py-copied", b"1", 4);
    let answers: Vec<serde_json::Value> =
        answers.iter().map(|answer| serde_json::from_slice(answer).expect("JSON")).collect();
    let distinct = |of: &dyn Fn(&serde_json::Value) -> String| answers.iter().map(of).collect::<BTreeSet<_>>().len();
    assert_eq!(distinct(&|answer| answer[0].to_string()), 1, "imported once: {answers:?}");
    for drawn in 0..4 {
        assert_eq!(distinct(&|answer| answer[1][drawn].to_string()), answers.len(), "{drawn}: {answers:?}");
    }
    assert!(answers.iter().all(|answer| answer[2] == true && answer[4].is_null()), "{answers:?}");
    assert_eq!(distinct(&|answer| answer[3].to_string()), answers.len());

    // A new version is never a copy of the one before.
    worker.deploy_python("py-copied", "def handler(event, context):\n    return 'second version'\n", "");
    assert_eq!(worker.client().invoke("py-copied", b"1").expect(200).json(), "second version");
}

/// Says whether the module was there before, and imports it.
const IMPORTS_LATE: &str = "
import os, sys
def handler(event, context):
    if event == 'exit': os._exit(0)
    had = 'late' in sys.modules
    import late
    return had
";

fn deploy_late(worker: &Worker, name: &str, late: &str, settings: &str) {
    let manifest = format!("name = \"{name}\"\nruntime = \"python\"\n{settings}\n");
    let files = [("function.toml", &*manifest, 0o644), ("main.py", IMPORTS_LATE, 0o644), ("late.py", late, 0o644)];
    assert_eq!(
        worker.deploy(name, &archive(&files.map(|(path, text, mode)| (path, text.as_bytes(), mode)))).status,
        201
    );
}

#[test]
fn what_invocations_import_is_imported_ahead_once_it_is_known_unless_that_is_not_wanted() {
    let worker = worker();
    deploy_late(&worker, "py-learns", "", "");
    let since = Instant::now();
    while answers_of_copies(&worker, "py-learns", b"1", 1) != [b"true"] {
        assert!(since.elapsed() < PATIENCE, "no copy has the module that every invocation imports");
    }
    deploy_late(&worker, "py-forgets", "", "learn_imports = false");
    assert_eq!(answers_of_copies(&worker, "py-forgets", b"1", 4), [b"false"; 4]);
}

#[test]
fn a_module_that_cannot_be_copied_is_not_imported_ahead_and_the_function_is_copied_all_the_same() {
    let worker = worker();
    let thread = "import threading, time\nthreading.Thread(target=time.sleep, args=(3600,), daemon=True).start()\n";
    // A zygote has no ring.
    let exit = "import os\nif os.readlink('/proc/self/fd/4') == '/dev/null': raise SystemExit(1)\n";
    for (name, late) in [("py-thread", thread), ("py-leaves", exit)] {
        deploy_late(&worker, name, late, "");
        assert_eq!(answers_of_copies(&worker, name, b"1", 3), [b"false"; 3], "{name}");
    }
}

/// Its own ring is written by hand: names that are none, then an answer.
#[test]
fn a_function_that_lies_about_its_imports_harms_nobody() {
    let worker = worker();
    let code = "
import _thread, os, sys
from vilya_runtime import layout
def handler(event, context):
    if event == 'exit': os._exit(0)
    for runs in list(sys._getframe(0).f_back.f_back.f_locals.values()) + list(sys._getframe(0).f_back.f_locals.values()):
        channel = getattr(runs, '_channel', None)
        if channel is not None:
            channel.publish(layout.IMPORTED, 0, 0, b'', b'../x; import os')
            return 'lied'
    return 'no channel found'
";
    worker.deploy_python("py-lies", code, "");
    let mut client = worker.client();
    let answer = client.invoke("py-lies", b"1").expect(200).json();
    assert_eq!(answer, "lied");
    // Said twice, it is no runtime of ours.
    let answer = client.invoke("py-lies", b"1").expect(502);
    assert!(answer.text().contains("said twice what it imported"), "{}", answer.text());
    assert_eq!(client.invoke("first", b"x").expect(200).body, b"x");
}

/// A function that was never started gets a copy of a runtime that knows none, with an environment and a folder of its own.
#[test]
fn the_first_sandbox_of_a_python_function_is_a_copy_of_the_runtime() {
    let worker = worker();
    let of_runtime = || worker.metric(STARTS, "form=\"runtime\"");
    let code = "import os\nfrom word import WORD\ndef handler(event, context):\n    return [WORD, os.environ['WHO'], sorted(os.environ), __file__, context.function_name]\n";
    let since = Instant::now();
    for number in 0.. {
        assert!(since.elapsed() < PATIENCE, "there is no image of the runtime");
        let name = format!("py-fresh-{number}");
        let manifest = format!("name = \"{name}\"\nruntime = \"python\"\n[env]\nWHO = \"{name}\"\n");
        let word = format!("WORD = 'of {name}'\n");
        let files = [("function.toml", &*manifest, 0o644), ("main.py", code, 0o644), ("word.py", &*word, 0o644)];
        let archive = archive(&files.map(|(path, text, mode)| (path, text.as_bytes(), mode)));
        assert_eq!(worker.deploy(&name, &archive).status, 201);
        let answer = worker.client().invoke(&name, b"1").expect(200).json();
        assert_eq!(answer[0], format!("of {name}"));
        assert_eq!(answer[1], name);
        assert_eq!((&answer[3], &answer[4]), (&"/function/main.py".into(), &name.clone().into()));
        let variables: Vec<String> = serde_json::from_value(answer[2].clone()).expect("names");
        assert!(variables.iter().all(|name| name != "VILYA_ZYGOTE"), "{variables:?}");
        assert!(variables.contains(&"VILYA_FUNCTION".to_owned()) && variables.contains(&"PATH".to_owned()));
        if of_runtime() > 1.0 {
            return;
        }
    }
}

/// An upgrade of the interpreter: the image that was taken before is not used any more, and another is.
#[test]
fn the_image_of_a_runtime_that_was_changed_is_made_again() {
    use std::os::unix::fs::PermissionsExt;
    // An interpreter of the test's own, beside the library of the host's.
    let asked = std::process::Command::new("/usr/bin/python3")
        .args([
            "-I",
            "-c",
            "import os, sys, sysconfig; print(os.path.realpath(sys.executable), sysconfig.get_path('stdlib'))",
        ])
        .output()
        .expect("the host's Python");
    let told = String::from_utf8(asked.stdout).expect("text");
    let (executable, library) = told.trim().split_once(' ').expect("two paths");
    // Not below what a sandbox has of its own.
    let home = tempfile::tempdir_in("/var/tmp").expect("a directory");
    std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o755)).expect("it is ours");
    for folder in ["bin", "lib"] {
        std::fs::create_dir(home.path().join(folder)).expect("a folder");
    }
    let interpreter = home.path().join("bin/python3");
    std::fs::copy(executable, &interpreter).expect("a copy");
    let named = std::path::Path::new(library).file_name().expect("a name");
    std::os::unix::fs::symlink(library, home.path().join("lib").join(named)).expect("a link");
    let setting = format!("runtimes.python.interpreter={}", interpreter.display());
    let worker = Worker::start_with(&["cores.shards=1", &setting]);

    let of_runtime = || worker.metric(STARTS, "form=\"runtime\"");
    let code = "def handler(event, context):\n    return event\n";
    let since = Instant::now();
    let mut number = 0;
    let mut start_another = || {
        assert!(since.elapsed() < PATIENCE, "{} copies of the runtime", of_runtime());
        let (name, before) = (format!("py-{number}"), of_runtime());
        number += 1;
        worker.deploy_python(&name, code, "");
        assert_eq!(worker.client().invoke(&name, b"1").expect(200).json(), 1);
        of_runtime() > before
    };
    while !start_another() {}
    let file = std::fs::File::open(&interpreter).expect("it is there");
    file.set_modified(std::time::SystemTime::UNIX_EPOCH).expect("it is ours");
    while start_another() {}
    while !start_another() {}
}

#[test]
fn rust_functions_are_copied_and_serve_on() {
    let worker = worker();
    worker.deploy_echo("rust-copied", "concurrency = 4");
    let answers = answers_of_copies(&worker, "rust-copied", b"hello", 2);
    assert!(answers.iter().all(|answer| answer == b"hello"));
    // The copy that is alive now takes large payloads, raises and goes on.
    let mut client = worker.client();
    let large = vec![7; 3 << 20];
    for _ in 0..3 {
        assert_eq!(client.invoke("rust-copied", &large).expect(200).body, large);
        client.invoke("rust-copied", b"raise").expect(500);
        client.invoke("rust-copied", b"panic").expect(500);
    }
}

/// The next start has less to do; a worker that stops leaves nothing behind of what nobody asked for.
#[test]
fn what_is_started_again_and_again_is_loaded_ahead() {
    let worker = worker();
    worker.deploy_echo("rust-loaded", "");
    let loaded = || worker.metric("vilya_sandbox_starts_loaded_total", "shard=\"0\"");
    let mut client = worker.client();
    let since = Instant::now();
    while loaded() < 3.0 {
        assert!(since.elapsed() < PATIENCE, "{} starts found their image loaded", loaded());
        assert_eq!(client.invoke("rust-loaded", b"hello").expect(200).body, b"hello");
        end_sandbox(&mut client, "rust-loaded");
    }

    let none = Worker::start_with(&["cores.shards=1", "sandbox.loaded=0"]);
    none.deploy_echo("rust-loaded", "");
    answers_of_copies(&none, "rust-loaded", b"hello", 5);
    assert_eq!(none.metric("vilya_sandbox_starts_loaded_total", "shard=\"0\""), 0.0);
}

/// An image outlives the sandboxes of its function in the memory of the function's shard, until a start needs it.
#[test]
fn an_image_takes_of_limits_memory_and_goes_for_who_needs_all_of_it() {
    let worker = Worker::start_with(&["cores.shards=1", "limits.memory=256MiB"]);
    worker.deploy_echo("rust-small", "memory = \"32MiB\"");
    let figure = |name: &str| worker.metric(name, "shard=\"0\"");
    answers_of_copies(&worker, "rust-small", b"hello", 1);
    assert_eq!(figure("vilya_layers"), 1.0);
    let bytes = figure("vilya_layer_memory_bytes");
    assert!((4096.0..32e6).contains(&bytes), "{bytes} bytes");
    assert_eq!(figure("vilya_layers_kept_total"), 1.0);

    // All that is not kept back for what is made ahead.
    worker.deploy_echo("rust-large", "memory = \"196MiB\"");
    let large = worker.client().invoke("rust-large", b"x").expect(200);
    assert_eq!(large.body, b"x");
    let gone = (figure("vilya_layers"), figure("vilya_layer_memory_bytes"), figure("vilya_layers_evicted_total"));
    assert_eq!(gone, (0.0, 0.0, 1.0));
    // It is started whole again, and gets no other image soon.
    let before = worker.metric(STARTS, "form=\"copy\"");
    assert_eq!(worker.client().invoke("rust-small", b"x").expect(200).body, b"x");
    assert_eq!(worker.metric(STARTS, "form=\"copy\""), before);
}

/// Every shard's sandboxes are copies of one image, which one shard is charged for.
#[test]
fn the_image_of_a_function_that_shards_share_is_charged_once() {
    let worker =
        Worker::start_with(&["cores.shards=2", "policies.spread=everywhere", "policies.keep_alive=greedy-dual"]);
    worker.deploy_echo("rust-shared", "");
    let shards_of_copies = || {
        let copied = |shard| worker.metric(STARTS, &format!("shard=\"{shard}\",form=\"copy\"")) > 0.0;
        [copied(0), copied(1)]
    };
    let since = Instant::now();
    while shards_of_copies() != [true, true] {
        assert!(since.elapsed() < PATIENCE, "copies on {:?}", shards_of_copies());
        // Connections go to either shard, as the kernel likes.
        let mut client = worker.client();
        client.invoke("rust-shared", b"hello").expect(200);
        end_sandbox(&mut client, "rust-shared");
    }
    assert_eq!(worker.metric("vilya_layers", "shard="), 1.0);
    assert_eq!(worker.metric("vilya_layers_evicted_total", "shard="), 0.0);
}

/// What is removed leaves no image behind.
#[test]
fn an_image_ends_with_its_function() {
    let worker = worker();
    worker.deploy_echo("rust-removed", "");
    answers_of_copies(&worker, "rust-removed", b"hello", 1);
    let layers = || worker.metric("vilya_layers", "shard=\"0\"");
    let before = layers();
    assert!(before >= 1.0);
    assert_eq!(worker.client().request("DELETE", "/v1/functions/rust-removed", b"").status, 204);
    let since = Instant::now();
    while layers() >= before {
        assert!(since.elapsed() < PATIENCE, "{} images are left of {before}", layers());
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// A copy of every image is made before a start gets one.
#[test]
fn an_image_whose_copies_do_not_become_ready_is_not_used() {
    let worker = worker();
    let code = "
import os
def in_a_copy(): os._exit(3)
os.register_at_fork(after_in_child=in_a_copy)
def handler(event, context):
    if event == 'exit': os._exit(0)
    return 'whole'
";
    worker.deploy_python("py-dies", code, "");
    let mut client = worker.client();
    for _ in 0..30 {
        assert_eq!(client.invoke("py-dies", b"1").expect(200).json(), "whole");
        end_sandbox(&mut client, "py-dies");
    }
    assert_eq!(worker.metric(STARTS, "form=\"copy\""), 0.0);
}

#[test]
fn a_function_that_cannot_be_copied_is_started_whole() {
    let worker = worker();
    let code = "
import os, threading, time
threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
def handler(event, context):
    if event == 'exit': os._exit(0)
    return threading.active_count()
";
    worker.deploy_python("py-threads", code, "");
    let mut client = worker.client();
    for _ in 0..6 {
        assert_eq!(client.invoke("py-threads", b"1").expect(200).json(), 2);
        end_sandbox(&mut client, "py-threads");
    }
    assert_eq!(worker.metric(STARTS, "form=\"copy\""), 0.0);
}

#[test]
fn a_function_that_fails_to_load_says_so_every_time() {
    let worker = worker();
    worker.deploy_python("py-broken", "import no_such_module_at_all\n", "");
    for _ in 0..4 {
        let answer = worker.client().invoke("py-broken", b"1").expect(500);
        assert!(answer.text().contains("no_such_module_at_all"), "{}", answer.text());
    }
}

#[test]
fn without_prepared_sandboxes_every_start_makes_its_own() {
    let worker = Worker::start_with(&["sandbox.prepared=0", "cores.shards=1"]);
    worker.deploy_echo("alone", "");
    let mut client = worker.client();
    for _ in 0..4 {
        client.invoke("alone", b"x").expect(200);
        end_sandbox(&mut client, "alone");
    }
    assert_eq!(worker.metric(STARTS, "form=\"prepared\"") + worker.metric(STARTS, "form=\"copy\""), 0.0);
    assert!(worker.metric(STARTS, "form=\"made\"") >= 4.0);
}

#[test]
fn sandboxes_that_died_while_they_waited_fail_no_start() {
    let worker = worker();
    let mut client = worker.client();
    for _ in 0..3 {
        end_sandbox(&mut client, "first");
        let since = Instant::now();
        let mut waiting = waiting(&worker);
        while waiting.len() < 8 {
            assert!(since.elapsed() < PATIENCE, "{waiting:?} wait to be taken");
            std::thread::sleep(std::time::Duration::from_millis(5));
            waiting = self::waiting(&worker);
        }
        for &pid in &waiting {
            let victim = nix::unistd::Pid::from_raw(pid);
            nix::sys::signal::kill(victim, nix::sys::signal::Signal::SIGKILL).expect("it waits");
        }
        let is_alive = |pid: &i32| self::waiting(&worker).contains(pid);
        while waiting.iter().any(is_alive) {
            assert!(since.elapsed() < PATIENCE, "they do not die");
        }
        let answer = client.invoke("first", b"x").expect(200);
        assert_eq!(answer.header("x-vilya-start"), Some("cold"));
    }
}

#[test]
fn a_maker_that_takes_the_place_of_another_is_not_in_the_network_of_a_sandbox() {
    let worker = worker();
    let network = |pid: i32| std::fs::read_link(format!("/proc/{pid}/ns/net")).ok();
    let own = network(worker.pid().as_raw());
    let since = Instant::now();
    let maker = |but: Option<i32>| {
        loop {
            assert!(since.elapsed() < PATIENCE, "there is no maker");
            if let Some(&pid) = made_by(&worker, 1).iter().find(|&&pid| Some(pid) != but) {
                return pid;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    };
    while waiting(&worker).is_empty() {
        assert!(since.elapsed() < PATIENCE, "none waits");
    }
    let first = maker(None);
    assert_eq!(network(first), own);
    let victim = nix::unistd::Pid::from_raw(first);
    nix::sys::signal::kill(victim, nix::sys::signal::Signal::SIGKILL).expect("it makes sandboxes");
    let mut client = worker.client();
    // Those that wait are taken until one has to be made, which begins another maker.
    let since = Instant::now();
    while made_by(&worker, 1).iter().all(|&pid| pid == first) {
        assert!(since.elapsed() < PATIENCE, "no other maker begins");
        end_sandbox(&mut client, "first");
    }
    assert_eq!(network(maker(Some(first))), own);
}

/// Sandboxes that are alive and wait to be taken: they still have the name of the process that made them, which is not so far inside.
fn waiting(worker: &Worker) -> Vec<i32> {
    made_by(worker, 2)
}

/// Living processes with the name of a maker that are so many namespaces of process ids further in than the worker.
fn made_by(worker: &Worker, further: usize) -> Vec<i32> {
    let read = |path: String| std::fs::read_to_string(path).unwrap_or_default();
    let depth = |pid: i32| {
        let status = read(format!("/proc/{pid}/status"));
        status.lines().find_map(|line| line.strip_prefix("NSpid:")).map_or(0, |ids| ids.split_whitespace().count())
    };
    let own = depth(worker.pid().as_raw());
    let threads = std::fs::read_dir(format!("/proc/{}/task", worker.pid())).expect("its threads").flatten();
    let children: String = threads.map(|thread| read(format!("{}/children", thread.path().display()))).collect();
    let children = children.split_whitespace().filter_map(|child| child.parse::<i32>().ok());
    let waits = |child: &i32| {
        let is_alive = |stat: &str| stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']));
        depth(*child) == own + further
            && read(format!("/proc/{child}/comm")).starts_with("vilya-maker")
            && is_alive(&read(format!("/proc/{child}/stat")))
    };
    children.filter(waits).collect()
}
