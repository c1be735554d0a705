//! Answers in parts, from a server that keeps the rules and checks that the client does: taken as they come, and put together.

use vilya_client::peer::{Asked, Ending, Peer, Reaction, Settings};
use vilya_client::{Answer, Client, Connection, Error, Options, Report, Request, Start};

const REPORT: Report =
    Report { request_id: [7; 16], queue_us: 1, start_us: 0, run_us: 2, shard: 3, start: Start::Warm };
const ERROR: &str = "{\"errorType\":\"ValueError\"}";

/// How an answer ends follows from the function's name; its parts are the words of the payload.
fn react(asked: &Asked<'_>) -> Reaction {
    let words = || asked.payload.split(|&byte| byte == b' ').map(<[u8]>::to_vec).collect();
    let parts = |ending| Reaction::Parts(REPORT, "text/csv", words(), ending);
    match asked.name {
        "whole" => parts(Ending::Whole),
        "cut" => parts(Ending::Cut(500, ERROR)),
        "cut-without-a-word" => parts(Ending::Cut(502, "")),
        "endless" => parts(Ending::AwaitCancel),
        "gone" => parts(Ending::Gone),
        "large" => Reaction::Parts(REPORT, "", vec![pattern(100_000); 50], Ending::Whole),
        "raise" => Reaction::Answer(500, REPORT, "application/json", ERROR.into()),
        _ => Reaction::ok(asked.payload),
    }
}

fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|index| (index ^ (index >> 8)) as u8).collect()
}

fn connect(options: Options) -> Connection {
    let peer = Peer::start(Settings::default(), react).expect("there is a port");
    Connection::connect(peer.address(), &options).expect("the server speaks the protocol")
}

/// All of an answer, piece by piece.
fn all(connection: &mut Connection, name: &str, payload: &[u8]) -> Result<Vec<u8>, (Vec<u8>, Error)> {
    let mut parts = connection.parts(&Request::new(name, payload)).map_err(|error| (Vec::new(), error))?;
    let mut body = Vec::new();
    loop {
        match parts.next() {
            Ok(Some(piece)) => body.extend_from_slice(piece),
            Ok(None) => return Ok(body),
            Err(error) => return Err((body, error)),
        }
    }
}

const WORDS: [&[u8]; 7] = [b"", b"a", b"one two", b"one two ", b" one", b"one  two", b" "];

fn joined(words: &[u8]) -> Vec<u8> {
    words.iter().copied().filter(|&byte| byte != b' ').collect()
}

#[test]
fn an_answer_is_the_same_in_parts_and_put_together_whatever_the_window() {
    for (window_bytes, takes_parts) in [(1, true), (2, true), (3, true), (1 << 20, true), (2, false), (1 << 20, false)]
    {
        let mut connection = connect(Options { window_bytes, takes_parts, ..Options::DEFAULT });
        for words in WORDS {
            let mut answer = Answer::default();
            connection.exchange(&Request::new("whole", words), &mut answer).expect("it is answered");
            assert_eq!((answer.status, &answer.body), (200, &joined(words)), "{window_bytes} {takes_parts} {words:?}");
            assert_eq!((&answer.content_type[..], answer.report), (&b"text/csv"[..], REPORT));
            assert_eq!(all(&mut connection, "whole", words).expect("it is whole"), joined(words));
        }
        assert_eq!(all(&mut connection, "echo", b"not in parts").expect("it is whole"), b"not in parts");
        assert_eq!(connection.in_flight(), 0);
    }
}

#[test]
fn what_is_cut_is_an_error_after_all_that_came_and_never_an_end() {
    let mut connection = connect(Options::DEFAULT);
    for words in WORDS {
        for (name, status, error) in [("cut", 500, ERROR), ("cut-without-a-word", 502, "")] {
            let (body, cut) = all(&mut connection, name, words).expect_err("it is cut");
            assert_eq!(body, joined(words));
            assert!(
                matches!(&cut, Error::Cut { status: of, body } if *of == status && body == error.as_bytes()),
                "{cut}"
            );
            // Put together, it is the error that it would have been whole.
            let mut answer = Answer::default();
            connection.exchange(&Request::new(name, words), &mut answer).expect("it is answered");
            assert_eq!((answer.status, &answer.body[..]), (status, error.as_bytes()));
            assert_eq!((&answer.content_type[..], answer.report), (&b"application/json"[..], REPORT));
        }
    }
    let mut parts = connection.parts(&Request::new("raise", b"")).expect("it is answered");
    assert_eq!((parts.status(), parts.next().expect("whole")), (500, Some(ERROR.as_bytes())));
    assert_eq!(parts.next().expect("it is whole"), None);
    drop(parts);
    assert_eq!(connection.in_flight(), 0);
    let (body, error) = all(&mut connection, "gone", b"one two").expect_err("the connection ended");
    assert!(body == b"onetwo" && matches!(error, Error::Closed), "{error}");
}

