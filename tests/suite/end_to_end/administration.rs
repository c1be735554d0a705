//! The administrative interface: what is accepted, what is refused, and with which words.

use super::worker::{Worker, archive};

const CODE: &[u8] = b"def handler(event, context):\n    return 1\n";

fn manifest(name: &str) -> Vec<u8> {
    format!("name = \"{name}\"\nruntime = \"python\"\nhandler = \"main.handler\"\n").into_bytes()
}

#[test]
fn functions_are_listed_replaced_and_removed() {
    let worker = Worker::start();
    let mut client = worker.client();
    assert_eq!(client.request("GET", "/v1/functions", b"").expect(200).json(), serde_json::json!({ "functions": [] }));
    let bundle = archive(&[("function.toml", &manifest("f"), 0o644), ("main.py", CODE, 0o644)]);
    worker.deploy("f", &bundle).expect(201);
    assert_eq!(client.invoke("f", b"").expect(200).json(), 1);
    let two = archive(&[
        ("function.toml", &manifest("f"), 0o644),
        ("main.py", b"def handler(event, context):\n    return 2\n", 0o644),
    ]);
    worker.deploy("f", &two).expect(200);
    let replaced = client.invoke("f", b"").expect(200);
    assert_eq!(replaced.json(), 2, "the version deployed last answers");
    let all = client.request("GET", "/v1/functions", b"").expect(200).json();
    assert_eq!(all["functions"].as_array().map(Vec::len), Some(1));
    assert_eq!(all["functions"][0]["name"], "f");
    assert_eq!(all["functions"][0]["memory_bytes"], 128 << 20);
    assert_eq!(all["functions"][0]["timeout_ms"], 3000);
    client.request("DELETE", "/v1/functions/f", b"").expect(204);
    client.request("DELETE", "/v1/functions/f", b"").expect(404);
    client.request("GET", "/v1/functions/f", b"").expect(404);
    let gone = client.invoke("f", b"").expect(404);
    assert!(gone.json()["errorMessage"].to_string().contains("\\\"f\\\""), "{}", gone.text());
    // The bundles go once the last sandbox of their version has.
    worker.await_metric("vilya_sandboxes", "", |alive| alive == 0.0);
    let left = || {
        let folder = worker.state().join("functions");
        let names = std::fs::read_dir(folder).into_iter().flatten().flatten();
        names.flat_map(|name| std::fs::read_dir(name.path()).into_iter().flatten().flatten()).count()
    };
    let since = std::time::Instant::now();
    while left() > 0 && since.elapsed() < super::worker::PATIENCE {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert_eq!(left(), 0);
}

#[test]
fn replacing_a_function_under_load_loses_no_invocation() {
    let worker = Worker::start();
    let version = |number: u32| {
        let code = format!("import time\ndef handler(event, context):\n    time.sleep(0.002)\n    return {number}\n");
        archive(&[("function.toml", &manifest("f"), 0o644), ("main.py", code.as_bytes(), 0o644)])
    };
    worker.deploy("f", &version(0)).expect(201);
    let address = worker.address;
    let threads: Vec<_> = (0..4)
        .map(|_| {
            std::thread::spawn(move || {
                let mut client = super::client::Client::connect(address);
                let mut newest = 0;
                for _ in 0..300 {
                    let answered = client.invoke("f", b"").expect(200).json().as_u64().expect("a number");
                    assert!(answered >= newest, "an older version answered after a newer one");
                    newest = answered;
                }
            })
        })
        .collect();
    for number in 1..6 {
        std::thread::sleep(std::time::Duration::from_millis(50));
        worker.deploy("f", &version(number)).expect(200);
    }
    for thread in threads {
        thread.join().expect("every invocation is answered");
    }
    assert_eq!(worker.client().invoke("f", b"").expect(200).json(), 5);
}

#[test]
fn a_zip_is_as_good_as_a_tar() {
    let worker = Worker::start();
    let bundle = zip_of(&[("function.toml", &manifest("zipped")), ("main.py", CODE)]);
    worker.deploy("zipped", &bundle).expect(201);
    assert_eq!(worker.client().invoke("zipped", b"").expect(200).json(), 1);
}

/// A zip archive of stored entries, written by hand: local headers, central directory, end record.
fn zip_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for (name, bytes) in files {
        let offset = out.len() as u32;
        let mut common = Vec::new();
        common.extend_from_slice(&20_u16.to_le_bytes());
        common.extend_from_slice(&[0; 8]);
        common.extend_from_slice(&crc32(bytes).to_le_bytes());
        common.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        common.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        common.extend_from_slice(&(name.len() as u16).to_le_bytes());
        common.extend_from_slice(&0_u16.to_le_bytes());
        out.extend_from_slice(b"PK\x03\x04");
        out.extend_from_slice(&common);
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(bytes);
        directory.extend_from_slice(b"PK\x01\x02\x14\x03");
        directory.extend_from_slice(&common);
        directory.extend_from_slice(&[0; 6]);
        directory.extend_from_slice(&(0o100_644_u32 << 16).to_le_bytes());
        directory.extend_from_slice(&offset.to_le_bytes());
        directory.extend_from_slice(name.as_bytes());
    }
    let (start, length) = (out.len() as u32, directory.len() as u32);
    out.extend_from_slice(&directory);
    out.extend_from_slice(b"PK\x05\x06\0\0\0\0");
    for _ in 0..2 {
        out.extend_from_slice(&(files.len() as u16).to_le_bytes());
    }
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&start.to_le_bytes());
    out.extend_from_slice(&0_u16.to_le_bytes());
    out
}

