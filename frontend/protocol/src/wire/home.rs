//! The home shard of a function: where a request goes whose function is not in the map.
//!
//! The worker decides with the same function (`core/engine/src/policy/balance/home.rs`), which a test compares; a client
//! that computes another costs itself a hop and nothing else.

/// The home of `name` among `shards`: FNV-1a over its bytes (offset basis `0xcbf29ce484222325`, prime `0x100000001b3`), the
/// 64-bit finaliser of MurmurHash3 over that, scaled by multiply and shift. 0 among no shards.
pub const fn home_shard(name: &str, shards: u16) -> u16 {
    ((mix(fnv1a(name.as_bytes())) as u128 * shards as u128) >> 64) as u16
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
    fn the_vectors_of_the_specification_hold() {
        let vectors = [
            ("hello", 0xe9c5_62c0_fdb2_3244_u64, [1, 3, 58]),
            ("echo", 0x139e_82c7_b307_cbb3, [0, 0, 4]),
            ("thumbnail", 0xf4f5_5cae_872e_210f, [1, 3, 61]),
        ];
        for (name, hash, homes) in vectors {
            assert_eq!(mix(fnv1a(name.as_bytes())), hash, "{name}");
            assert_eq!([2, 4, 64].map(|shards| home_shard(name, shards)), homes, "{name}");
        }
        assert_eq!(home_shard("hello", 0), 0);
    }
}
