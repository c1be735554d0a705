//! The pages that a copy of an image touches by itself: others will touch them too, so they are provided all at once.
//!
//! Owns: which pages those are. Invariant: whatever the copy did, what comes of it are at most so many stretches within what the image
//! shows. Does not know: how pages are provided, or when.

use std::fs::File;
use std::io;
use std::ops::Range;

use super::maps::{Backing, Mapping};
use super::pages::{self, Kind};

/// Most stretches: each takes a system call.
const STRETCHES: usize = 1024;
/// A page of a file costs next to nothing to show; a call costs more than these.
const FILE_GAP_PAGES: u64 = 32;

/// Where an image's memory lies, for looking at a copy.
#[derive(Clone, Debug)]
pub(crate) struct Places(Vec<Range<u64>>);

impl Places {
    pub(crate) fn of(mappings: &[Mapping]) -> Places {
        let is_looked_at = |mapping: &&Mapping| {
            !matches!(mapping.backing, Backing::Kernel(_) | Backing::Vsyscall) && mapping.protection != 0
        };
        Places(mappings.iter().filter(is_looked_at).map(|mapping| mapping.range.clone()).collect())
    }

    /// What a copy has touched, with the advice that provides it: pages to write first.
    pub(crate) fn touched_by(&self, pid: i32) -> io::Result<Vec<(Range<u64>, i32)>> {
        let pagemap = File::open(format!("/proc/{pid}/pagemap"))?;
        let mut touched = Vec::new();
        let looks =
            [(Kind::Own, 0, libc::MADV_POPULATE_WRITE), (Kind::OfFile, FILE_GAP_PAGES, libc::MADV_POPULATE_READ)];
        for (kind, gap_pages, advice) in looks {
            for place in &self.0 {
                let stretches = pages::stretches(&pagemap, place, kind, gap_pages, STRETCHES)?;
                touched.extend(stretches.into_iter().map(|stretch| (stretch, advice)));
            }
        }
        touched.truncate(STRETCHES);
        Ok(touched)
    }
}
