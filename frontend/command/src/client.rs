//! A worker, seen from outside: its HTTP API as calls. It turns what the worker answers into values or a [`Failure`], and
//! prints nothing. Names have been checked before they come here, so they stand in a path as they are.
//!
//! The demo's measurements do not go through here: they need a connection whose own cost is small and known
//! (`demo::connection`).

use std::io::Read;
use std::time::Duration;

use serde::Deserialize;
use ureq::http::Response;
use ureq::{Agent, Body};

use vilya_protocol::error::ErrorKind;

use crate::failure::{Failure, Fault};

/// A worker on this machine answers a connection at once; a remote one gets this long.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest that anything but an invocation may take.
const ADMINISTRATION_TIMEOUT: Duration = Duration::from_secs(120);
/// The most that is read of one answer into memory.
const ANSWER_LIMIT_BYTES: u64 = 1 << 30;

/// A function as the worker describes it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct FunctionRecord {
    pub(crate) name: String,
    pub(crate) version: u64,
    pub(crate) runtime: String,
    pub(crate) handler: String,
    pub(crate) memory_bytes: u64,
    pub(crate) timeout_ms: u64,
    pub(crate) concurrency: u64,
    pub(crate) bundle_bytes: u64,
    pub(crate) deployed_unix_ms: u64,
    pub(crate) digest: String,
    /// The image that its manifest names, and what it stood for if it is one of a registry.
    #[serde(default)]
    pub(crate) image: Option<String>,
    #[serde(default)]
    pub(crate) pinned: Option<String>,
}

/// A sandbox as the worker describes it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct SandboxRow {
    pub(crate) function: String,
    pub(crate) version: u64,
    pub(crate) shard: u64,
    pub(crate) sandbox: String,
    pub(crate) pid: Option<i64>,
    pub(crate) state: String,
    pub(crate) age_ms: u64,
    pub(crate) idle_ms: Option<u64>,
    pub(crate) memory_bytes: Option<u64>,
    pub(crate) invocations: u64,
    pub(crate) start: Option<String>,
    pub(crate) start_us: Option<u64>,
    #[serde(default)]
    pub(crate) image: Option<String>,
}

/// What was made ahead and waits, as the worker describes it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct AheadRow {
    pub(crate) state: String,
    pub(crate) form: String,
    pub(crate) layer: String,
    pub(crate) of: Option<String>,
    pub(crate) age_ms: u64,
    pub(crate) memory_bytes: Option<u64>,
}

/// What a worker has of sandboxes.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Population {
    pub(crate) sandboxes: Vec<SandboxRow>,
    /// None while the worker is too busy to say.
    #[serde(default)]
    pub(crate) ahead: Option<Vec<AheadRow>>,
}

/// Takes what comes of an answer, piece by piece.
pub(crate) type Take<'a> = dyn FnMut(&[u8]) -> Result<(), Failure> + 'a;

/// What became of an invocation, and what the worker says of how.
pub(crate) struct Answer {
    /// Of an answer in parts that was cut it is the reason for that.
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    /// Bytes of a good answer, which were taken as they came.
    pub(crate) taken_bytes: u64,
    /// Of an error, what it says.
    pub(crate) body: Vec<u8>,
}

/// Of a good answer so much is read at once.
const PIECE_BYTES: usize = 64 * 1024;

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }

    /// Why there is no result, if there is none.
    pub(crate) fn error(&self) -> Option<WorkerError> {
        (!(200..300).contains(&self.status)).then(|| WorkerError::read(&self.body))
    }
}

/// The worker's errors, and a function's own, have one shape.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct WorkerError {
    pub(crate) error_type: String,
    pub(crate) error_message: String,
    pub(crate) stack_trace: Vec<String>,
}

impl WorkerError {
    fn read(body: &[u8]) -> WorkerError {
        // Whatever is not the worker's shape is shown as it is.
        serde_json::from_slice(body).unwrap_or_else(|_| WorkerError {
            error_message: String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned(),
            ..WorkerError::default()
        })
    }
}

pub(crate) struct Client {
    agent: Agent,
    base: String,
}

