//! Whose memory is on the device, on its way there, or on its way off: the only books of it.
//!
//! Owns the sums and the tokens. A token stands for bytes in one state; only the ledger makes one, a change of state
//! consumes it, and it cannot be copied, so bytes cannot be counted twice, released twice, or run on before they have
//! arrived: a run begins on a [`Resident`], and there is no other way to get one than through a swap-in.
//!
//! Invariant: incoming + resident + outgoing ≤ capacity. Memory on its way off counts until it is gone, memory on its
//! way in from the moment it is reserved. Does not know whose memory it is, or who should leave.

use std::mem;

use vilya_engine::Bytes;

/// Sums over one device, in bytes.
#[derive(Debug)]
pub struct Ledger {
    capacity: u64,
    incoming: u64,
    resident: u64,
    outgoing: u64,
}

/// Bytes reserved for memory on its way onto the device.
#[derive(Debug)]
#[must_use = "a token that is dropped is room lost"]
pub struct Incoming {
    bytes: u64,
}

/// Bytes of memory on the device, and how many runs use them.
#[derive(Debug)]
#[must_use = "a token that is dropped is room lost"]
pub struct Resident {
    bytes: u64,
    runs: u32,
}

/// Bytes of memory on its way off the device.
#[derive(Debug)]
#[must_use = "a token that is dropped is room lost"]
pub struct Outgoing {
    bytes: u64,
}

/// There is not enough free memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shortage {
    /// How much more must be free.
    pub missing: Bytes,
}

impl Ledger {
    /// Nothing reserved of so much.
    pub fn new(capacity: Bytes) -> Ledger {
        Ledger { capacity: capacity.as_bytes(), incoming: 0, resident: 0, outgoing: 0 }
    }

    /// What there is in all.
    pub fn capacity(&self) -> Bytes {
        Bytes::from_bytes(self.capacity)
    }

    /// Reserved for memory on its way in.
    pub fn incoming(&self) -> Bytes {
        Bytes::from_bytes(self.incoming)
    }

    /// On the device.
    pub fn resident(&self) -> Bytes {
        Bytes::from_bytes(self.resident)
    }

    /// On its way off, and not yet free.
    pub fn outgoing(&self) -> Bytes {
        Bytes::from_bytes(self.outgoing)
    }

    /// What can be reserved.
    pub fn free(&self) -> Bytes {
        Bytes::from_bytes(self.capacity - self.incoming - self.resident - self.outgoing)
    }

    /// Room for memory that is about to move in.
    ///
    /// # Errors
    /// How much is missing; nothing is reserved then.
    pub fn reserve(&mut self, memory: Bytes) -> Result<Incoming, Shortage> {
        let missing = memory.saturating_sub(self.free());
        if missing > Bytes::ZERO {
            return Err(Shortage { missing });
        }
        self.incoming += memory.as_bytes();
        Ok(Incoming { bytes: memory.as_bytes() })
    }

    /// The memory is there.
    pub fn arrive(&mut self, incoming: Incoming) -> Resident {
        self.incoming -= incoming.bytes;
        self.resident += incoming.bytes;
        Resident { bytes: incoming.bytes, runs: 0 }
    }

    /// The memory is about to move off.
    ///
    /// # Errors
    /// The token back, when a run uses the memory.
    pub fn leave(&mut self, resident: Resident) -> Result<Outgoing, Resident> {
        if resident.runs > 0 {
            return Err(resident);
        }
        self.resident -= resident.bytes;
        self.outgoing += resident.bytes;
        Ok(Outgoing { bytes: resident.bytes })
    }

    /// The memory is off, and its room free.
    pub fn release(&mut self, outgoing: Outgoing) {
        self.outgoing -= outgoing.bytes;
    }

    /// The memory is gone whatever state it was in, with the process that used it.
    pub fn write_off(&mut self, memory: Memory) {
        match memory {
            Memory::Swapped => {}
            Memory::SwappingIn(incoming) => self.incoming -= incoming.bytes,
            Memory::Resident(resident) => self.resident -= resident.bytes,
            Memory::SwappingOut(outgoing) => self.outgoing -= outgoing.bytes,
        }
    }
}

impl Resident {
    /// A run uses the memory from now on.
    pub fn begin_run(&mut self) {
        self.runs += 1;
    }

    /// A run that used the memory has ended.
    ///
    /// # Panics
    /// When none did.
    pub fn end_run(&mut self) {
        self.runs = self.runs.checked_sub(1).expect("a run ends once");
    }

    /// Runs that use the memory.
    pub fn runs(&self) -> u32 {
        self.runs
    }
}

/// The memory of one function, with the token of its state.
#[derive(Debug, Default)]
pub enum Memory {
    /// Not on the device.
    #[default]
    Swapped,
    /// On its way in.
    SwappingIn(Incoming),
    /// There: runs may begin.
    Resident(Resident),
    /// On its way off.
    SwappingOut(Outgoing),
}

