//! Functions in images of a registry: a small one on loopback, as it should be and as it should not.

use std::path::Path;
use std::process::{Command, Output};

use vilya_distribution::Digest;
use vilya_distribution::peer::{Fault, Guard, Registry, Seen};

use super::images::{CODE, base_layer, deploy, images, text_entry, top_layer};
use super::readme::block;
use super::worker::{Worker, archive, worker_command};

/// A function with the manifest that the README shows.
fn write_function(folder: &Path, image: &str) {
    let manifest = block("toml", "image = \"docker.io/").replace("docker.io/python:3.13-slim", image);
    std::fs::write(folder.join("function.toml"), manifest).expect("a temporary folder");
    std::fs::write(folder.join("main.py"), CODE).expect("a temporary folder");
}

fn command(worker: &Worker, arguments: &[&str]) -> Output {
    let mut command = Command::new(worker_command());
    command.args(arguments).args(["--server", &format!("http://{}", worker.address)]);
    command.output().expect("the command starts")
}

fn printed(worker: &Worker, arguments: &[&str]) -> String {
    let output = command(worker, arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// What a deployment that must fail says, and that it leaves nothing.
fn refused(worker: &Worker, folder: &Path) -> String {
    let output = command(worker, &["deploy", folder.to_str().expect("a name in UTF-8")]);
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let bundles =
        std::fs::read_dir(worker.state().join("bundles")).expect("the bundles").map(|entry| entry.unwrap().file_name());
    let left: Vec<_> = bundles.filter(|name| name.to_string_lossy().starts_with('.')).collect();
    assert!(left.is_empty(), "{left:?} stay");
    String::from_utf8(output.stderr).expect("text")
}

fn blobs(seen: &[Seen]) -> usize {
    seen.iter().filter(|seen| seen.line.contains("/blobs/")).count()
}

fn small_layer() -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    text_entry(&mut builder, "usr/bin/python3", "");
    builder.into_inner().expect("into memory")
}

#[test]
fn a_function_is_pulled_once_and_pinned() {
    let registry = Registry::start();
    let manifest = registry.image(
        "team/python",
        "1",
        &[base_layer(), top_layer()],
        &["PATH=/usr/local/bin:/usr/bin", "FROM_IMAGE=yes"],
    );
    registry.guard(Guard::Token("ann:secret-1".to_owned()));
    let login = tempfile::tempdir().expect("a temporary folder");
    let entry =
        format!("{{\"auths\": {{\"{}\": {{\"username\": \"ann\", \"password\": \"secret-1\"}}}}}}", registry.host());
    std::fs::write(login.path().join("config.json"), entry).expect("a temporary folder");
    let worker = Worker::start_with(&[&format!("images.docker_config={}", login.path().display())]);
    let folder = tempfile::tempdir().expect("a temporary folder");
    write_function(folder.path(), &format!("{}/team/python:1", registry.host()));
    deploy(&worker, folder.path());
    assert_eq!(blobs(&registry.seen()), 3, "two layers and a configuration");
    let answer = worker.client().invoke("pulled", b"1").expect(200).json();
    assert_eq!(
        (&answer["release"], &answer["from_image"]),
        (&"ID=debian\nLAYER=2\n".into(), &"yes".into()),
        "{answer}"
    );
    let digest = manifest["digest"].as_str().expect("text");
    let pinned = format!("{}/team/python@{digest}", registry.host());
    let short = &pinned[..pinned.len() - 52];
    assert!(printed(&worker, &["get", "pulled"]).contains(&pinned));
    for listing in ["list", "ps"] {
        let text = printed(&worker, &[listing]);
        assert!(text.contains(short), "{listing}: {text}");
    }
    // The tag stands for the same: it is asked what it stands for, and nothing is pulled.
    deploy(&worker, folder.path());
    let seen = registry.seen();
    assert_eq!(blobs(&seen), 0, "{seen:?}");
    assert!(seen.iter().any(|seen| seen.line.ends_with("/manifests/1")), "{seen:?}");
    // By its digest, nobody is asked.
    write_function(folder.path(), &pinned);
    deploy(&worker, folder.path());
    assert_eq!(registry.seen(), []);
    assert_eq!(worker.client().invoke("pulled", b"1").expect(200).json()["from_image"], "yes");
    // The same digest of another repository is another's until that has shown it.
    write_function(folder.path(), &format!("{}/other/python@{digest}", registry.host()));
    assert!(refused(&worker, folder.path()).contains("is not in its registry"));
    worker.client().request("DELETE", "/v1/functions/pulled", b"").expect(204);
    let since = std::time::Instant::now();
    while images(&worker) > 0 {
        assert!(since.elapsed() < super::worker::PATIENCE, "the image stays");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

#[test]
fn a_pull_that_fails_says_why_leaves_nothing_and_changes_nothing() {
    let registry = Registry::start();
    registry.image("app", "1", &[small_layer()], &[]);
    let layer = Digest::of(&small_layer()).to_string();
    let worker = Worker::start_with(&["images.docker_config=/nonexistent"]);
    worker.deploy_python("pulled", "def handler(event, context): return 'as before'", "");
    let folder = tempfile::tempdir().expect("a temporary folder");
    write_function(folder.path(), &format!("{}/app:1", registry.host()));
    let cases: [(Fault, &str); 6] = [
        (Fault::Instead(vec![b'x'; small_layer().len()]), "has digest sha256:"),
        (Fault::Length(1), "has 1 bytes and should have"),
        (Fault::Status(403), "docker login"),
        (Fault::Status(404), "is not in its registry"),
        (Fault::Redirect("http://elsewhere.example/x".to_owned()), "images.insecure_registries"),
        (Fault::Endless, "has more bytes and should have"),
    ];
    for (fault, why) in cases {
        registry.fault(&layer, fault, 1);
        let message = refused(&worker, folder.path());
        assert!(message.contains(why), "{why}: {message}");
    }
    registry.fault("/manifests/", Fault::Endless, 1);
    assert!(refused(&worker, folder.path()).contains("more than 4194304 bytes"));
    registry.fault(&layer, Fault::Status(500), 3);
    assert!(refused(&worker, folder.path()).contains("answered 500"));
    assert_eq!(images(&worker), 0);
    assert_eq!(worker.client().invoke("pulled", b"1").expect(200).json(), "as before");
    let of = |status: u16, part: &str, fault: Fault| {
        registry.fault(part, fault, 1);
        let manifest = std::fs::read(folder.path().join("function.toml")).expect("just written");
        let bundle = archive(&[("function.toml", &manifest, 0o644), ("main.py", b"", 0o644)]);
        let answer = worker.deploy("pulled", &bundle).expect(status);
        answer.text().to_string()
    };
    assert!(of(502, &layer, Fault::Length(1)).contains("ImageUnavailable"));
    of(413, "/manifests/", Fault::Endless);
    of(400, "/manifests/", Fault::Status(404));
}

#[test]
fn settings_bound_what_is_pulled() {
    let registry = Registry::start();
    registry.image("app", "1", &[vec![0; 2 << 20]], &[]);
    let folder = tempfile::tempdir().expect("a temporary folder");
    write_function(folder.path(), &format!("{}/app:1", registry.host()));
    let worker = Worker::start_with(&["images.pull=false"]);
    assert!(refused(&worker, folder.path()).contains("images.pull = false"));
    assert_eq!(registry.seen(), []);
    let worker = Worker::start_with(&["images.max_size=1MiB", "images.pull_timeout=1s"]);
    assert!(refused(&worker, folder.path()).contains("images.max_size"));
    assert_eq!(blobs(&registry.seen()), 0);
    registry.image("app", "1", &[small_layer()], &[]);
    registry.fault("/blobs/", Fault::Stall, 1);
    assert!(refused(&worker, folder.path()).contains("images.pull_timeout"));
    write_function(folder.path(), "app.example/app");
    assert!(refused(&worker, folder.path()).contains("name one of a registry in full"));
}

#[test]
fn nothing_waits_for_a_slow_registry_but_its_own_deployment() {
    let registry = Registry::start();
    registry.image("app", "1", &[small_layer()], &[]);
    let layer = Digest::of(&small_layer()).to_string();
    registry.fault(&layer, Fault::Stall, 1);
    registry.image("second", "1", &[small_layer(), top_layer()], &[]);
    let worker = Worker::start();
    let folder = tempfile::tempdir().expect("a temporary folder");
    write_function(folder.path(), &format!("{}/app:1", registry.host()));
    std::thread::scope(|scope| {
        let deploying = scope.spawn(|| deploy(&worker, folder.path()));
        registry.await_requests(&layer, 1);
        // Deployed, invoked, listed and removed meanwhile; an image that goes with its function takes no other along.
        worker.deploy_python("other", "def handler(event, context): return 1", "");
        assert_eq!(worker.client().invoke("other", b"1").expect(200).json(), 1);
        let second = format!("image = \"{}/second:1\"", registry.host());
        worker.deploy_python("second", "", &second);
        assert_eq!(images(&worker), 2, "one that is there, one that comes");
        let list = printed(&worker, &["list"]);
        assert!(list.contains("second") && !list.contains("pulled"), "{list}");
        worker.client().request("DELETE", "/v1/functions/second", b"").expect(204);
        let since = std::time::Instant::now();
        while images(&worker) > 1 {
            assert!(since.elapsed() < super::worker::PATIENCE, "the image stays");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        registry.release();
        deploying.join().expect("deployed");
    });
    assert!(printed(&worker, &["list"]).contains("pulled"));
}

#[test]
fn so_many_images_are_fetched_at_once_and_no_more() {
    const AT_ONCE: usize = 8;
    let registry = Registry::start();
    registry.image("app", "1", &[small_layer()], &[]);
    let layer = Digest::of(&small_layer()).to_string();
    registry.fault(&layer, Fault::Stall, AT_ONCE);
    let worker = Worker::start();
    let bundle = |name: &str| {
        let image = format!("{}/app:1", registry.host());
        let manifest = format!("name = \"{name}\"\nruntime = \"python\"\nimage = \"{image}\"\n");
        archive(&[("function.toml", manifest.as_bytes(), 0o644), ("main.py", b"", 0o644)])
    };
    std::thread::scope(|scope| {
        let deploying: Vec<_> = (0..AT_ONCE)
            .map(|number| {
                let (name, worker) = (format!("a{number}"), &worker);
                let bundle = bundle(&name);
                scope.spawn(move || worker.deploy(&name, &bundle).expect(201))
            })
            .collect();
        registry.await_requests(&layer, AT_ONCE);
        let refused = worker.deploy("more", &bundle("more")).expect(503);
        assert!(refused.text().contains("as many as may be at once"), "{}", refused.text());
        registry.release();
        deploying.into_iter().for_each(|deploying| drop(deploying.join().expect("deployed")));
    });
    worker.deploy("more", &bundle("more")).expect(201);
    assert_eq!(images(&worker), 1, "they have one image");
}

#[test]
fn a_worker_that_stops_gives_up_its_pulls_and_says_so() {
    let registry = Registry::start();
    registry.image("app", "1", &[small_layer()], &[]);
    let layer = Digest::of(&small_layer()).to_string();
    registry.fault(&layer, Fault::Stall, 1);
    let mut worker = Worker::start();
    let folder = tempfile::tempdir().expect("a temporary folder");
    write_function(folder.path(), &format!("{}/app:1", registry.host()));
    let address = worker.address;
    let deploying = std::thread::scope(|scope| {
        let folder = folder.path();
        let deploying = scope.spawn(move || {
            let mut command = Command::new(worker_command());
            command.arg("deploy").arg(folder).args(["--server", &format!("http://{address}")]);
            command.output().expect("the command starts")
        });
        registry.await_requests(&layer, 1);
        worker.signal(nix::sys::signal::Signal::SIGTERM);
        let code = worker.await_end();
        assert_eq!(code, Some(0));
        deploying.join().expect("it ends")
    });
    let message = String::from_utf8_lossy(&deploying.stderr).into_owned();
    assert!(!deploying.status.success() && message.contains("the worker is stopping"), "{message}");
    let left = std::fs::read_dir(worker.state().join("bundles")).expect("the bundles").count();
    assert_eq!(left, 0);
}
