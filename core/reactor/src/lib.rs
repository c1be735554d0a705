//! One io_uring a thread.
//!
//! Owns: the submission and completion queues, the provided buffers, the operations in flight, the timers and the
//! wake-ups of one thread. A thread hands in operations ([`Reactor::submit`]), calls [`Reactor::turn`] in a loop and
//! gets [`Completion`]s; a turn makes one system call at most.
//!
//! Invariant: memory that the kernel may read or write belongs to the reactor until the kernel's last completion for
//! it, whatever the caller did in between (abandoned the operation, dropped the reactor). Every completion carries the
//! generation of the slot that it was submitted for, so one that arrives late is recognised and counted, never
//! delivered to the slot's next user.
//!
//! Does not know: functions, sandboxes, protocols. Owners are numbers that the caller chose.
//!
//! | file | owns |
//! |---|---|
//! | `ring` | the io_uring itself: set-up, the two queues, the one system call |
//! | `reactor` | the public type: submit, abandon, turn |
//! | `settle` | one completion queue entry into at most one [`Completion`] |
//! | `shutdown` | getting every buffer back from the kernel, or leaking it |
//! | `ops/*` | one operation a file: its submission entry and what its completions mean |
//! | `slots`, `token` | operations in flight, and the 64 bits that name one to the kernel |
//! | `kept` | files that operations own, in the ring's own table |
//! | `buffers` | the provided-buffer ring and [`Chunk`]s |
//! | `postbox` | messages posted to other rings, so that a failed one finds its owner |
//! | `window` | memory of the caller's that the kernel receives into or sends from |
//! | `timers` | deadlines |
//! | `waker`, `gate` | waking a sleeping reactor from another thread |
//! | `config`, `error`, `counters`, `clock` | what they say |

mod buffers;
mod clock;
mod config;
mod counters;
mod error;
mod gate;
mod kept;
mod ops;
mod postbox;
mod reactor;
mod ring;
mod settle;
mod shutdown;
mod slots;
mod timers;
mod token;
mod waker;
mod window;

pub use buffers::Chunk;
pub use config::{Config, ConfigError, FILES_MAX};
pub use counters::Counters;
pub use error::{Refused, RefusedReason, SetupError};
pub use ops::{Completion, Op, Outcome, SendData};
pub use reactor::{Reactor, Wait};
pub use timers::TimerId;
pub use token::OpId;
pub use waker::Waker;
pub use window::{Pinned, Window};