#[test]
fn several_answers_are_taken_in_parts_at_once_each_at_its_own_pace() {
    let mut connection = connect(Options { window_bytes: 4, ..Options::DEFAULT });
    let slow = connection.send_for_parts(&Request::new("whole", b"abc def ghi jkl mno")).expect("there is room");
    let quick = connection.send_for_parts(&Request::new("large", b"")).expect("there is room");
    let whole = connection.send(&Request::new("whole", b"to gether")).expect("there is room");
    assert_eq!(connection.in_flight(), 3);
    let mut answer = Answer::default();
    connection.receive(&mut answer).expect("it is answered");
    assert_eq!((answer.id, &answer.body[..]), (whole, &b"together"[..]));
    // Of one that nobody takes no more than the window comes, however much comes of the other.
    let mut taken = 0;
    while taken < 100_000 {
        assert!(connection.receive_part(quick, &mut answer).expect("it goes on"));
        assert!(answer.body.len() <= 4 && (answer.id, answer.status) == (quick, 200));
        taken += answer.body.len();
    }
    connection.cancel(quick);
    let mut got = Vec::new();
    while connection.receive_part(slow, &mut answer).expect("it goes on") {
        assert!(answer.body.len() <= 4, "{:?}", answer.body);
        got.append(&mut answer.body);
    }
    got.append(&mut answer.body);
    assert_eq!((&got[..], &answer.content_type[..]), (&b"abcdefghijklmno"[..], &b"text/csv"[..]));
    for over in [quick, slow, whole, 0, u64::MAX] {
        assert!(matches!(connection.receive_part(over, &mut answer), Err(Error::Usage(_))));
    }
    assert_eq!(connection.in_flight(), 0);
}

#[test]
fn parts_that_are_dropped_are_cancelled_and_the_connection_goes_on() {
    let mut connection = connect(Options { window_bytes: 1000, in_flight: 1, ..Options::DEFAULT });
    for name in ["endless", "large", "endless"] {
        let mut parts = connection.parts(&Request::new(name, b"one two")).expect("it begins");
        parts.next().expect("it goes on").expect("more comes");
        drop(parts);
        // The only place is free when the server has said that it is over.
        let mut answer = Answer::default();
        while let Err(error) = connection.exchange(&Request::new("echo", b"on"), &mut answer) {
            assert!(matches!(error, Error::Busy), "{error}");
            connection.settle().expect("it goes on");
        }
        assert_eq!(answer.body, b"on");
    }
}

#[test]
fn parts_that_come_to_more_than_an_answer_may_have_are_for_those_who_take_them_one_by_one() {
    let mut connection = connect(Options { answer_bytes: 1_000_000, ..Options::DEFAULT });
    let mut answer = Answer::default();
    let error = connection.exchange(&Request::new("large", b""), &mut answer).expect_err("it is over the limit");
    assert!(matches!(error, Error::AnswerTooLarge { bytes: 1_000_001.. }), "{error}");
    assert_eq!(all(&mut connection, "large", b"").expect("it is whole"), pattern(100_000).repeat(50));
}

#[test]
fn a_part_that_does_not_come_in_time_cancels_the_rest() {
    let options = Options { timeout: std::time::Duration::from_millis(50), ..Options::DEFAULT };
    let mut connection = connect(options);
    let outcome = connection.parts(&Request::new("endless", b"one two")).map(|mut parts| {
        loop {
            if let Err(error) = parts.next() {
                return error;
            }
        }
    });
    assert!(matches!(outcome, Ok(Error::TimedOut) | Err(Error::TimedOut)));
    assert_eq!(connection.in_flight(), 0);
}

#[test]
fn a_client_takes_parts_from_a_shard_that_owns_the_function() {
    let settings = Settings { shards: 4, map: vec![("whole".to_owned(), vec![2])], ..Settings::default() };
    let peer = Peer::start(settings, |asked| {
        Reaction::Parts(Report::default(), "", vec![vec![asked.shard as u8], b"x".to_vec()], Ending::Whole)
    });
    let mut client = Client::connect(peer.expect("there are ports").address()).expect("the server is there");
    let mut parts = client.invoke_for_parts(&Request::new("whole", b"")).expect("it begins");
    let mut body = Vec::new();
    while let Some(piece) = parts.next().expect("it goes on") {
        body.extend_from_slice(piece);
    }
    assert_eq!(body, [2, b'x']);
}

/// An answer that nobody has received yet is kept, though its id is free for the server.
#[test]
fn answers_wait_to_be_received_while_others_are_asked_for() {
    let mut connection = connect(Options::DEFAULT);
    let mut expected = Vec::new();
    for round in 0..5_u8 {
        for number in 0..3 {
            let text = [round, number];
            expected.push((connection.send(&Request::new("echo", &text)).expect("there is room"), text));
        }
        let mut last = Answer::default();
        connection.exchange(&Request::new("echo", b"after those"), &mut last).expect("it is answered");
        assert_eq!(last.body, b"after those");
    }
    for (id, text) in expected {
        let mut answer = Answer::default();
        connection.receive(&mut answer).expect("it is answered");
        assert_eq!((answer.id, &answer.body[..]), (id, &text[..]));
    }
}
