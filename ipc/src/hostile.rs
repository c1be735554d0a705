//! A sandbox that writes whatever it likes into its up region, for tests and fuzzing.
//!
//! Invariant under test: the host never panics and never reads outside the sandbox's slot and lane; every pop is
//! nothing, a claim in bounds, or a poison that stays.

use crate::claim::{Claim, ClaimKind, Poison};
use crate::host::{Host, Payload, Submission};
use crate::layout::{
    ABI_VERSION, COMPLETION_TAIL_OFFSET, CompletionDescriptor, DESCRIPTOR_BYTES, INLINE_BYTES, METADATA_BYTES,
    RegionSpec, SANDBOX_PARKED_OFFSET, SEQUENCE_OFFSET, SUBMISSION_HEAD_OFFSET, UP_MAGIC, completion_kind,
};
use crate::metadata::ContentType;
use crate::region::OwnRegion;
use crate::ring::sequence;

/// The sandbox's side of a host over heap memory, without a protocol.
pub(crate) struct HostileUp {
    up: OwnRegion,
    tail: u32,
}

impl HostileUp {
    /// A host that is not past its handshake, and its sandbox.
    pub(crate) fn pair(spec: &RegionSpec) -> (Host, HostileUp) {
        let (host, up) = Host::on_heap(spec);
        (host, HostileUp { up, tail: 0 })
    }

    /// A pair past its handshake, with an invocation (numbered as its lane) running on each lane.
    pub(crate) fn busy_pair(spec: &RegionSpec) -> (Host, HostileUp) {
        let (mut host, mut hostile) = HostileUp::pair(spec);
        hostile.write_header();
        hostile.complete(&host, &CompletionDescriptor { kind: completion_kind::READY, ..Default::default() });
        let claim = host.pop().expect("a sound Ready").expect("a published Ready");
        assert_eq!(claim.kind, ClaimKind::Ready);
        for lane in 0..spec.lanes {
            submit(&mut host, lane);
        }
        (host, hostile)
    }

    pub(crate) fn write_header(&self) {
        self.write(0, &UP_MAGIC.to_le_bytes());
        self.write(8, &u64::from(ABI_VERSION).to_le_bytes());
    }

    /// Writes bytes anywhere; what lies beyond the region is left out.
    pub(crate) fn write(&self, offset: u64, bytes: &[u8]) {
        self.up.scribble(offset, bytes);
    }

    pub(crate) fn store_word(&self, offset: u64, value: u32) {
        self.write(offset, &value.to_le_bytes());
    }

    pub(crate) fn store_tail(&mut self, tail: u32) {
        self.tail = tail;
        self.store_word(COMPLETION_TAIL_OFFSET, tail);
    }

    /// Writes a descriptor into the next slot and publishes it as a correct runtime does.
    pub(crate) fn complete(&mut self, host: &Host, descriptor: &CompletionDescriptor) {
        let index = self.tail;
        self.write_descriptor(host, index, descriptor);
        self.store_tail(index.wrapping_add(1));
        self.store_sequence(host, index, sequence(index));
    }

    /// Says of the slot of message `index` what its sequence should say when the message is there.
    pub(crate) fn store_sequence(&self, host: &Host, index: u32, value: u64) {
        self.write(self.slot(host, index) + SEQUENCE_OFFSET, &value.to_le_bytes());
    }

    /// Writes a descriptor, but for its sequence, where message `index` belongs.
    pub(crate) fn write_descriptor(&self, host: &Host, index: u32, descriptor: &CompletionDescriptor) {
        let [body @ .., _] = descriptor.to_words();
        for (word, at) in body.into_iter().zip((self.slot(host, index)..).step_by(8)) {
            self.write(at, &word.to_le_bytes());
        }
    }

    fn slot(&self, host: &Host, index: u32) -> u64 {
        host.geometry().completion_slot(index & (host.geometry().completion_entries() - 1))
    }
}

/// Pops once and, if there is a claim, uses all of it.
pub(crate) fn pop_and_check(host: &mut Host) -> Result<Option<Claim>, Poison> {
    let popped = host.pop();
    match &popped {
        Ok(None) => {}
        Err(poison) => {
            assert_eq!(host.pop().as_ref(), Err(poison), "a poison stays");
            assert!(!poison.to_string().is_empty());
        }
        Ok(Some(claim)) => {
            let limit = host.geometry().payload_limit_bytes().max(INLINE_BYTES) as usize;
            assert!(claim.payload_bytes() <= limit);
            assert!(u32::from(claim.lane) < host.geometry().lanes());
            assert!(ContentType::new(&claim.metadata.content_type).is_some());
            let mut out = Vec::new();
            host.copy_payload(claim, &mut out);
            assert_eq!(out.len(), claim.payload_bytes());
            let window = host.response_window(claim);
            assert!(window.end <= host.geometry().up_bytes() && window.end - window.start == out.len() as u64);
        }
    }
    popped
}

