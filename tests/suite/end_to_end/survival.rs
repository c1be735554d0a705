//! A worker that is killed at any moment: nothing outlives it, nothing it acknowledged is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::client::Client;
use super::worker::{PATIENCE, Worker, control_groups, sandbox_processes, worker_id};

#[test]
fn functions_are_there_after_a_restart_and_versions_go_on() {
    let worker = Worker::start();
    worker.deploy_python("kept", "def handler(event, context):\n    return 'first'\n", "");
    worker.deploy_python("kept", "def handler(event, context):\n    return 'second'\n", "");
    worker.deploy_python("gone", "def handler(event, context):\n    return 1\n", "");
    worker.client().request("DELETE", "/v1/functions/gone", b"").expect(204);
    let before = worker.client().request("GET", "/v1/functions/kept", b"").expect(200).json();
    let state = worker.crash();
    let worker = Worker::start_on(state, &[]);
    assert_eq!(worker.client().request("GET", "/v1/functions/kept", b"").expect(200).json(), before);
    assert_eq!(worker.client().invoke("kept", b"").expect(200).json(), "second");
    worker.client().invoke("gone", b"").expect(404);
    worker.deploy_python("kept", "def handler(event, context):\n    return 'third'\n", "");
    let after = worker.client().request("GET", "/v1/functions/kept", b"").expect(200).json();
    assert!(after["version"].as_u64() > before["version"].as_u64(), "{before} {after}");
}

#[test]
fn nothing_outlives_a_worker_that_is_killed_under_load() {
    // Processes are found by their environment, which copies of a zygote have elsewhere.
    let worker = Worker::start_with(&["limits.zygotes=0"]);
    // The name marks this test's processes among those of others.
    let name = format!("orphan-{}", std::process::id());
    let code = "import os, time\nforks = iter(range(20))\ndef handler(event, context):\n    if next(forks, None) is not None and os.fork() == 0:\n        time.sleep(600)\n        os._exit(0)\n    return len(event)\n";
    worker.deploy_python(&name, code, "");
    let over = Arc::new(AtomicBool::new(false));
    let address = worker.address;
    let load: Vec<_> = (0..4)
        .map(|_| {
            let (over, name) = (Arc::clone(&over), name.clone());
            std::thread::spawn(move || {
                let mut client = Client::connect(address);
                let request = format!("POST /fn/{name} HTTP/1.1\r\nhost: t\r\ncontent-length: 4\r\n\r\n\"ab\"");
                // Relaxed: only when to stop hangs on it. Errors are expected once the worker is gone.
                while !over.load(Ordering::Relaxed) && client.send(request.as_bytes()).is_ok() {
                    let Ok(answer) = client.read_answer() else { break };
                    assert_eq!(answer.status, 200, "{}", answer.text());
                }
            })
        })
        .collect();
    worker.await_metric("faas_invocations_total", &name, |served| served > 50.0);
    assert!(!sandbox_processes(&name).is_empty(), "there is something that could be left");
    let groups = control_groups(&worker_id(&worker));
    let state = worker.crash();
    over.store(true, Ordering::Relaxed);
    let since = Instant::now();
    while !sandbox_processes(&name).is_empty() {
        assert!(since.elapsed() < PATIENCE, "left behind: {:?}", sandbox_processes(&name));
        std::thread::sleep(Duration::from_millis(10));
    }
    // Copies of a zygote have no environment that a process can be known by; their groups know them.
    let members = |group: &std::path::PathBuf| std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    while groups.iter().any(|group| !members(group).is_empty()) {
        assert!(since.elapsed() < PATIENCE, "processes are left in {groups:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
    println!("the last sandbox process was gone {:?} after the worker", since.elapsed());
    for thread in load {
        thread.join().expect("no wrong answer");
    }

    let worker = Worker::start_on(state, &[]);
    let id = worker_id(&worker);
    // The new run has some of its own already: sandboxes that wait.
    let left: Vec<_> = control_groups(&id).into_iter().filter(|group| groups.contains(group)).collect();
    assert_eq!(left, Vec::<std::path::PathBuf>::new(), "groups of the run that was killed");
    worker.client().invoke(&name, b"\"abc\"").expect(200);
    let (mounts, pid) = (std::fs::read_to_string("/proc/self/mounts").expect("readable"), worker.pid());
    assert!(!mounts.contains(&*worker.state().to_string_lossy()), "{mounts}");
    assert_eq!(worker.stop(), Some(0));
    assert_eq!(sandbox_processes(&name), Vec::<i32>::new());
    assert_eq!(control_groups(&id), Vec::<std::path::PathBuf>::new());
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
}

#[test]
fn a_sandbox_that_is_killed_from_outside_fails_its_invocation_alone() {
    // A copy of a zygote could not be told by its environment.
    let worker = Worker::start_with(&["limits.zygotes=0"]);
    let name = format!("victim-{}", std::process::id());
    worker.deploy_python(
        &name,
        "import time\ndef handler(event, context):\n    time.sleep(event)\n    return event\n",
        "timeout = \"40s\"",
    );
    let (address, function) = (worker.address, name.clone());
    let waiting = std::thread::spawn(move || Client::connect(address).invoke(&function, b"30"));
    worker.await_metric("vilya_invocations_open", "", |open| open == 1.0);
    worker.await_metric("vilya_invocations_queued", "", |queued| queued == 0.0);
    for pid in sandbox_processes(&name) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)
            .expect("it is there");
    }
    let answer = waiting.join().expect("a thread").expect(502);
    assert!(answer.json()["errorMessage"].to_string().contains("signal 9"), "{}", answer.text());
    assert_eq!(worker.client().invoke(&name, b"0").expect(200).header("x-vilya-start"), Some("cold"));
}

