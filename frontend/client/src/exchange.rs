//! The requests in flight on a connection, and how far each is.
//!
//! Invariant: an id is in flight until its answer has ended and the client has said that it sends no more. It names a slot,
//! so that it is found without searching; slots are used again, ids are not while a `u32` lasts.

/// One request in flight.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Exchange {
    /// 0: the slot is free.
    pub(crate) id: u64,
    /// Bytes of its payload that are not written yet.
    pub(crate) to_send: u64,
    /// Bytes of its payload that the server has granted and that are not written yet.
    pub(crate) credit: u64,
    /// END or CANCEL is written.
    pub(crate) sending_over: bool,
    pub(crate) cancelled: bool,
    /// The head of the answer was there.
    pub(crate) answered: bool,
    /// The answer comes in parts: nothing was announced of its size.
    pub(crate) in_parts: bool,
    /// Bytes of the answer that are announced and were not there yet; of one in parts no bound.
    pub(crate) to_receive: u64,
    /// Bytes of the answer that the server may still send.
    pub(crate) granted: u64,
    /// More is granted only for what is said to be taken.
    pub(crate) held: bool,
    /// Bytes that came of an answer that is held, and are not said to be taken.
    pub(crate) untaken: u64,
    /// The answer's END was there.
    pub(crate) receiving_over: bool,
}

/// A slab of them.
#[derive(Debug)]
pub(crate) struct Exchanges {
    slots: Vec<Exchange>,
    free: Vec<u32>,
    serial: u32,
    most: usize,
}

impl Exchanges {
    pub(crate) fn new() -> Exchanges {
        Exchanges { slots: Vec::new(), free: Vec::new(), serial: 0, most: 0 }
    }

    /// From here on at most so many are in flight.
    pub(crate) fn limit(&mut self, most: u32) {
        self.most = most as usize;
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.in_flight() >= self.most
    }

    /// Takes a slot, which there must be, for `exchange`; the new id.
    pub(crate) fn insert(&mut self, exchange: Exchange) -> u64 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Exchange::default());
            self.slots.len() as u32 - 1
        });
        self.serial = self.serial.wrapping_add(1);
        let id = u64::from(self.serial) << 32 | (u64::from(slot) + 1);
        self.slots[slot as usize] = Exchange { id, ..exchange };
        id
    }

    pub(crate) fn get(&self, id: u64) -> Option<&Exchange> {
        self.slots.get(slot(id)).filter(|exchange| exchange.id == id && id != 0)
    }

    pub(crate) fn get_mut(&mut self, id: u64) -> Option<&mut Exchange> {
        self.slots.get_mut(slot(id)).filter(|exchange| exchange.id == id && id != 0)
    }

    /// Frees the slot of an exchange that is over on both sides.
    pub(crate) fn settle(&mut self, id: u64) {
        if let Some(exchange) = self.get_mut(id)
            && exchange.sending_over
            && exchange.receiving_over
        {
            exchange.id = 0;
            self.free.push(slot(id) as u32);
        }
    }
}

/// The slot that an id names: below the most that were ever in flight at once.
pub(crate) fn slot(id: u64) -> usize {
    ((id & u64::from(u32::MAX)) as usize).wrapping_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_used_again_and_ids_are_not() {
        let mut exchanges = Exchanges::new();
        exchanges.limit(2);
        let over = Exchange { sending_over: true, receiving_over: true, ..Exchange::default() };
        let first = exchanges.insert(over);
        let second = exchanges.insert(Exchange::default());
        assert!(exchanges.is_full());
        exchanges.settle(second);
        assert!(exchanges.is_full(), "it is not over");
        exchanges.settle(first);
        let third = exchanges.insert(Exchange::default());
        assert_eq!((slot(third), slot(second)), (slot(first), 1));
        assert!(third != first && exchanges.get(first).is_none() && exchanges.get(third).is_some());
        for id in [0, 1, 3, u64::MAX, 1 << 32] {
            assert!(exchanges.get(id).is_none(), "{id}");
        }
    }
}
