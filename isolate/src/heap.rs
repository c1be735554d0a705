//! Where the heaps of waiting sandboxes begin: above those of the programs that they may become copies of.
//!
//! Owns: the address, which makers put their heaps at (`program`) and their children have from them. Invariant: nothing is taken for done that the
//! kernel does not say is; where it was not, a waiting sandbox's heap begins where the worker's does. Does not know: who is copied.
//!
//! A program's heap is put by chance into a terabyte from 0x5555_5555_4000 on; glibc takes an end of the heap that went down for damage.
//! Mappings without a place of their own go down from 0x7fff_ffff_f000 and chance takes another terabyte of that. What lies between is free.
use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

const LOWEST: u64 = 0x6000_0000_0000;
/// Of what is drawn, in pages: as much as the kernel draws.
const DRAWN: u64 = (1 << 28) - 1;
const PAGE_BITS: u32 = 12;

/// Where the heap begins, among the fields of `/proc/<pid>/stat` after the name, which ends with the last parenthesis.
const START_BRK: usize = 44;

/// Where makers have been seen to begin their heaps; 0: where the worker does.
static SEEN: AtomicU64 = AtomicU64::new(0);

/// Where makers are to. Drawn once a process, so that all copies can stand in all sandboxes.
pub(crate) fn chosen() -> u64 {
    static CHOSEN: OnceLock<u64> = OnceLock::new();
    *CHOSEN.get_or_init(|| {
        use std::hash::{BuildHasher, Hasher};
        // The standard library seeds it from the kernel's randomness.
        let drawn = std::hash::RandomState::new().build_hasher().finish();
        LOWEST + ((drawn & DRAWN) << PAGE_BITS)
    })
}

/// Looks where a maker's heap begins; its children's do there.
pub(crate) fn look_at(maker: i32) {
    let stat = std::fs::read_to_string(format!("/proc/{maker}/stat")).unwrap_or_default();
    let start = start_of(&stat).filter(|start| *start == chosen());
    // Relaxed: a number that stands alone.
    SEEN.store(start.unwrap_or(0), Ordering::Relaxed);
}

/// Where the heap of a waiting sandbox begins, if it was moved: nothing is there.
pub(crate) fn of_waiting() -> Option<Range<u64>> {
    // Relaxed: see above.
    Some(SEEN.load(Ordering::Relaxed)).filter(|start| *start != 0).map(|start| start..start)
}

fn start_of(stat: &str) -> Option<u64> {
    stat.rsplit_once(") ")?.1.split(' ').nth(START_BRK)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_heap_begins_is_what_the_kernel_says() {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let heap = maps.lines().find(|line| line.ends_with("[heap]")).expect("this process has a heap");
        let start = start_of(&stat).expect("the kernel's format");
        assert_eq!(format!("{start:x}"), heap.split('-').next().unwrap());
        assert_eq!((start_of("1 (a) b) S 1 2"), start_of("")), (None, None));
    }

    #[test]
    fn heaps_are_put_where_no_programs_is_and_nothing_is_mapped_by_chance() {
        let start = chosen();
        assert!((LOWEST..LOWEST + (1 << 40)).contains(&start) && start.is_multiple_of(4096));
        assert_eq!(start, chosen(), "once a process");
    }
}
