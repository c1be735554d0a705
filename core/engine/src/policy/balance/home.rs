//! The home shard: FNV-1a over the name, its bits mixed, scaled to the number of shards by multiply and shift.

/// A 64-bit hash of bytes that is the same everywhere and for ever: FNV-1a (offset basis `0xcbf29ce484222325`, prime
/// `0x100000001b3`), then the 64-bit finaliser of MurmurHash3, because FNV alone leaves the upper bits of short
/// names alike.
pub const fn stable_hash(bytes: &[u8]) -> u64 {
    mix(fnv1a(bytes))
}

pub(super) const fn shard(name: &[u8], shards: u32) -> u32 {
    ((stable_hash(name) as u128 * shards as u128) >> 64) as u32
}

const fn fnv1a(bytes: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut at = 0;
    while at < bytes.len() {
        hash = (hash ^ bytes[at] as u64).wrapping_mul(0x0000_0100_0000_01b3);
        at += 1;
    }
    hash
}

const fn mix(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_vectors_of_fnv1a_hold() {
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn nobody_owns_anything_among_no_shards() {
        assert_eq!(shard(b"hello", 0), 0);
    }
}
