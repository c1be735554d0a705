//! The engine's API over its socket: a request a connection.
//!
//! Owns: just enough HTTP. Invariant: a call ends in bounded time and takes bounded memory. Requests are of version 1.0, which is answered
//! whole and then ended, so that an answer is its head and whatever follows. Does not know: containers.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

/// How long a call may wait for its answer, unless it says otherwise. An engine that is busy starts a container in a second or two.
const PATIENCE: Duration = Duration::from_secs(30);
/// Largest answer.
const ANSWER_BYTES: u64 = 16 << 20;
const HEADERS: usize = 64;

/// Where an engine listens.
#[derive(Clone, Debug)]
pub(super) struct Engine {
    socket: PathBuf,
    patience: Duration,
}

/// Why a call was not answered as wanted.
#[derive(Debug, thiserror::Error)]
pub(super) enum EngineError {
    /// It could not be reached, or did not speak HTTP.
    #[error("the engine at {socket} cannot be used: {source}{advice}")]
    Unreachable {
        socket: PathBuf,
        #[source]
        source: io::Error,
        advice: &'static str,
    },
    /// It refused.
    #[error("the engine says: {message} (status {status})")]
    Refused { status: u16, message: String },
}

impl EngineError {
    pub(super) fn is_absence(&self) -> bool {
        matches!(self, EngineError::Refused { status: 404, .. })
    }
}

/// What is sent along.
pub(super) enum Body<'a> {
    Nothing,
    Json(&'a Value),
    Tar(&'a [u8]),
}

impl Engine {
    pub(super) fn at(socket: &Path) -> Engine {
        Engine { socket: socket.to_owned(), patience: PATIENCE }
    }

    /// The same, asked with less patience or more.
    pub(super) fn with_patience(&self, patience: Duration) -> Engine {
        Engine { patience, ..self.clone() }
    }

    pub(super) fn get(&self, path: &str) -> Result<Value, EngineError> {
        self.call("GET", path, &Body::Nothing)
    }

    pub(super) fn post(&self, path: &str, body: &Body<'_>) -> Result<Value, EngineError> {
        self.call("POST", path, body)
    }

    pub(super) fn delete(&self, path: &str) -> Result<(), EngineError> {
        match self.call("DELETE", path, &Body::Nothing) {
            Err(error) if error.is_absence() => Ok(()),
            result => result.map(drop),
        }
    }

    /// The answer's JSON; null if it is none.
    fn call(&self, method: &str, path: &str, body: &Body<'_>) -> Result<Value, EngineError> {
        let answer = self.exchange(method, path, body).map_err(|source| self.unreachable(source))?;
        let (status, content) = parse(&answer).map_err(|source| self.unreachable(source))?;
        let value = serde_json::from_slice(content).unwrap_or(Value::Null);
        if (200..400).contains(&status) {
            return Ok(value);
        }
        let message =
            value["message"].as_str().map_or_else(|| String::from_utf8_lossy(content).into_owned(), str::to_owned);
        Err(EngineError::Refused { status, message })
    }

    fn exchange(&self, method: &str, path: &str, body: &Body<'_>) -> io::Result<Vec<u8>> {
        let (kind, bytes) = match body {
            Body::Nothing => ("text/plain", Vec::new()),
            Body::Json(value) => ("application/json", value.to_string().into_bytes()),
            Body::Tar(bytes) => ("application/x-tar", bytes.to_vec()),
        };
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(self.patience))?;
        stream.set_write_timeout(Some(self.patience))?;
        let length = bytes.len();
        let head = format!(
            "{method} {path} HTTP/1.0\r\nHost: docker\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"
        );
        stream.write_all(&[head.as_bytes(), &bytes].concat())?;
        let mut answer = Vec::new();
        stream.take(ANSWER_BYTES).read_to_end(&mut answer)?;
        Ok(answer)
    }

    fn unreachable(&self, source: io::Error) -> EngineError {
        let advice = match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                "; install and start an engine (Debian: apt-get install docker.io), or say where its socket is with \
                 sandbox.docker_socket"
            }
            io::ErrorKind::PermissionDenied => "; run the worker as root, or as a member of the socket's group",
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "; it did not answer in time",
            _ => "",
        };
        EngineError::Unreachable { socket: self.socket.clone(), source, advice }
    }
}

/// Status and body of a whole answer.
fn parse(answer: &[u8]) -> io::Result<(u16, &[u8])> {
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, "its answer is not HTTP");
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    match response.parse(answer).map_err(|_| malformed())? {
        httparse::Status::Complete(head) => Ok((response.code.ok_or_else(malformed)?, &answer[head..])),
        httparse::Status::Partial => Err(malformed()),
    }
}

/// For a part of a path or a query.
pub(super) fn escaped(text: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(byte);
    text.bytes().map(|byte| if plain(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;

    use super::{Body, Engine, escaped};

    /// An engine that gives these bytes for an answer.
    fn answering(answer: &'static [u8]) -> (tempfile::TempDir, Engine, std::thread::JoinHandle<String>) {
        let directory = tempfile::tempdir().expect("a directory");
        let socket = directory.path().join("socket");
        let listener = UnixListener::bind(&socket).expect("a socket");
        let serve = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a caller");
            let mut request = [0; 4096];
            let length = stream.read(&mut request).expect("a request");
            stream.write_all(answer).expect("it listens");
            String::from_utf8_lossy(&request[..length]).into_owned()
        });
        (directory, Engine::at(&socket), serve)
    }

    #[test]
    fn answers_are_understood() {
        let (_place, engine, serve) = answering(b"HTTP/1.0 200 OK\r\nServer: x\r\n\r\n{\"Id\": \"a\"}");
        let value = engine.post("/x?y", &Body::Json(&serde_json::json!({ "a": 1 }))).expect("an answer");
        assert_eq!(value["Id"], "a");
        let request = serve.join().expect("served");
        assert!(
            request.starts_with("POST /x?y HTTP/1.0\r\n") && request.ends_with("Content-Length: 7\r\n\r\n{\"a\":1}")
        );
    }

    #[test]
    fn refusals_say_what_the_engine_says() {
        let (_place, engine, _) = answering(b"HTTP/1.1 409 Conflict\r\n\r\n{\"message\": \"in use\"}");
        assert_eq!(engine.get("/").expect_err("refused").to_string(), "the engine says: in use (status 409)");
        let (_place, engine, _) = answering(b"HTTP/1.1 404 Not Found\r\n\r\n{}");
        engine.delete("/").expect("what is not there needs no removal");
        for broken in [b"" as &[u8], b"HTTP/1.1 2", b"\x16\x03\x01rubbish\r\n\r\n"] {
            let (_place, engine, _) = answering(broken);
            assert!(engine.get("/").expect_err("no HTTP").to_string().contains("not HTTP"));
        }
    }

    #[test]
    fn an_engine_that_is_not_there_says_what_to_install() {
        let error = Engine::at("/no/such/socket".as_ref()).get("/version").expect_err("nobody is there").to_string();
        assert!(error.contains("/no/such/socket") && error.contains("apt-get install docker.io"), "{error}");
    }

    #[test]
    fn names_are_escaped() {
        assert_eq!(escaped("a-b_c.d"), "a-b_c.d");
        assert_eq!(escaped("{\"a\":1}"), "%7B%22a%22%3A1%7D");
    }
}
