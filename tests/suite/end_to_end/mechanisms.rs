//! Functions in sandboxes that other programs make.

use super::worker::Worker;

const WHERE: &str = "import os\ndef handler(event, context):\n    roots = [line.split()[3] for line in open('/proc/self/mountinfo') if line.split()[4] == '/']\n    return {'said': event, 'root': roots[0], 'pid': os.getpid()}\n";

/// Whether sandboxes can be made this way here; says why if not.
fn deploys(worker: &Worker, name: &str, mechanism: &str) -> bool {
    let manifest = format!("name = \"{name}\"\nruntime = \"python\"\nmechanism = \"{mechanism}\"\n");
    let files = [("function.toml", manifest.as_bytes(), 0o644), ("main.py", WHERE.as_bytes(), 0o644)];
    let answer = worker.deploy(name, &super::worker::archive(&files));
    if answer.status == 400 {
        let said = answer.text();
        assert!(
            said.contains(mechanism)
                && (said.contains("install") || said.contains("root") || said.contains("sandbox.docker_socket")),
            "{said}"
        );
        println!("skipped: {said}");
        return false;
    }
    assert_eq!(answer.status, 201, "{}", answer.text());
    true
}

#[test]
fn a_python_function_is_invoked_in_an_oci_container() {
    let worker = Worker::start();
    if !deploys(&worker, "contained", "oci") {
        return;
    }
    let mut client = worker.client();
    let cold = client.invoke("contained", b"\"hello\"").expect(200);
    assert_eq!(cold.header("x-vilya-start"), Some("cold"));
    assert_eq!((&cold.json()["said"], &cold.json()["pid"]), (&"hello".into(), &1.into()));
    assert!(cold.json()["root"].as_str().is_some_and(|root| root.contains("/isolate/oci/")), "{}", cold.text());
    let warm = client.invoke("contained", b"2").expect(200);
    assert_eq!((warm.header("x-vilya-start"), &warm.json()["said"]), (Some("warm"), &2.into()));
    // Beside one of the worker's own making.
    worker.deploy_python("own", WHERE, "");
    let own = client.invoke("own", b"3").expect(200);
    assert!(!own.json()["root"].as_str().is_some_and(|root| root.contains("oci")), "{}", own.text());
    let state = worker.state().to_owned();
    let bundles = || std::fs::read_dir(state.join("isolate/oci/crun/bundles")).map_or(0, Iterator::count);
    println!("{} bundles of crun", bundles());
    assert_eq!(worker.stop(), Some(0));
    assert_eq!(bundles(), 0);
}

#[test]
fn the_workers_choice_holds_for_functions_that_do_not_say() {
    let probe = Worker::start();
    if !deploys(&probe, "probe", "oci") {
        return;
    }
    let worker = Worker::start_with(&["sandbox.mechanism=oci"]);
    worker.deploy_echo("echo", "");
    let mut client = worker.client();
    assert_eq!(client.invoke("echo", b"bytes").expect(200).text(), "bytes");
    worker.deploy_python("own", WHERE, "mechanism = \"native\"");
    let own = client.invoke("own", b"1").expect(200);
    assert!(!own.json()["root"].as_str().is_some_and(|root| root.contains("oci")), "{}", own.text());
    // A large answer comes through the lane of another user's sandbox as well.
    let large = vec![b'x'; 3 << 20];
    assert_eq!(client.invoke("echo", &large).expect(200).text().len(), large.len());
}

/// The worker cannot take containers along when it is killed; the next one removes them.
#[test]
fn containers_of_a_killed_worker_are_gone_when_the_next_serves() {
    let name = format!("contained-{}", std::process::id());
    let worker = Worker::start();
    if !deploys(&worker, &name, "oci") {
        return;
    }
    worker.client().invoke(&name, b"1").expect(200);
    assert_eq!(super::worker::sandbox_processes(&name).len(), 1);
    let state = worker.crash();
    let worker = Worker::start_on(state, &[]);
    assert_eq!(super::worker::sandbox_processes(&name), Vec::<i32>::new());
    worker.client().invoke(&name, b"2").expect(200);
}

#[test]
fn a_function_is_invoked_in_a_docker_container() {
    let socket = std::env::var("VILYA_TEST_DOCKER_SOCKET").unwrap_or_else(|_| "/var/run/docker.sock".into());
    let worker = Worker::start_with(&[&format!("sandbox.docker_socket={socket}")]);
    if !deploys(&worker, "docked", "docker") {
        return;
    }
    let mut client = worker.client();
    let cold = client.invoke("docked", b"\"hello\"").expect(200);
    assert_eq!((cold.header("x-vilya-start"), &cold.json()["said"]), (Some("cold"), &"hello".into()));
    assert_eq!(cold.json()["pid"], 1);
    worker.deploy_echo("echo", "mechanism = \"docker\"");
    let large = vec![b'x'; 3 << 20];
    assert_eq!(client.invoke("echo", &large).expect(200).text().len(), large.len());
    let sandboxes = worker.state().join("isolate/docker/sandboxes");
    assert_eq!(std::fs::read_dir(&sandboxes).expect("its sandboxes").count(), 2);
    assert_eq!(client.invoke("docked", b"2").expect(200).header("x-vilya-start"), Some("warm"));
}