/// Goes to sleep as a worker does, and wakes up at once. A sequence without a tail keeps nobody awake: a correct runtime
/// stores the tail first.
fn fall_asleep(host: &mut Host) {
    let poisoned = host.is_poisoned();
    if host.announce_park() {
        assert!(poisoned || !host.tail_is_ahead(), "nobody sleeps beside a claim that the tail tells of");
        host.announce_unpark();
    }
}

fn submit(host: &mut Host, lane: u16) {
    let payload = Payload::Bytes(&[7; 30]);
    let submission = Submission { invocation: u64::from(lane), lane, deadline_ns: 0, metadata: &[], payload };
    // A lane that is busy or a host that is poisoned refuses; that is its right.
    let _refused = host.submit(&submission);
}

/// Bytes that decide what a hostile sandbox does.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    /// The next `N` bytes; zeros at the end.
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (taken, rest) = self.0.split_at(N.min(self.0.len()));
        self.0 = rest;
        std::array::from_fn(|at| taken.get(at).copied().unwrap_or(0))
    }

    fn byte(&mut self) -> u8 {
        u8::from_le_bytes(self.take())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }
}

/// Plays `data` as what a hostile sandbox writes into its region, between pops of its host.
///
/// # Panics
/// The host believed something it must not; that is what a fuzzer looks for.
pub fn fuzz_claims(data: &[u8]) {
    let mut input = Input(data);
    let [lanes, limit] = input.take();
    let spec = RegionSpec { lanes: u16::from(lanes % 4) + 1, payload_limit_bytes: u64::from(limit) * 16 };
    let (mut host, mut hostile) = match lanes & 0x80 {
        0 => HostileUp::busy_pair(&spec),
        _ => HostileUp::pair(&spec),
    };
    while !input.0.is_empty() {
        match input.byte() % 14 {
            0 => hostile.store_tail(u32::from_le_bytes(input.take())),
            1 => hostile.store_tail(hostile.tail.wrapping_add(u32::from(input.byte() % 8))),
            2 => hostile.store_word(SUBMISSION_HEAD_OFFSET, u32::from_le_bytes(input.take())),
            3 => hostile.store_word(SANDBOX_PARKED_OFFSET, u32::from_le_bytes(input.take())),
            4 => {
                let offset = u64::from(u32::from_le_bytes(input.take())) % host.geometry().up_bytes();
                hostile.write(offset, &input.take::<24>());
            }
            5 => hostile.write_header(),
            6 => submit(&mut host, u16::from(input.byte() % 5)),
            7 => {
                let lane = u16::from(input.byte() % 5);
                let _refused = host.cancel(u64::from(lane), lane);
                host.wake_if_parked();
            }
            8 => hostile.store_sequence(&host, hostile.tail, input.u64()),
            9 => {
                // A sequence near to the right one, and no tail.
                let index = hostile.tail.wrapping_add(u32::from(input.byte() % 8)).wrapping_sub(4);
                hostile.store_sequence(&host, index, sequence(index.wrapping_add(u32::from(input.byte() % 4))));
            }
            10 => {
                // A message by its tail alone.
                let descriptor = plausible(&mut input, &host, hostile.tail);
                hostile.write_descriptor(&host, hostile.tail, &descriptor);
                hostile.store_tail(hostile.tail.wrapping_add(1));
            }
            11 => fall_asleep(&mut host),
            _ => {
                let descriptor = plausible(&mut input, &host, hostile.tail);
                hostile.complete(&host, &descriptor);
                let _popped = pop_and_check(&mut host);
            }
        }
        if host.pending() {
            let _popped = pop_and_check(&mut host);
        }
    }
}

