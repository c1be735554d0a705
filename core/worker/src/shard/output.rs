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
/// Read of one sandbox at once if it has written little of late; and what it is given again in a second.
const CREDIT_BYTES: u64 = 64 * 1024;
const CREDIT_BYTES_PER_SECOND: u64 = 2 * 1024 * 1024;
/// Read of one that has used that up, when it has been given as much again: with one call, which holds the shard up for some microseconds.
const SIP_BYTES: usize = 16 * 1024;

/// How much a sandbox has written of late.
#[derive(Default)]
pub(super) struct Written {
    /// Something was seen since the last answer, so more may be in the pipes.
    wrote: bool,
    /// Streams that wait, of which nothing is heard meanwhile.
    paused: u8,
    /// Of its credit, at that time; more than all of it when more was in the pipe than it had left.
    used_bytes: u64,
    at_ns: u64,
}

impl Written {
    /// So much was read: until when no more is to be, if for a while.
    fn pause_after(&mut self, bytes: usize, now_ns: u64) -> Option<u64> {
        const SECOND_NS: u64 = 1_000_000_000;
        let since_ns = now_ns.saturating_sub(self.at_ns).min(SECOND_NS);
        let given_bytes = since_ns * CREDIT_BYTES_PER_SECOND / SECOND_NS;
        self.used_bytes = self.used_bytes.saturating_sub(given_bytes) + bytes as u64;
        self.at_ns = now_ns;
        let missing_bytes = (self.used_bytes + SIP_BYTES as u64).checked_sub(CREDIT_BYTES)?;
        (self.used_bytes >= CREDIT_BYTES)
            .then(|| now_ns.saturating_add(missing_bytes * SECOND_NS / CREDIT_BYTES_PER_SECOND))
    }
}

impl Shard {
    pub(super) fn output(&mut self, key: SandboxKey, stream: Stream, outcome: Outcome) {
        let Some(entry) = self.entry(key) else { return self.discard(outcome) };
        entry.output.wrote = true;
        match outcome {
            Outcome::Read(chunk) => {
                let bytes = self.reactor.chunk(&chunk).to_vec();
                self.reactor.recycle(chunk);
                self.take_output(key, stream, bytes);
            }
            // No buffer was free: the pipe keeps what is in it.
            Outcome::Failed { errno: libc::ENOBUFS, .. } => self.read_output(key, stream),
            // Closed by the function, or gone with it.
            _ => {}
        }
    }

    fn take_output(&mut self, key: SandboxKey, stream: Stream, bytes: Vec<u8>) {
        let now_ns = self.now_ns;
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

    /// A stream has waited for long enough.
    pub(super) fn end_pause(&mut self, key: SandboxKey, stream: Stream) {
        let Some(entry) = self.entry(key) else { return };
        entry.output.paused = entry.output.paused.saturating_sub(1);
        // It writes more than is read, so there may be more before its next answer.
        entry.output.wrote = true;
        let waiting = entry.process.as_ref().and_then(|process| read_waiting(process.output(stream), SIP_BYTES));
        match waiting {
            Some(bytes) => self.take_output(key, stream, bytes),
            None => self.read_output(key, stream),
        }
    }

    pub(super) fn read_output(&mut self, key: SandboxKey, stream: Stream) {
        let Some(process) = self.entry(key).and_then(|entry| entry.process.as_ref()) else { return };
        let fd = process.output(stream).as_raw_fd();
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
        for stream in [Stream::Stdout, Stream::Stderr] {
            for _ in 0..rounds {
                match read_waiting(process.output(stream), DRAIN_BYTES) {
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

/// What is in a pipe now, without waiting; at most so much.
fn read_waiting(pipe: &OwnedFd, most_bytes: usize) -> Option<Vec<u8>> {
    if !has_waiting(pipe) {
        return None;
    }
    let mut bytes = vec![0; most_bytes];
    // The shard is the pipe's only reader, so what was waiting still is; and a readable pipe gives what it has and does not wait for more.
    let read = nix::unistd::read(pipe, &mut bytes).ok().filter(|&read| read > 0)?;
    bytes.truncate(read);
    Some(bytes)
}

fn has_waiting(pipe: &OwnedFd) -> bool {
    let mut fds = [nix::poll::PollFd::new(std::os::fd::AsFd::as_fd(pipe), nix::poll::PollFlags::POLLIN)];
    let ready = nix::poll::poll(&mut fds, nix::poll::PollTimeout::ZERO).is_ok_and(|ready| ready > 0);
    ready && fds[0].revents().is_some_and(|events| events.contains(nix::poll::PollFlags::POLLIN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_writes_more_than_its_credit_is_read_in_sips() {
        const SIP_NS: u64 = SIP_BYTES as u64 * 1_000_000_000 / CREDIT_BYTES_PER_SECOND;
        let mut written = Written::default();
        let start = 5_000_000_000;
        assert_eq!(written.pause_after(CREDIT_BYTES as usize - 1, start), None);
        assert_eq!(written.pause_after(1, start), Some(start + SIP_NS), "until there is enough for a sip");
        for sip in 1..100 {
            let now_ns = start + sip * SIP_NS;
            assert_eq!(written.pause_after(SIP_BYTES, now_ns), Some(now_ns + SIP_NS), "one a pause");
        }
        let later = start + 1_000_000_000_000;
        assert_eq!(written.pause_after(CREDIT_BYTES as usize - 1, later), None, "all of it, for one that was quiet");
        for moment in 1..100 {
            assert_eq!(
                written.pause_after(SIP_BYTES - 64, later + moment * SIP_NS),
                None,
                "a steady writer never waits"
            );
        }
    }
}
