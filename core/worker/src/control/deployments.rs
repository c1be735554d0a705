//! Deployments, from the request to the answer: unpacked and fetched by threads, checked and completed here.
//!
//! Invariant: a deployment that was asked for is answered once. Of the changes of one function that are under way at the same time, the one
//! that was asked for last stands: a deployment that a later deployment or removal has overtaken is refused when its turn comes, and changes
//! nothing. It does not know archives or registries.

use std::sync::Arc;

use crossbeam_channel::Sender;
use vilya_protocol::error::ErrorKind;

use super::fetches::{FetchEnded, Fetches};
use super::unpackings::{UnpackingEnded, Unpackings};
use super::{Caller, Control, answers, refused};
use crate::config;
use crate::mesh::ControlMessage;
use crate::request::unix_ms;
use crate::response::Response;
use crate::storage::{CatalogError, Fetched, Prepared};

/// Deployments under way.
pub(crate) struct Deployments {
    fetches: Fetches,
    unpackings: Unpackings,
    standing: Standing,
}

/// Deployments that no later change has overtaken, by number, with their functions' names. As short as the threads and the line of those
/// that wait.
#[derive(Default)]
struct Standing(Vec<(u64, Box<str>)>);

impl Standing {
    fn begin(&mut self, number: u64, name: &str) {
        self.0.push((number, name.into()));
    }

    /// A change of a function takes effect: what was asked for before it does no more.
    fn overtake(&mut self, name: &str, asked: u64) {
        self.0.retain(|(number, of)| **of != *name || *number >= asked);
    }

    /// Forgets a deployment; whether it stood.
    fn end(&mut self, number: u64) -> bool {
        let place = self.0.iter().position(|(of, _)| *of == number);
        place.map(|place| self.0.swap_remove(place)).is_some()
    }
}

impl Deployments {
    /// `control` is the control thread's own inbox.
    pub(crate) fn new(images: &config::Images, control: &Sender<ControlMessage>) -> Deployments {
        let (fetches, unpackings) = (Fetches::new(images, control.clone()), Unpackings::new(control.clone()));
        Deployments { fetches, unpackings, standing: Standing::default() }
    }

    /// Waits until nothing is under way.
    pub(super) fn join(&mut self) {
        self.unpackings.join();
        self.fetches.join();
    }

    /// A removal takes effect.
    pub(super) fn removed(&mut self, name: &str) {
        self.standing.overtake(name, u64::MAX);
    }
}

impl Control {
    /// Begins a deployment. The answer, when it is refused at once.
    pub(super) fn deploy(&mut self, name: &str, archive: Vec<u8>, caller: Caller) -> Option<Response> {
        let asked = match self.catalog.ask(name, archive) {
            Ok(asked) => asked,
            Err(error) => return Some(refused(&error)),
        };
        let number = asked.number();
        self.deployments.standing.begin(number, name);
        let answer = self.deployments.unpackings.begin(asked, caller);
        self.ended_if(answer, number)
    }

    pub(super) fn unpacked(&mut self, ended: UnpackingEnded) {
        let unbegun = self.deployments.unpackings.end(&ended);
        self.tell(unbegun);
        let UnpackingEnded { number, name, caller, outcome, .. } = ended;
        let answer = match outcome.and_then(|opened| self.catalog.prepare(opened)) {
            Ok(prepared) if prepared.wanted().is_some() => self.deployments.fetches.begin(prepared, caller),
            Ok(prepared) => Some(self.complete(prepared, None)),
            Err(error) => Some(not_taken("its archive", &name, &error)),
        };
        if let Some(response) = self.ended_if(answer, number) {
            self.reply(caller, response);
        }
    }

    pub(super) fn fetched(&mut self, ended: FetchEnded) {
        self.deployments.fetches.end(&ended);
        let FetchEnded { caller, prepared, outcome, .. } = ended;
        let number = prepared.number();
        let response = match outcome {
            Ok(fetched) => self.complete(prepared, Some(fetched)),
            Err(error) => {
                let response = not_taken("its image", prepared.name(), &error);
                drop(prepared);
                response
            }
        };
        self.deployments.standing.end(number);
        // Nothing of it is left when its client is told.
        if response.status >= 400
            && let Err(error) = self.catalog.forget_images()
        {
            tracing::warn!("what a deployment left could not be removed: {error}");
        }
        self.reply(caller, response);
    }

    /// Gives up what is under way, and begins nothing more.
    pub(super) fn give_up_deployments(&mut self) {
        self.catalog.stop_unpacking();
        self.deployments.fetches.give_up();
        let waited = self.deployments.unpackings.give_up();
        self.tell(waited);
    }

    fn complete(&mut self, prepared: Prepared, fetched: Option<Fetched>) -> Response {
        let (name, number) = (prepared.name().to_owned(), prepared.number());
        if !self.deployments.standing.end(number) {
            let message = format!(
                "\"{name}\" was deployed or removed by somebody else after this deployment was asked for and before it was \
                 done: it is dropped, and that stands; deploy again if this is the one to have"
            );
            return Response::error(ErrorKind::Conflict, &message);
        }
        if self.free_indices.is_empty() && self.generations.len() >= self.most_functions as usize {
            let message = "as many versions that were replaced or removed are still busy as limits.functions allows; \
                           try again when they are done";
            return Response::error(ErrorKind::StorageFull, message);
        }
        let deployed = match self.catalog.complete(prepared, fetched, unix_ms()) {
            Ok(deployed) => deployed,
            Err(error) => return refused(&error),
        };
        self.deployments.standing.overtake(&name, number);
        let created = deployed.replaced.is_none();
        let record = Arc::new(deployed.record);
        self.install(Arc::clone(&record));
        tracing::info!(function = name, version = record.version, bytes = record.bundle_bytes, "deployed");
        answers::function(if created { 201 } else { 200 }, &record)
    }

    /// With an answer a deployment is over.
    fn ended_if(&mut self, answer: Option<Response>, number: u64) -> Option<Response> {
        if answer.is_some() {
            self.deployments.standing.end(number);
        }
        answer
    }

    fn tell(&mut self, unbegun: impl IntoIterator<Item = (Caller, u64, Response)>) {
        for (caller, number, response) in unbegun {
            self.deployments.standing.end(number);
            self.reply(caller, response);
        }
    }
}

fn not_taken(what: &str, name: &str, error: &CatalogError) -> Response {
    tracing::warn!(function = name, "{what} was not taken: {error}");
    refused(error)
}

#[cfg(test)]
mod tests {
    use super::Standing;

    #[test]
    fn what_was_asked_for_last_stands() {
        let mut standing = Standing::default();
        for (number, name) in [(1, "a"), (2, "b"), (3, "a"), (4, "a")] {
            standing.begin(number, name);
        }
        assert!(standing.end(3));
        standing.overtake("a", 3);
        assert_eq!([1, 2, 4].map(|number| standing.end(number)), [false, true, true]);
        standing.begin(5, "a");
        standing.overtake("a", u64::MAX);
        standing.begin(6, "a");
        assert_eq!([5, 6, 6].map(|number| standing.end(number)), [false, true, false]);
    }
}
