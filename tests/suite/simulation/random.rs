//! A small generator of repeatable numbers (xoshiro256**, seeded through SplitMix64).
//!
//! Invariant: the same seed gives the same numbers on every machine. Not for secrets.

/// The state of one generator.
pub(super) struct Random {
    state: [u64; 4],
}

impl Random {
    /// A generator whose numbers follow from `seed` alone.
    pub(super) fn new(seed: u64) -> Random {
        let mut at = seed;
        let state = std::array::from_fn(|_| {
            at = at.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (at ^ (at >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ (mixed >> 31)
        });
        Random { state }
    }

    fn next(&mut self) -> u64 {
        let [a, b, c, d] = self.state;
        let result = b.wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let (c, d) = (c ^ a, d ^ b);
        self.state = [a ^ d, b ^ c, c ^ (b << 17), d.rotate_left(45)];
        result
    }

    /// A number from `from` up to, and without, `to`.
    pub(super) fn between(&mut self, from: u64, to: u64) -> u64 {
        assert!(from < to, "there is no number from {from} up to {to}");
        from + ((u128::from(self.next()) * u128::from(to - from)) >> 64) as u64
    }

    /// The same, for counts.
    pub(super) fn count(&mut self, from: u32, to: u32) -> u32 {
        self.between(u64::from(from), u64::from(to)) as u32
    }

    /// True so many times in a thousand.
    pub(super) fn chance(&mut self, per_mille: u32) -> bool {
        self.between(0, 1000) < u64::from(per_mille)
    }

    /// One of these.
    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.between(0, from.len() as u64) as usize]
    }
}
