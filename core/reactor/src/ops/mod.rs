//! The operations, one file each: the submission entry that starts it, and what its completions mean.
//!
//! Invariant: an operation's file decides only from its own state and one completion entry ([`Verdict`]); slots, arming
//! and delivery are the reactor's. An operation that the kernel ends without an error is armed again here, so that an
//! owner sees multishot operations end only for a reason.

mod accept;
pub(crate) mod cancel;
mod close;
mod fill;
pub(crate) mod message;
mod poll;
mod read;
mod receive;
mod send;

use std::os::fd::{IntoRawFd, OwnedFd, RawFd};

use io_uring::{cqueue, squeue};

use crate::buffers::{Buffers, Chunk};
use crate::kept::Owned;
use crate::timers::TimerId;
use crate::token::{Kind, OpId, Token};
use crate::window::Window;

pub(crate) use poll::waker_entry;
use send::Sending;

/// What a reactor can be asked to do.
///
/// A descriptor given as a number must stay open until its operation is over or abandoned, and must not be in
/// non-blocking mode (the kernel would report `EAGAIN` instead of waiting).
#[derive(Debug)]
pub enum Op {
    /// Accepts connections until abandoned: [`Outcome::Accepted`] for each.
    Accept {
        /// A listening socket.
        listener: RawFd,
    },
    /// Receives into provided buffers until abandoned or over: [`Outcome::Received`] for each piece, then
    /// [`Outcome::Ended`] when the peer is done. Ends with [`Outcome::Failed`] and `ENOBUFS` when every buffer is held.
    Receive {
        /// A connected socket.
        socket: RawFd,
    },
    /// Receives what is there, once, into a provided buffer: [`Outcome::Received`] or [`Outcome::Ended`]. For a stream of
    /// which the caller decides after each piece where the next goes.
    ReceiveOnce {
        /// A connected socket.
        socket: RawFd,
    },
    /// Receives what is there, once, into memory that the caller names: [`Outcome::Filled`], or [`Outcome::Ended`].
    /// Abandoned or not, the memory is the kernel's until the operation is over; to know when, interrupt it.
    ReceiveInto {
        /// A connected socket.
        socket: RawFd,
        /// Where to; not empty.
        window: Window,
    },
    /// Sends all of the data: [`Outcome::Sent`], or [`Outcome::Failed`] with the data.
    Send {
        /// A connected socket.
        socket: RawFd,
        /// What to send; may be empty.
        data: SendData,
    },
    /// As [`Op::Send`], of little that the socket has room for: [`Outcome::Sent`] comes at the end of a turn in which it was
    /// submitted, which may have slept meanwhile, for a completion of the kernel's own would have ended its sleep. So it is
    /// for an answer after which the caller waits for something else. What does not fit at once goes on as `Send` does.
    SendQuietly {
        /// A connected socket.
        socket: RawFd,
        /// What to send.
        data: SendData,
    },
    /// One read into a provided buffer: [`Outcome::Read`] or [`Outcome::Ended`].
    Read {
        /// A pipe or file (read at its current position).
        fd: RawFd,
    },
    /// Polls for input until abandoned: [`Outcome::Readable`] for each time input arrives, whether or not it was read.
    /// Events that arrive before the reactor's next turn may be reported as one.
    Poll {
        /// For example an eventfd.
        fd: RawFd,
    },
    /// Polls for input once: [`Outcome::Readable`].
    PollOnce {
        /// For example a pidfd.
        fd: RawFd,
    },
    /// As [`Op::Poll`] or [`Op::PollOnce`], of a file that is the reactor's from then on, and is let go when the operation is
    /// over or the kernel has forgotten one that was abandoned. It takes no descriptor while the reactor has a place for it.
    Watch {
        /// What is polled.
        file: OwnedFd,
        /// Whether for the first input alone.
        once: bool,
    },
    /// Posts a word to another reactor, which gets [`Outcome::Message`]. Completes only if it fails. It is posted in
    /// this reactor's next turn. Of failures, those are reported that the kernel finds while it takes the message.
    Message {
        /// The other reactor's [`ring_fd`](crate::Reactor::ring_fd).
        ring_fd: RawFd,
        /// The word.
        value: u64,
    },
    /// Closes a descriptor: [`Outcome::Closed`]. Goes on when abandoned. Operations on the descriptor should be over or
    /// abandoned before.
    Close {
        /// The descriptor.
        fd: OwnedFd,
    },
}

