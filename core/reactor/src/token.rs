//! The 64 bits that name an operation to the kernel and come back in its completions.
//!
//! Layout: kind (8 bits) | slot index (24 bits) | generation (32 bits). The kind is in the token and not only in the
//! slot, so that a completion for a slot long given away still says what it carries: an accepted descriptor to close, a
//! buffer to recycle.

/// Largest number of slots that an index can name.
pub(crate) const INDEX_MAX: u32 = (1 << INDEX_BITS) - 1;

const INDEX_BITS: u32 = 24;
const INDEX_SHIFT: u32 = 32;
const KIND_SHIFT: u32 = INDEX_SHIFT + INDEX_BITS;

const _: () = assert!(KIND_SHIFT + 8 == u64::BITS);

/// What a completion belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Accept = 1,
    Receive = 2,
    Send = 3,
    Read = 4,
    Poll = 5,
    PollOnce = 6,
    Close = 7,
    /// A message posted by this ring; only its failure completes.
    Posted = 8,
    /// A message posted to this ring by another one.
    Arrived = 9,
    /// A cancel request; its result is of no interest.
    Cancel = 10,
    /// The poll of the waker's eventfd.
    Waker = 11,
    /// A receive into a window.
    Fill = 12,
}

impl Kind {
    fn from_bits(bits: u8) -> Option<Kind> {
        Some(match bits {
            1 => Kind::Accept,
            2 => Kind::Receive,
            3 => Kind::Send,
            4 => Kind::Read,
            5 => Kind::Poll,
            6 => Kind::PollOnce,
            7 => Kind::Close,
            8 => Kind::Posted,
            9 => Kind::Arrived,
            10 => Kind::Cancel,
            11 => Kind::Waker,
            12 => Kind::Fill,
            _ => return None,
        })
    }
}

/// Kind, slot and generation in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Token(u64);

impl Token {
    pub(crate) const fn new(kind: Kind, index: u32, generation: u32) -> Token {
        debug_assert!(index <= INDEX_MAX);
        Token((kind as u64) << KIND_SHIFT | (index as u64) << INDEX_SHIFT | generation as u64)
    }

    pub(crate) const fn from_bits(bits: u64) -> Token {
        Token(bits)
    }

    pub(crate) const fn to_bits(self) -> u64 {
        self.0
    }

    /// `None` for a word that this package never hands to the kernel.
    pub(crate) fn kind(self) -> Option<Kind> {
        Kind::from_bits((self.0 >> KIND_SHIFT) as u8)
    }

    pub(crate) const fn index(self) -> u32 {
        (self.0 >> INDEX_SHIFT) as u32 & INDEX_MAX
    }

    pub(crate) const fn generation(self) -> u32 {
        self.0 as u32
    }
}

/// Names one submitted operation. Never names another one later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OpId(pub(crate) Token);

impl OpId {
    /// Stands in completions that belong to no submitted operation: timers, wake-ups, messages that arrived.
    pub const NONE: OpId = OpId(Token(0));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_survive_the_round_trip() {
        for kind in (0..=u8::MAX).filter_map(Kind::from_bits) {
            for (index, generation) in [(0, 0), (1, u32::MAX), (INDEX_MAX, 7)] {
                let token = Token::from_bits(Token::new(kind, index, generation).to_bits());
                assert_eq!((token.kind(), token.index(), token.generation()), (Some(kind), index, generation));
            }
        }
        assert_eq!(OpId::NONE.0.kind(), None);
    }
}
