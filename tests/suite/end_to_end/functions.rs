//! The contract of an invocation: what a client sends, what it gets, what it is told.

use super::worker::Worker;

const HELLO: &str = "def handler(event, context):\n    return {'hello': event['name'], 'id': context.request_id}\n";

#[test]
fn a_python_function_answers_cold_and_then_warm() {
    let worker = Worker::start();
    worker.deploy_python("hello", HELLO, "");
    let mut client = worker.client();
    let cold = client.invoke("hello", br#"{"name": "Vilya"}"#).expect(200);
    assert_eq!(cold.header("x-vilya-start"), Some("cold"));
    assert_eq!(cold.header("content-type"), Some("application/json"));
    assert_eq!(cold.json()["hello"], "Vilya");
    let id = cold.header("x-request-id").expect("every answer has an id").to_string();
    assert_eq!(cold.json()["id"], *id, "the function sees the id that its client sees");

    let warm = client.invoke("hello", br#"{"name": "again"}"#).expect(200);
    assert_eq!(warm.header("x-vilya-start"), Some("warm"));
    assert_eq!(warm.json()["hello"], "again");
    assert_ne!(warm.header("x-request-id"), Some(&*id));
}

#[test]
fn timings_are_milliseconds_with_three_decimals() {
    let worker = Worker::start();
    worker.deploy_python("slow", "import time\ndef handler(event, context):\n    time.sleep(0.05)\n", "");
    let answer = worker.client().invoke("slow", b"").expect(200);
    let timing = answer.header("server-timing").expect("a timing").to_string();
    let durations: Vec<(&str, f64)> = timing
        .split(", ")
        .map(|part| {
            let (name, duration) = part.split_once(";dur=").expect("a duration");
            assert_eq!(duration.split_once('.').expect("a decimal point").1.len(), 3, "{timing}");
            (name, duration.parse().expect("a number"))
        })
        .collect();
    assert_eq!(durations.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["queue", "start", "run"]);
    assert!(durations[1].1 > 0.0, "a cold start takes time: {timing}");
    assert!(durations[2].1 >= 50.0, "it slept for 50 ms: {timing}");
}

#[test]
fn a_function_that_raises_keeps_its_sandbox() {
    let worker = Worker::start();
    let code = "def handler(event, context):\n    if event == 'raise':\n        raise ValueError('no good')\n    return event\n";
    worker.deploy_python("moody", code, "");
    let mut client = worker.client();
    let raised = client.invoke("moody", br#""raise""#).expect(500);
    assert_eq!(raised.json()["errorType"], "ValueError");
    assert_eq!(raised.json()["errorMessage"], "no good");
    assert!(raised.json()["stackTrace"].to_string().contains("main.py"), "{}", raised.text());
    let next = client.invoke("moody", b"1").expect(200);
    assert_eq!(next.header("x-vilya-start"), Some("warm"));
}

#[test]
fn a_function_that_cannot_be_loaded_says_why() {
    let worker = Worker::start();
    worker.deploy_python("broken", "import no_such_module\ndef handler(event, context):\n    return 1\n", "");
    let answer = worker.client().invoke("broken", b"{}").expect(500);
    assert_eq!(answer.json()["errorType"], "Runtime.ImportModuleError");
    worker.deploy_python("absent", "def other(event, context):\n    return 1\n", "");
    let answer = worker.client().invoke("absent", b"{}").expect(500);
    assert!(answer.json()["errorMessage"].to_string().contains("handler"), "{}", answer.text());
}

#[test]
fn a_rust_function_gets_bytes_and_gives_bytes() {
    let worker = Worker::start();
    worker.deploy_echo("echo", "");
    let mut client = worker.client();
    let answer = client.request_typed("POST", "/fn/echo", "application/x-thing", b"\x00\xffbytes").expect(200);
    assert_eq!(answer.body, b"\x00\xffbytes");
    assert_eq!(answer.header("content-type"), Some("application/x-thing"));
    let id = client.invoke("echo", b"id").expect(200);
    assert_eq!(Some(id.text()), id.header("x-request-id"));
    let raised = client.invoke("echo", b"raise").expect(500);
    assert_eq!(raised.json()["errorMessage"], "asked to");
    let panicked = client.invoke("echo", b"panic").expect(500);
    assert!(panicked.json()["errorMessage"].to_string().contains("asked to"), "{}", panicked.text());
    assert_eq!(client.invoke("echo", b"x").expect(200).header("x-vilya-start"), Some("warm"));
    let died = client.invoke("echo", b"exit").expect(502);
    assert!(died.json()["errorMessage"].to_string().contains("code 3"), "{}", died.text());
    assert_eq!(client.invoke("echo", b"x").expect(200).header("x-vilya-start"), Some("cold"));
}

#[test]
fn several_invocations_share_a_sandbox_when_asked_to() {
    let worker = Worker::start();
    // Each waits until all four are there: it can only end if they run at once, in one process.
    let code =
        "import threading\nmeet = threading.Barrier(4)\ndef handler(event, context):\n    return meet.wait(30)\n";
    worker.deploy_python("meeting", code, "concurrency = 4\ntimeout = \"40s\"");
    // The first start would otherwise be followed by three more before it is ready.
    let address = worker.address;
    let threads: Vec<_> = (0..4)
        .map(|_| std::thread::spawn(move || super::client::Client::connect(address).invoke("meeting", b"").expect(200)))
        .collect();
    let mut places: Vec<String> =
        threads.into_iter().map(|thread| thread.join().unwrap().text().trim().to_string()).collect();
    places.sort();
    assert_eq!(places, ["0", "1", "2", "3"]);
}

#[test]
fn output_goes_to_the_log_of_the_function_under_the_id_of_the_invocation() {
    let worker = Worker::start();
    let code = "import os, sys\ndef handler(event, context):\n    print('out', event)\n    print('err', event, file=sys.stderr)\n    os.write(1, b'raw %d\\n' % event)\n";
    worker.deploy_python("talk", code, "");
    let mut client = worker.client();
    let ids: Vec<String> = (0..20)
        .map(|turn| {
            let answer = client.invoke("talk", turn.to_string().as_bytes()).expect(200);
            answer.header("x-request-id").expect("an id").to_string()
        })
        .collect();
    let text = super::worker::await_log(&worker, "talk", 60);
    for (turn, id) in ids.iter().enumerate() {
        for line in [format!("{id} out {turn}"), format!("{id} err {turn}"), format!("{id} raw {turn}")] {
            assert!(text.lines().any(|logged| logged.ends_with(&line)), "{line:?} is not in:\n{text}");
        }
    }
}

#[test]
fn the_environment_of_the_manifest_reaches_the_function() {
    let worker = Worker::start();
    let code = "import os\ndef handler(event, context):\n    return [os.environ['COLOUR'], os.environ['VILYA_FUNCTION'], context.function_name]\n";
    worker.deploy_python("painter", code, "[env]\nCOLOUR = \"blue\"");
    let answer = worker.client().invoke("painter", b"").expect(200);
    assert_eq!(answer.json(), serde_json::json!(["blue", "painter", "painter"]));
}