/// Bytes to send. They are given back when they were sent, so that a buffer can be used again.
#[derive(Debug)]
pub enum SendData {
    /// A buffer of the caller's.
    Owned(Vec<u8>),
    /// Bytes that live as long as the program.
    Static(&'static [u8]),
    /// Bytes that are sent from where they lie.
    Window(Window),
}

impl SendData {
    /// How many bytes.
    pub fn len(&self) -> usize {
        match self {
            SendData::Owned(bytes) => bytes.len(),
            SendData::Static(bytes) => bytes.len(),
            SendData::Window(window) => window.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where the bytes after the first `sent` start. Not read here: a window's may change at any time.
    fn address(&self, sent: usize) -> *const u8 {
        let start = match self {
            SendData::Owned(bytes) => bytes.as_ptr(),
            SendData::Static(bytes) => bytes.as_ptr(),
            SendData::Window(window) => window.address().cast_const(),
        };
        start.wrapping_add(sent)
    }
}

/// Something that happened.
#[derive(Debug)]
pub struct Completion {
    /// As given with the operation or timer; 0 for [`Outcome::Message`] and [`Outcome::Woken`].
    pub owner: u64,
    /// The operation; [`OpId::NONE`] for timers, messages that arrived and wake-ups.
    pub op: OpId,
    /// False: the operation is over.
    pub more: bool,
    /// What happened.
    pub outcome: Outcome,
}

/// What happened to an operation.
#[derive(Debug)]
pub enum Outcome {
    /// A connection, close-on-exec, in blocking mode.
    Accepted(OwnedFd),
    /// Bytes from a socket.
    Received(Chunk),
    /// The end of what a socket or pipe had to say.
    Ended,
    /// As many bytes are in the window; it is the caller's again.
    Filled(usize),
    /// Everything was sent; the buffer is the caller's again.
    Sent(SendData),
    /// Bytes from a pipe or file.
    Read(Chunk),
    /// Input, or an error or hang-up that a read would tell.
    Readable,
    /// A word from another reactor.
    Message(u64),
    /// The descriptor is closed.
    Closed,
    /// The timer fired.
    Timer(TimerId),
    /// A [`Waker`](crate::Waker) woke this reactor, once or more.
    Woken,
    /// The operation failed and is over.
    Failed {
        /// The kernel's error number.
        errno: i32,
        /// A send's data.
        data: Option<SendData>,
        /// Of a send's data, how many bytes had been sent.
        sent_bytes: usize,
    },
}

/// The state of an operation that holds a slot.
#[derive(Debug)]
pub(crate) enum Held {
    Accept { listener: RawFd },
    Receive { socket: RawFd, once: bool },
    Fill { socket: RawFd, window: Window },
    Send(Sending),
    Read { fd: RawFd },
    Poll { fd: RawFd },
    PollOnce { fd: RawFd },
    Watch { file: Owned, once: bool },
    Close { fd: RawFd },
}

/// The result half of a completion entry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reply {
    pub(crate) result: i32,
    flags: u32,
}

impl Reply {
    pub(crate) fn of(entry: &cqueue::Entry) -> Reply {
        Reply { result: entry.result(), flags: entry.flags() }
    }

    /// A result without flags.
    #[cfg(test)]
    pub(crate) fn plain(result: i32) -> Reply {
        Reply { result, flags: 0 }
    }

    /// The kernel will complete this submission again.
    pub(crate) fn more(self) -> bool {
        cqueue::more(self.flags)
    }

    /// The provided buffer that came with it.
    pub(crate) fn buffer(self) -> Option<u16> {
        cqueue::buffer_select(self.flags)
    }

    /// The error number, positive.
    fn errno(self) -> Option<i32> {
        (self.result < 0).then(|| -self.result)
    }

    fn failed(errno: i32) -> Outcome {
        Outcome::Failed { errno, data: None, sent_bytes: 0 }
    }
}

/// What one completion entry means.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// The operation is over.
    Over(Outcome),
    /// Deliver; the kernel goes on by itself.
    Continues(Outcome),
    /// Deliver if there is something, then arm the same operation again.
    Again(Option<Outcome>),
}

impl Verdict {
    /// A multishot operation had an event.
    fn event(reply: Reply, outcome: Outcome) -> Verdict {
        if reply.more() { Verdict::Continues(outcome) } else { Verdict::Again(Some(outcome)) }
    }
}

impl Held {
    /// Not for messages. `keep` is what becomes of a file that the operation owns.
    pub(crate) fn from_op(op: Op, keep: impl FnOnce(OwnedFd) -> Owned) -> Held {
        match op {
            Op::Accept { listener } => Held::Accept { listener },
            Op::Receive { socket } => Held::Receive { socket, once: false },
            Op::ReceiveOnce { socket } => Held::Receive { socket, once: true },
            Op::ReceiveInto { socket, window } => Held::Fill { socket, window },
            Op::Send { socket, data } => Held::Send(Sending::new(socket, data, false)),
            Op::SendQuietly { socket, data } => Held::Send(Sending::new(socket, data, true)),
            Op::Read { fd } => Held::Read { fd },
            Op::Poll { fd } => Held::Poll { fd },
            Op::PollOnce { fd } => Held::PollOnce { fd },
            Op::Watch { file, once } => Held::Watch { file: keep(file), once },
            Op::Close { fd } => Held::Close { fd: fd.into_raw_fd() },
            Op::Message { .. } => unreachable!("messages are posted, they hold no slot"),
        }
    }

