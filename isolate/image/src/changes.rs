//! What a layer says besides its files: what it takes away of the layers below, and what it takes of them.
//!
//! Owns: the form on disk. Invariant: reading what anybody wrote never panics, and makes nothing larger than a few times what was read; paths
//! in it are looked up among paths that exist, and are never opened as they stand. Does not know: where the layer is.

use std::collections::{BTreeMap, BTreeSet};

/// Longest form.
pub const CHANGES_BYTES_MAX: u64 = 16 << 20;

/// The changes of one layer. Paths are without a leading `/`; that of the root is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// Entries of the layer, as its limits count them.
    pub(crate) entries: u64,
    /// Contents of its files, those included that it replaced itself.
    pub(crate) bytes: u64,
    /// What lower layers have at this path is gone.
    pub(crate) gone: BTreeSet<Vec<u8>>,
    /// What lower layers have below this path is gone.
    pub(crate) opaque: BTreeSet<Vec<u8>>,
    /// Directories that only the paths of others imply.
    pub(crate) implied: BTreeSet<Vec<u8>>,
    /// Other names of files of lower layers, and which; an empty file stands at each.
    pub(crate) links: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Changes {
    /// Records with a kind and a NUL at the end of each part.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut record = |kind: u8, parts: &[&[u8]]| {
            bytes.push(kind);
            for part in parts {
                bytes.extend_from_slice(part);
                bytes.push(0);
            }
        };
        record(b'n', &[self.entries.to_string().as_bytes()]);
        record(b'b', &[self.bytes.to_string().as_bytes()]);
        self.gone.iter().for_each(|path| record(b'w', &[path]));
        self.opaque.iter().for_each(|path| record(b'o', &[path]));
        self.implied.iter().for_each(|path| record(b'i', &[path]));
        self.links.iter().for_each(|(path, to)| record(b'l', &[path, to]));
        bytes
    }

    /// `None` when it is not in the form, or has more than so many records.
    pub(crate) fn from_bytes(mut bytes: &[u8], most: u64) -> Option<Changes> {
        let mut changes = Changes::default();
        let mut records = 0;
        while let Some((kind, rest)) = bytes.split_first() {
            bytes = rest;
            records += 1;
            if records > most.saturating_add(2) {
                return None;
            }
            let part = take(&mut bytes)?;
            match kind {
                b'n' => changes.entries = number(part)?,
                b'b' => changes.bytes = number(part)?,
                b'w' => drop(changes.gone.insert(part.to_vec())),
                b'o' => drop(changes.opaque.insert(part.to_vec())),
                b'i' => drop(changes.implied.insert(part.to_vec())),
                b'l' => drop(changes.links.insert(part.to_vec(), take(&mut bytes)?.to_vec())),
                _ => return None,
            }
        }
        Some(changes)
    }
}

fn take<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    let (part, rest) = bytes.split_at_checked(end)?;
    *bytes = rest.get(1..)?;
    Some(part)
}

fn number(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::Changes;

    #[test]
    fn what_was_written_is_read_and_what_was_not_is_refused() {
        let set = |paths: &[&[u8]]| paths.iter().map(|path| path.to_vec()).collect();
        let changes = Changes {
            entries: 7,
            bytes: u64::MAX,
            gone: set(&[b"a/b", b"\xff"]),
            opaque: set(&[b"", b"d"]),
            implied: set(&[b"d/e"]),
            links: [(b"l".to_vec(), b"a/f".to_vec())].into(),
        };
        let bytes = changes.to_bytes();
        assert_eq!(Changes::from_bytes(&bytes, 6), Some(changes));
        assert_eq!(Changes::from_bytes(&bytes, 5), None, "as many as may be");
        for bad in [&b"w"[..], b"wa", b"x\0", b"n\0", b"n-1\0", b"la\0", b"la\0b"] {
            assert_eq!(Changes::from_bytes(bad, 9), None, "{bad:?}");
        }
    }
}
