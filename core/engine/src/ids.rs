//! Names for what the engine and its driver talk about.
//!
//! Invariant: an id is a slot and a generation, so a report that arrives late for a slot used again is recognised.
//! Functions are numbered by the driver; invocations and sandboxes by the engine, whose generations start at 1, so
//! that no id of theirs has the bits 0.

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub struct $name {
            /// The slot: dense, below the limit of its kind.
            pub index: u32,
            /// Which use of the slot.
            pub generation: u32,
        }

        impl $name {
            /// One word for user data and shared memory: the generation in the upper half.
            pub const fn to_bits(self) -> u64 {
                (self.generation as u64) << 32 | self.index as u64
            }

            /// The inverse of `to_bits`; any word is some id, which may name nothing.
            pub const fn from_bits(bits: u64) -> Self {
                Self { index: bits as u32, generation: (bits >> 32) as u32 }
            }
        }
    };
}

id! {
    /// A function on this shard. The driver chooses it: a dense index, and a generation that changes on reuse.
    FunctionId
}
id! {
    /// An admitted invocation. The engine allots it.
    InvocationId
}
id! {
    /// A sandbox, from the decision to start it until its death. The engine allots it.
    SandboxId
}

/// The driver's own word for who asked; the engine only hands it back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Origin(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_round_trip() {
        let id = SandboxId { index: 0xdead_beef, generation: 0x1234_5678 };
        assert_eq!(id.to_bits(), 0x1234_5678_dead_beef);
        assert_eq!(SandboxId::from_bits(id.to_bits()), id);
    }
}