/// CRC-32 as in ISO 3309.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}

#[test]
fn bad_bundles_are_refused_with_a_reason_and_change_nothing() {
    let worker = Worker::start();
    worker.deploy_python("good", "def handler(event, context):\n    return 1\n", "");
    let symlink = {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        builder.append_link(&mut header, "main.py", "/etc/passwd").expect("memory");
        builder.into_inner().expect("memory")
    };
    let unknown_key = [&manifest("good")[..], b"colour = \"blue\"\n"].concat();
    let cases: [(&str, Vec<u8>, &str); 6] = [
        ("good", b"not an archive".to_vec(), "tar"),
        ("good", archive(&[("main.py", CODE, 0o644)]), "function.toml"),
        ("good", archive(&[("function.toml", &manifest("other"), 0o644), ("main.py", CODE, 0o644)]), "other"),
        ("good", archive(&[("function.toml", &unknown_key, 0o644)]), "colour"),
        ("good", archive(&[("function.toml", b"name = 3", 0o644)]), "name"),
        ("good", symlink, "main.py"),
    ];
    for (name, bundle, word) in cases {
        let answer = worker.deploy(name, &bundle).expect(400);
        assert!(answer.text().contains(word), "{word:?} is not in {}", answer.text());
    }
    worker.deploy("Bad_Name", b"").expect(400);
    let record = worker.client().request("GET", "/v1/functions/good", b"").expect(200).json();
    assert_eq!(worker.client().invoke("good", b"").expect(200).json(), 1, "{record}");
}

#[test]
fn health_metrics_and_unknown_paths() {
    let worker = Worker::start();
    worker.deploy_echo("echo", "");
    let mut client = worker.client();
    client.invoke("echo", b"x").expect(200);
    for path in ["/livez", "/readyz"] {
        client.request("GET", path, b"").expect(200);
    }
    let metrics = client.request("GET", "/metrics", b"").expect(200);
    assert!(metrics.header("content-type").is_some_and(|kind| kind.starts_with("text/plain; version=0.0.4")));
    assert_eq!(worker.metric("faas_invocations_total", "echo"), 1.0);
    assert_eq!(worker.metric("faas_coldstarts_total", "echo"), 1.0);
    // Every line is a comment or `name{labels} number`.
    for line in metrics.text().lines().filter(|line| !line.starts_with("# ")) {
        let (name, value) = line.rsplit_once(' ').expect("a value");
        assert!(name.ends_with('}') && value.parse::<f64>().is_ok(), "{line}");
    }
    client.request("GET", "/no/such/path", b"").expect(404);
    client.request("GET", "/fn/nobody", b"").expect(405);
    let absent = client.request("POST", "/fn/nobody", b"").expect(404);
    assert!(absent.header("x-request-id").is_some());
    let method = client.request("DELETE", "/v1/functions", b"").expect(405);
    assert!(method.header("allow").is_some_and(|allow| allow.contains("GET")));
    client.request("GET", "/v1/functions/echo/logs?tail=x", b"").expect(400);
}

#[test]
fn an_address_for_everyone_is_refused() {
    let state = tempfile::tempdir().expect("a directory");
    let output = std::process::Command::new(super::worker::worker_command())
        .args(["serve", "--set", "server.address=0.0.0.0:0", "--set", "limits.memmory=1GiB"])
        .args(["--set", &format!("server.state_directory={}", state.path().display())])
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(2));
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(message.contains("0.0.0.0") && message.contains("memmory"), "both at once: {message}");
}

