//! Two shards: whoever accepts the connection, the owner runs the function.

use super::worker::Worker;

#[test]
fn a_function_of_the_other_shard_is_served_with_one_message_each_way() {
    let worker = Worker::start_with(&["cores.shards=2"]);
    // Enough names that both shards own some.
    let names: Vec<String> = (0..8).map(|number| format!("echo-{number}")).collect();
    for name in &names {
        worker.deploy_echo(name, "memory = \"32MiB\"");
    }
    let (sent, received) = ("vilya_mesh_sent_total", "vilya_mesh_received_total");
    assert_eq!(worker.metric(sent, ""), 0.0, "administration does not use the mesh");
    let mut crossed = 0.0;
    let mut stayed = 0.0;
    // Connections land on either shard by the kernel's choice.
    for round in 0..12 {
        let mut client = worker.client();
        for name in &names {
            let before = worker.metric(sent, "");
            let answer = client.invoke(name, format!("{name} {round}").as_bytes()).expect(200);
            assert_eq!(answer.text(), format!("{name} {round}"));
            match worker.metric(sent, "") - before {
                0.0 => stayed += 1.0,
                2.0 => crossed += 1.0,
                other => panic!("{other} messages for one invocation"),
            }
        }
    }
    assert!(crossed > 0.0 && stayed > 0.0, "{crossed} crossed, {stayed} stayed");
    assert_eq!(worker.metric(sent, ""), worker.metric(received, ""));
    assert_eq!(worker.metric(sent, ""), 2.0 * crossed);
}

#[test]
fn a_client_of_one_shard_that_leaves_cancels_on_the_other() {
    let worker = Worker::start_with(&["cores.shards=2", "limits.sandboxes_per_function=1"]);
    let nap = "import time\ndef handler(event, context):\n    time.sleep(event)\n";
    worker.deploy_python("nap", nap, "timeout = \"30s\"");
    // Several clients, so that some sit on the shard that does not own the function.
    let leaving: Vec<_> = (0..8)
        .map(|_| {
            let mut client = worker.client();
            client.send(b"POST /fn/nap HTTP/1.1\r\nhost: t\r\ncontent-length: 2\r\n\r\n20").expect("sent");
            client
        })
        .collect();
    worker.await_metric("vilya_invocations_queued", "", |queued| queued == 7.0);
    drop(leaving);
    worker.await_metric("vilya_invocations_queued", "", |queued| queued == 0.0);
}
