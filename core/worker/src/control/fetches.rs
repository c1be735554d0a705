//! Images that are pulled and unpacked for deployments, each on a thread of its own, so that nothing else waits for a registry or a disk.
//!
//! Invariant: a deployment that was begun comes back exactly once, as [`FetchEnded`], unless the worker ends; at most [`AT_ONCE`] are under
//! way. It does not know what is done with an image.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Sender;
use vilya_distribution::{Puller, SILENCE, Settings};
use vilya_protocol::error::ErrorKind;

use super::Caller;
use super::crew::Crew;
use crate::config;
use crate::mesh::ControlMessage;
use crate::response::Response;
use crate::storage::{CatalogError, Fetched, Prepared};

/// Images under way: each writes to the disk as fast as its registry sends.
pub(super) const AT_ONCE: usize = 8;

/// What pulls images, and what is under way.
pub(super) struct Fetches {
    /// None when nothing may be pulled.
    puller: Option<Arc<Puller>>,
    crew: Crew,
    ended: bool,
}

/// A deployment whose image was fetched, or was not.
pub(crate) struct FetchEnded {
    number: u64,
    pub(super) caller: Caller,
    pub(super) prepared: Prepared,
    pub(super) outcome: Result<Fetched, CatalogError>,
}

impl Fetches {
    /// `control` is the control thread's own inbox, where what was fetched arrives.
    pub(super) fn new(config: &config::Images, control: Sender<ControlMessage>) -> Fetches {
        let settings = Settings {
            max_bytes: config.max_size_bytes,
            timeout: Duration::from_nanos(config.pull_timeout_ns),
            silence: SILENCE,
            plain_http: config.insecure_registries.clone(),
            docker_config: config.docker_config.clone().or_else(docker_config),
        };
        let puller = config.pull.then(|| Arc::new(Puller::new(settings)));
        Fetches { puller, crew: Crew::new("vilya-image", "the fetching of an image", control), ended: false }
    }

    /// Fetches the image that a deployment wants. The answer, when it is not begun.
    pub(super) fn begin(&mut self, prepared: Prepared, caller: Caller) -> Option<Response> {
        if self.ended {
            return Some(Response::error(ErrorKind::Draining, "the worker is stopping"));
        }
        if self.puller.is_none() && prepared.wanted().is_some_and(|wanted| wanted.reference().is_some()) {
            let message = "the image is in a registry, and this worker pulls none (images.pull = false): put its archive beside \
                           function.toml, or have the setting changed";
            return Some(Response::error(ErrorKind::InvalidFunction, message));
        }
        if self.crew.len() >= AT_ONCE {
            let message = format!("{AT_ONCE} images are being fetched, as many as may be at once: try again later");
            return Some(Response::error(ErrorKind::Overloaded, &message));
        }
        let puller = self.puller.clone();
        let begun = self.crew.begin(move |number| {
            let wanted = prepared.wanted().expect("what wants no image is not fetched");
            let outcome = wanted.fetch(puller.as_deref());
            ControlMessage::Fetched(Box::new(FetchEnded { number, caller, prepared, outcome }))
        });
        let failed = |error| format!("a thread for the image could not be started: {error}");
        begun.err().map(|error| Response::error(ErrorKind::Internal, &failed(error)))
    }

    /// Takes note that one has ended.
    pub(super) fn end(&mut self, ended: &FetchEnded) {
        self.crew.end(ended.number);
    }

    /// Gives up what is under way, and begins nothing more.
    pub(super) fn give_up(&mut self) {
        self.ended = true;
        self.puller.iter().for_each(|puller| puller.stop());
    }

    /// Waits until nothing is under way.
    pub(super) fn join(&mut self) {
        self.crew.join();
    }
}

/// Where docker looks.
fn docker_config() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("DOCKER_CONFIG").or_else(|| Some(set("HOME")?.join(".docker")))
}
