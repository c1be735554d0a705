//! One connection, against a server that keeps the rules and checks that the client does.

use std::thread;
use std::time::Duration;

use vilya_client::peer::{Asked, Peer, Reaction, Settings};
use vilya_client::{Answer, Connection, Error, Options, Report, Request, Start, Welcome};

fn settings(welcome: impl FnOnce(&mut Welcome)) -> Settings {
    let mut settings = Settings::default();
    welcome(&mut settings.welcome);
    settings
}

/// Echoes payloads, or does what the function's name says.
fn react(asked: &Asked<'_>) -> Reaction {
    match asked.name {
        "wait" => Reaction::AwaitCancel,
        "silence" => Reaction::Silence,
        "mebibyte" => Reaction::ok(&pattern(1 << 20)),
        "raise" => Reaction::Answer(500, Report::default(), "application/json", b"{}".to_vec()),
        "early" => Reaction::Answer(413, Report::default(), "", b"too much".to_vec()),
        "deadline" => Reaction::ok(asked.deadline_ms.to_string().as_bytes()),
        "stopping" => Reaction::Goaway(503, "stopping"),
        "broken" => Reaction::Goaway(400, "you broke it"),
        "hello" => {
            let report = Report { queue_us: 1, run_us: 2, shard: 3, start: Start::Warm, ..Report::default() };
            Reaction::Answer(200, report, "text/plain", b"hello".to_vec())
        }
        _ => Reaction::ok(asked.payload),
    }
}

fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|index| (index ^ (index >> 8)) as u8).collect()
}

fn connect(settings: Settings, options: Options) -> Connection {
    let peer = Peer::start(settings, react).expect("there is a port");
    Connection::connect(peer.address(), &options).expect("the server speaks the protocol")
}

fn exchange(connection: &mut Connection, name: &str, payload: &[u8]) -> Result<Answer, Error> {
    let mut answer = Answer::default();
    connection.exchange(&Request::new(name, payload), &mut answer).map(|()| answer)
}

#[test]
fn an_answer_has_everything_that_the_server_said() {
    let mut connection = connect(Settings::default(), Options::DEFAULT);
    assert_eq!((connection.welcome().in_flight, connection.ports().len()), (128, 1));
    let answer = exchange(&mut connection, "hello", b"").expect("it is answered");
    assert_eq!((answer.status, &answer.content_type[..], &answer.body[..]), (200, &b"text/plain"[..], &b"hello"[..]));
    assert_eq!((answer.report.run_us, answer.report.shard, answer.report.start), (2, 3, Start::Warm));
    let raised = exchange(&mut connection, "raise", b"").expect("an error of a function is an answer");
    assert_eq!((raised.status, &raised.body[..]), (500, &b"{}"[..]));
    let request = Request { deadline_ms: 1234, ..Request::new("deadline", b"") };
    let mut answer = raised;
    connection.exchange(&request, &mut answer).expect("it is answered");
    assert_eq!(answer.body, b"1234");
}

#[test]
fn payloads_of_every_size_come_back_whatever_the_windows() {
    let sizes = [0, 1, 4095, 4096, 4097, 65_536, 65_537, 1_000_000];
    for (frame_bytes, credit, window) in
        [(4096, 0, 1), (4096, 5000, 3000), (1 << 20, 1 << 16, 1 << 16), (1 << 20, u64::MAX, u64::MAX)]
    {
        let settings = settings(|welcome| {
            welcome.frame_bytes = frame_bytes;
            welcome.request_credit_bytes = credit;
        });
        let mut connection = connect(settings, Options { window_bytes: window, ..Options::DEFAULT });
        // A credit of nothing goes a byte at a time.
        let most = if window == 1 { 4097 } else { usize::MAX };
        for size in sizes.into_iter().filter(|size| *size <= most) {
            let payload = pattern(size);
            let answer = exchange(&mut connection, "echo", &payload).expect("it is answered");
            assert!(
                answer.body == payload,
                "{size} bytes in frames of {frame_bytes}, credit {credit}, window {window}"
            );
            let id = connection.send(&Request::new("echo", &payload)).expect("there is room");
            let mut answer = Answer::default();
            connection.receive(&mut answer).expect("it is answered");
            assert!(answer.id == id && answer.body == payload);
        }
    }
}

