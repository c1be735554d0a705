//! Bytes of a connection that arrived before their turn.
//!
//! Invariant: what is taken from the front is moved away once for each arrival and not once for each request, so that a
//! pipeline costs time in proportion to its length; the memory of a long one is given back when it is through. It knows
//! no requests.

/// Memory that an empty backlog may keep.
const KEPT_BYTES: usize = 4 * 1024;

#[derive(Debug, Default)]
pub(super) struct Backlog {
    bytes: Vec<u8>,
    taken: usize,
}

impl Backlog {
    pub(super) fn waiting(&self) -> &[u8] {
        &self.bytes[self.taken..]
    }

    pub(super) fn is_empty(&self) -> bool {
        self.taken == self.bytes.len()
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..std::mem::take(&mut self.taken));
        self.bytes.extend_from_slice(bytes);
    }

    /// Strikes off the first `used` bytes of [`Backlog::waiting`].
    pub(super) fn take(&mut self, used: usize) {
        self.taken += used;
        debug_assert!(self.taken <= self.bytes.len(), "no more is taken than waits");
        if self.is_empty() {
            self.clear();
        }
    }

    pub(super) fn clear(&mut self) {
        self.taken = 0;
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_BYTES);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_wait_in_order_and_their_memory_goes_with_them() {
        let mut backlog = Backlog::default();
        assert!(backlog.is_empty());
        backlog.push(b"abcdef");
        backlog.take(4);
        backlog.push(&[b'x'; 100_000]);
        assert_eq!(&backlog.waiting()[..3], b"efx");
        assert_eq!(backlog.bytes.len(), 100_002, "what was taken is not kept");
        backlog.take(100_002);
        assert!(backlog.is_empty());
        assert!(backlog.bytes.capacity() <= KEPT_BYTES);
    }
}
