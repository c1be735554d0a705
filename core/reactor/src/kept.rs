//! Files that the ring keeps for operations that own them: they take no descriptor of the process.
//!
//! Owns: the ring's table of files, and which of its places are free. Invariant: a place is free only while no operation
//! that names it is with the kernel or in the submission queue. Does not know what the files are.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use io_uring::types::Fixed;

use crate::ring::Ring;

/// What the kernel takes for no file.
const NONE: RawFd = -1;

/// A file that an operation owns.
#[derive(Debug)]
pub(crate) enum Owned {
    /// In this place of the table.
    Kept(Fixed),
    /// By a descriptor: the table was full.
    Open(OwnedFd),
}

/// The places of the table.
#[derive(Debug)]
pub(crate) struct Table {
    places: u32,
    /// Places that were taken once, from here on none was.
    touched: u32,
    free: Vec<u32>,
}

impl Table {
    pub(crate) fn new(places: u32) -> Table {
        Table { places, touched: 0, free: Vec::new() }
    }

    /// Moves a file into the table and closes its descriptor; without a place the descriptor stays what it is.
    pub(crate) fn keep(&mut self, ring: &Ring, file: OwnedFd) -> Owned {
        let (place, is_untouched) = match self.free.last() {
            Some(place) => (*place, false),
            None if self.touched < self.places => (self.touched, true),
            None => return Owned::Open(file),
        };
        if ring.set_file(place, file.as_raw_fd()).is_err() {
            return Owned::Open(file);
        }
        if is_untouched {
            self.touched += 1;
        } else {
            self.free.pop();
        }
        Owned::Kept(Fixed(place))
    }

    /// Lets a file go whose operation is over.
    pub(crate) fn release(&mut self, ring: &Ring, file: &Owned) {
        // A place that the kernel does not clear is not used again.
        if let Owned::Kept(Fixed(place)) = file
            && ring.set_file(*place, NONE).is_ok()
        {
            self.free.push(*place);
        }
    }

    /// Files in it.
    pub(crate) fn held(&self) -> u32 {
        self.touched - self.free.len() as u32
    }
}