#[test]
fn a_body_that_arrives_across_a_deployment_reaches_the_new_version() {
    let worker = Worker::start_with(&["cores.shards=2"]);
    let version = |number: u32| format!("def handler(event, context):\n    return [{number}, event]\n");
    worker.deploy_python("moving", &version(1), "");
    // Several, so that some sit on the shard that does not own the function.
    let mut clients: Vec<_> = (0..8).map(|_| worker.client()).collect();
    for client in &mut clients {
        let head = b"POST /fn/moving HTTP/1.1\r\nhost: t\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n";
        client.send(head).expect("sent");
        // The head has been read, and the function found.
        client.read_answer().expect("an answer").expect(100);
    }
    worker.deploy_python("moving", &version(2), "");
    for client in &mut clients {
        client.send(b"42").expect("sent");
        assert_eq!(client.read_answer().expect("an answer").expect(200).json(), serde_json::json!([2, 42]));
        client
            .send(b"POST /fn/moving HTTP/1.1\r\nhost: t\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n")
            .expect("sent");
        client.read_answer().expect("an answer").expect(100);
    }
    worker.client().request("DELETE", "/v1/functions/moving", b"").expect(204);
    for client in &mut clients {
        client.send(b"42").expect("sent");
        client.read_answer().expect("an answer").expect(404);
    }
}

#[test]
fn versions_that_are_still_busy_refuse_the_next_and_break_nothing() {
    let worker = Worker::start_with(&["limits.functions=1", "cores.shards=1"]);
    let code = "import os, time\ndef handler(event, context):\n    while event and not os.path.exists('/function/go'):\n        time.sleep(0.01)\n    return event\n";
    let address = worker.address;
    let mut busy = Vec::new();
    for turn in 1..=2 {
        worker.deploy_python("busy", code, "timeout = \"50s\"\nmemory = \"64MiB\"");
        busy.push(std::thread::spawn(move || super::client::Client::connect(address).invoke("busy", b"1")));
        worker.await_metric("vilya_sandboxes", "", |alive| alive == f64::from(turn));
        worker.await_metric("vilya_invocations_queued", "", |queued| queued == 0.0);
    }
    let manifest = "name = \"busy\"\nruntime = \"python\"\nhandler = \"main.handler\"\n";
    let third = archive(&[("function.toml", manifest.as_bytes(), 0o644), ("main.py", code.as_bytes(), 0o644)]);
    let refused = worker.deploy("busy", &third).expect(507);
    assert!(refused.json()["errorMessage"].to_string().contains("limits.functions"), "{}", refused.text());
    worker.client().invoke("busy", b"0").expect(200);
    // Once the old one has done its work there is room for the next.
    for folder in bundles(worker.state()) {
        std::fs::write(folder.join("go"), b"").expect("the bundle's folder is there");
    }
    for thread in busy {
        thread.join().expect("a thread").expect(200);
    }
    let deployed = (0..1000).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        worker.deploy("busy", &third).status == 200
    });
    assert!(deployed);
    worker.client().invoke("busy", b"0").expect(200);
}

/// The folders of all bundles under a state directory.
fn bundles(state: &std::path::Path) -> Vec<std::path::PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![state.to_path_buf()]);
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
        folders.extend(
            entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()),
        );
        if folder.join("function.toml").is_file() {
            found.push(folder);
        }
    }
    found
}

#[test]
fn a_function_that_cannot_be_loaded_tells_all_who_wait() {
    let worker = Worker::start_with(&["cores.shards=1", "limits.sandboxes_per_function=1"]);
    let code =
        "import os, time\nwhile not os.path.exists('/function/go'):\n    time.sleep(0.01)\nimport no_such_module\n";
    worker.deploy_python("broken", code, "concurrency = 64\ntimeout = \"50s\"");
    let mut clients: Vec<_> = (0..64).map(|_| worker.client()).collect();
    for client in &mut clients {
        client.send(b"POST /fn/broken HTTP/1.1\r\nhost: t\r\ncontent-length: 0\r\n\r\n").expect("sent");
    }
    worker.await_metric("vilya_invocations_queued", "", |queued| queued == 64.0);
    for folder in bundles(worker.state()) {
        std::fs::write(folder.join("go"), b"").expect("the bundle's folder is there");
    }
    for mut client in clients {
        let answer = client.read_answer().expect("an answer").expect(500);
        assert_eq!(answer.json()["errorType"], "Runtime.ImportModuleError");
    }
}