/// A descriptor near to one that a runtime would write: its places are slot or lane, moved by a byte's worth.
fn plausible(input: &mut Input<'_>, host: &Host, tail: u32) -> CompletionDescriptor {
    let [kind, lane, metadata_bytes, places, odd, shift] = input.take();
    let lane = u32::from(lane) % (host.geometry().lanes() + 1);
    let slot = host.geometry().completion_slot(tail & (host.geometry().completion_entries() - 1)) + DESCRIPTOR_BYTES;
    let in_lane = host.geometry().response_lane(lane.min(host.geometry().lanes() - 1)).start;
    let shift = i64::from(shift as i8) as u64;
    let mut descriptor = CompletionDescriptor {
        invocation: u64::from(lane),
        kind: u16::from(kind % 6),
        lane,
        metadata_offset: if places & 1 == 0 { slot } else { in_lane },
        metadata_bytes: u32::from(metadata_bytes),
        payload_offset: if places & 2 == 0 { slot + 272 } else { in_lane + METADATA_BYTES },
        payload_bytes: u64::from(u16::from_le_bytes(input.take())) % 5000,
        ..CompletionDescriptor::default()
    };
    match odd % 16 {
        0 => descriptor.payload_offset = input.u64(),
        1 => descriptor.payload_bytes = input.u64(),
        2 => descriptor.metadata_offset = input.u64(),
        3 => descriptor.metadata_bytes = input.u64() as u32,
        4 => descriptor.invocation = input.u64(),
        5 => descriptor.flags = 1,
        6 => descriptor.payload_offset = descriptor.payload_offset.wrapping_add(shift),
        7 => descriptor.metadata_offset = descriptor.metadata_offset.wrapping_add(shift),
        _ => {}
    }
    descriptor
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::IndexError;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn any_sequence_of_writes_yields_claims_in_bounds_or_poison(data in prop::collection::vec(any::<u8>(), 0..600)) {
            fuzz_claims(&data);
        }
    }

    /// A small generator of numbers (xorshift), so that the writer below needs nothing but a seed.
    struct Numbers(u64);

    impl Numbers {
        fn next(&mut self) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0
        }
    }

    /// What `scribbler` writes at one go: anything anywhere, or something near to sound.
    fn scribble(hostile: &HostileUp, numbers: &mut Numbers, up_bytes: u64) {
        let [what, value, offset] = [numbers.next(), numbers.next(), numbers.next()];
        match what % 8 {
            0 => hostile.store_word(COMPLETION_TAIL_OFFSET, value as u32 % 8),
            1 => hostile.store_word(COMPLETION_TAIL_OFFSET, value as u32),
            2 => hostile.store_word(SUBMISSION_HEAD_OFFSET, value as u32),
            // Somewhere in the descriptors of the first slots, small numbers: kinds, lanes, lengths, offsets.
            3 => hostile.write(4096 + (value % 4) * 1280 + SEQUENCE_OFFSET, &(numbers.next() % 12).to_le_bytes()),
            4 | 5 => {
                let slot = 4096 + (offset % 4) * 1280 + (offset / 4 % 8) * 8;
                hostile.write(slot, &(value % 20_000).to_le_bytes());
            }
            _ => hostile.write(offset % up_bytes, &value.to_le_bytes()),
        }
    }

    #[test]
    fn a_host_survives_a_sandbox_that_scribbles_while_it_pops() {
        let spec = RegionSpec { lanes: 2, payload_limit_bytes: 8192 };
        for seed in 1..=200u64 {
            let (mut host, hostile) = HostileUp::busy_pair(&spec);
            let up_bytes = host.geometry().up_bytes();
            std::thread::scope(|scope| {
                let scribbler = scope.spawn(|| {
                    let mut numbers = Numbers(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
                    for _ in 0..5000 {
                        scribble(&hostile, &mut numbers, up_bytes);
                    }
                });
                while !scribbler.is_finished() {
                    host.wake_if_parked();
                    host.announce_park();
                    let _popped = pop_and_check(&mut host);
                }
            });
            // Whatever it believed so far, a tail beyond the ring ends it.
            hostile.store_word(COMPLETION_TAIL_OFFSET, 1 << 20);
            host.announce_park();
            assert!(pop_and_check(&mut host).is_err());
        }
    }

    #[test]
    fn a_message_is_believed_by_tail_or_by_sequence_and_a_contradiction_is_found_out() {
        let spec = RegionSpec { lanes: 2, payload_limit_bytes: 8192 };
        let returned = |lane| CompletionDescriptor {
            kind: completion_kind::RETURNED,
            lane,
            invocation: u64::from(lane),
            ..CompletionDescriptor::default()
        };
        // By the tail alone: heard of when the worker is about to sleep, at the latest.
        let (mut host, mut hostile) = HostileUp::busy_pair(&spec);
        hostile.write_descriptor(&host, 1, &returned(0));
        hostile.store_tail(2);
        assert!(!host.pending() && host.pop() == Ok(None));
        assert!(!host.announce_park() && host.pending());
        assert_eq!(host.pop().unwrap().unwrap().lane, 0);
        assert!(host.announce_park());

        // By the sequence alone: believed, as far as its descriptor goes, until the tail denies it.
        let (mut host, hostile) = HostileUp::busy_pair(&spec);
        hostile.write_descriptor(&host, 1, &returned(1));
        hostile.store_sequence(&host, 1, sequence(1));
        assert!(host.pending());
        assert_eq!(host.pop().unwrap().unwrap().lane, 1);
        assert!(!host.announce_park());
        assert_eq!(host.pop(), Err(Poison::CompletionTail(IndexError::MovedBack { from: 2, to: 1 })));
        assert!(!host.pending() && host.announce_park());

        // A sequence whose tail is missing: nobody stays awake for it, and whoever pops it finds out later.
        let (mut host, hostile) = HostileUp::busy_pair(&spec);
        hostile.write_descriptor(&host, 1, &returned(0));
        hostile.store_sequence(&host, 1, sequence(1));
        assert!(host.announce_park() && host.pending() && !host.tail_is_ahead());
        host.announce_unpark();
        assert_eq!(host.pop().unwrap().unwrap().lane, 0);
        assert!(!host.announce_park() && host.pop().is_err());

        // A sequence of another lap, or of the slot's neighbour, says nothing.
        let (mut host, hostile) = HostileUp::busy_pair(&spec);
        for stale in [0, 1, 3, 6, 1 << 32, u64::MAX] {
            hostile.write_descriptor(&host, 1, &returned(1));
            hostile.store_sequence(&host, 1, stale);
            assert!(!host.pending() && host.pop() == Ok(None) && host.announce_park(), "{stale}");
        }
    }

    #[test]
    fn a_sandbox_that_says_always_more_is_heard_no_longer_than_what_runs() {
        let spec = RegionSpec { lanes: 2, payload_limit_bytes: 8192 };
        let (mut host, hostile) = HostileUp::busy_pair(&spec);
        let returned = CompletionDescriptor { kind: completion_kind::RETURNED, ..CompletionDescriptor::default() };
        for index in 1..100 {
            hostile.write_descriptor(&host, index, &returned);
            hostile.store_sequence(&host, index, sequence(index));
        }
        // A lap of four slots later only the last sequences are left, none of which is awaited.
        assert_eq!(host.pop(), Ok(None));
        for index in 1..5 {
            hostile.store_sequence(&host, index, sequence(index));
        }
        assert_eq!(host.pop().unwrap().unwrap().lane, 0);
        assert_eq!(host.pop(), Err(Poison::LaneIdle(0)));
    }

    #[test]
    fn each_lie_about_what_runs_is_found_out() {
        let spec = RegionSpec { lanes: 2, payload_limit_bytes: 8192 };
        let returned = |lane, invocation| CompletionDescriptor {
            kind: completion_kind::RETURNED,
            lane,
            invocation,
            ..CompletionDescriptor::default()
        };
        let (mut host, mut hostile) = HostileUp::busy_pair(&spec);
        hostile.complete(&host, &returned(1, 1));
        hostile.complete(&host, &returned(1, 1));
        assert_eq!(host.pop().unwrap().unwrap().invocation, 1);
        assert_eq!(host.pop(), Err(Poison::LaneIdle(1)));

        let (mut host, mut hostile) = HostileUp::busy_pair(&spec);
        hostile.complete(&host, &returned(1, 0));
        assert_eq!(host.pop(), Err(Poison::WrongInvocation { lane: 1, claimed: 0, running: 1 }));

        let (mut host, mut hostile) = HostileUp::busy_pair(&spec);
        let start = host.geometry().response_lane(0).start;
        let bad = CompletionDescriptor { metadata_offset: start, metadata_bytes: 8, ..returned(0, 0) };
        // A root that points out of its archive.
        hostile.write(start, &[0xFF; 8]);
        hostile.complete(&host, &bad);
        assert_eq!(host.pop(), Err(Poison::Metadata(crate::metadata::DecodeError::Invalid)));

        let (mut host, mut hostile) = HostileUp::busy_pair(&spec);
        let start = host.geometry().response_lane(0).start;
        hostile.write(start, b"a\r\nb: c\0");
        hostile.write(start + 8, &(-8i32).to_le_bytes());
        hostile.write(start + 12, &7u32.to_le_bytes());
        hostile.complete(&host, &CompletionDescriptor { metadata_bytes: 16, ..bad });
        assert_eq!(host.pop(), Err(Poison::Metadata(crate::metadata::DecodeError::ContentType)));
    }
}
