//! Which shards own which functions, as the server told.
//!
//! Invariant: at most [`FUNCTIONS_MAX`] functions are kept; of one more the home shard is asked, which costs a hop.

use std::collections::HashMap;

use vilya_protocol::wire::{MapFrame, home_shard};

const FUNCTIONS_MAX: usize = 1 << 20;

/// The map, frame by frame laid over what was known.
#[derive(Clone, Debug, Default)]
pub struct FunctionMap {
    generation: u64,
    whole: bool,
    owners: HashMap<String, Vec<u16>>,
}

impl FunctionMap {
    /// Lays a frame over the map.
    pub fn apply(&mut self, frame: &MapFrame<'_>) {
        if frame.first {
            self.owners.clear();
            self.whole = false;
        }
        for entry in frame.entries {
            if entry.owners.len() == 0 {
                self.owners.remove(entry.name);
            } else if let Some(owners) = self.owners.get_mut(entry.name) {
                owners.clear();
                owners.extend(entry.owners);
            } else if self.owners.len() < FUNCTIONS_MAX {
                self.owners.insert(entry.name.to_owned(), entry.owners.collect());
            }
        }
        self.generation = frame.generation;
        self.whole |= frame.last;
    }

    /// Of the last frame.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// True once the last frame of a whole map was there.
    pub fn is_whole(&self) -> bool {
        self.whole
    }

    /// The shards that own `name`; none if it is not in the map.
    pub fn owners(&self, name: &str) -> &[u16] {
        self.owners.get(name).map_or(&[], Vec::as_slice)
    }

    /// Where to send a request: of several owners each in `turn`; the home shard among `shards` of a function that is not in
    /// the map.
    pub fn shard(&self, name: &str, turn: usize, shards: u16) -> u16 {
        match self.owners(name) {
            [] => home_shard(name, shards),
            owners => owners[turn % owners.len()],
        }
    }
}

#[cfg(test)]
mod tests {
    use vilya_protocol::wire::{self, ClientDecoder, ClientItem, Welcome};

    use super::*;

    type Entries<'a> = &'a [(&'a str, &'a [u16])];

    /// The map after these frames: whole ones, and changes.
    fn after(frames: &[(bool, Entries<'_>)]) -> FunctionMap {
        let mut decoder = ClientDecoder::new();
        let mut wire = Vec::new();
        let welcome = Welcome {
            version: 1,
            shard: 0,
            frame_bytes: 4096,
            in_flight: 1,
            payload_bytes: 0,
            request_credit_bytes: 0,
        };
        wire::welcome(&mut wire, &welcome, &[1, 2, 3, 4]);
        for (generation, (whole, entries)) in frames.iter().enumerate() {
            wire::map(&mut wire, generation as u64, *whole, 4096, entries.iter().copied());
        }
        let mut map = FunctionMap::default();
        let mut at = 0;
        while at < wire.len() {
            let step = decoder.decode(&wire[at..]).expect("it is valid");
            at += step.consumed;
            if let ClientItem::Map(frame) = step.item {
                map.apply(&frame);
            }
        }
        map
    }

    #[test]
    fn changes_are_laid_over_the_whole_and_the_whole_replaces() {
        let first: (bool, Entries<'_>) = (true, &[("a", &[1][..]), ("b", &[2, 3])]);
        let map = after(&[first, (false, &[("a", &[0]), ("c", &[3])])]);
        assert!(map.is_whole());
        assert_eq!((map.owners("a"), map.owners("b"), map.owners("c")), (&[0][..], &[2, 3][..], &[3][..]));
        assert_eq!(map.generation(), 1);
        let map = after(&[first, (false, &[("b", &[])]), (true, &[("d", &[1])])]);
        assert_eq!((map.owners("a"), map.owners("d")), (&[][..], &[1][..]));
    }

    #[test]
    fn several_owners_take_turns_and_a_stranger_goes_home() {
        let map = after(&[(true, &[("b", &[2, 3])])]);
        assert_eq!([0, 1, 2].map(|turn| map.shard("b", turn, 4)), [2, 3, 2]);
        assert_eq!(map.shard("hello", 7, 4), home_shard("hello", 4));
    }
}
