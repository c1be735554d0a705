//! Which of the worker's memory a maker does without.
//!
//! Owns: the list, and unmapping by it. Invariant: what is unmapped is private memory of a copy of the worker that its code, its stack, its
//! thread's own variables and its plan do not lie in; the worker's own is untouched. Does not know: what was in it.
//!
//! Why: each child is a copy of its page tables.
#![allow(unsafe_code)]

use std::io;
use std::ops::Range;

use crate::heap;
use crate::program::Program;
use crate::sys::{Errno, Word, call};
use crate::zygote::maps::{self, Backing, Mapping};

/// Memory of a maker and its children.
#[derive(Debug)]
pub(crate) struct Memory {
    /// What a maker can do without: what is too large to be part of a plan.
    pub(crate) large: Vec<Range<u64>>,
    /// What a waiting child must keep: the kernel's own mappings, which lie together.
    pub(crate) kernel: Range<u64>,
    pub(crate) program: Program,
}

/// A plan and what it points to are small pieces of the heap.
const LARGE: u64 = 256 << 10;
/// Where glibc lets the heaps of threads begin.
const THREAD_HEAP_ALIGN: u64 = 64 << 20;
/// Most stretches that are unmapped.
const MOST: usize = 128;

impl Memory {
    /// Of this process, as it is now.
    pub(crate) fn of_this_process() -> io::Result<Memory> {
        let text = std::fs::read_to_string("/proc/self/maps")?;
        let mappings = maps::parse(&text).map_err(io::Error::other)?;
        let kernel = maps::kernel_mappings(&mappings).map(|(_, range)| range);
        let kernel = kernel.cloned().reduce(|all, range| all.start.min(range.start)..all.end.max(range.end));
        let kernel = kernel.ok_or_else(|| io::Error::other("the kernel has no mapping here"))?;
        let program = program(&mappings)?;
        let private =
            mappings.into_iter().filter(|mapping| !mapping.is_shared && mapping.backing == Backing::Anonymous);
        let heap = heap_of(&text);
        let is_heap = |range: &Range<u64>| Some(range.start) == heap || range.start.is_multiple_of(THREAD_HEAP_ALIGN);
        let is_large = |range: &Range<u64>| range.end - range.start >= LARGE && !is_heap(range);
        let large = private.map(|mapping| mapping.range).filter(is_large).take(MOST).collect();
        Ok(Memory { large, kernel, program })
    }
}

/// Of the worker's own program: whose path says where it is, also if it was removed meanwhile.
fn program(mappings: &[Mapping]) -> io::Result<Program> {
    let path = std::fs::read_link("/proc/self/exe")?;
    let path = path.to_string_lossy();
    let is_of_it = |mapping: &&Mapping| match &mapping.backing {
        Backing::File { path: of, .. } | Backing::Other(of) => *of == path,
        _ => false,
    };
    let mappings = mappings.iter().filter(is_of_it).map(|mapping| (mapping.range.clone(), mapping.protection));
    Ok(Program { mappings: mappings.collect(), heap: heap::chosen() })
}

/// Where the first heap begins, which a plan may lie in however large it is.
fn heap_of(maps: &str) -> Option<u64> {
    let line = maps.lines().find(|line| line.ends_with("[heap]"))?;
    u64::from_str_radix(line.split_once('-')?.0, 16).ok()
}

/// Unmaps these stretches of the calling process, but for those that it stands on.
///
/// # Safety
/// In a child that has its memory to itself, and that uses nothing of these stretches any more.
pub(crate) unsafe fn forget(stretches: &[Range<u64>]) -> Result<(), Errno> {
    // The list itself may lie in one of them.
    let mut copied = [(0_u64, 0_u64); MOST];
    let count = stretches.len().min(MOST);
    for (copy, stretch) in copied.iter_mut().zip(stretches) {
        *copy = (stretch.start, stretch.end);
    }
    let here = (&raw const copied).addr() as u64;
    // SAFETY: the location of errno is always valid to ask for.
    let thread = unsafe { libc::__errno_location() }.addr() as u64;
    for (start, end) in &copied[..count] {
        if (*start..*end).contains(&here) || (*start..*end).contains(&thread) {
            continue;
        }
        // SAFETY: the caller's promise.
        unsafe { call(libc::SYS_munmap, [*start as Word, (*end - *start) as Word]) }?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{LARGE, Memory};

    #[test]
    fn a_large_allocation_is_found_and_is_not_the_heap() {
        let large = vec![1_u8; 4 << 20];
        let place = large.as_ptr().addr() as u64;
        let memory = Memory::of_this_process().expect("the mappings are understood");
        assert!(memory.large.iter().any(|range| range.contains(&place)));
        assert!(memory.large.iter().all(|range| range.end - range.start >= LARGE));
    }
}
