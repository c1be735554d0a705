//! How large a reactor is. All limits of this package are here; [`Config::check`] is the only judge of them.

use thiserror::Error;

use crate::token;

/// Most entries of a submission queue (the kernel's own limit).
const ENTRIES_MAX: u32 = 32_768;
/// Most entries of a completion queue (the kernel's own limit).
const COMPLETION_ENTRIES_MAX: u32 = 65_536;
/// Most provided buffers (the kernel's own limit: a buffer id has 15 bits).
const BUFFERS_MAX: u16 = 32_768;
/// Largest provided buffer, in bytes.
const BUFFER_BYTES_MAX: u32 = 1 << 24;
/// Most files that a ring keeps (the kernel's own limit).
pub const FILES_MAX: u32 = 1 << 20;
/// Completions copied out of the queue at a time, on the stack.
pub(crate) const HARVEST_BATCH: usize = 32;
/// Longest one submission sends, in bytes: the kernel reports a result in 31 bits.
pub(crate) const SEND_BYTES_MAX: usize = 1 << 30;
/// How long a dropped reactor waits for the kernel to give its buffers back, in nanoseconds.
pub(crate) const SHUTDOWN_WAIT_NS: u64 = 2_000_000_000;
/// How long it waits before it asks again, in nanoseconds.
pub(crate) const SHUTDOWN_RETRY_NS: u64 = 20_000_000;

const _: () = assert!(SEND_BYTES_MAX <= i32::MAX as usize);
const _: () = assert!(SHUTDOWN_RETRY_NS < SHUTDOWN_WAIT_NS);
const _: () = assert!(BUFFER_BYTES_MAX <= i32::MAX as u32);

/// The size of a [`Reactor`](crate::Reactor). Nothing in it grows later, except the timers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Submission queue entries: a power of two, at most 32768. A full queue costs one early system call.
    pub entries: u32,
    /// Completion queue entries: a power of two, at least `entries`, at most 65536. An overflow loses nothing, but ends
    /// multishot operations, which are then armed again.
    pub completion_entries: u32,
    /// Provided buffers: a power of two, at most 32768. When all are held, a receive ends with `ENOBUFS`.
    pub buffer_count: u16,
    /// Bytes of one provided buffer.
    pub buffer_bytes: u32,
    /// Operations in flight. One more is refused.
    pub operations: u32,
    /// Files that operations own and the ring keeps, at most as many as the process may have descriptors. What finds no
    /// place takes a descriptor.
    pub files: u32,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            entries: 512,
            completion_entries: 4096,
            buffer_count: 512,
            buffer_bytes: 16 * 1024,
            operations: 8192,
            files: 0,
        }
    }
}

impl Config {
    /// Says whether a reactor can be of this size.
    ///
    /// # Errors
    /// The first field that is out of its bounds.
    pub fn check(&self) -> Result<(), ConfigError> {
        let within = |field, value: u32, least: u32, most: u32| {
            if (least..=most).contains(&value) {
                Ok(())
            } else {
                Err(ConfigError::OutOfBounds { field, value, least, most })
            }
        };
        let power = |field, value: u32| {
            if value.is_power_of_two() { Ok(()) } else { Err(ConfigError::NotPowerOfTwo { field, value }) }
        };
        within("entries", self.entries, 1, ENTRIES_MAX)?;
        power("entries", self.entries)?;
        within("completion_entries", self.completion_entries, self.entries, COMPLETION_ENTRIES_MAX)?;
        power("completion_entries", self.completion_entries)?;
        within("buffer_count", self.buffer_count.into(), 1, BUFFERS_MAX.into())?;
        power("buffer_count", self.buffer_count.into())?;
        within("buffer_bytes", self.buffer_bytes, 1, BUFFER_BYTES_MAX)?;
        within("operations", self.operations, 1, token::INDEX_MAX)?;
        within("files", self.files, 0, FILES_MAX)
    }
}

/// Why a [`Config`] cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// A field is too small or too large.
    #[error("{field} is {value}; choose a value from {least} to {most}")]
    OutOfBounds {
        /// The field of [`Config`].
        field: &'static str,
        /// Its value.
        value: u32,
        /// The smallest allowed.
        least: u32,
        /// The largest allowed.
        most: u32,
    },
    /// A field that sizes a ring is not a power of two.
    #[error("{field} is {value}; choose a power of two")]
    NotPowerOfTwo {
        /// The field of [`Config`].
        field: &'static str,
        /// Its value.
        value: u32,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_is_valid() {
        assert_eq!(Config::default().check(), Ok(()));
    }

    #[test]
    fn each_bound_is_checked() {
        let base = Config::default();
        for bad in [
            Config { entries: 0, ..base.clone() },
            Config { entries: 3, ..base.clone() },
            Config { entries: 8192, ..base.clone() },
            Config { completion_entries: 131_072, ..base.clone() },
            Config { completion_entries: 5000, ..base.clone() },
            Config { buffer_count: 0, ..base.clone() },
            Config { buffer_count: 100, ..base.clone() },
            Config { buffer_bytes: 0, ..base.clone() },
            Config { operations: 0, ..base.clone() },
            Config { operations: u32::MAX, ..base.clone() },
            Config { files: FILES_MAX + 1, ..base.clone() },
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
    }
}