impl Client {
    /// # Errors
    /// An address that is not `http://host:port`.
    pub(crate) fn new(server: &str) -> Result<Client, Failure> {
        let base = server.trim_end_matches('/');
        match base.strip_prefix("http://") {
            Some(host) if !host.is_empty() && !host.contains('/') => {}
            _ => {
                return Err(Failure::usage(format_args!(
                    "{server:?} is no worker's address: write it as {}",
                    crate::arguments::DEFAULT_SERVER
                )));
            }
        }
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            // A proxy taken from the environment would stand between two processes of one machine.
            .proxy(None)
            .no_delay(true)
            .user_agent(concat!("vilya/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .build()
            .new_agent();
        Ok(Client { agent, base: base.to_owned() })
    }

    /// Where the worker is, without a `/` at the end.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// Where a function is invoked.
    pub(crate) fn invoke_url(&self, name: &str) -> String {
        format!("{}/fn/{name}", self.base)
    }

    /// Where an image is pulled there is no limit: the worker ends what takes longer than its `images.pull_timeout`.
    pub(crate) fn deploy(&self, name: &str, archive: &[u8], pulls: bool) -> Result<FunctionRecord, Failure> {
        let request = self.agent.put(self.function_url(name)).content_type("application/x-tar");
        let limit = (!pulls).then_some(ADMINISTRATION_TIMEOUT);
        let sent = request.config().timeout_global(limit).build().send(archive);
        self.record(name, &self.accepted(sent)?)
    }

    /// All functions, and the JSON they came in.
    pub(crate) fn functions(&self) -> Result<(Vec<FunctionRecord>, serde_json::Value), Failure> {
        #[derive(Deserialize)]
        struct Listing {
            functions: Vec<FunctionRecord>,
        }
        let body = self.get(format!("{}/v1/functions", self.base))?;
        let json: serde_json::Value = serde_json::from_slice(&body).map_err(|error| self.strange(error))?;
        let listing = Listing::deserialize(&json).map_err(|error| self.strange(error))?;
        Ok((listing.functions, json))
    }

    /// All sandboxes and what was made ahead, and the JSON they came in.
    pub(crate) fn sandboxes(&self) -> Result<(Population, serde_json::Value), Failure> {
        let body = self.get(format!("{}/v1/sandboxes", self.base))?;
        let json: serde_json::Value = serde_json::from_slice(&body).map_err(|error| self.strange(error))?;
        let population = Population::deserialize(&json).map_err(|error| self.strange(error))?;
        Ok((population, json))
    }

    pub(crate) fn function(&self, name: &str) -> Result<(FunctionRecord, serde_json::Value), Failure> {
        let body = self.get(self.function_url(name))?;
        let json = serde_json::from_slice(&body).map_err(|error| self.strange(error))?;
        Ok((self.record(name, &body)?, json))
    }

    pub(crate) fn remove(&self, name: &str) -> Result<(), Failure> {
        let request = self.agent.delete(self.function_url(name));
        let sent = request.config().timeout_global(Some(ADMINISTRATION_TIMEOUT)).build().call();
        self.accepted(sent).map(drop)
    }

    /// The last `tail` lines of a function's log.
    pub(crate) fn logs(&self, name: &str, tail: u32) -> Result<Vec<u8>, Failure> {
        self.get(format!("{}/logs?tail={tail}", self.function_url(name)))
    }

    /// Runs a function once; what it returns goes to `take` as it comes. A function that failed is an [`Answer`] too, except
    /// in the middle of an answer in parts, which HTTP does not give a reason for.
    pub(crate) fn invoke(
        &self,
        name: &str,
        body: &[u8],
        content_type: &str,
        take: &mut Take<'_>,
    ) -> Result<Answer, Failure> {
        // No time limit: the worker ends what takes longer than the function's own.
        let sent = self.agent.post(self.invoke_url(name)).content_type(content_type).send(body);
        let mut response = sent.map_err(|error| self.unreachable(&error))?;
        let headers = response
            .headers()
            .iter()
            .map(|(name, value)| (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()));
        let headers: Vec<(String, String)> = headers.collect();
        let status = response.status().as_u16();
        if !response.status().is_success() {
            let body = self.body(&mut response)?;
            return Ok(Answer { status, headers, taken_bytes: 0, body });
        }
        let in_parts = !headers.iter().any(|(header, _)| header == "content-length");
        let (mut reader, mut piece, mut taken_bytes) = (response.into_body().into_reader(), vec![0; PIECE_BYTES], 0);
        loop {
            match reader.read(&mut piece) {
                Ok(0) => return Ok(Answer { status, headers, taken_bytes, body: Vec::new() }),
                Ok(bytes) => {
                    take(&piece[..bytes])?;
                    taken_bytes += bytes as u64;
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) if in_parts => return Err(cut(name, format_args!("it broke off"))),
                Err(error) => return Err(self.unreachable(&ureq::Error::Io(error))),
            }
        }
    }

    /// What a failed invocation means to the caller.
    pub(crate) fn invocation_failure(&self, name: &str, answer: &Answer, error: &WorkerError) -> Failure {
        let failed = match answer.status {
            500 if error.error_type != ErrorKind::Internal.error_type() => "raised",
            502 | 504 => "failed:",
            _ => return refused(answer.status, error),
        };
        let WorkerError { error_type, error_message, .. } = error;
        if answer.taken_bytes > 0 {
            return cut(name, format_args!("{name} {failed} {error_type}: {error_message}"));
        }
        // An exception may come without a word, as Python's MemoryError does.
        let colon = if error_message.is_empty() { "" } else { ": " };
        Failure::new(
            Fault::Function,
            format_args!(
                "{name} {failed} {error_type}{colon}{error_message} (`vilya logs {name}` shows what it wrote)"
            ),
        )
    }

    fn function_url(&self, name: &str) -> String {
        format!("{}/v1/functions/{name}", self.base)
    }

    fn get(&self, url: String) -> Result<Vec<u8>, Failure> {
        let request = self.agent.get(url);
        let sent = request.config().timeout_global(Some(ADMINISTRATION_TIMEOUT)).build().call();
        self.accepted(sent)
    }

    fn record(&self, name: &str, body: &[u8]) -> Result<FunctionRecord, Failure> {
        serde_json::from_slice(body).map_err(|error| self.strange(format_args!("{name}: {error}")))
    }

    /// The body of an answer that says yes.
    fn accepted(&self, sent: Result<Response<Body>, ureq::Error>) -> Result<Vec<u8>, Failure> {
        let mut response = sent.map_err(|error| self.unreachable(&error))?;
        let body = self.body(&mut response)?;
        let status = response.status();
        if status.is_success() { Ok(body) } else { Err(refused(status.as_u16(), &WorkerError::read(&body))) }
    }

    fn body(&self, response: &mut Response<Body>) -> Result<Vec<u8>, Failure> {
        let body = response.body_mut().with_config().limit(ANSWER_LIMIT_BYTES).read_to_vec();
        body.map_err(|error| self.unreachable(&error))
    }

    fn unreachable(&self, error: &ureq::Error) -> Failure {
        let base = &self.base;
        if never_connected(error) {
            let start = "start one with `vilya serve`, or name another with --server or VILYA_SERVER";
            return Failure::new(Fault::Unreachable, format_args!("no worker answers at {base}: {start}"));
        }
        Failure::new(
            Fault::Unreachable,
            format_args!("the connection to {base} broke ({error}): see what the worker wrote, then try again"),
        )
    }

    fn strange(&self, error: impl std::fmt::Display) -> Failure {
        Failure::new(
            Fault::Unreachable,
            format_args!(
                "what answers at {} is not a worker of this version ({error}): check --server and `vilya version`",
                self.base
            ),
        )
    }
}

/// The failure of a function some of whose answer was taken.
pub(crate) fn cut(name: &str, why: std::fmt::Arguments<'_>) -> Failure {
    Failure::new(
        Fault::Function,
        format_args!("the answer of {name} is not whole: {why} (`vilya logs {name}` shows what it wrote)"),
    )
}

fn refused(status: u16, error: &WorkerError) -> Failure {
    let WorkerError { error_type, error_message, .. } = error;
    // The worker's own messages say what to do.
    let advice = if error_type.is_empty() { " (is the address that of a Vilya worker?)" } else { "" };
    Failure::new(Fault::Refused, format_args!("the worker refused ({status} {error_type}): {error_message}{advice}"))
}

fn never_connected(error: &ureq::Error) -> bool {
    use std::io::ErrorKind;
    match error {
        ureq::Error::HostNotFound | ureq::Error::ConnectionFailed => true,
        ureq::Error::Timeout(timeout) => matches!(timeout, ureq::Timeout::Connect | ureq::Timeout::Resolve),
        ureq::Error::Io(error) => matches!(
            error.kind(),
            ErrorKind::ConnectionRefused
                | ErrorKind::AddrNotAvailable
                | ErrorKind::HostUnreachable
                | ErrorKind::NetworkUnreachable
        ),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    /// Answers one request with `response` and hands back what was asked.
    fn once(response: &'static str) -> (Client, std::thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = Client::new(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
                request.push(byte[0]);
            }
            let text = String::from_utf8_lossy(&request).to_lowercase();
            let length = text
                .split("content-length: ")
                .nth(1)
                .map_or(0, |rest| rest.split("\r\n").next().unwrap().parse().unwrap());
            let mut body = vec![0; length];
            stream.read_exact(&mut body).unwrap();
            stream.write_all(response.as_bytes()).unwrap();
            text + &String::from_utf8_lossy(&body)
        });
        (client, server)
    }