    pub(crate) fn kind(&self) -> Kind {
        match self {
            Held::Accept { .. } => Kind::Accept,
            Held::Receive { .. } => Kind::Receive,
            Held::Fill { .. } => Kind::Fill,
            Held::Send(_) => Kind::Send,
            Held::Read { .. } => Kind::Read,
            Held::Poll { .. } | Held::Watch { once: false, .. } => Kind::Poll,
            Held::PollOnce { .. } | Held::Watch { once: true, .. } => Kind::PollOnce,
            Held::Close { .. } => Kind::Close,
        }
    }

    /// The submission entry that starts or continues it. It points into `self`'s data at most.
    pub(crate) fn entry(&self, token: Token, buffers: &Buffers) -> squeue::Entry {
        let entry = match self {
            Held::Accept { listener } => accept::entry(*listener),
            Held::Receive { socket, once: false } => receive::entry(*socket),
            Held::Receive { socket, once: true } => receive::entry_once(*socket, buffers.buffer_bytes()),
            Held::Fill { socket, window } => fill::entry(*socket, window),
            Held::Send(sending) => sending.entry(),
            Held::Read { fd } => read::entry(*fd, buffers.buffer_bytes()),
            Held::Poll { fd } => poll::entry(*fd, true),
            Held::PollOnce { fd } => poll::entry(*fd, false),
            Held::Watch { file, once } => poll::entry_of(file, !once),
            Held::Close { fd } => close::entry(*fd),
        };
        entry.user_data(token.to_bits())
    }

    pub(crate) fn complete(&mut self, reply: Reply, buffers: &mut Buffers) -> Verdict {
        match self {
            Held::Accept { .. } => accept::complete(reply),
            Held::Receive { once, .. } => receive::complete(reply, buffers, *once),
            Held::Fill { .. } => fill::complete(reply),
            Held::Send(sending) => sending.complete(reply),
            Held::Read { .. } => read::complete(reply, buffers),
            Held::Poll { .. } | Held::Watch { once: false, .. } => poll::complete(reply),
            Held::PollOnce { .. } | Held::Watch { once: true, .. } => poll::complete_once(reply),
            Held::Close { fd } => close::complete(*fd, reply),
        }
    }

    /// Whether a cancel makes sense: a close must happen.
    pub(crate) fn can_cancel(&self) -> bool {
        !matches!(self, Held::Close { .. })
    }

    /// What an owner hears of an operation that was interrupted between two of its submissions.
    pub(crate) fn cut(&mut self) -> Outcome {
        match self {
            Held::Send(sending) => sending.failed(libc::ECANCELED),
            _ => Reply::failed(libc::ECANCELED),
        }
    }

    /// Takes what an undelivered completion carries. `None` for `held`: the slot is gone.
    pub(crate) fn reclaim(kind: Kind, held: Option<&Held>, reply: Reply, buffers: &mut Buffers) {
        if let Some(buffer) = reply.buffer() {
            buffers.recycle_unseen(buffer);
        }
        match (kind, held) {
            (Kind::Accept, _) => accept::reclaim(reply),
            (Kind::Close, Some(Held::Close { fd })) => drop(close::complete(*fd, reply)),
            _ => {}
        }
    }

    /// Whether it succeeds without a completion.
    pub(crate) fn is_quiet(&self) -> bool {
        matches!(self, Held::Send(sending) if sending.is_quiet())
    }

    /// What an operation that succeeded without a completion comes to.
    pub(crate) fn succeeded(self) -> Outcome {
        match self {
            Held::Send(sending) => Outcome::Sent(sending.into_data()),
            _ => unreachable!("only sends are quiet"),
        }
    }

    /// Forgets what the kernel may still read. For a shutdown that could not get it back.
    pub(crate) fn leak(&mut self) {
        match self {
            Held::Send(sending) => sending.leak(),
            Held::Fill { window, .. } => std::mem::forget(window.clone()),
            _ => {}
        }
    }
}
