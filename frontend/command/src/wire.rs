//! An invocation over the binary protocol, told in the words of HTTP, so that whoever shows an answer need not know which it
//! was.

use std::fmt::Write as _;
use std::io::ErrorKind;
use std::time::Duration;

use vilya_client::{Client, Error, Options, Report, Request, Start};

use crate::client::{Answer, Take};
use crate::failure::{Failure, Fault};

/// As long as HTTP waits for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs a function once; what it returns goes to `take` as it comes. A function that failed is an [`Answer`] too, also in the
/// middle of an answer in parts.
pub(crate) fn invoke(
    address: &str,
    name: &str,
    payload: &[u8],
    content_type: &str,
    take: &mut Take<'_>,
) -> Result<Answer, Failure> {
    // No time limit: the worker ends what takes longer than the function's own.
    let options = Options { timeout: Duration::MAX, connect_timeout: CONNECT_TIMEOUT, ..Options::DEFAULT };
    let builder = Client::builder().options(options).direct(false);
    let mut client = builder.connect(address).map_err(|error| failure(address, error))?;
    let request = Request { content_type: content_type.as_bytes(), ..Request::new(name, payload) };
    let mut parts = match client.invoke_for_parts(&request) {
        Ok(parts) => parts,
        // Its head was there and nothing else.
        Err(Error::Cut { status, body }) => return Ok(Answer { status, headers: Vec::new(), taken_bytes: 0, body }),
        Err(error) => return Err(failure(address, error)),
    };
    let content_type = String::from_utf8_lossy(parts.content_type()).into_owned();
    let headers = [("content-type", content_type)].into_iter().filter(|(_, value)| !value.is_empty());
    let headers = headers.chain(headers_of(parts.report())).map(|(name, value)| (name.to_owned(), value));
    let headers = headers.collect();
    let (status, mut taken_bytes, mut error) = (parts.status(), 0, Vec::new());
    loop {
        match parts.next() {
            Ok(Some(piece)) if (200..300).contains(&status) => {
                take(piece)?;
                taken_bytes += piece.len() as u64;
            }
            Ok(Some(piece)) => error.extend_from_slice(piece),
            Ok(None) => return Ok(Answer { status, headers, taken_bytes, body: error }),
            Err(Error::Cut { status, body }) => return Ok(Answer { status, headers, taken_bytes, body }),
            Err(error) => return Err(failure(address, error)),
        }
    }
}

/// The headers in which HTTP says the same.
fn headers_of(report: &Report) -> Vec<(&'static str, String)> {
    let mut request_id = String::new();
    for byte in report.request_id {
        write!(request_id, "{byte:02x}").expect("a String takes what is written to it");
    }
    let start = match report.start {
        Start::None => return vec![("x-request-id", request_id)],
        Start::Cold => "cold",
        Start::Warm => "warm",
    };
    let ms = |us: u32| f64::from(us) / 1e3;
    let timing = format!(
        "queue;dur={:.3}, start;dur={:.3}, run;dur={:.3}",
        ms(report.queue_us),
        ms(report.start_us),
        ms(report.run_us)
    );
    vec![
        ("x-request-id", request_id),
        ("x-vilya-start", start.to_owned()),
        ("x-vilya-shard", report.shard.to_string()),
        ("server-timing", timing),
    ]
}

fn failure(address: &str, error: Error) -> Failure {
    match error {
        Error::Request(_) | Error::Usage(_) => Failure::usage(error),
        Error::PayloadTooLarge { .. } | Error::AnswerTooLarge { .. } => Failure::new(Fault::Refused, error),
        Error::Goaway { status: 503, text } => {
            Failure::new(Fault::Refused, format_args!("the worker refused (503): {text}"))
        }
        Error::Io(error) if error.kind() == ErrorKind::InvalidInput => {
            Failure::usage(format_args!("--wire-address {address}: write HOST:PORT"))
        }
        Error::Io(error) => {
            let start = "start one with `vilya serve`, or name another with --wire-address";
            Failure::new(Fault::Unreachable, format_args!("no worker answers at {address} ({error}): {start}"))
        }
        other => Failure::new(
            Fault::Unreachable,
            format_args!("the connection to {address} broke ({other}): see what the worker wrote, then try again"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use vilya_client::peer::{Ending, Peer, Reaction, Settings};

    use super::*;

    const ERROR: &str = "{\"errorType\":\"SandboxDied\"}";

    fn parts(parts: Vec<Vec<u8>>, ending: Ending) -> Reaction {
        Reaction::Parts(Report::default(), "", parts, ending)
    }

    /// The answer, and what was taken of it.
    fn taken(address: &str, name: &str, payload: &[u8]) -> (Result<Answer, Failure>, Vec<u8>) {
        let mut taken = Vec::new();
        let answer = invoke(address, name, payload, "application/json", &mut |piece| {
            taken.extend_from_slice(piece);
            Ok(())
        });
        (answer, taken)
    }

    #[test]
    fn an_answer_says_what_it_would_over_http() {
        let peer = Peer::start(Settings::default(), |asked| {
            let report = Report {
                request_id: [0xab; 16],
                queue_us: 1,
                run_us: 2500,
                shard: 3,
                start: Start::Warm,
                ..Report::default()
            };
            let echo = [asked.content_type, b" ", asked.payload].concat();
            Reaction::Answer(200, report, "text/plain", echo)
        });
        let address = peer.unwrap().address().to_string();
        let (answer, body) = taken(&address, "f", b"body");
        let answer = answer.unwrap();
        assert_eq!((answer.status, answer.taken_bytes, &body[..]), (200, 21, &b"application/json body"[..]));
        let expected = [
            ("content-type", "text/plain"),
            ("x-request-id", "abababababababababababababababab"),
            ("x-vilya-start", "warm"),
            ("x-vilya-shard", "3"),
            ("server-timing", "queue;dur=0.001, start;dur=0.000, run;dur=2.500"),
        ];
        for (name, value) in expected {
            assert_eq!(answer.header(name), Some(value), "{name}");
        }
    }

    #[test]
    fn failures_have_their_exit_codes() {
        let peer = Peer::start(Settings::default(), |asked| match asked.name {
            "raise" => Reaction::Answer(500, Report::default(), "application/json", b"{}".to_vec()),
            "cut" => parts(vec![b"begun".to_vec()], Ending::Cut(502, ERROR)),
            "cut-at-once" => parts(Vec::new(), Ending::Cut(502, ERROR)),
            "breaks" => parts(vec![b"begun".to_vec()], Ending::Gone),
            _ => Reaction::Raw(Vec::new()),
        });
        let address = peer.unwrap().address().to_string();
        let answered = |name| taken(&address, name, b"").0.unwrap();
        assert_eq!((answered("raise").status, answered("raise").body), (500, b"{}".to_vec()));
        // What is cut is what failed, and how much came before.
        for (name, taken_bytes) in [("cut", 5), ("cut-at-once", 0)] {
            let answer = answered(name);
            assert_eq!((answer.status, &answer.body[..], answer.taken_bytes), (502, ERROR.as_bytes(), taken_bytes));
        }
        let code = |address: &str, name| taken(address, name, b"").0.err().map(|error| error.fault());
        assert_eq!(code(&address, "breaks"), Some(Fault::Unreachable));
        assert_eq!(code(&address, "gone"), Some(Fault::Unreachable));
        assert_eq!(code(&address, "Not-A-Name"), Some(Fault::Usage));
        assert_eq!(code("127.0.0.1", "f"), Some(Fault::Usage));
        assert_eq!(code("127.0.0.1:1", "f"), Some(Fault::Unreachable));
    }
}
