//! Time and memory as types, so that one cannot be passed for the other.
//!
//! Owns the arithmetic on both, which saturates: a hostile or absurd value becomes "very late" or "very much", never
//! a wrapped small number. Does not know what any instant means: the epoch is the driver's.

/// A duration, or an instant on the driver's monotonic clock, in nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Nanos(u64);

impl Nanos {
    /// No time, or the epoch.
    pub const ZERO: Nanos = Nanos(0);
    /// The end of time: later than every deadline that can pass.
    pub const MAX: Nanos = Nanos(u64::MAX);

    /// From nanoseconds.
    pub const fn from_nanos(nanos: u64) -> Nanos {
        Nanos(nanos)
    }

    /// From microseconds, saturating.
    pub const fn from_micros(micros: u64) -> Nanos {
        Nanos(micros.saturating_mul(1_000))
    }

    /// From milliseconds, saturating.
    pub const fn from_millis(millis: u64) -> Nanos {
        Nanos(millis.saturating_mul(1_000_000))
    }

    /// From seconds, saturating.
    pub const fn from_secs(secs: u64) -> Nanos {
        Nanos(secs.saturating_mul(1_000_000_000))
    }

    /// In nanoseconds.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The sum, or [`Nanos::MAX`].
    pub const fn saturating_add(self, other: Nanos) -> Nanos {
        Nanos(self.0.saturating_add(other.0))
    }

    /// The difference, or [`Nanos::ZERO`] when `other` is later.
    pub const fn saturating_sub(self, other: Nanos) -> Nanos {
        Nanos(self.0.saturating_sub(other.0))
    }
}

/// An amount of memory, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Bytes(u64);

impl Bytes {
    /// Nothing.
    pub const ZERO: Bytes = Bytes(0);

    /// From bytes.
    pub const fn from_bytes(bytes: u64) -> Bytes {
        Bytes(bytes)
    }

    /// From mebibytes (2^20 bytes), saturating.
    pub const fn from_mebibytes(mebibytes: u64) -> Bytes {
        Bytes(mebibytes.saturating_mul(1 << 20))
    }

    /// In bytes.
    pub const fn as_bytes(self) -> u64 {
        self.0
    }

    /// The sum, or the largest amount.
    pub const fn saturating_add(self, other: Bytes) -> Bytes {
        Bytes(self.0.saturating_add(other.0))
    }

    /// The difference, or nothing.
    pub const fn saturating_sub(self, other: Bytes) -> Bytes {
        Bytes(self.0.saturating_sub(other.0))
    }
}