    fn invoke(client: &Client) -> (Result<Answer, Failure>, Vec<u8>) {
        let mut taken = Vec::new();
        let answer = client.invoke("a-b", b"body", "text/plain", &mut |piece| {
            taken.extend_from_slice(piece);
            Ok(())
        });
        (answer, taken)
    }

    #[test]
    fn an_answer_in_parts_is_taken_and_one_without_an_end_is_a_failure() {
        let (client, _server) =
            once("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n1\r\n!\r\n0\r\n\r\n");
        let (answer, taken) = invoke(&client);
        assert_eq!((answer.unwrap().taken_bytes, &taken[..]), (3, &b"hi!"[..]));
        let (client, _server) = once("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n1\r\n!\r\n");
        let (answer, taken) = invoke(&client);
        let failure = answer.err().unwrap();
        assert_eq!((failure.fault(), &taken[..]), (Fault::Function, &b"hi!"[..]));
        assert!(failure.to_string().contains("is not whole"), "{failure}");
        let (client, _server) = once("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhi!");
        assert_eq!(invoke(&client).0.err().unwrap().fault(), Fault::Unreachable);
        let (client, _server) = once("HTTP/1.1 500 No\r\ncontent-length: 2\r\n\r\n{}");
        let (answer, taken) = invoke(&client);
        assert_eq!((&answer.unwrap().body[..], taken.len()), (&b"{}"[..], 0));
    }

