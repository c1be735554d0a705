//! Whole runs over the binary protocol.

use vilya_client::peer::{Asked, Ending, Peer, Reaction, Settings};
use vilya_client::{Report, Start};

use super::*;

/// Runs as typed, against `peer`; the summary and the rows.
fn run_binary(peer: &Peer, words: &str) -> (Summary, Vec<Vec<String>>) {
    let file = tempfile::NamedTempFile::new().unwrap();
    let plan = typed(&format!("{words} --protocol binary --wire-address {}", peer.address()));
    let routes = knock(&plan).unwrap();
    let outcome = measure(&plan, &routes, Some(file.path()), &AtomicBool::new(false)).unwrap();
    let text = std::fs::read_to_string(file.path()).unwrap();
    let rows = text.lines().skip(1).map(|row| row.split(',').map(str::to_owned).collect()).collect();
    (outcome.summary, rows)
}

fn typed(words: &str) -> Plan {
    let line = Line::try_parse_from(["load"].into_iter().chain(words.split_whitespace())).unwrap();
    Plan::new("http://127.0.0.1:7878", &line.load, 2, 1).unwrap()
}

fn warm(asked: &Asked<'_>) -> Reaction {
    let report =
        Report { queue_us: 2, start_us: 0, run_us: 10, shard: asked.shard, start: Start::Warm, ..Report::default() };
    Reaction::Answer(200, report, "application/octet-stream", asked.payload.to_vec())
}

