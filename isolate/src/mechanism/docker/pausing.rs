//! A container that is stopped and let go on by its engine.
//!
//! Invariant: a call ends in bounded time. One that is as it is wanted already is no failure, so that what is asked for last stays whatever was
//! left half done. Does not know: why it is paused.

use std::time::Duration;

use super::engine::{Body, Engine};
use crate::freezer::Pausing;

/// How long one call may take. An engine that is busy takes a second.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Paused {
    engine: Engine,
    id: String,
}

impl Paused {
    pub(super) fn new(engine: &Engine, id: &str) -> Paused {
        Paused { engine: engine.with_patience(PATIENCE), id: id.to_owned() }
    }
}

impl Pausing for Paused {
    fn set_paused(&self, paused: bool) -> Result<(), String> {
        let verb = if paused { "pause" } else { "unpause" };
        match self.engine.post(&format!("/containers/{}/{verb}", self.id), &Body::Nothing) {
            Ok(_) => Ok(()),
            Err(error) => {
                // An engine refuses to pause what it has paused, and to let go on what runs.
                if self.is_paused() == Some(paused) { Ok(()) } else { Err(error.to_string()) }
            }
        }
    }
}

impl Paused {
    /// Whether it is; none if it does not run, or the engine does not say.
    fn is_paused(&self) -> Option<bool> {
        let state = self.engine.get(&format!("/containers/{}/json", self.id)).ok()?["State"].take();
        (state["Running"] == true).then_some(state["Paused"] == true)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;
    use std::path::Path;
    use std::thread::JoinHandle;

    use super::{Engine, Paused, Pausing};

    /// An engine that gives these answers, one a call; what it was asked.
    fn answering(place: &Path, answers: &'static [&'static str]) -> (Paused, JoinHandle<Vec<String>>) {
        let socket = place.join("socket");
        let listener = UnixListener::bind(&socket).expect("a socket");
        let serve = std::thread::spawn(move || {
            let answer = |answer: &&str| {
                let (mut stream, _) = listener.accept().expect("a caller");
                let mut request = [0; 4096];
                let length = stream.read(&mut request).expect("a request");
                stream.write_all(answer.as_bytes()).expect("it listens");
                let request = String::from_utf8_lossy(&request[..length]);
                request.split(" HTTP/").next().unwrap_or_default().to_owned()
            };
            answers.iter().map(answer).collect()
        });
        (Paused::new(&Engine::at(&socket), "a"), serve)
    }

    const DONE: &str = "HTTP/1.0 204 No Content\r\n\r\n";
    const REFUSED: &str = "HTTP/1.0 409 Conflict\r\n\r\n{\"message\": \"already\"}";

    #[test]
    fn it_is_paused_and_goes_on() {
        let place = tempfile::tempdir().expect("a directory");
        let (paused, serve) = answering(place.path(), &[DONE, DONE]);
        paused.set_paused(true).and_then(|()| paused.set_paused(false)).expect("the engine does it");
        assert_eq!(serve.join().expect("served"), ["POST /containers/a/pause", "POST /containers/a/unpause"]);
    }

    #[test]
    fn what_is_so_already_is_no_failure_and_what_is_not_is_one() {
        let states = [
            ("{\"State\": {\"Running\": true, \"Paused\": true}}", true),
            ("{\"State\": {\"Running\": true, \"Paused\": false}}", false),
            ("{\"State\": {\"Running\": false, \"Paused\": true}}", false),
        ];
        for (state, is_so) in states {
            let place = tempfile::tempdir().expect("a directory");
            let state: &'static str = format!("HTTP/1.0 200 OK\r\n\r\n{state}").leak();
            let answers: &'static [&'static str] = vec![REFUSED, state].leak();
            let (paused, serve) = answering(place.path(), answers);
            assert_eq!(paused.set_paused(true).is_ok(), is_so, "{state}");
            assert_eq!(serve.join().expect("served")[1], "GET /containers/a/json");
        }
    }
}
