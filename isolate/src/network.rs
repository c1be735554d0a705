//! Network namespaces that are made before they are needed, and used again if nothing ever went through them.
//!
//! Owns: making one, and the check before another sandbox gets it. Invariant: a sandbox's namespace has a loopback that is up and no trace of
//! another sandbox: what cannot be shown to be untouched is let go. Does not know: who uses one.

use std::cell::OnceCell;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::limits::{NETWORKS_HELD, NETWORKS_RETURNED};
use crate::sys;

/// Namespaces that came back, not looked at yet.
#[derive(Debug, Default)]
pub(crate) struct Returned {
    namespaces: Mutex<Vec<OwnedFd>>,
    /// Namespaces of living sandboxes that are kept open.
    held: AtomicUsize,
    /// What the kernel counts in one that nobody has used.
    fresh: OnceLock<String>,
}

/// A namespace while a sandbox has it. A few are kept open; the rest are opened again when their sandbox is killed, which is how an idle one
/// ends, and one that ends by itself takes its namespace along.
#[derive(Debug)]
pub(crate) struct Network {
    namespace: OnceCell<OwnedFd>,
    /// The first process in it, once it is let go.
    of: Option<i32>,
    is_held: bool,
    returned: Arc<Returned>,
}

impl Network {
    /// # Panics
    /// It has been settled.
    pub(crate) fn namespace(&self) -> &OwnedFd {
        self.namespace.get().expect("it is open until its sandbox is there")
    }

    /// Its sandbox is there and keeps it alive: it stays open only if few do.
    pub(crate) fn settle(&mut self, pid: i32) {
        // Relaxed: a count that orders nothing.
        self.is_held = self.returned.held.fetch_add(1, Ordering::Relaxed) < NETWORKS_HELD;
        if !self.is_held {
            self.returned.held.fetch_sub(1, Ordering::Relaxed);
            self.namespace.take();
            self.of = Some(pid);
        }
    }

    /// Its sandbox is about to be killed, and is not reaped yet, so that its number is its own. A namespace that cannot be opened is let go.
    pub(crate) fn hold(&self) {
        if let (None, Some(pid)) = (self.namespace.get(), self.of)
            && let Ok(namespace) = File::open(format!("/proc/{pid}/ns/net"))
        {
            let _ = self.namespace.set(namespace.into());
        }
    }

