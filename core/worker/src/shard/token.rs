//! The 64-bit tokens under which a shard hands operations to its ring.
//!
//! Invariant: a token names a kind, a slot and the slot's generation, so that a completion for a connection or sandbox
//! that has gone is never taken for its successor's.

use vilya_engine::SandboxId;

use crate::slots::Key;

/// Standard output or standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

/// Whose completion it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// A listening socket, by its place.
    Door(usize),
    /// A ring message that wakes this shard; heard of only when it fails.
    Wake(usize),
    /// A descriptor that nobody wants any more.
    Closing,
    Receive(Key),
    Send(Key),
    ConnectionTimer(Key),
    WireReceive(Key),
    WireSend(Key),
    WireTimer(Key),
    /// A receive into a lane, by its upload.
    Fill(Key),
    /// It is time to give memory of lanes back.
    Trim,
    Doorbell(SandboxKey),
    Death(SandboxKey),
    Output(SandboxKey, Stream),
    /// A stream is read again.
    Pause(SandboxKey, Stream),
    /// A doorbell is listened to again.
    Deaf(SandboxKey),
}

/// A sandbox in a token: the low 24 bits of its generation are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SandboxKey {
    pub(super) index: u32,
    generation: u32,
}

const GENERATION_MASK: u32 = (1 << 24) - 1;

impl SandboxKey {
    pub(super) fn of(sandbox: SandboxId) -> Self {
        SandboxKey { index: sandbox.index, generation: sandbox.generation & GENERATION_MASK }
    }

    pub(super) fn names(self, sandbox: SandboxId) -> bool {
        self == SandboxKey::of(sandbox)
    }

    fn bits(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    fn from_bits(bits: u64) -> Self {
        SandboxKey { index: bits as u32, generation: (bits >> 32) as u32 & GENERATION_MASK }
    }
}

const KIND_SHIFT: u32 = 56;
const VALUE_MASK: u64 = (1 << KIND_SHIFT) - 1;

impl Owner {
    pub(super) fn token(self) -> u64 {
        let (kind, value) = match self {
            Owner::Door(door) => (1, door as u64),
            Owner::Wake(shard) => (2, shard as u64),
            Owner::Closing => (10, 0),
            Owner::Receive(key) => (3, key.0),
            Owner::Send(key) => (4, key.0),
            Owner::ConnectionTimer(key) => (5, key.0),
            Owner::WireReceive(key) => (11, key.0),
            Owner::WireSend(key) => (12, key.0),
            Owner::WireTimer(key) => (13, key.0),
            Owner::Fill(key) => (14, key.0),
            Owner::Trim => (15, 0),
            Owner::Doorbell(sandbox) => (6, sandbox.bits()),
            Owner::Death(sandbox) => (7, sandbox.bits()),
            Owner::Output(sandbox, Stream::Stdout) => (8, sandbox.bits()),
            Owner::Output(sandbox, Stream::Stderr) => (9, sandbox.bits()),
            Owner::Pause(sandbox, Stream::Stdout) => (16, sandbox.bits()),
            Owner::Pause(sandbox, Stream::Stderr) => (17, sandbox.bits()),
            Owner::Deaf(sandbox) => (18, sandbox.bits()),
        };
        (kind << KIND_SHIFT) | (value & VALUE_MASK)
    }

    /// None for tokens that no shard made: the reactor's own wake-ups.
    pub(super) fn of(token: u64) -> Option<Owner> {
        let value = token & VALUE_MASK;
        Some(match token >> KIND_SHIFT {
            1 => Owner::Door(value as usize),
            2 => Owner::Wake(value as usize),
            10 => Owner::Closing,
            3 => Owner::Receive(Key(value)),
            4 => Owner::Send(Key(value)),
            5 => Owner::ConnectionTimer(Key(value)),
            11 => Owner::WireReceive(Key(value)),
            12 => Owner::WireSend(Key(value)),
            13 => Owner::WireTimer(Key(value)),
            14 => Owner::Fill(Key(value)),
            15 => Owner::Trim,
            6 => Owner::Doorbell(SandboxKey::from_bits(value)),
            7 => Owner::Death(SandboxKey::from_bits(value)),
            8 => Owner::Output(SandboxKey::from_bits(value), Stream::Stdout),
            9 => Owner::Output(SandboxKey::from_bits(value), Stream::Stderr),
            16 => Owner::Pause(SandboxKey::from_bits(value), Stream::Stdout),
            17 => Owner::Pause(SandboxKey::from_bits(value), Stream::Stderr),
            18 => Owner::Deaf(SandboxKey::from_bits(value)),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back_as_they_went() {
        let key = Key(0x00ab_cdef_1234_5678);
        let sandbox = SandboxKey::of(SandboxId { index: 77, generation: 0x0500_0009 });
        for owner in [
            Owner::Door(2),
            Owner::Wake(3),
            Owner::Closing,
            Owner::Receive(key),
            Owner::Send(key),
            Owner::ConnectionTimer(key),
            Owner::WireReceive(key),
            Owner::WireSend(key),
            Owner::WireTimer(key),
            Owner::Fill(key),
            Owner::Trim,
            Owner::Doorbell(sandbox),
            Owner::Death(sandbox),
            Owner::Output(sandbox, Stream::Stdout),
            Owner::Output(sandbox, Stream::Stderr),
            Owner::Pause(sandbox, Stream::Stdout),
            Owner::Pause(sandbox, Stream::Stderr),
            Owner::Deaf(sandbox),
        ] {
            assert_eq!(Owner::of(owner.token()), Some(owner));
        }
        assert_eq!(Owner::of(0), None);
        assert!(!sandbox.names(SandboxId { index: 77, generation: 10 }));
    }
}
