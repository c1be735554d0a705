//! Listening to sandboxes' doorbells, and leaving alone for a while one that rings in vain.
//!
//! Invariant: a ring without an answer costs the shard a turn, and a sandbox has few of those. Nothing that it says is lost by it: its ring is
//! looked at when it is listened to again, whether it rang or not. One that rings only when it has something to say is always listened to.

use std::os::fd::AsRawFd;

use vilya_reactor::{Op, Outcome};

use super::Shard;
use super::token::{Owner, SandboxKey};

/// Rings after which nothing was to be found, within a window, before it is left alone for as long. One of them can be that of an answer that
/// was found before it was heard.
const RINGS_IN_VAIN: u32 = 8;
const WINDOW_NS: u64 = 10_000_000;

/// How often a doorbell has rung in vain of late.
#[derive(Default)]
pub(super) struct Rings {
    window_ends_ns: u64,
    in_vain: u32,
}

impl Rings {
    /// It rang, and something was to be found or not: until when it is to be left alone, if for a while.
    fn pause_after(&mut self, in_vain: bool, now_ns: u64) -> Option<u64> {
        if now_ns >= self.window_ends_ns {
            *self = Rings { window_ends_ns: now_ns.saturating_add(WINDOW_NS), in_vain: 0 };
        }
        self.in_vain = if in_vain { self.in_vain + 1 } else { 0 };
        (self.in_vain >= RINGS_IN_VAIN).then(|| now_ns.saturating_add(WINDOW_NS))
    }
}

impl Shard {
    /// The doorbell of a sandbox was rung.
    pub(super) fn doorbell(&mut self, key: SandboxKey, more: bool, outcome: Outcome) {
        let now_ns = self.now_ns;
        if let Outcome::Readable = outcome
            && let Some(entry) = self.entry(key)
        {
            let in_vain = !entry.noted && !entry.host().is_some_and(|host| host.pending());
            let pause = entry.rings.pause_after(in_vain, now_ns);
            self.note(key.index);
            if let Some(until_ns) = pause.filter(|_| more) {
                self.leave_doorbell(key, until_ns);
            }
        } else if !more {
            // A doorbell that cannot be polled any more would leave its sandbox unheard.
            self.give_up_watching(key);
        }
    }

    fn leave_doorbell(&mut self, key: SandboxKey, until_ns: u64) {
        let process = self.entry(key).and_then(|entry| entry.process.as_mut());
        // None if it is left alone already.
        let Some(op) = process.and_then(|process| process.operations[0].take()) else { return };
        self.reactor.abandon(op);
        self.counters.doorbell_pauses += 1;
        self.reactor.set_timer(Owner::Deaf(key).token(), until_ns);
    }

    /// The pause of a doorbell is over.
    pub(super) fn listen_again(&mut self, key: SandboxKey) {
        let Some(process) = self.entry(key).and_then(|entry| entry.process.as_ref()) else { return };
        let fd = process.host.doorbell().as_raw_fd();
        let submitted = self.reactor.submit(Owner::Doorbell(key).token(), Op::Poll { fd });
        match (submitted, self.entry(key).and_then(|entry| entry.process.as_mut())) {
            (Ok(op), Some(process)) => process.operations[0] = Some(op),
            _ => return self.give_up_watching(key),
        }
        self.note(key.index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 5_000_000_000;

    #[test]
    fn who_rings_in_vain_is_left_alone_for_a_window() {
        let mut rings = Rings::default();
        for _ in 1..RINGS_IN_VAIN {
            assert_eq!(rings.pause_after(true, START), None);
        }
        assert_eq!(rings.pause_after(true, START + 7), Some(START + 7 + WINDOW_NS));
        assert_eq!(rings.pause_after(true, START + 7 + WINDOW_NS), None, "another window");
    }

    #[test]
    fn who_has_something_to_say_is_listened_to_however_often() {
        let mut rings = Rings::default();
        for _ in 0..1000 {
            // The ring of an answer that was found before it, and one for which there is an answer.
            assert_eq!((rings.pause_after(true, START), rings.pause_after(false, START)), (None, None));
        }
        for window in 0..1000 {
            assert_eq!(rings.pause_after(true, START + window * WINDOW_NS), None, "seldom is not often");
        }
    }
}
