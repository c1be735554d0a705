//! The process that unpacks, killed and orphaned in the middle of a deployment.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::images::{base_layer, images, write_function, write_image};
use super::worker::{PATIENCE, Worker, worker_command};

const CODE: &str = "def handler(event, context): return 1";

pub(super) fn children(pid: i32) -> Vec<i32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = tasks.map(|task| fs::read_to_string(task.path().join("children")).unwrap_or_default());
    lists.flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect()
}

/// The process whose children unpack.
pub(super) fn service(worker: &Worker) -> i32 {
    let is_named =
        |pid: &i32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "vilya-unpacker");
    children(worker.pid().as_raw()).into_iter().find(is_named).expect("a worker has one")
}

pub(super) fn is_running(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

/// Deploys, and does something once there is a process that unpacks; what came of the deployment, if there was one in time.
fn deploy_and(worker: &Worker, folder: &Path, meanwhile: impl FnOnce(i32)) -> Option<Output> {
    let service = service(worker);
    let mut command = Command::new(worker_command());
    command.arg("deploy").arg(folder).args(["--server", &format!("http://{}", worker.address)]);
    std::thread::scope(|scope| {
        let deployment = scope.spawn(move || command.output().expect("the command starts"));
        loop {
            if let [child, ..] = children(service)[..] {
                meanwhile(child);
                return Some(deployment.join().expect("no panic"));
            }
            if deployment.is_finished() {
                return None;
            }
        }
    })
}

#[test]
fn a_deployment_whose_unpacking_is_killed_fails_and_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    write_image(vec![base_layer()], &folder.path().join("python.tar"));
    write_function(folder.path(), "boxed", CODE);
    let worker = Worker::start();
    let since = Instant::now();
    loop {
        assert!(since.elapsed() < PATIENCE, "no process was ever met");
        // One that ended meanwhile is met again at the next try.
        let met = deploy_and(&worker, folder.path(), |child| {
            let _ = kill(Pid::from_raw(child), Signal::SIGKILL);
        });
        if let Some(output) = met.filter(|output| !output.status.success()) {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(said.contains("was killed"), "{said}");
            break;
        }
        worker.client().request("DELETE", "/v1/functions/boxed", b"").expect(204);
    }
    worker.client().request("GET", "/v1/functions/boxed", b"").expect(404);
    let left = fs::read_dir(worker.state().join("bundles")).expect("the store").count();
    assert_eq!((images(&worker), left), (0, 0));
    let output = deploy_and(&worker, folder.path(), |_| ());
    assert!(output.is_none_or(|output| output.status.success()), "the next is unpacked");
    assert_eq!(worker.client().invoke("boxed", b"1").expect(200).json(), 1);
}

#[test]
fn what_unpacks_dies_with_its_worker() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    write_image(vec![base_layer()], &folder.path().join("python.tar"));
    write_function(folder.path(), "boxed", CODE);
    let worker = Worker::start();
    let (service, since) = (service(&worker), Instant::now());
    let (mut met, pid) = (None, worker.pid());
    while met.is_none() {
        assert!(since.elapsed() < PATIENCE, "no process was ever met");
        deploy_and(&worker, folder.path(), |child| {
            kill(pid, Signal::SIGKILL).expect("the worker is there");
            met = Some(child);
        });
    }
    let state = worker.crash();
    let all = [service, met.expect("one was met")];
    while all.into_iter().any(is_running) {
        assert!(since.elapsed() < PATIENCE, "left behind: {all:?}");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let worker = Worker::start_on(state, &[]);
    let left = fs::read_dir(worker.state().join("images"))
        .expect("the store")
        .map(|entry| entry.expect("an entry").file_name());
    let left: Vec<_> = left.filter(|name| name.to_string_lossy().starts_with('.')).collect();
    assert!(left.is_empty(), "what was not finished goes with the next start: {left:?}");
}
