//! Layers of functions, made when they are started often and lost now and then.
//!
//! Invariant: a function has one at most, and the loss of each is reported; whether it is kept is the engine's to say.

use vilya_engine::{Bytes, Event, FunctionId};

use super::{Happening, World};

impl World {
    /// Counts a start, after which a layer may be made; whether it is made from one.
    pub(super) fn started_from_layer(&mut self, function: FunctionId) -> bool {
        let starts = self.starts.entry(function).or_insert(0);
        *starts += 1;
        if self.scenario.layer_after == Some(*starts) {
            let takes = self.micros(100, 30_000);
            self.after(takes, Happening::LayerMade(function));
        }
        let is_there = self.layers.contains(&function);
        if is_there {
            self.books.tally.count("StartedFromLayer".into());
        }
        is_there
    }

    /// The function may have gone meanwhile.
    pub(super) fn layer_made(&mut self, function: FunctionId) {
        let most = self.scenario.limits.memory.as_bytes();
        let share = self.random.pick(&[1, 4, 30, 30, 30]);
        let memory = Bytes::from_bytes(self.random.between(0, most + 1) / share);
        self.layers.insert(function);
        self.report(Event::LayerMade { function, memory });
        if self.random.chance(200) {
            let later = self.micros(0, 100_000);
            self.after(later, Happening::LayerUsed(function));
        }
        if self.random.chance(self.faults.layer_is_lost) {
            let lasts = self.micros(0, 200_000);
            self.after(lasts, Happening::LayerGone(function));
        }
    }

    pub(super) fn layer_gone(&mut self, function: FunctionId) {
        if self.layers.remove(&function) {
            self.starts.insert(function, 0);
            self.report(Event::LayerGone { function });
        }
    }
}
