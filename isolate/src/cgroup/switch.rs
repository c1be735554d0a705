//! A file of one sandbox's group that says yes or no.
//!
//! Owns: writing it. Invariant: it is reached by name, from the worker's directory or, in a group of somebody else's making, from the root, so
//! one whose sandbox has been cleaned up after refuses. Does not know: what the file does.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;

use super::{Groups, write_at};

/// What most such files take for yes and no.
const NUMBERS: [&str; 2] = ["1", "0"];

#[derive(Clone, Debug)]
pub(super) struct Switch {
    place: Place,
    words: [&'static str; 2],
}

#[derive(Clone, Debug)]
enum Place {
    /// A hierarchy of the worker's, and the file from its directory in it.
    Ours(Arc<Groups>, usize, CString),
    Theirs(PathBuf),
}

impl Switch {
    pub(super) fn new(groups: &Arc<Groups>, at: usize, file: CString) -> Switch {
        Switch { place: Place::Ours(Arc::clone(groups), at, file), words: NUMBERS }
    }

    /// In a group that somebody else made.
    pub(super) fn foreign(file: PathBuf) -> Switch {
        Switch { place: Place::Theirs(file), words: NUMBERS }
    }

    /// With other words for yes and no.
    pub(super) fn saying(self, words: [&'static str; 2]) -> Switch {
        Switch { words, ..self }
    }

    pub(super) fn set(&self, on: bool) -> io::Result<()> {
        let [yes, no] = self.words;
        let word = if on { yes } else { no };
        match &self.place {
            Place::Ours(groups, at, file) => write_at(groups.hierarchies[*at].directory.as_fd(), file, word),
            Place::Theirs(file) => File::options().write(true).open(file)?.write_all(word.as_bytes()),
        }
    }
}
