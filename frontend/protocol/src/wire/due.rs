//! What is left of the payload of the frame that came last.
//!
//! Invariant: never more than the frame's header said. It does not know frames.

/// Bytes that have not come yet.
#[derive(Debug, Default)]
pub(super) struct Due(u32);

impl Due {
    /// Of a frame that begins.
    pub(super) fn of(payload_bytes: u32) -> Due {
        Due(payload_bytes)
    }

    pub(super) fn bytes(&self) -> u32 {
        self.0
    }

    /// The part of the input that belongs to it, and whether that ends it; none if nothing is due.
    #[inline]
    pub(super) fn take<'a>(&mut self, input: &'a [u8]) -> Option<(&'a [u8], bool)> {
        if self.0 == 0 {
            return None;
        }
        let part = &input[..input.len().min(self.0 as usize)];
        self.0 -= part.len() as u32;
        Some((part, self.0 == 0))
    }

    /// So many came elsewhere; whether that ends it.
    ///
    /// # Panics
    /// If it is more than was due.
    pub(super) fn received(&mut self, bytes: u32) -> bool {
        assert!(bytes <= self.0, "more payload was received than its frame has");
        self.0 -= bytes;
        self.0 == 0
    }
}