#[test]
fn two_sides_with_much_to_send_do_not_wait_for_each_other() {
    // More than two sockets buffer, and a server that reads nothing while it writes.
    const REQUESTS: usize = 120;
    let settings = settings(|welcome| welcome.request_credit_bytes = u64::MAX);
    let mut connection = connect(settings, Options { window_bytes: u64::MAX, ..Options::DEFAULT });
    let payload = pattern(256 * 1024);
    for _ in 0..REQUESTS {
        connection.send(&Request::new("echo", &payload)).expect("there is room");
    }
    let mut answer = Answer::default();
    for _ in 0..REQUESTS {
        connection.receive(&mut answer).expect("it is answered");
        assert!(answer.body == payload);
    }
    assert_eq!(connection.in_flight(), 0);
}

#[test]
fn answers_come_in_any_order_and_know_their_requests() {
    let mut connection = connect(Settings::default(), Options { window_bytes: 4096, ..Options::DEFAULT });
    let large = connection.send(&Request::new("mebibyte", b"")).expect("there is room");
    let small = connection.send(&Request::new("echo", b"small")).expect("there is room");
    let mut answer = Answer::default();
    connection.receive(&mut answer).expect("it is answered");
    assert_eq!((answer.id, &answer.body[..]), (small, &b"small"[..]));
    connection.receive(&mut answer).expect("it is answered");
    assert_eq!(answer.id, large);
    assert!(answer.body == pattern(1 << 20));
    assert!(matches!(connection.receive(&mut answer), Err(Error::Usage(_))));
}

#[test]
fn a_cancelled_request_is_not_received_and_the_others_are() {
    let mut connection = connect(Settings::default(), Options { window_bytes: 4096, ..Options::DEFAULT });
    let mut answer = Answer::default();
    for round in 0..50 {
        // Before its answer, within it, after it.
        let waits = connection.send(&Request::new("wait", b"")).expect("there is room");
        let large = connection.send(&Request::new("mebibyte", b"")).expect("there is room");
        let small = connection.send(&Request::new("echo", b"x")).expect("there is room");
        connection.receive(&mut answer).expect("it is answered");
        assert_eq!(answer.id, small);
        connection.cancel(waits);
        connection.cancel(large);
        connection.cancel(small);
        let last = connection.send(&Request::new("echo", &[round as u8])).expect("there is room");
        connection.receive(&mut answer).expect("it is answered");
        assert_eq!((answer.id, &answer.body[..]), (last, &[round as u8][..]));
        assert_eq!(connection.in_flight(), 0);
    }
}

#[test]
fn a_request_without_an_answer_in_time_is_cancelled_and_the_connection_goes_on() {
    let options = Options { timeout: Duration::from_millis(50), ..Options::DEFAULT };
    let mut connection = connect(Settings::default(), options);
    assert!(matches!(exchange(&mut connection, "wait", b""), Err(Error::TimedOut)));
    assert_eq!(connection.in_flight(), 0);
    // However slow the machine, one of many comes in time.
    let answered = (0..100).find_map(|_| exchange(&mut connection, "echo", b"on").ok());
    assert_eq!(answered.expect("the connection goes on").body, b"on");
}

#[test]
fn an_answer_before_the_payload_is_whole_ends_the_sending() {
    let settings = Settings { early: vec!["early".to_owned()], ..Settings::default() };
    let mut connection = connect(settings, Options::DEFAULT);
    let payload = pattern(4 << 20);
    for _ in 0..10 {
        let answer = exchange(&mut connection, "early", &payload).expect("it is answered");
        assert_eq!((answer.status, &answer.body[..]), (413, &b"too much"[..]));
        connection.send(&Request::new("early", &payload)).expect("there is room");
        let mut answer = Answer::default();
        connection.receive(&mut answer).expect("it is answered");
        assert_eq!(answer.status, 413);
    }
    assert_eq!(exchange(&mut connection, "echo", b"on").expect("the ids are free").body, b"on");
}

