//! The reactor against a real kernel: sockets, pipes, eventfds and child processes of this machine's own.
//!
//! No test depends on timing. Where a lost event would show as an endless wait, `Rig` gives up after `PATIENCE_NS`.

mod buffers;
mod cancel;
mod echo;
mod limits;
mod messages;
mod polls;
mod quiet;
mod shutdown;
mod support;
mod timers;
mod wakes;
mod windows;
