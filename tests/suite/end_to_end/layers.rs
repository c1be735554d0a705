//! Layers that several images have: on disk once, shown by each as it says, gone with the last.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::images::{base_layer, deploy, images, text_entry, write_function, write_image};
use super::unpacking::{children, is_running, service};
use super::worker::{PATIENCE, Worker, worker_command};

const CODE: &str = "
import os
def handler(event, context):
    def names(path): return sorted(os.listdir(path))
    return {'share': names('/usr/share'), 'mark': open('/etc/mark').read(), 'release': os.path.exists('/etc/os-release')}
";

/// A layer of these files; a name that ends in `/` is a directory's.
fn layer(files: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    files.iter().for_each(|(path, text)| text_entry(&mut builder, path, text));
    builder.into_inner().expect("into memory")
}

fn write(folder: &Path, name: &str, layers: Vec<Vec<u8>>) {
    fs::create_dir_all(folder).expect("a temporary folder");
    write_image(layers, &folder.join("python.tar"));
    write_function(folder, name, CODE);
}

fn layers(worker: &Worker) -> usize {
    fs::read_dir(worker.state().join("layers")).expect("the store").count()
}

/// Bytes of all files below these directories, each counted once, and how many names they have.
fn stored(worker: &Worker) -> (u64, usize) {
    fn walk(directory: &Path, files: &mut HashMap<u64, u64>, names: &mut usize) {
        for entry in fs::read_dir(directory).expect("the store").map(|entry| entry.expect("an entry")) {
            let found = entry.metadata().expect("it is there");
            if found.is_dir() {
                walk(&entry.path(), files, names);
            } else if found.is_file() {
                *names += 1;
                files.insert(found.ino(), found.len());
            }
        }
    }
    let (mut files, mut names) = (HashMap::new(), 0);
    ["images", "layers"].iter().for_each(|place| walk(&worker.state().join(place), &mut files, &mut names));
    (files.values().sum(), names)
}

#[track_caller]
fn await_layers(worker: &Worker, wanted: usize) {
    let since = Instant::now();
    while layers(worker) != wanted {
        assert!(since.elapsed() < PATIENCE, "{} layers stay", layers(worker));
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

#[test]
fn images_with_a_common_base_store_it_once_and_show_it_each_in_their_own_way() {
    let place = tempfile::tempdir().expect("a temporary folder");
    let base = base_layer();
    let worker = Worker::start();
    let plain = place.path().join("plain");
    write(&plain, "plain", vec![base.clone(), layer(&[("etc/mark", "plain")])]);
    deploy(&worker, &plain);
    let (first_bytes, first_names) = stored(&worker);
    let cut = place.path().join("cut");
    let above = [("etc/mark", "cut"), ("usr/share/.wh.gone", ""), ("usr/share/more", "of its own")];
    write(&cut, "cut", vec![base.clone(), layer(&above)]);
    deploy(&worker, &cut);
    let opaque = place.path().join("opaque");
    let above = [("etc/.wh..wh..opq", ""), ("etc/mark", "opaque"), ("usr/share/.wh..wh..opq", "")];
    write(&opaque, "opaque", vec![base, layer(&[("usr/share/middle", "")]), layer(&above)]);
    deploy(&worker, &opaque);
    assert_eq!((images(&worker), layers(&worker)), (3, 5), "the base, and each one's own");
    let (bytes, names) = stored(&worker);
    assert!(names > first_names * 3 / 2, "each image shows all of it: {names} names, {first_names} of the first");
    assert!(bytes - first_bytes < 8192, "but for a few short files nothing was added to {first_bytes}: {bytes}");

    let shown = |name: &str| worker.client().invoke(name, b"").expect(200).json();
    let of = |share: &[&str], mark: &str, release: bool| serde_json::json!({ "share": share, "mark": mark, "release": release });
    let is_there = |answer: &serde_json::Value, name: &str| {
        answer["share"].as_array().is_some_and(|all| all.contains(&name.into()))
    };
    let answer = shown("plain");
    assert!(is_there(&answer, "gone") && is_there(&answer, "kept") && !is_there(&answer, "more"), "{answer}");
    assert_eq!(answer["mark"], "plain");
    let answer = shown("cut");
    assert!(!is_there(&answer, "gone") && is_there(&answer, "kept") && is_there(&answer, "more"), "{answer}");
    assert_eq!((&answer["mark"], &answer["release"]), (&"cut".into(), &true.into()));
    assert_eq!(shown("opaque"), of(&[], "opaque", false));

    for (name, left) in [("plain", 4), ("opaque", 2), ("cut", 0)] {
        worker.client().request("DELETE", &format!("/v1/functions/{name}"), b"").expect(204);
        await_layers(&worker, left);
        if name != "cut" {
            assert_eq!(shown("cut")["mark"], "cut", "what it has is still there");
        }
    }
    assert_eq!(images(&worker), 0);
}

/// The second layer's process is met while it hangs; by then the first is stored, which no image has.
#[test]
fn a_worker_that_is_killed_between_two_layers_leaves_none() {
    let place = tempfile::tempdir().expect("a temporary folder");
    let base = base_layer();
    write(place.path(), "boxed", vec![layer(&[("etc/mark", "first")]), base]);
    let worker = Worker::start();
    let (service, since) = (service(&worker), Instant::now());
    let mut command = std::process::Command::new(worker_command());
    command.arg("deploy").arg(place.path()).args(["--server", &format!("http://{}", worker.address)]);
    let mut deployment = command.stderr(std::process::Stdio::null()).spawn().expect("the command starts");
    let child = loop {
        assert!(since.elapsed() < PATIENCE, "no process was met");
        if layers(&worker) == 1
            && let [child, ..] = children(service)[..]
        {
            break child;
        }
    };
    kill(Pid::from_raw(child), Signal::SIGSTOP).expect("it unpacks the base");
    let state = worker.crash();
    deployment.wait().expect("its connection broke");
    while is_running(child) {
        assert!(since.elapsed() < PATIENCE, "left behind");
        std::thread::yield_now();
    }
    assert!(fs::read_dir(state.path().join("layers")).expect("the store").count() >= 1, "as the crash left it");
    let worker = Worker::start_on(state, &[]);
    assert_eq!((images(&worker), layers(&worker)), (0, 0));
    deploy(&worker, place.path());
    assert_eq!(worker.client().invoke("boxed", b"").expect(200).json()["mark"], "first");
    let state = worker.crash();
    let worker = Worker::start_on(state, &[]);
    assert_eq!((images(&worker), layers(&worker)), (1, 2), "what a function has outlives a crash");
}

#[test]
fn an_image_of_which_one_layer_is_refused_leaves_none_of_the_others() {
    let place = tempfile::tempdir().expect("a temporary folder");
    let mut evil = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Fifo);
    header.set_size(0);
    evil.append_data(&mut header, "etc/fifo", std::io::empty()).expect("into memory");
    let evil = evil.into_inner().expect("into memory");
    write(place.path(), "boxed", vec![layer(&[("etc/mark", "first")]), evil]);
    let worker = Worker::start();
    let mut command = std::process::Command::new(worker_command());
    command.arg("deploy").arg(place.path()).args(["--server", &format!("http://{}", worker.address)]);
    let output = command.output().expect("the command starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("FIFO"), "{said}");
    assert_eq!((images(&worker), layers(&worker)), (0, 0));
}
