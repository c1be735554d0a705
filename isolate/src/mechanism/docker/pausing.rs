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
