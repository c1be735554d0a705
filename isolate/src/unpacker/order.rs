//! What the worker tells the process that makes the children, and what that answers.
//!
//! Owns: both forms. Invariant: an order that is read is the one that was written, or none. Does not know: what is done with it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::limits::UNPACKING_ORDER_BYTES;
use crate::sys::Status;

/// One job. A path that is empty is not given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Order {
    /// Whom the child becomes, where root makes it.
    pub(super) user: u32,
    /// Memory, largest file, both in bytes, and seconds of processor time.
    pub(super) bounds: [u64; 3],
    pub(super) staging: PathBuf,
    pub(super) folder: PathBuf,
    pub(super) tree: PathBuf,
    pub(super) request: Vec<u8>,
}

impl Order {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.user.to_le_bytes().to_vec();
        bytes.extend(self.bounds.iter().flat_map(|bound| bound.to_le_bytes()));
        for part in [&self.staging, &self.folder, &self.tree] {
            let part = part.as_os_str().as_bytes();
            bytes.extend((part.len() as u32).to_le_bytes());
            bytes.extend(part);
        }
        bytes.extend(&self.request);
        bytes
    }

    pub(super) fn from_bytes(mut bytes: &[u8]) -> Option<Order> {
        let user = u32::from_le_bytes(take(&mut bytes)?);
        let mut bounds = [0; 3];
        for bound in &mut bounds {
            *bound = u64::from_le_bytes(take(&mut bytes)?);
        }
        let mut path = || {
            let length = u32::from_le_bytes(take(&mut bytes)?) as usize;
            let (path, rest) = bytes.split_at_checked(length)?;
            bytes = rest;
            Some(PathBuf::from(OsStr::from_bytes(path)))
        };
        let (staging, folder, tree) = (path()?, path()?, path()?);
        Some(Order { user, bounds, staging, folder, tree, request: bytes.to_vec() })
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*first)
}

pub(super) const STATUS_BYTES: usize = 5;

pub(super) fn status_bytes(status: Status) -> [u8; STATUS_BYTES] {
    let (kind, number) = match status {
        Status::Exited(number) => (0, number),
        Status::Killed(number) => (1, number),
    };
    let [a, b, c, d] = number.to_le_bytes();
    [kind, a, b, c, d]
}

pub(super) fn status([kind, number @ ..]: [u8; STATUS_BYTES]) -> Status {
    let number = i32::from_le_bytes(number);
    if kind == 0 { Status::Exited(number) } else { Status::Killed(number) }
}

/// A buffer for any order.
pub(super) fn buffer() -> Vec<u8> {
    vec![0; UNPACKING_ORDER_BYTES]
}

#[cfg(test)]
mod tests {
    use super::{Order, status, status_bytes};
    use crate::sys::Status;

    #[test]
    fn an_order_is_read_as_it_was_written_and_no_part_of_it_is_one() {
        let order = Order {
            user: 7,
            bounds: [1, u64::MAX, 3],
            staging: "/a".into(),
            folder: "".into(),
            tree: "/b/c".into(),
            request: b"work".to_vec(),
        };
        let bytes = order.to_bytes();
        assert_eq!(Order::from_bytes(&bytes), Some(order.clone()));
        for cut in 0..bytes.len() - order.request.len() {
            assert_eq!(Order::from_bytes(&bytes[..cut]), None, "{cut}");
        }
        for one in [Status::Exited(0), Status::Exited(127), Status::Killed(9)] {
            assert_eq!(status(status_bytes(one)), one);
        }
    }
}
