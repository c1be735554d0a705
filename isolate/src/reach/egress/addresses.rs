//! The addresses of sandboxes that reach other machines.
//!
//! Owns: which pairs of a range are in use. Invariant: no two sandboxes have one at once, and of those that came back the one that was away
//! longest is used first, after those that never were. Does not know: interfaces.

use std::collections::VecDeque;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

/// Two addresses that differ in the last bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pair {
    /// Of the host's end.
    pub(super) host: Ipv4Addr,
    pub(super) sandbox: Ipv4Addr,
}

#[derive(Debug)]
pub(super) struct Addresses {
    first: u32,
    /// The number of the first pair that was never used; 0 is the range's own address.
    unused: u32,
    end: u32,
    returned: VecDeque<Pair>,
}

impl Addresses {
    pub(super) fn of(range: Ipv4Net) -> Addresses {
        // The last holds the address that stands for all of the range.
        let end = (1_u32 << (32 - range.prefix_len()).min(31)) / 2 - 1;
        Addresses { first: range.network().to_bits(), unused: 1, end, returned: VecDeque::new() }
    }

    /// One that nobody has; none when all are in use.
    pub(super) fn take(&mut self) -> Option<Pair> {
        if self.unused < self.end {
            let host = self.first + 2 * self.unused;
            self.unused += 1;
            return Some(Pair { host: Ipv4Addr::from_bits(host), sandbox: Ipv4Addr::from_bits(host + 1) });
        }
        self.returned.pop_front()
    }

    pub(super) fn give_back(&mut self, pair: Pair) {
        self.returned.push_back(pair);
    }
}

#[cfg(test)]
mod tests {
    use super::Addresses;

    #[test]
    fn a_range_is_handed_out_once_and_then_what_was_away_longest() {
        let mut addresses = Addresses::of("10.213.0.0/28".parse().expect("a range"));
        let taken: Vec<_> = std::iter::from_fn(|| addresses.take()).collect();
        let sandboxes: Vec<_> = taken.iter().map(|pair| pair.sandbox.to_string()).collect();
        assert_eq!(sandboxes, ["10.213.0.3", "10.213.0.5", "10.213.0.7", "10.213.0.9", "10.213.0.11", "10.213.0.13"]);
        assert_eq!(taken[0].host.to_string(), "10.213.0.2");
        for index in [3, 1] {
            addresses.give_back(taken[index]);
        }
        assert_eq!([addresses.take(), addresses.take(), addresses.take()], [Some(taken[3]), Some(taken[1]), None]);
        // A pair that never was in use comes before one that was.
        let mut addresses = Addresses::of("10.213.0.0/16".parse().expect("a range"));
        let first = addresses.take().expect("there are many");
        addresses.give_back(first);
        assert_ne!(addresses.take(), Some(first));
    }
}
