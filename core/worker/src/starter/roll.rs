//! What waits, as the starter knows it.
//!
//! Invariant: looks at nothing but its own tables, so that a start waits for no more than that. It does not know who asks.

use std::sync::Arc;

use vilya_isolate::{Image, WaitingSandbox};

use super::Starter;
use crate::waiting::{Form, Layer, Memory, RollCall, Waiting};

impl Starter {
    pub(super) fn call_roll(&mut self, answer: &RollCall) {
        let images = self.zygotes.as_ref().map(|zygotes| zygotes.images()).unwrap_or_default();
        let mut all: Vec<Waiting> =
            self.mechanisms.chosen().waiting().into_iter().map(|one| row(one, &images)).collect();
        all.extend(self.ahead.waiting());
        all.extend(images.into_iter().map(|(layer, of, image)| Waiting {
            form: Form::Image,
            layer,
            of: Some(of),
            since: image.taken(),
            memory: Memory::Known(image.bytes()),
        }));
        // Who asked may have given up.
        let _ = answer.send(all);
    }
}

fn row(one: WaitingSandbox, images: &[(Layer, String, Arc<Image>)]) -> Waiting {
    let WaitingSandbox { pid, since, loaded, memory } = one;
    let known = loaded.as_ref().and_then(|loaded| images.iter().find(|(.., image)| Arc::ptr_eq(image, loaded)));
    // One whose image is not used any more is about to be ended.
    let layer = known.map_or(Layer::Bare, |(layer, ..)| *layer);
    let of = known.map(|(_, of, _)| of.clone());
    Waiting { form: Form::Sandbox, layer, of, since, memory: Memory::Process(pid, memory) }
}
