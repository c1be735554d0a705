//! What the starter does while no start waits: rings and processes made ahead, images loaded ahead, and rehearsals.
//!
//! Invariant: each is one small step, so that a start waits for no more than one. It does not know which images there are.

use std::sync::Arc;

use vilya_engine::FunctionId;
use vilya_isolate::{Image, Spec};

use super::likeness::SEARCH_PATH;
use super::{Starter, read_only_by};
use crate::node;
use crate::rehearsal::{self, OnStage, Part};
use crate::ring::Ring;

impl Starter {
    /// Begins a copy that serves nobody.
    pub(super) fn rehearse(&mut self, request: rehearsal::Request) {
        let Part { spec, lanes, .. } = &request.part;
        let spec = Spec { name: format!("r{}-{}", self.sequence, spec.name), ..spec.clone() };
        self.sequence += 1;
        let copy = Ring::new(*lanes, self.defaults.payload_limit_bytes, read_only_by(self.mechanisms.chosen()))
            .and_then(|ring| {
                let Ring { host, stdout, stderr, descriptors } = ring;
                let begun = self.mechanisms.chosen().begin(&spec, descriptors, Some(request.copy()));
                begun.map(|begun| OnStage::new(begun, host, [stdout, stderr])).map_err(|error| error.to_string())
            });
        request.answer(copy);
    }

    /// Gives up the image of a function, and the sandboxes that have loaded it: somebody waits for the memory.
    pub(super) fn drop_image(&mut self, function: FunctionId) {
        let Some(zygotes) = self.zygotes.clone() else { return };
        let Some(image) = zygotes.image_of(function) else { return };
        let is_wanted = &mut |other: &Arc<Image>| zygotes.has(other) && !Arc::ptr_eq(other, &image);
        self.loading.inspected(self.mechanisms.chosen().keep_loaded(is_wanted));
        zygotes.give_up(function);
    }

    /// Has a sandbox load the image that was asked for, or ends those whose image is not used any more.
    pub(super) fn load_ahead(&mut self) {
        let Some(zygotes) = self.zygotes.clone() else { return };
        if !self.loading.is_inspected() {
            self.loading.inspected(self.mechanisms.chosen().keep_loaded(&mut |image| zygotes.has(image)));
        }
        let Some(wish) = self.loading.next() else { return };
        if !zygotes.has(&wish.image) {
            return;
        }
        match self.mechanisms.chosen().load(&wish.spec, wish.copy()) {
            Ok(true) => self.loading.done(),
            Ok(false) => self.loading.refuse(wish),
            Err(error) => tracing::debug!("an image was not loaded ahead: {error}"),
        }
    }

    /// Whether one was made.
    pub(super) fn make_ring_ahead(&mut self) -> bool {
        let wanted = if self.zygotes.is_some() { self.defaults.prepared } else { 0 };
        self.rings.count() < wanted
            && Ring::new(1, self.defaults.payload_limit_bytes, read_only_by(self.mechanisms.chosen()))
                .map(|ring| self.rings.keep(ring))
                .is_ok()
    }

    /// Whether one was started.
    pub(super) fn start_node_ahead(&mut self) -> bool {
        let (Some(memory_bytes), Ok(home)) = (self.ahead.missing(), &self.defaults.node) else { return false };
        let mut command = home.command(memory_bytes);
        command.push(node::AHEAD.into());
        self.sequence += 1;
        let own = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        let spec = Spec {
            name: format!("ahead-{}", self.sequence),
            command,
            environment: [("PATH", SEARCH_PATH), ("HOME", "/tmp"), ("LANG", "C.UTF-8"), node::ENVIRONMENT]
                .map(own)
                .into(),
            limits: self.defaults.limits(memory_bytes),
            ..self.defaults.template()
        };
        let started = self.ahead.start(self.mechanisms.chosen(), &spec);
        if let Err(why) = &started {
            tracing::warn!("no process of Node is started ahead: {why}");
            self.ahead.give_up();
        }
        started.is_ok()
    }
}
