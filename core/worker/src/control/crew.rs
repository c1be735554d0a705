//! Threads that each do one thing that takes long, for the control thread.
//!
//! Invariant: what a thread comes to arrives in the control thread's inbox exactly once, unless the worker ends. It does not know what is
//! done.

use std::collections::HashMap;
use std::io;
use std::thread::JoinHandle;

use crossbeam_channel::Sender;

use crate::mesh::ControlMessage;
use crate::process::vital;

/// Threads of one kind.
pub(super) struct Crew {
    /// The threads' name, and what they do.
    name: &'static str,
    deed: &'static str,
    control: Sender<ControlMessage>,
    threads: HashMap<u64, JoinHandle<()>>,
    begun: u64,
}

impl Crew {
    pub(super) fn new(name: &'static str, deed: &'static str, control: Sender<ControlMessage>) -> Crew {
        Crew { name, deed, control, threads: HashMap::new(), begun: 0 }
    }

    /// How many are at work.
    pub(super) fn len(&self) -> usize {
        self.threads.len()
    }

    /// Starts a thread. `work` is given its number, for [`Crew::end`].
    pub(super) fn begin(&mut self, work: impl FnOnce(u64) -> ControlMessage + Send + 'static) -> io::Result<()> {
        let (number, control, deed) = (self.begun, self.control.clone(), self.deed);
        self.begun += 1;
        let work = move || {
            // The control thread is gone only when the worker ends; then nobody waits.
            let _ = control.send(work(number));
        };
        let thread = std::thread::Builder::new().name(self.name.into()).spawn(move || vital(deed, work))?;
        self.threads.insert(number, thread);
        Ok(())
    }

    /// Takes note that one has said what it came to.
    pub(super) fn end(&mut self, number: u64) {
        // It has nothing left to do, and a panic would have ended the process.
        let _ = self.threads.remove(&number).map(JoinHandle::join);
    }

    /// Waits until none is at work.
    pub(super) fn join(&mut self) {
        for (_, thread) in self.threads.drain() {
            let _ = thread.join();
        }
    }
}
