//! A file of one sandbox's group that is either 1 or 0.
//!
//! Owns: writing it. Invariant: it is reached by name from the worker's directory, so one whose sandbox has been cleaned up after refuses.
//! Does not know: what the file does.

use std::ffi::CString;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use super::{Groups, write_at};

#[derive(Clone, Debug)]
pub(super) struct Switch {
    groups: Arc<Groups>,
    /// The hierarchy.
    at: usize,
    /// The file, from the worker's directory in it.
    file: CString,
}

impl Switch {
    pub(super) fn new(groups: &Arc<Groups>, at: usize, file: CString) -> Switch {
        Switch { groups: Arc::clone(groups), at, file }
    }

    pub(super) fn set(&self, on: bool) -> io::Result<()> {
        write_at(self.groups.hierarchies[self.at].directory.as_fd(), &self.file, if on { "1" } else { "0" })
    }
}