    /// Gives it to others, who look at it first. Its sandbox must be dead; otherwise it is let go by being dropped.
    pub(crate) fn give_back(mut self) {
        let mut returned = self.returned.namespaces.lock().unwrap_or_else(PoisonError::into_inner);
        if returned.len() < NETWORKS_RETURNED {
            returned.extend(self.namespace.take());
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if self.is_held {
            self.returned.held.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Returned {
    /// One that came back untouched, or a new one. The calling thread, whose own network does not matter, is in it afterwards.
    pub(crate) fn take(self: &Arc<Returned>) -> io::Result<Network> {
        loop {
            let candidate = self.namespaces.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let namespace = match candidate {
                Some(namespace) if self.is_untouched(&namespace)? => namespace,
                Some(_) => continue,
                None => self.make()?,
            };
            let returned = Arc::clone(self);
            return Ok(Network { namespace: OnceCell::from(namespace), of: None, is_held: false, returned });
        }
    }
}

impl Returned {
    fn make(&self) -> io::Result<OwnedFd> {
        sys::unshare(libc::CLONE_NEWNET)?;
        sys::loopback_up()?;
        let counted = counted()?;
        self.fresh.get_or_init(|| counted);
        Ok(File::open("/proc/thread-self/ns/net")?.into())
    }

    /// Whether no byte went through its only interface, no socket is left (a connection that has ended is kept by the kernel for a minute), and
    /// the kernel has counted nothing in it.
    fn is_untouched(&self, namespace: &OwnedFd) -> io::Result<bool> {
        sys::enter_namespace(namespace.as_fd(), libc::CLONE_NEWNET)?;
        let devices = fs::read_to_string("/proc/thread-self/net/dev")?;
        let sockets = fs::read_to_string("/proc/thread-self/net/sockstat")?;
        let sockets_6 = fs::read_to_string("/proc/thread-self/net/sockstat6").unwrap_or_default();
        let is_fresh = self.fresh.get() == Some(&counted()?);
        Ok(is_fresh && carried_nothing(&devices) && holds_nothing(&sockets) && holds_nothing(&sockets_6))
    }
}

/// Takes the calling thread back to the network of the process: whatever it forks would be in, and keep, that of the last sandbox.
pub(crate) fn leave() -> io::Result<()> {
    sys::enter_namespace(File::open("/proc/self/ns/net")?.as_fd(), libc::CLONE_NEWNET)
}

/// What the kernel counts of the protocols in the namespace of the calling thread, and how many sockets of any kind there are.
fn counted() -> io::Result<String> {
    let mut counted = fs::read_to_string("/proc/thread-self/net/snmp")?;
    for more in ["snmp6", "netstat"] {
        counted += &fs::read_to_string(format!("/proc/thread-self/net/{more}")).unwrap_or_default();
    }
    let sockets = fs::read_to_string("/proc/thread-self/net/sockstat")?;
    counted.extend(sockets.lines().filter(|line| line.starts_with("sockets:")));
    Ok(counted)
}

/// Two lines of headings, then a line an interface: its name and 16 numbers.
fn carried_nothing(devices: &str) -> bool {
    let mut lines = devices.lines().skip(2);
    let is_idle = |line: &str| {
        line.trim_start().strip_prefix("lo:").is_some_and(|numbers| {
            numbers.split_whitespace().count() == 16 && numbers.split_whitespace().all(|n| n == "0")
        })
    };
    lines.next().is_some_and(is_idle) && lines.next().is_none()
}

/// `TCP: inuse 0 orphan 0 tw 0 alloc 3 mem 1`, `UDP: inuse 0 mem 0` and their like. What is allocated and how much memory that takes is
/// counted over the whole host; the line of all sockets is compared with a fresh one's.
fn holds_nothing(sockets: &str) -> bool {
    const OF_THE_HOST: [&str; 2] = ["alloc", "mem"];
    let protocols = sockets.lines().filter(|line| !line.starts_with("sockets:"));
    protocols.filter_map(|line| line.split_once(':')).all(|(_, counts)| {
        let words: Vec<&str> = counts.split_whitespace().collect();
        let pairs = words.as_chunks::<2>();
        pairs.1.is_empty() && pairs.0.iter().all(|[name, count]| OF_THE_HOST.contains(name) || *count == "0")
    })
}

#[cfg(test)]
mod tests {
    use super::{carried_nothing, holds_nothing};

    const HEADINGS: &str = "Inter-|   Receive  |  Transmit\n face |bytes packets|bytes packets\n";

    #[test]
    fn only_an_idle_loopback_is_untouched() {
        let line = |name: &str, first: u32| format!("{HEADINGS}    {name}: {first} 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n");
        assert!(carried_nothing(&line("lo", 0)));
        assert!(!carried_nothing(&line("lo", 64)));
        assert!(!carried_nothing(&line("eth0", 0)));
        assert!(!carried_nothing(&(line("lo", 0) + "  eth0: 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n")));
        assert!(!carried_nothing(HEADINGS));
    }

    #[test]
    fn sockets_left_behind_are_seen() {
        let idle = "sockets: used 812\nTCP: inuse 0 orphan 0 tw 0 alloc 41 mem 7\nUDP: inuse 0 mem 3\nRAW: inuse 0\n\
                    FRAG: inuse 0 memory 0\n";
        assert!(holds_nothing(idle));
        assert!(!holds_nothing(&idle.replace("tw 0", "tw 1")));
        assert!(!holds_nothing(&idle.replace("RAW: inuse 0", "RAW: inuse 1")));
        assert!(holds_nothing("TCP6: inuse 0\nUDP6: inuse 0\n"));
        assert!(!holds_nothing("TCP6: inuse 2\n"));
    }
}
