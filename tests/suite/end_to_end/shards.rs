//! Two shards: whoever accepts the connection, the owner runs the function.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::worker::{PATIENCE, Worker};

/// Clients that invoke a function as fast as it answers, and check every answer.
struct Crowd {
    is_over: Arc<AtomicBool>,
    /// The function is about to be removed: its clients may find it gone, and then leave.
    may_be_gone: Arc<AtomicBool>,
    /// Clients that know.
    warned: Arc<AtomicU64>,
    answered: Arc<AtomicU64>,
    clients: Vec<JoinHandle<()>>,
}

impl Crowd {
    const CLIENTS: u64 = 16;

    fn start(worker: &Worker, function: &'static str) -> Crowd {
        let (is_over, may_be_gone) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (warned, answered) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let clients = (0..Crowd::CLIENTS).map(|number| {
            let mut client = worker.client();
            let (is_over, may_be_gone) = (Arc::clone(&is_over), Arc::clone(&may_be_gone));
            let (warned, answered) = (Arc::clone(&warned), Arc::clone(&answered));
            std::thread::spawn(move || {
                // As large as bodies are that the shard copies, so that the one that runs it has most of the work.
                let mut body = vec![b'x'; 30 * 1024];
                let mut is_warned = false;
                // Relaxed, here and below: nothing else is told through these.
                for round in 0_u64.. {
                    if is_over.load(Ordering::Relaxed) {
                        return;
                    }
                    let mark = format!("{number} {round}");
                    body[..mark.len()].copy_from_slice(mark.as_bytes());
                    if !is_warned && may_be_gone.load(Ordering::Relaxed) {
                        is_warned = true;
                        warned.fetch_add(1, Ordering::Relaxed);
                    }
                    let answer = client.invoke(function, &body);
                    if is_warned && answer.status == 404 {
                        return;
                    }
                    assert!(answer.expect(200).body == body, "client {number} got another's answer in round {round}");
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            })
        });
        let clients = clients.collect();
        Crowd { is_over, may_be_gone, warned, answered, clients }
    }

    /// Tells every client that the function may be gone from now on.
    fn warn(&self) {
        self.may_be_gone.store(true, Ordering::Relaxed);
        let since = Instant::now();
        while self.warned.load(Ordering::Relaxed) < Crowd::CLIENTS {
            assert!(since.elapsed() < PATIENCE, "a client is not answered");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Waits until so many more were answered.
    fn await_answers(&self, more: u64) {
        let (since, wanted) = (Instant::now(), self.answered() + more);
        while self.answered() < wanted {
            assert!(since.elapsed() < PATIENCE, "the clients are not answered");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends it, and gives how many were answered.
    fn leave(mut self) -> u64 {
        self.is_over.store(true, Ordering::Relaxed);
        self.join();
        self.answered()
    }

    fn join(&mut self) {
        for client in self.clients.drain(..) {
            client.join().expect("every answer is right");
        }
    }
}

const OWNERS: &str = "vilya_function_owners";

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

#[test]
fn a_hot_function_gains_an_owner_and_goes_home_when_the_load_ends() {
    let worker = Worker::start_with(&["cores.shards=2"]);
    worker.deploy_echo("hot", "memory = \"32MiB\"");
    worker.deploy_echo("cold", "memory = \"32MiB\"");
    assert_eq!(worker.metric(OWNERS, ""), 2.0, "one each");
    let crowd = Crowd::start(&worker, "hot");
    worker.await_metric(OWNERS, "\"hot\"", |owners| owners == 2.0);
    assert_eq!(worker.metric(OWNERS, "\"cold\""), 1.0);
    // Whoever accepts the connection owns it.
    let since = Instant::now();
    loop {
        let before = worker.metric("vilya_mesh_sent_total", "");
        crowd.await_answers(100);
        if worker.metric("vilya_mesh_sent_total", "") == before {
            break;
        }
        assert!(since.elapsed() < PATIENCE, "its invocations still go to the other shard");
    }
    let answered = crowd.leave();
    worker.await_metric(OWNERS, "\"hot\"", |owners| owners == 1.0);
    assert!(worker.metric("vilya_function_moves_total", "\"hot\"") >= 2.0);
    for number in 0..8 {
        let text = format!("after {number}");
        assert_eq!(worker.client().invoke("hot", text.as_bytes()).expect(200).text(), text);
    }
    // What the shard counted that does not own it any more is not forgotten.
    let all = (answered + 8) as f64;
    worker.await_metric("faas_invocations_total", "\"hot\"", |invocations| invocations == all);
}

#[test]
fn a_function_is_replaced_and_removed_while_it_is_spread_and_nobody_is_failed() {
    let worker = Worker::start_with(&["cores.shards=2", "policies.spread=everywhere"]);
    worker.deploy_echo("hot", "memory = \"32MiB\"");
    let mut crowd = Crowd::start(&worker, "hot");
    crowd.await_answers(100);
    assert_eq!(worker.metric(OWNERS, "\"hot\""), 2.0, "from its deployment on");
    assert_eq!(worker.metric("vilya_mesh_sent_total", ""), 0.0, "whoever accepts a connection is an owner");
    worker.deploy_echo("hot", "memory = \"48MiB\"");
    crowd.await_answers(100);
    let bundles = || std::fs::read_dir(worker.state().join("bundles")).expect("the state directory").count();
    let await_bundles = |wanted: usize| {
        let since = Instant::now();
        while bundles() != wanted {
            assert!(since.elapsed() < PATIENCE, "there are {} bundles", bundles());
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    await_bundles(1);
    crowd.warn();
    worker.client().request("DELETE", "/v1/functions/hot", b"").expect(204);
    crowd.join();
    worker.client().invoke("hot", b"1").expect(404);
    await_bundles(0);
    worker.await_metric("vilya_sandboxes", "", |sandboxes| sandboxes == 0.0);
}

#[test]
fn a_function_stays_home_where_spreading_is_off() {
    let worker = Worker::start_with(&["cores.shards=2", "policies.spread=off"]);
    worker.deploy_echo("hot", "memory = \"32MiB\"");
    let crowd = Crowd::start(&worker, "hot");
    crowd.await_answers(2000);
    assert_eq!(worker.metric(OWNERS, ""), 1.0);
    crowd.leave();
    assert_eq!(worker.metric("vilya_function_moves_total", ""), 0.0);
}

/// In microseconds; a kernel that has no slices of threads, or does not show them, tells none.
fn slice_us_of(task: &std::path::Path) -> Option<u64> {
    let shown = std::fs::read_to_string(task.join("sched")).ok()?;
    shown.lines().find(|line| line.starts_with("se.slice"))?.rsplit(' ').next()?.parse::<u64>().ok().map(|ns| ns / 1000)
}

#[test]
fn shards_ask_for_short_turns() {
    let Some(usual_us) = slice_us_of("/proc/self".as_ref()) else {
        println!("not checked here: the kernel shows no slices");
        return;
    };
    let worker = Worker::start_with(&["cores.shards=1"]);
    let tasks = std::fs::read_dir(format!("/proc/{}/task", worker.pid())).expect("it lives");
    let slices = |name: &str, task: &std::path::Path| {
        let is_one = std::fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.starts_with(name));
        is_one.then(|| slice_us_of(task).expect("it is shown as well"))
    };
    let shards: Vec<u64> = tasks.flatten().filter_map(|task| slices("vilya-shard-", &task.path())).collect();
    assert_eq!(shards.len(), 1);
    assert!(shards.iter().all(|asked_us| *asked_us < usual_us && *asked_us <= 200), "{shards:?} beside {usual_us}");
}
