//! An invocation over the binary protocol, told in the words of HTTP, so that whoever shows an answer need not know which it
//! was.

use std::fmt::Write as _;
use std::io::ErrorKind;
use std::time::Duration;

use vilya_client::{Client, Error, Options, Report, Request, Start};

use crate::client::Answer;
use crate::failure::{Failure, Fault};

/// As long as HTTP waits for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs a function once. A function that failed is an [`Answer`] too.
pub(crate) fn invoke(address: &str, name: &str, payload: &[u8], content_type: &str) -> Result<Answer, Failure> {
    // No time limit: the worker ends what takes longer than the function's own.
    let options = Options { timeout: Duration::MAX, connect_timeout: CONNECT_TIMEOUT, ..Options::DEFAULT };
    let builder = Client::builder().options(options).direct(false);
    let mut client = builder.connect(address).map_err(|error| failure(address, error))?;
    let request = Request { content_type: content_type.as_bytes(), ..Request::new(name, payload) };
    let mut answer = vilya_client::Answer::default();
    client.invoke_with(&request, &mut answer).map_err(|error| failure(address, error))?;
    let content_type = String::from_utf8_lossy(&answer.content_type).into_owned();
    let headers = [("content-type", content_type)].into_iter().filter(|(_, value)| !value.is_empty());
    let headers = headers.chain(headers_of(&answer.report)).map(|(name, value)| (name.to_owned(), value));
    Ok(Answer { status: answer.status, headers: headers.collect(), body: answer.body })
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
    use vilya_client::peer::{Peer, Reaction, Settings};

    use super::*;

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
        let answer = invoke(&address, "f", b"body", "application/json").unwrap();
        assert_eq!((answer.status, answer.body.as_slice()), (200, &b"application/json body"[..]));
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
            _ => Reaction::Raw(Vec::new()),
        });
        let address = peer.unwrap().address().to_string();
        assert_eq!(invoke(&address, "raise", b"", "text/plain").unwrap().status, 500);
        let code = |address: &str, name| invoke(address, name, b"", "text/plain").err().map(|error| error.fault());
        assert_eq!(code(&address, "gone"), Some(Fault::Unreachable));
        assert_eq!(code(&address, "Not-A-Name"), Some(Fault::Usage));
        assert_eq!(code("127.0.0.1", "f"), Some(Fault::Usage));
        assert_eq!(code("127.0.0.1:1", "f"), Some(Fault::Unreachable));
    }
}