/// Which of the states of [`Memory`], without the token.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Residency {
    /// Not on the device.
    Swapped,
    /// On its way in.
    SwappingIn,
    /// There.
    Resident,
    /// On its way off.
    SwappingOut,
}

impl Memory {
    /// Which state it is in.
    pub fn residency(&self) -> Residency {
        match self {
            Memory::Swapped => Residency::Swapped,
            Memory::SwappingIn(_) => Residency::SwappingIn,
            Memory::Resident(_) => Residency::Resident,
            Memory::SwappingOut(_) => Residency::SwappingOut,
        }
    }

    /// Takes the state out and leaves [`Memory::Swapped`].
    pub fn take(&mut self) -> Memory {
        mem::take(self)
    }

    /// Runs that use it: 0 unless it is resident.
    pub fn runs(&self) -> u32 {
        match self {
            Memory::Resident(resident) => resident.runs(),
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CAPACITY: u64 = 100;

    fn bytes(bytes: u64) -> Bytes {
        Bytes::from_bytes(bytes)
    }

    #[test]
    fn memory_that_a_run_uses_does_not_leave() {
        let mut ledger = Ledger::new(bytes(CAPACITY));
        let incoming = ledger.reserve(bytes(60)).unwrap();
        let mut resident = ledger.arrive(incoming);
        resident.begin_run();
        let mut resident = ledger.leave(resident).unwrap_err();
        assert_eq!(ledger.resident(), bytes(60));
        resident.end_run();
        let outgoing = ledger.leave(resident).unwrap();
        assert_eq!(ledger.free(), bytes(40), "memory on its way off is not free");
        ledger.release(outgoing);
        assert_eq!(ledger.free(), bytes(CAPACITY));
    }

    #[test]
    fn a_shortage_says_how_much_and_takes_nothing() {
        let mut ledger = Ledger::new(bytes(CAPACITY));
        let incoming = ledger.reserve(bytes(70)).unwrap();
        assert_eq!(ledger.reserve(bytes(31)).unwrap_err(), Shortage { missing: bytes(1) });
        assert_eq!(ledger.free(), bytes(30));
        ledger.write_off(Memory::SwappingIn(incoming));
        assert_eq!(ledger.free(), bytes(CAPACITY));
    }

    /// One function's next legal move; the last writes its memory off, whatever the state.
    #[derive(Clone, Copy, Debug)]
    enum Move {
        Forward,
        Die,
    }

    fn apply(ledger: &mut Ledger, memory: &mut Memory, size: u64, change: Move) {
        *memory = match (change, memory.take()) {
            (Move::Die, memory) => {
                ledger.write_off(memory);
                Memory::Swapped
            }
            (_, Memory::Swapped) => match ledger.reserve(bytes(size)) {
                Ok(incoming) => Memory::SwappingIn(incoming),
                Err(Shortage { missing }) => {
                    assert_eq!(missing.as_bytes() + ledger.free().as_bytes(), size);
                    Memory::Swapped
                }
            },
            (_, Memory::SwappingIn(incoming)) => Memory::Resident(ledger.arrive(incoming)),
            (_, Memory::Resident(resident)) => match ledger.leave(resident) {
                Ok(outgoing) => Memory::SwappingOut(outgoing),
                Err(resident) => Memory::Resident(resident),
            },
            (_, Memory::SwappingOut(outgoing)) => {
                ledger.release(outgoing);
                Memory::Swapped
            }
        };
    }

    proptest! {
        #[test]
        fn never_over_capacity_never_counted_twice_and_all_of_it_released(
            sizes in proptest::collection::vec(0u64..=CAPACITY, 1..8),
            moves in proptest::collection::vec((0usize..8, prop_oneof![9 => Just(Move::Forward), 1 => Just(Move::Die)]), 0..300),
        ) {
            let mut ledger = Ledger::new(bytes(CAPACITY));
            let mut memories: Vec<Memory> = sizes.iter().map(|_| Memory::Swapped).collect();
            for (at, change) in moves {
                let at = at % sizes.len();
                apply(&mut ledger, &mut memories[at], sizes[at], change);
                let sum = |state| {
                    let of = memories.iter().zip(&sizes).filter(|(memory, _)| memory.residency() == state);
                    bytes(of.map(|(_, size)| size).sum())
                };
                prop_assert_eq!(ledger.incoming(), sum(Residency::SwappingIn));
                prop_assert_eq!(ledger.resident(), sum(Residency::Resident));
                prop_assert_eq!(ledger.outgoing(), sum(Residency::SwappingOut));
                let used = ledger.incoming().as_bytes() + ledger.resident().as_bytes() + ledger.outgoing().as_bytes();
                prop_assert!(used <= CAPACITY);
                prop_assert_eq!(ledger.free(), bytes(CAPACITY - used));
            }
            for (memory, size) in memories.iter_mut().zip(&sizes) {
                while !matches!(memory, Memory::Swapped) {
                    apply(&mut ledger, memory, *size, Move::Forward);
                }
            }
            prop_assert_eq!(ledger.free(), bytes(CAPACITY));
        }
    }
}
