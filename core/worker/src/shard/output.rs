//! What functions write to their output, from the pipes to the log.
//!
//! Invariant: output written before an answer is logged under that answer's invocation. A sandbox that writes without end is read at a bounded
//! rate, and waits; nothing else does. Does not know what becomes of a line.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use vilya_reactor::{Op, Outcome};

use super::Shard;
use super::token::{Owner, SandboxKey, Stream};
use crate::request::unix_ms;
use crate::storage::Output;

/// Output read in one go after a death or before an answer: the capacity of a pipe.
const DRAIN_BYTES: usize = 64 * 1024;
/// Rounds of that before an answer: a function whose other threads write without end is not waited for.
pub(super) const DRAIN_ROUNDS: usize = 4;
/// Read of one sandbox in a while before it has to wait for the next: 6 MiB a second, which fills the whole of a log in about one.
const WINDOW_BYTES: usize = 64 * 1024;
const WINDOW_NS: u64 = 10_000_000;

/// How much a sandbox has written of late.
#[derive(Default)]
pub(super) struct Written {
    /// Something was seen since the last answer, so more may be in the pipes.
    wrote: bool,
    /// Streams that wait, of which nothing is heard meanwhile.
    paused: u8,
    window_ends_ns: u64,
    window_bytes: usize,
}

impl Written {
    /// So much was read: until when no more is to be, if for a while.
    fn pause_after(&mut self, bytes: usize, now_ns: u64) -> Option<u64> {
        if now_ns >= self.window_ends_ns {
            self.window_ends_ns = now_ns.saturating_add(WINDOW_NS);
            self.window_bytes = 0;
        }
        self.window_bytes += bytes;
        (self.window_bytes >= WINDOW_BYTES).then_some(self.window_ends_ns)
    }
}

impl Shard {
    pub(super) fn output(&mut self, key: SandboxKey, stream: Stream, outcome: Outcome) {
        let now_ns = self.now_ns;
        let Some(entry) = self.entry(key) else { return self.discard(outcome) };
        entry.output.wrote = true;
        match outcome {
            Outcome::Read(chunk) => {
                let bytes = self.reactor.chunk(&chunk).to_vec();
                self.reactor.recycle(chunk);
                let pause = self.entry(key).and_then(|entry| entry.output.pause_after(bytes.len(), now_ns));
                self.log(key.index, stream, bytes);
                match pause {
                    Some(until_ns) => {
                        self.counters.output_pauses += 1;
                        self.entry(key).into_iter().for_each(|entry| entry.output.paused += 1);
                        self.reactor.set_timer(Owner::Pause(key, stream).token(), until_ns);
                    }
                    None => self.read_output(key, stream),
                }
            }
            // No buffer was free: the pipe keeps what is in it.
            Outcome::Failed { errno: libc::ENOBUFS, .. } => self.read_output(key, stream),
            // Closed by the function, or gone with it.
            _ => {}
        }
    }

    /// A stream has waited for long enough.
    pub(super) fn end_pause(&mut self, key: SandboxKey, stream: Stream) {
        self.entry(key).into_iter().for_each(|entry| entry.output.paused = entry.output.paused.saturating_sub(1));
        self.read_output(key, stream);
    }

    pub(super) fn read_output(&mut self, key: SandboxKey, stream: Stream) {
        let Some(process) = self.entry(key).and_then(|entry| entry.process.as_ref()) else { return };
        let fd = match stream {
            Stream::Stdout => process.stdout.as_raw_fd(),
            Stream::Stderr => process.stderr.as_raw_fd(),
        };
        let submitted = self.reactor.submit(Owner::Output(key, stream).token(), Op::Read { fd });
        let Some(process) = self.entry(key).and_then(|entry| entry.process.as_mut()) else { return };
        match submitted {
            Ok(op) => process.operations[if stream == Stream::Stdout { 2 } else { 3 }] = Some(op),
            Err(_) => tracing::warn!("a function's output is not read any more: the ring is full"),
        }
    }

    /// Logs what is in the pipes now, if output was seen since this was last done.
    pub(super) fn drain_output(&mut self, index: u32, rounds: usize) {
        let Some(entry) = self.sandboxes.get_mut(index as usize).and_then(Option::as_mut) else { return };
        if !std::mem::take(&mut entry.output.wrote) && entry.output.paused == 0 && !entry.doomed {
            return;
        }
        let Some(process) = &entry.process else { return };
        let mut pieces = Vec::new();
        for (stream, fd) in [(Stream::Stdout, &process.stdout), (Stream::Stderr, &process.stderr)] {
            for _ in 0..rounds {
                match read_waiting(fd) {
                    Some(bytes) => pieces.push((stream, bytes)),
                    None => break,
                }
            }
        }
        for (stream, bytes) in pieces {
            self.log(index, stream, bytes);
        }
    }

    fn log(&mut self, index: u32, stream: Stream, bytes: Vec<u8>) {
        let Some(Some(entry)) = self.sandboxes.get(index as usize) else { return };
        self.counters.log_bytes += bytes.len() as u64;
        let output = Output {
            function: Arc::clone(&entry.name),
            unix_ms: unix_ms(),
            request_id: entry.speaker().map(|request| request.0),
            stream: Owner::Output(SandboxKey::of(entry.id), stream).token() ^ self.log_salt,
            bytes,
        };
        // What finds no room is counted by the sender, and the log says how much is missing.
        self.links.logs.try_send(output);
    }

    /// Nothing more comes from its streams: an unfinished line is written as it is.
    pub(super) fn end_output(&mut self, index: u32) {
        let Some(Some(entry)) = self.sandboxes.get(index as usize) else { return };
        for stream in [Stream::Stdout, Stream::Stderr] {
            let stream = Owner::Output(SandboxKey::of(entry.id), stream).token() ^ self.log_salt;
            self.links.logs.end_stream(Arc::clone(&entry.name), stream);
        }
    }
}

/// What is in a pipe now, without waiting; at most its capacity.
fn read_waiting(pipe: &OwnedFd) -> Option<Vec<u8>> {
    let waiting = waiting_bytes(pipe)?.min(DRAIN_BYTES);
    if waiting == 0 {
        return None;
    }
    let mut bytes = vec![0; waiting];
    // The shard is the pipe's only reader, so what was waiting still is.
    let read = nix::unistd::read(pipe, &mut bytes).ok().filter(|&read| read > 0)?;
    bytes.truncate(read);
    Some(bytes)
}

fn waiting_bytes(pipe: &OwnedFd) -> Option<usize> {
    let mut fds = [nix::poll::PollFd::new(std::os::fd::AsFd::as_fd(pipe), nix::poll::PollFlags::POLLIN)];
    let ready = nix::poll::poll(&mut fds, nix::poll::PollTimeout::ZERO).ok()?;
    let readable = fds[0].revents().is_some_and(|events| events.contains(nix::poll::PollFlags::POLLIN));
    // A readable pipe gives what it has and does not wait for more.
    (ready > 0 && readable).then_some(DRAIN_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_writes_more_than_a_window_takes_waits_for_the_next() {
        let mut written = Written::default();
        let start = 5_000_000_000;
        assert_eq!(written.pause_after(WINDOW_BYTES - 1, start), None);
        assert_eq!(
            written.pause_after(1, start + 1),
            Some(start + WINDOW_NS),
            "until the window ends that began with the first"
        );
        assert_eq!(written.pause_after(4096, start + WINDOW_NS), None);
        for moment in 1..100 {
            assert_eq!(written.pause_after(4096, start + moment * WINDOW_NS), None, "a steady writer never waits");
        }
    }
}
