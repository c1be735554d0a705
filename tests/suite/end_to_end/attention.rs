//! Functions that ask for more of a shard's attention than there is: they wait, and nothing that they say is lost or taken for another's.

use std::collections::BTreeMap;
use std::time::Instant;

use super::worker::{PATIENCE, Worker, await_log};

/// Rings so many times with nothing to say, and then answers.
const RINGS: &str = "\
import os
def handler(event, context):
    for _ in range(event):
        os.write(5, (1).to_bytes(8, 'little'))
    return event
";

#[test]
fn one_that_rings_in_vain_is_left_alone_and_what_it_answers_is_heard_all_the_same() {
    let worker = Worker::start_with(&["cores.shards=1"]);
    worker.deploy_python("rings", RINGS, "timeout = \"1m\"");
    worker.deploy_echo("quiet", "");
    let pauses = || worker.metric("vilya_doorbell_pauses_total", "shard");
    let (mut rings, mut quiet) = (worker.client(), worker.client());
    rings.invoke("rings", b"0").expect(200);
    for _ in 0..200 {
        assert_eq!(quiet.invoke("quiet", b"[1]").expect(200).text(), "[1]");
    }
    assert_eq!(pauses(), 0.0, "who rings when there is something to say is listened to");
    let since = Instant::now();
    while pauses() < 3.0 {
        assert!(since.elapsed() < PATIENCE, "it is listened to for ever");
        assert_eq!(rings.invoke("rings", b"100000").expect(200).json(), 100_000);
        assert_eq!(quiet.invoke("quiet", b"[1]").expect(200).text(), "[1]");
    }
    for _ in 0..50 {
        assert_eq!(rings.invoke("rings", b"0").expect(200).json(), 0);
    }
    assert_eq!(worker.metric("faas_coldstarts_total", "rings"), 1.0, "it is not killed for it");
}

/// Every third writes more than is read at once, so that the next find its stream waiting.
const SAYS: &str = "\
import os
def handler(event, context):
    if event % 3 == 0:
        os.write(1, b'y' * 81919 + b'\\n')
    os.write(1, b'number %d\\n' % event)
    return event
";

#[test]
fn what_is_written_while_a_stream_waits_is_logged_under_its_own_invocation() {
    const INVOCATIONS: usize = 60;
    let worker = Worker::start_with(&["cores.shards=1"]);
    worker.deploy_python("says", SAYS, "");
    let mut client = worker.client();
    let mut ids = BTreeMap::new();
    for number in 0..INVOCATIONS {
        let answer = client.invoke("says", number.to_string().as_bytes()).expect(200);
        ids.insert(number, answer.header("x-request-id").expect("its id").to_owned());
    }
    assert!(worker.metric("vilya_output_pauses_total", "shard") > 0.0, "nothing waited");
    let since = Instant::now();
    let mut log = String::new();
    while !log.contains(&format!("number {}\n", INVOCATIONS - 1)) {
        assert!(since.elapsed() < PATIENCE, "the last is not in the log:\n{log}");
        log = await_log(&worker, "says", 1);
    }
    let mut seen = 0;
    for line in log.lines().filter(|line| line.contains(" number ")) {
        let mut words = line.split(' ').skip(1);
        let (id, number) = (words.next().expect("an id"), words.nth(1).expect("a number"));
        assert_eq!(Some(id), ids.get(&number.parse().expect("a number")).map(String::as_str), "{line}");
        seen += 1;
    }
    assert!(seen > 1, "{log}");
}