fn start(shards: u16, map: &[(&str, &[u16])], react: fn(&Asked<'_>) -> Reaction) -> Peer {
    let map = map.iter().map(|(name, owners)| ((*name).to_owned(), owners.to_vec())).collect();
    Peer::start(Settings { shards, map, ..Settings::default() }, react).unwrap()
}

#[test]
fn every_request_is_counted_whatever_the_depth_of_the_pipeline() {
    for (pipeline, clients) in [(1, 1), (7, 3), (64, 2)] {
        let peer = start(1, &[], warm);
        let words =
            format!("f -d {{}} --clients {clients} --threads 2 --pipeline {pipeline} --count 2000 --warm-up 0s");
        let (summary, rows) = run_binary(&peer, &words);
        let step = &summary.steps[0];
        assert_eq!((step.requests, step.succeeded, rows.len(), peer.requests()), (2000, 2000, 2000, 2000));
        // A thread that gets no core in time finds nothing left to send.
        assert!((1..=clients).contains(&step.connections.opened) && step.connections.reopened == 0);
        assert_eq!((summary.protocol, summary.pipeline), ("binary", pipeline));
        // Header, name, type and payload; header, report, type and payload.
        let (sent_bytes, received_bytes) = (32 + 1 + 16 + 2, 32 + 32 + 24 + 2);
        assert_eq!((step.sent_bytes, step.received_bytes), (2000 * sent_bytes, 2000 * received_bytes));
        let cells = |row: &Vec<String>| row[3..8] == ["f", "200", "warm", "2", "10"] && row[10] == "0";
        assert!(rows.iter().all(cells), "{:?}", rows[0]);
        assert_eq!((step.run.unwrap().count, step.warm.unwrap().count), (2000, 2000));
    }
}

#[test]
fn answers_in_parts_are_one_answer_each_and_those_that_are_cut_are_failures() {
    let peer = start(1, &[], |asked| {
        let parts = vec![b"one".to_vec(), b"two".to_vec(), vec![b'x'; 100_000]];
        let ending = if asked.name == "cut" { Ending::Cut(502, "{}") } else { Ending::Whole };
        Reaction::Parts(Report::default(), "", parts, ending)
    });
    for (name, succeeded, status, last_bytes) in [("whole", 100, "200", 0), ("cut", 0, "502", 32 + 2)] {
        let (summary, rows) = run_binary(&peer, &format!("{name} --pipeline 4 --count 100 --warm-up 0s"));
        let step = &summary.steps[0];
        assert_eq!((step.requests, step.succeeded, rows.len()), (100, succeeded, 100));
        assert!(rows.iter().all(|row| row[4] == status), "{:?}", rows[0]);
        // A head with a report and the first part, and two frames of data.
        assert_eq!(step.received_bytes, 100 * (32 + 32 + 3 + 32 + 3 + 32 + 100_000 + last_bytes));
    }
}

#[test]
fn each_request_goes_to_an_owner() {
    let peer = start(4, &[("one", &[2]), ("both", &[1, 3])], warm);
    let (summary, rows) = run_binary(&peer, "one both --clients 2 --pipeline 4 --count 1000 --warm-up 0s --seed 4");
    assert_eq!(summary.steps[0].succeeded, 1000);
    let shards = |name: &str| {
        let mut shards: Vec<&str> = rows.iter().filter(|row| row[3] == name).map(|row| row[10].as_str()).collect();
        shards.sort_unstable();
        shards.dedup();
        shards
    };
    assert_eq!((shards("one"), shards("both")), (vec!["2"], vec!["1", "3"]));
    // Two clients and three shards; the one that asked for the map came before.
    assert_eq!((summary.steps[0].connections.opened, peer.connections()), (6, 7));
}

#[test]
fn a_shard_without_a_port_is_reached_by_the_common_one() {
    let settings =
        Settings { shards: 2, map: vec![("f".to_owned(), vec![1])], portless: vec![1], ..Settings::default() };
    let (summary, rows) = run_binary(&Peer::start(settings, warm).unwrap(), "f --count 10 --warm-up 0s");
    assert_eq!(summary.steps[0].succeeded, 10);
    assert!(rows.iter().all(|row| row[10] == "0"));
}

#[test]
fn an_open_loop_sends_its_schedule() {
    let peer = start(2, &[], warm);
    let words = "f --rate-steps 400,800 --arrivals constant --pipeline 4 --clients 2 --duration 250ms --warm-up 50ms";
    let (summary, _) = run_binary(&peer, words);
    let requests: Vec<u64> = summary.steps.iter().map(|step| step.requests).collect();
    assert_eq!(requests, [100, 200]);
    assert!(summary.steps.iter().all(|step| step.failed == 0 && step.warm_up.requests > 0));
}

#[test]
fn large_payloads_go_and_come_in_parts() {
    let peer = start(1, &[], warm);
    let (summary, rows) = run_binary(&peer, "f --payload 3MiB --clients 2 --pipeline 3 --count 20 --warm-up 0s");
    let step = &summary.steps[0];
    assert_eq!((step.requests, step.succeeded), (20, 20));
    // The peer sends 512 bytes less than a window of 1 MiB with the head, then what credit there is: the rest of the window,
    // each of the two grants that bring it back, the end. It takes the request in grants of 64 KiB.
    let received_bytes = 32 + 32 + 24 + (3 << 20) + 4 * 32;
    let sent_bytes = 32 + 1 + 25 + (3 << 20) + 47 * 32;
    assert_eq!((step.received_bytes, step.sent_bytes), (20 * received_bytes, 20 * sent_bytes));
    let cells = [received_bytes, sent_bytes].map(|bytes| bytes.to_string());
    assert!(rows.iter().all(|row| row[8..10] == cells), "{:?}", rows[0]);
}

#[test]
fn sizes_of_payloads_come_by_weight_and_rows_tell_them_apart() {
    let peer = start(1, &[], warm);
    let words = "f --payload 100,3KiB=3 --rate 4000 --clients 3 --pipeline 4 --count 400 --warm-up 0s --seed 6";
    let (summary, rows) = run_binary(&peer, words);
    let step = &summary.steps[0];
    assert_eq!((step.requests, step.succeeded), (400, 400));
    let [small, large] = [0, 1].map(|payload| step.payloads[payload].part.requests);
    // Header, name and type; header, report and type.
    let cells =
        |payload_bytes: usize| [32 + 32 + 24 + payload_bytes, 32 + 1 + 25 + payload_bytes].map(|n| n.to_string());
    let of = |payload_bytes| rows.iter().filter(|row| row[8..10] == cells(payload_bytes)).count() as u64;
    assert_eq!((of(100), of(3 << 10)), (small, large));
    assert!((250..350).contains(&large), "{large}");
    let (again, _) = run_binary(&peer, &format!("{words} --threads 2"));
    assert_eq!(again.steps[0].payloads[1].part.requests, large);
}

#[test]
fn errors_are_counted_by_status_and_type_and_by_what_broke() {
    let peer = start(1, &[], |asked| {
        let raised = br#"{"errorType":"ValueError","errorMessage":"no"}"#;
        match asked.index % 4 {
            0 => Reaction::Answer(500, Report::default(), "application/json", raised.to_vec()),
            1 => Reaction::Raw(Vec::new()),
            2 => Reaction::Raw(b"who are you?\r\nwho are you?\r\nwho are you?\r\n".to_vec()),
            _ => warm(asked),
        }
    });
    let (summary, rows) = run_binary(&peer, "f --count 40 --warm-up 0s");
    let step = &summary.steps[0];
    let raised =
        ErrorSummary { status: Some(500), error_type: Some("ValueError".to_owned()), broke: None, requests: 10 };
    assert!(step.errors.contains(&raised), "{:?}", step.errors);
    assert_eq!((broke(step, "closed"), broke(step, "malformed")), (10, 10));
    assert_eq!((step.succeeded, rows.len()), (10, 40));
    // Each broken one costs its connection.
    assert_eq!((step.connections.opened, step.connections.reopened), (21, 20));
}

#[test]
fn what_is_not_answered_is_a_timeout_and_the_connection_goes_on() {
    let peer = start(1, &[], |asked| if asked.index % 2 == 0 { Reaction::AwaitCancel } else { warm(asked) });
    let (summary, _) = run_binary(&peer, "f --count 10 --warm-up 0s --timeout 200ms");
    let step = &summary.steps[0];
    assert_eq!((step.requests, broke(step, "timeout"), step.connections.opened), (10, 5, 1));
}

#[test]
fn a_worker_that_leaves_answers_what_it_has_and_the_rest_goes_to_the_next() {
    let peer = start(1, &[], |asked| if asked.index == 30 { Reaction::Goaway(503, "stopping") } else { warm(asked) });
    let (summary, _) = run_binary(&peer, "f --pipeline 8 --count 200 --warm-up 0s");
    let step = &summary.steps[0];
    assert_eq!((step.requests, step.failed, step.connections.opened), (200, 1, 2));
    assert_eq!(step.errors[0].status, Some(503));
}

#[test]
fn nobody_there_and_a_stranger_are_told() {
    let of = |address: SocketAddr| knock(&typed(&format!("f --protocol binary --wire-address {address}"))).unwrap_err();
    // A port that is bound and not listened at.
    let held = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(held.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).unwrap();
    let nobody = SocketAddr::from(([127, 0, 0, 1], getsockname::<SockaddrIn>(held.as_raw_fd()).unwrap().port()));
    assert_eq!(of(nobody).fault(), Fault::Unreachable);
    assert!(of(nobody).to_string().contains("--wire-address"));

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let stranger = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(ok().as_bytes()).unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let failure = of(stranger);
    assert_eq!(failure.fault(), Fault::Unreachable);
    assert!(failure.to_string().contains("does not speak the binary protocol"), "{failure}");
}
