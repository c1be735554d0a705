//! Messages posted to other rings, remembered so that a failed one finds its owner.
//!
//! A posted message has no completion when it succeeds, so the kernel never says when it is done with it, and it cannot
//! hold a slot. Its owner is kept in a ring of the last `capacity` messages instead; on kernels from 6.10 on a message
//! fails during submission, and one that was not submitted and harvested yet is never overwritten (posting is refused).
//! On older kernels a failure that arrives after `capacity` further messages counts as late.

use crate::token::{Kind, OpId, Token};

#[derive(Debug)]
pub(crate) struct Postbox {
    /// `None`: abandoned, or never used.
    owners: Box<[Option<u64>]>,
    posted: u64,
    /// Of `posted`, those whose failure would have been harvested by now.
    settled: u64,
}

impl Postbox {
    /// `capacity` is a power of two.
    pub(crate) fn new(capacity: u32) -> Postbox {
        assert!(capacity.is_power_of_two());
        Postbox { owners: vec![None; capacity as usize].into_boxed_slice(), posted: 0, settled: 0 }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.posted - self.settled >= self.owners.len() as u64
    }

    /// The name of the next message. Only when not full.
    pub(crate) fn post(&mut self, owner: u64) -> OpId {
        assert!(!self.is_full());
        let capacity = self.owners.len() as u64;
        let (index, generation) = (self.posted % capacity, self.posted / capacity);
        self.owners[index as usize] = Some(owner);
        self.posted += 1;
        OpId(Token::new(Kind::Posted, index as u32, generation as u32))
    }

    /// Everything posted so far has been submitted and its failures harvested.
    pub(crate) fn settle(&mut self) {
        self.settled = self.posted;
    }

    /// The message's owner, once. `None`: it was abandoned, reported before, or overwritten.
    pub(crate) fn take(&mut self, token: Token) -> Option<u64> {
        let capacity = self.owners.len() as u64;
        let index = u64::from(token.index());
        if index >= capacity {
            return None;
        }
        let newest = self.posted.checked_sub(1)?;
        // The last message posted at this index.
        let holder = newest.checked_sub((newest % capacity + capacity - index) % capacity)?;
        if (holder / capacity) as u32 != token.generation() {
            return None;
        }
        self.owners[index as usize].take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_message_finds_its_owner_once() {
        let mut postbox = Postbox::new(4);
        let ids: Vec<_> = (10..14).map(|owner| postbox.post(owner)).collect();
        assert!(postbox.is_full());
        assert_eq!(postbox.take(ids[2].0), Some(12));
        assert_eq!(postbox.take(ids[2].0), None);
        postbox.settle();
        let next = postbox.post(14);
        assert_eq!(postbox.take(ids[0].0), None, "overwritten");
        assert_eq!(postbox.take(ids[1].0), Some(11), "settled and still remembered");
        assert_eq!(postbox.take(next.0), Some(14));
        assert_eq!(postbox.take(Token::new(Kind::Posted, 3, 1)), None, "never posted");
    }
}
