//! Byte buffers that are used again, so that a warm invocation allocates nothing.
//!
//! Invariant: what lies here is bounded in number and size; a buffer that grew beyond the bound goes back to the
//! allocator. It does not know what its buffers hold.

/// Buffers kept at most.
const BUFFERS: usize = 512;
/// The largest buffer kept, in bytes.
pub(crate) const BUFFER_BYTES: usize = 64 * 1024;

/// Empty buffers with memory of their own.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    free: Vec<Vec<u8>>,
}

impl Pool {
    pub(crate) fn new() -> Pool {
        Pool { free: Vec::with_capacity(BUFFERS) }
    }

    /// An empty buffer, used before if there is one.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        self.free.pop().unwrap_or_default()
    }

    /// Takes a buffer back; its contents are dropped.
    pub(crate) fn give(&mut self, mut buffer: Vec<u8>) {
        if self.free.len() < BUFFERS && (1..=BUFFER_BYTES).contains(&buffer.capacity()) {
            buffer.clear();
            self.free.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_back_empty_and_large_ones_do_not() {
        let mut pool = Pool::new();
        pool.give(b"left over".to_vec());
        pool.give(Vec::with_capacity(BUFFER_BYTES + 1));
        pool.give(Vec::new());
        let buffer = pool.take();
        assert!(buffer.is_empty() && buffer.capacity() >= 9);
        assert_eq!(pool.take().capacity(), 0);
    }
}
