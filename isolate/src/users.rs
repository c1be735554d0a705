//! Host user ids of sandboxes made by root.
//!
//! Owns: which ids of the reserved range are in use by this process. Invariant: two sandboxes alive never share one. Does not know: what an
//! id is used for. Two workers on one host begin at different places, by their process ids; if their ids meet all the same, the sandboxes
//! still share no namespace, only the count behind RLIMIT_NPROC.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use crate::limits::{USER_FIRST, USERS};

#[derive(Debug)]
struct Ids {
    next: u32,
    used: BTreeSet<u32>,
}

static IDS: Mutex<Option<Ids>> = Mutex::new(None);

/// An id that belongs to one sandbox until this is dropped.
#[derive(Debug)]
pub(crate) struct UserLease(u32);

impl UserLease {
    /// The next id that is free, or `None` if every one is in use.
    pub(crate) fn take() -> Option<UserLease> {
        let mut ids = IDS.lock().unwrap_or_else(PoisonError::into_inner);
        let ids = ids
            .get_or_insert_with(|| Ids { next: std::process::id().wrapping_mul(4099) % USERS, used: BTreeSet::new() });
        if ids.used.len() as u32 >= USERS {
            return None;
        }
        while !ids.used.insert(ids.next) {
            ids.next = (ids.next + 1) % USERS;
        }
        let offset = ids.next;
        ids.next = (offset + 1) % USERS;
        Some(UserLease(offset))
    }

    /// The id on the host.
    pub(crate) fn id(&self) -> u32 {
        USER_FIRST + self.0
    }
}

impl Drop for UserLease {
    fn drop(&mut self) {
        if let Some(ids) = IDS.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            ids.used.remove(&self.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::UserLease;
    use crate::limits::{USER_FIRST, USERS};

    #[test]
    fn ids_in_use_are_never_given_twice() {
        let leases: Vec<UserLease> = (0..100).map_while(|_| UserLease::take()).collect();
        let mut ids: Vec<u32> = leases.iter().map(UserLease::id).collect();
        assert!(ids.iter().all(|id| (USER_FIRST..USER_FIRST + USERS).contains(id)));
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 100);
    }
}