#[test]
fn an_idle_sandbox_that_is_killed_from_outside_fails_nobody() {
    // A process is known by its environment, which a copy of a zygote has no other way than in its memory.
    let worker = Worker::start_with(&["cores.shards=1", "limits.zygotes=0"]);
    let name = format!("idler-{}", std::process::id());
    worker.deploy_python(&name, "def handler(event, context):\n    return event\n", "");
    let mut client = worker.client();
    for _ in 0..20 {
        client.invoke(&name, b"1").expect(200);
        let processes = sandbox_processes(&name);
        for &pid in &processes {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
        // From here on the worker can know, whether or not it has cleaned up.
        let since = Instant::now();
        while !processes.iter().all(|&pid| has_ended(pid)) {
            assert!(since.elapsed() < PATIENCE, "it does not die");
        }
        let answer = client.invoke(&name, b"2").expect(200);
        assert_eq!(answer.header("x-vilya-start"), Some("cold"));
    }
}

#[test]
fn a_second_worker_on_the_same_state_is_refused() {
    let worker = Worker::start();
    let output = std::process::Command::new(super::worker::worker_command())
        .args(["serve", "--set", "server.address=127.0.0.1:0"])
        .args(["--set", &format!("server.state_directory={}", worker.state().display())])
        .output()
        .expect("it runs");
    assert!(!output.status.success());
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(message.contains("state"), "{message}");
    worker.client().request("GET", "/readyz", b"").expect(200);
}

#[test]
fn a_thousand_invocations_with_deaths_leave_no_descriptor_behind() {
    let worker = Worker::start();
    worker.deploy_echo("echo", "");
    let mut client = worker.client();
    // Sandboxes that are made ahead come and go a moment later.
    let open = |worker: &Worker| {
        settled(|| std::fs::read_dir(format!("/proc/{}/fd", worker.pid())).expect("its descriptors").count())
    };
    client.invoke("echo", b"x").expect(200);
    let before = open(&worker);
    for turn in 0..1000 {
        if turn % 20 == 0 {
            client.invoke("echo", b"exit").expect(502);
        } else {
            client.invoke("echo", b"x").expect(200);
        }
    }
    worker.await_metric("vilya_sandboxes", "", |alive| alive == 1.0);
    // The connection that asked for the last figure may still be open, and the function may have an image that a sandbox has loaded. Fifty
    // sandboxes have died.
    assert!(open(&worker) <= before + 8, "{before} before, {} after", open(&worker));
}

/// A figure once it has been the same for a while.
fn settled(figure: impl Fn() -> usize) -> usize {
    const LOOKS: usize = 20;
    let since = Instant::now();
    let (mut last, mut same) = (figure(), 0);
    while same < LOOKS {
        assert!(since.elapsed() < PATIENCE, "it does not settle: {last}");
        std::thread::sleep(Duration::from_millis(10));
        let now = figure();
        same = if now == last { same + 1 } else { 0 };
        last = now;
    }
    last
}

/// Gone, or waiting only to be asked how it ended.
fn has_ended(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z') || rest.starts_with('X'))
}
