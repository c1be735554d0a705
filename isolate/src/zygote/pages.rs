//! Which pages of a process are there, as `/proc/<pid>/pagemap` tells.
//!
//! Owns: reading that file. Invariant: however large what is looked through, the memory taken is bounded. Does not know: why it is asked.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use super::maps::PAGE;

/// Bytes that are read at once: eight a page.
const ENTRIES_BYTES: usize = 64 << 10;

/// What is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A page of the process's own: there, and no file's.
    Own,
    /// A page of a file.
    OfFile,
}

impl Kind {
    fn matches(self, entry: u64) -> bool {
        const PRESENT: u64 = 1 << 63;
        const SWAPPED: u64 = 1 << 62;
        const OF_A_FILE: u64 = 1 << 61;
        match self {
            Kind::Own => entry & (PRESENT | SWAPPED) != 0 && entry & OF_A_FILE == 0,
            Kind::OfFile => entry & (PRESENT | OF_A_FILE) == PRESENT | OF_A_FILE,
        }
    }
}

/// Stretches of pages of this kind in a range of addresses, but not many more than `most`. Gaps of up to so many other pages are taken along.
pub(crate) fn stretches(
    pagemap: &File,
    range: &Range<u64>,
    kind: Kind,
    gap_pages: u64,
    most: usize,
) -> io::Result<Vec<Range<u64>>> {
    let mut stretches = Vec::new();
    let mut entries = vec![0; ENTRIES_BYTES];
    let mut at = range.start;
    while at < range.end && stretches.len() <= most {
        let pages = ((range.end - at) / PAGE).min((ENTRIES_BYTES / 8) as u64);
        let piece = &mut entries[..pages as usize * 8];
        pagemap.read_exact_at(piece, at / PAGE * 8)?;
        for (page, entry) in (0_u64..).zip(piece.as_chunks::<8>().0) {
            if kind.matches(u64::from_le_bytes(*entry)) {
                let start = at + page * PAGE;
                add(&mut stretches, start..start + PAGE, gap_pages);
            }
        }
        at += pages * PAGE;
    }
    Ok(stretches)
}

/// Adds what lies behind all that was added before.
fn add(stretches: &mut Vec<Range<u64>>, page: Range<u64>, gap_pages: u64) {
    match stretches.last_mut() {
        Some(last) if page.start - last.end <= gap_pages * PAGE => last.end = page.end,
        _ => stretches.push(page),
    }
}

#[cfg(test)]
mod tests {
    use super::{Kind, PAGE, add};

    #[test]
    fn small_gaps_are_taken_along_and_large_ones_not() {
        let mut stretches = Vec::new();
        for page in [0, 1, 4, 11] {
            add(&mut stretches, page * PAGE..(page + 1) * PAGE, 4);
        }
        assert_eq!(stretches, [0..5 * PAGE, 11 * PAGE..12 * PAGE]);
    }

    #[test]
    fn a_page_is_its_own_or_of_a_file_or_not_there() {
        let (present, swapped, file) = (1 << 63, 1 << 62, 1 << 61);
        let kinds = |entry| (Kind::Own.matches(entry), Kind::OfFile.matches(entry));
        assert_eq!(kinds(present), (true, false));
        assert_eq!(kinds(swapped), (true, false));
        assert_eq!(kinds(present | file), (false, true));
        assert_eq!(kinds(0), (false, false));
    }
}