#[test]
fn an_answer_over_the_limit_is_an_error_and_costs_no_memory() {
    let options = Options { answer_bytes: 1000, window_bytes: 4096, ..Options::DEFAULT };
    let mut connection = connect(Settings::default(), options);
    let error = exchange(&mut connection, "mebibyte", b"").expect_err("it is over the limit");
    assert!(matches!(error, Error::AnswerTooLarge { bytes: 1_048_576 }), "{error}");
    assert_eq!(exchange(&mut connection, "echo", b"on").expect("the connection goes on").body, b"on");
}

#[test]
fn what_the_server_does_not_take_is_not_sent() {
    let settings = settings(|welcome| {
        welcome.payload_bytes = 10;
        welcome.in_flight = 2;
    });
    let mut connection = connect(settings, Options::DEFAULT);
    let too_large = connection.send(&Request::new("echo", &[0; 11]));
    assert!(matches!(too_large, Err(Error::PayloadTooLarge { most_bytes: 10 })));
    for request in [Request::new("Echo", b""), Request { content_type: b"a\nb", ..Request::new("echo", b"") }] {
        assert!(matches!(connection.send(&request), Err(Error::Request(_))));
    }
    let long = [b'a'; 256];
    let request = Request { content_type: &long, ..Request::new("echo", b"") };
    assert!(matches!(connection.send(&request), Err(Error::Request(_))));
    assert_eq!(connection.in_flight(), 0);
    for _ in 0..2 {
        connection.send(&Request::new("wait", b"")).expect("there is room");
    }
    assert!(matches!(connection.send(&Request::new("echo", b"")), Err(Error::Busy)));
    assert!(!connection.is_ready());
}

#[test]
fn goaway_is_told_with_its_reason() {
    let mut connection = connect(Settings::default(), Options::DEFAULT);
    let answer = exchange(&mut connection, "stopping", b"").expect("what was in flight is answered");
    assert_eq!(answer.status, 503);
    assert!(!connection.is_ready());
    let error = exchange(&mut connection, "echo", b"").expect_err("the worker is stopping");
    assert!(matches!(error, Error::Goaway { status: 503, .. }), "{error}");

    let mut connection = connect(Settings::default(), Options::DEFAULT);
    let error = exchange(&mut connection, "broken", b"").expect_err("the server says so");
    assert_eq!(error.to_string(), "the server ended the connection: 400 you broke it");
}

#[test]
fn a_server_that_hangs_up_is_an_error_for_everything_in_flight() {
    let react = |asked: &Asked<'_>| match asked.name {
        "bye" => Reaction::Raw(Vec::new()),
        _ => Reaction::AwaitCancel,
    };
    let peer = Peer::start(Settings::default(), react).expect("there is a port");
    let mut connection = Connection::connect(peer.address(), &Options::DEFAULT).expect("the server is there");
    for name in ["wait", "bye"] {
        connection.send(&Request::new(name, b"")).expect("there is room");
    }
    let mut answer = Answer::default();
    assert!(matches!(connection.receive(&mut answer), Err(Error::Closed)));
    assert!(matches!(connection.receive(&mut answer), Err(Error::Closed)));
    assert!(matches!(connection.send(&Request::new("wait", b"")), Err(Error::Closed)));
}

#[test]
fn a_connection_is_one_threads_and_may_move() {
    let mut connection = connect(Settings::default(), Options::DEFAULT);
    let moved = thread::spawn(move || exchange(&mut connection, "hello", b"").map(|answer| answer.status));
    assert_eq!(moved.join().expect("it does not panic").expect("it is answered"), 200);
}
