//! What was made before a function needed it, and waits: for `vilya ps` and `/metrics`.
//!
//! Invariant: nothing of it is a sandbox of a function, so no shard knows of it; each is there at the moment that the starter was asked. What
//! memory it takes is found out by whoever asked. It does not know when anything is made, or what for.

use std::time::Instant;

use crossbeam_channel::Sender;
use vilya_isolate::MemoryUsage;

/// Where the starter is to tell what waits.
pub(crate) type RollCall = Sender<Vec<Waiting>>;

/// What something that waits is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Form {
    /// A sandbox without a program.
    Sandbox,
    /// A sandbox with one that has booted.
    Process,
    /// Memory that sandboxes are copied from.
    Image,
}

impl Form {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Form::Sandbox => "sandbox",
            Form::Process => "process",
            Form::Image => "image",
        }
    }
}

/// How much of a function it has.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Layer {
    /// Nothing: it can become anything.
    Bare,
    /// The function's runtime.
    Runtime,
    /// All of it.
    Function,
}

impl Layer {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Layer::Bare => "bare",
            Layer::Runtime => "runtime",
            Layer::Function => "function",
        }
    }
}

/// One of those that wait.
#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    pub(crate) form: Form,
    pub(crate) layer: Layer,
    /// The runtime, or the function.
    pub(crate) of: Option<String>,
    pub(crate) since: Instant,
    pub(crate) memory: Memory,
}

/// What it takes of the machine's memory.
#[derive(Clone, Debug)]
pub(crate) enum Memory {
    Known(u64),
    /// Of a process, and where to read what its control group is charged.
    Process(i32, Option<MemoryUsage>),
}

impl Waiting {
    pub(crate) fn pid(&self) -> Option<i32> {
        match self.memory {
            Memory::Known(_) => None,
            Memory::Process(pid, _) => Some(pid),
        }
    }

    /// What its group is charged, which is what counts for the limit of a sandbox; where it has none, the memory that no file is behind.
    /// None when it has gone meanwhile.
    pub(crate) fn memory_bytes(&self) -> Option<u64> {
        match &self.memory {
            Memory::Known(bytes) => Some(*bytes),
            Memory::Process(_, Some(usage)) => usage.bytes(),
            Memory::Process(pid, None) => share_bytes(*pid, "Pss_Anon:"),
        }
    }
}

/// A figure of a process over all of its mappings, pages that it shares counted proportionally; none when it has gone or the worker may
/// not look.
pub(crate) fn share_bytes(pid: i32, field: &str) -> Option<u64> {
    field_bytes(&std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?, field)
}

fn field_bytes(rollup: &str, field: &str) -> Option<u64> {
    let kib = rollup.lines().find_map(|line| line.strip_prefix(field)?.trim().strip_suffix(" kB"))?;
    kib.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_figures_are_found() {
        let rollup = "55d0-7ffd ---p 0 00:00 0 [rollup]\nRss:   500 kB\nPss:    123 kB\nPss_Anon: 7 kB\n";
        assert_eq!(field_bytes(rollup, "Pss:"), Some(123 * 1024));
        assert_eq!(field_bytes(rollup, "Pss_Anon:"), Some(7 * 1024));
        assert_eq!(field_bytes("", "Pss:"), None, "a process that is ending has no memory");
        let own = std::process::id().cast_signed();
        assert!(share_bytes(own, "Pss:") > share_bytes(own, "Pss_Anon:"));
    }
}
