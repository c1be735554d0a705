//! Deployments that hang while their archive is unpacked: nobody else waits for them.

use std::process::{Command, Output};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::client::Answer;
use super::unpacking::{children, is_running, service};
use super::worker::{PATIENCE, Worker, archive, worker_command};

const CODE: &str = "def handler(event, context): return 'of the first'";
/// Enough that the process that unpacks them is met while it does.
const FILES: usize = 3000;

/// A function with many files.
fn long_archive(name: &str) -> Vec<u8> {
    let manifest = format!("name = \"{name}\"\nruntime = \"python\"\n");
    let names: Vec<String> = (0..FILES).map(|number| format!("more/{number}")).collect();
    let mut files = vec![("function.toml", manifest.as_bytes(), 0o644), ("main.py", CODE.as_bytes(), 0o644)];
    files.extend(names.iter().map(|name| (name.as_str(), b"x".as_slice(), 0o644)));
    archive(&files)
}

/// A deployment that hangs, and the stopped process that unpacks it.
struct Hung {
    answer: Receiver<Answer>,
    child: i32,
}

impl Hung {
    /// Deploys until a process is met that can be stopped before it is done.
    fn of(worker: &Worker, name: &str) -> Hung {
        let (since, service, archive) = (Instant::now(), service(worker), long_archive(name));
        loop {
            assert!(since.elapsed() < PATIENCE, "no process was ever met");
            let (tell, answer) = channel();
            let (mut client, archive, path) = (worker.client(), archive.clone(), format!("/v1/functions/{name}"));
            std::thread::spawn(move || {
                let _ = tell.send(client.request_typed("PUT", &path, "application/x-tar", &archive));
            });
            let child = loop {
                if let [child, ..] = children(service)[..] {
                    break Some(child);
                }
                if let Ok(answer) = answer.try_recv() {
                    answer.expect(201);
                    break None;
                }
            };
            if let Some(child) = child
                && kill(Pid::from_raw(child), Signal::SIGSTOP).is_ok()
                && is_stopped(child)
            {
                return Hung { answer, child };
            }
            answer.recv_timeout(PATIENCE).ok();
            worker.client().request("DELETE", &format!("/v1/functions/{name}"), b"");
        }
    }

    fn goes_on(self) -> Answer {
        kill(Pid::from_raw(self.child), Signal::SIGCONT).expect("it is there");
        self.answer.recv_timeout(PATIENCE).expect("an answer")
    }

    fn is_unanswered(&self) -> bool {
        is_running(self.child) && self.answer.try_recv().is_err()
    }
}

/// Whether a process that was told to stop has, and not ended.
fn is_stopped(pid: i32) -> bool {
    loop {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        match stat.rsplit_once(')').map(|(_, rest)| rest.trim_start().as_bytes()[0]) {
            Some(b'T') => return true,
            Some(b'R' | b'S' | b'D') => std::thread::yield_now(),
            _ => return false,
        }
    }
}

fn vilya(worker: &Worker, arguments: &[&str]) -> Output {
    let server = format!("http://{}", worker.address);
    let output = Command::new(worker_command()).args(arguments).args(["--server", &server]).output();
    output.expect("the command starts")
}

#[test]
fn a_deployment_that_hangs_holds_up_nobody() {
    let worker = Worker::start();
    worker.deploy_python("there", "def handler(event, context): return event", "");
    worker.client().invoke("there", b"0").expect(200);
    let hung = Hung::of(&worker, "hung");

    let listed = vilya(&worker, &["list"]);
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(listed.status.success() && text.contains("there") && !text.contains("hung"), "{text}");
    worker.deploy_python("another", "def handler(event, context): return [event]", "");
    assert_eq!(worker.client().invoke("another", b"1").expect(200).json(), serde_json::json!([1]));
    assert_eq!(worker.client().invoke("there", b"2").expect(200).json(), 2);
    worker.client().request("DELETE", "/v1/functions/another", b"").expect(204);
    worker.client().request("GET", "/metrics", b"").expect(200);
    assert!(hung.is_unanswered(), "all that was done beside it");

    hung.goes_on().expect(201);
    assert_eq!(worker.client().invoke("hung", b"").expect(200).json(), "of the first");
}

/// Whoever was asked for last stands; who was overtaken is told so, and changes nothing.
#[test]
fn of_two_deployments_of_one_name_the_later_stands() {
    let worker = Worker::start();
    let hung = Hung::of(&worker, "twice");
    worker.deploy_python("twice", "def handler(event, context): return 'of the second'", "");
    let overtaken = hung.goes_on().expect(409);
    assert!(overtaken.text().contains("somebody else"), "{}", overtaken.text());
    assert_eq!(worker.client().invoke("twice", b"").expect(200).json(), "of the second");

    let hung = Hung::of(&worker, "removed");
    worker.client().request("DELETE", "/v1/functions/removed", b"").expect(404);
    hung.goes_on().expect(409);
    worker.client().request("GET", "/v1/functions/removed", b"").expect(404);
    let bundles = std::fs::read_dir(worker.state().join("bundles")).expect("the store").count();
    assert_eq!(bundles, 1, "nothing is left of what was dropped");
}

/// More than are unpacked at once: those beyond wait, and come in their turn.
#[test]
fn deployments_beyond_those_at_once_wait_for_their_turn() {
    let worker = Worker::start();
    std::thread::scope(|scope| {
        for number in 0..24 {
            let worker = &worker;
            scope.spawn(move || worker.deploy_python(&format!("f{number}"), CODE, ""));
        }
    });
    let listed = worker.client().request("GET", "/v1/functions", b"").expect(200).json();
    assert_eq!(listed["functions"].as_array().map(Vec::len), Some(24), "{listed}");
}

#[test]
fn a_worker_that_stops_ends_what_hangs() {
    let mut worker = Worker::start();
    let hung = Hung::of(&worker, "hung");
    let child = hung.child;
    worker.signal(Signal::SIGTERM);
    let answer = hung.answer.recv_timeout(PATIENCE).expect("an answer");
    assert_eq!(answer.expect(503).json()["errorType"], "Draining");
    let bundles = worker.state().join("bundles");
    assert_eq!(std::fs::read_dir(bundles).expect("the store").count(), 0, "nothing of it is left");
    assert_eq!(worker.await_end(), Some(0));
    assert!(!is_running(child));
}
