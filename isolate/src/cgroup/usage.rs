//! What the kernel charges to one sandbox's group: its memory, and the kernel's for it.
//!
//! Owns: reading it. Invariant: it is reached by name from the worker's directory, so one whose sandbox has been cleaned up after has none.
//! Does not know: who asks.

use std::ffi::CString;
use std::os::fd::AsFd;
use std::sync::Arc;

use super::{Controller, Groups, read_at};

/// Reads what one sandbox is charged, on any thread.
#[derive(Clone, Debug)]
pub struct MemoryUsage {
    pub(super) groups: Arc<Groups>,
    /// The hierarchy.
    pub(super) at: usize,
    /// The file, from the worker's directory in it.
    pub(super) file: CString,
}

impl MemoryUsage {
    /// In bytes; none when the sandbox is gone.
    #[must_use]
    pub fn bytes(&self) -> Option<u64> {
        let directory = self.groups.hierarchies.get(self.at)?.directory.as_fd();
        read_at(directory, &self.file).ok()?.trim().parse().ok()
    }
}

impl super::Group {
    /// Where to read what it is charged; none where no group counts memory.
    pub(crate) fn memory_usage(&self) -> Option<MemoryUsage> {
        let counts = |hierarchy: &super::Hierarchy| hierarchy.controllers.contains(&Controller::Memory);
        let at = self.groups.hierarchies.iter().take(self.parts).position(counts)?;
        let hierarchy = &self.groups.hierarchies[at];
        let file = self.file(hierarchy, super::settings::memory_usage_file(hierarchy.version));
        Some(MemoryUsage { groups: Arc::clone(&self.groups), at, file })
    }
}