    #[test]
    fn an_invocation_is_a_post_and_its_answer_comes_back_whole() {
        let (client, server) = once("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-vilya-start: cold\r\n\r\nhi");
        let (answer, taken) = invoke(&client);
        let answer = answer.unwrap();
        assert_eq!((answer.status, answer.taken_bytes, answer.body.len(), &taken[..]), (200, 2, 0, &b"hi"[..]));
        assert_eq!(answer.header("x-vilya-start"), Some("cold"));
        assert!(answer.error().is_none());
        let asked = server.join().unwrap();
        assert!(asked.starts_with("post /fn/a-b http/1.1\r\n"), "{asked}");
        assert!(asked.contains("content-type: text/plain\r\n") && asked.ends_with("body"), "{asked}");
    }

    #[test]
    fn a_function_that_raised_is_told_from_a_worker_that_refused() {
        let client = Client::new("http://127.0.0.1:1").unwrap();
        let fault = |status, body: &str| {
            let answer = Answer { status, headers: Vec::new(), taken_bytes: 0, body: body.into() };
            let error = answer.error().unwrap();
            client.invocation_failure("f", &answer, &error)
        };
        let raised = fault(500, r#"{"errorType":"ValueError","errorMessage":"no"}"#);
        assert_eq!(raised.fault(), Fault::Function);
        assert!(raised.to_string().starts_with("f raised ValueError: no"), "{raised}");
        assert_eq!(fault(504, "{}").fault(), Fault::Function);
        assert_eq!(fault(502, "{}").fault(), Fault::Function);
        assert_eq!(fault(500, r#"{"errorType":"Internal"}"#).fault(), Fault::Refused);
        for status in [400, 404, 413, 429, 503] {
            assert_eq!(fault(status, "not json").fault(), Fault::Refused);
        }
    }

    #[test]
    fn nobody_there_says_how_to_start_one() {
        // Bound and dropped: nothing listens there now.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let failure = Client::new(&format!("http://{address}")).unwrap().functions().unwrap_err();
        assert_eq!(failure.fault(), Fault::Unreachable);
        assert!(failure.to_string().contains("start one with `vilya serve`"), "{failure}");
    }

    #[test]
    fn a_stranger_is_not_taken_for_a_worker() {
        let (client, server) = once("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n<html");
        assert_eq!(client.functions().unwrap_err().fault(), Fault::Unreachable);
        assert!(server.join().unwrap().starts_with("get /v1/functions http/1.1\r\n"));
    }

    #[test]
    fn addresses_are_checked() {
        for wrong in ["127.0.0.1:7878", "https://x", "http://", "http://x/path"] {
            assert_eq!(Client::new(wrong).err().map(|failure| failure.fault()), Some(Fault::Usage), "{wrong}");
        }
    }
}
