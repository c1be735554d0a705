//! Request bodies that are received straight into the lane that will run them.
//!
//! Invariant: a lane that was reserved is committed, yielded or cancelled once, and only when the kernel receives nothing
//! into it any more. What has arrived of a body whose lane is wanted by somebody who waits, or is gone, moves to a buffer
//! of the request's own: the one copy of a request that had to queue.

use std::os::fd::RawFd;

use vilya_engine::{Event, InvocationId, Refusal, SandboxId};
use vilya_reactor::{Op, OpId, Outcome};

use super::Shard;
use super::token::Owner;
use crate::arena::Slice;
use crate::mesh::Message;
use crate::request::{Client, Request};
use crate::response::Response;
use crate::slots::Key;

/// A body of at least as many bytes asks for a lane while it arrives; a smaller one comes in one piece or two, and a copy
/// of it costs less than the asking.
pub(super) const UPLOAD_BYTES: u64 = 32 * 1024;

/// Why an upload leaves its lane before it is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaving {
    /// Somebody waits for the lane.
    Reclaimed,
    /// The lane is gone.
    Unreserved,
    /// The client is gone, or nobody wants the rest.
    Abandoned,
}

/// A body on its way into a lane.
pub(super) struct Upload {
    pub(super) client: Client,
    /// The request in the shard's table.
    origin: Key,
    invocation: InvocationId,
    sandbox: SandboxId,
    lane: u16,
    /// As much of the lane as the whole body takes.
    slice: Slice,
    filled_bytes: usize,
    fill: Option<OpId>,
    leaving: Option<Leaving>,
}

impl Upload {
    /// Bytes that are still to come.
    pub(super) fn due_bytes(&self) -> usize {
        self.slice.len() - self.filled_bytes
    }

    pub(super) fn is_filling(&self) -> bool {
        self.fill.is_some()
    }

    /// Whether it stays in its lane.
    pub(super) fn stays(&self) -> bool {
        self.leaving.is_none()
    }

    /// The lane it is on its way into, if that is the sandbox's.
    pub(super) fn lane_in(&self, sandbox: SandboxId) -> Option<u16> {
        (self.sandbox == sandbox).then_some(self.lane)
    }

    /// Takes in bytes that were received elsewhere.
    ///
    /// # Panics
    /// They are more than are due, or the kernel is receiving.
    #[allow(unsafe_code)]
    pub(super) fn append(&mut self, bytes: &[u8]) {
        assert!(self.fill.is_none(), "bytes come from one place at a time");
        // SAFETY: the slice is of the request area of a lane that is reserved for this upload, and the kernel receives
        // nothing into it, as was just asserted.
        unsafe { self.slice.write(self.filled_bytes, bytes) };
        self.filled_bytes += bytes.len();
    }
}

impl Shard {
    /// Asks the engine for a lane for a request whose body of `bytes` bytes is still to come. Its client hears of it by
    /// `has_lane`, `has_no_lane` or a refusal.
    pub(super) fn ask_for_lane(&mut self, mut request: Request, bytes: u64) {
        request.awaits_bytes = Some(bytes);
        let function = request.function;
        match self.requests.insert(request) {
            Ok(key) => self.feed(Event::Reserve { origin: vilya_engine::Origin(key.0), function }),
            Err(request) => self.has_no_lane(request),
        }
    }

    /// The engine lends a lane.
    pub(super) fn reserved(&mut self, origin: Key, invocation: InvocationId, sandbox: SandboxId, lane: u16) {
        let Some(request) = self.requests.get_mut(origin) else { return self.feed(Event::Cancel { invocation }) };
        request.invocation = Some(invocation);
        let (client, bytes) = (request.source.client, request.awaits_bytes.unwrap_or(0));
        let slice = self.sandbox_at(sandbox).and_then(|entry| entry.request_slice(lane, bytes));
        let upload = slice.map(|slice| Upload {
            client,
            origin,
            invocation,
            sandbox,
            lane,
            slice,
            filled_bytes: 0,
            fill: None,
            leaving: None,
        });
        let Some(Ok(key)) = upload.map(|upload| self.uploads.insert(upload)) else {
            // Its sandbox broke in this very step, or there are as many uploads as may be: the body is buffered.
            self.feed(Event::Yield { invocation });
            return self.not_reserved(origin);
        };
        if let Some(request) = self.requests.get_mut(origin) {
            request.upload = Some(key);
        }
        self.has_lane(client, key);
    }

    /// There is no lane to lend: the body is buffered, and the request comes again when it is whole.
    pub(super) fn not_reserved(&mut self, origin: Key) {
        if let Some(mut request) = self.requests.remove(origin) {
            request.awaits_bytes = None;
            request.invocation = None;
            request.upload = None;
            self.has_no_lane(request);
        }
    }

    /// Receives more of an upload from its socket.
    ///
    /// # Errors
    /// The ring takes no receive; the connection is to be closed.
    pub(super) fn fill(&mut self, key: Key, socket: RawFd, at_most_bytes: usize) -> Result<(), ()> {
        let Some(upload) = self.uploads.get_mut(key) else { return Ok(()) };
        let due = upload.due_bytes().min(at_most_bytes);
        if upload.fill.is_some() || upload.leaving.is_some() || due == 0 {
            return Ok(());
        }
        let window = upload.slice.part(upload.filled_bytes, upload.filled_bytes + due).window();
        match self.reactor.submit(Owner::Fill(key).token(), Op::ReceiveInto { socket, window }) {
            Ok(fill) => {
                upload.fill = Some(fill);
                Ok(())
            }
            Err(_) => Err(()),
        }
    }

    /// A receive into a lane has ended.
    pub(super) fn filled(&mut self, key: Key, outcome: &Outcome) {
        let Some(upload) = self.uploads.get_mut(key) else { return };
        upload.fill = None;
        let bytes = if let Outcome::Filled(bytes) = outcome { *bytes } else { 0 };
        upload.filled_bytes += bytes;
        self.counters.bytes_in += bytes as u64;
        let (client, leaving) = (upload.client, upload.leaving);
        // First the bytes are counted, then moved; those that nobody wants any more are a part of the stream as well.
        self.took_body(client, bytes);
        if let Some(leaving) = leaving {
            self.leave(key, leaving);
        }
        self.body_moved(client, outcome);
    }

    /// An upload leaves its lane: at once, or when the kernel is done with it.
    pub(super) fn begin_leaving(&mut self, key: Key, leaving: Leaving) {
        let Some(upload) = self.uploads.get_mut(key) else { return };
        // Who is gone stays gone; a lane that was wanted and is lost is lost.
        let leaving = if upload.leaving == Some(Leaving::Abandoned) { Leaving::Abandoned } else { leaving };
        upload.leaving = Some(leaving);
        let fill = upload.fill;
        if leaving == Leaving::Abandoned {
            // Now, since the engine says nothing of an invocation whose lane was lost before.
            let origin = upload.origin;
            if let Some(request) = self.requests.remove(origin) {
                self.pool.give(request.text.into_buffer());
            }
        }
        match fill {
            Some(fill) => self.reactor.interrupt(fill),
            None => self.leave(key, leaving),
        }
    }

    fn leave(&mut self, key: Key, leaving: Leaving) {
        let Some(upload) = self.uploads.remove(key) else { return };
        let Upload { origin, invocation, sandbox, lane, slice, filled_bytes, .. } = upload;
        if let Some(entry) = self.sandbox_at(sandbox) {
            entry.request_written(lane, filled_bytes as u64);
        }
        self.swell(sandbox, filled_bytes as u64);
        if leaving == Leaving::Abandoned {
            return self.feed(Event::Cancel { invocation });
        }
        if let Some(request) = self.requests.get_mut(origin) {
            slice.part(0, filled_bytes).append_to(request.text.buffer());
        }
        if leaving == Leaving::Reclaimed {
            self.feed(Event::Yield { invocation });
        }
        self.not_reserved(origin);
    }

    /// The body is whole where it is: it runs.
    pub(super) fn commit(&mut self, key: Key) {
        let Some(upload) = self.uploads.remove(key) else { return };
        let bytes = upload.filled_bytes as u64;
        if let Some(request) = self.requests.get_mut(upload.origin) {
            request.in_lane = Some(upload.slice);
            request.upload = None;
            request.awaits_bytes = None;
        }
        self.swell(upload.sandbox, bytes);
        self.feed(Event::Commit { invocation: upload.invocation });
    }

    /// The engine wants a lane back that is lent for an upload. Whether it is.
    pub(super) fn reclaim_upload(&mut self, invocation: InvocationId) -> bool {
        let found = self.uploads.iter().find(|(_, upload)| upload.invocation == invocation).map(|(key, _)| key);
        if let Some(key) = found {
            self.begin_leaving(key, Leaving::Reclaimed);
        }
        found.is_some()
    }

    /// The lane of a request whose body was arriving is gone.
    pub(super) fn unreserved(&mut self, origin: Key) {
        match self.requests.get(origin).and_then(|request| request.upload) {
            Some(upload) => self.begin_leaving(upload, Leaving::Unreserved),
            // It became whole in the same turn: what is in the lane is copied, and it comes again.
            None => {
                let Some(request) = self.requests.get_mut(origin) else { return };
                if let Some(slice) = request.in_lane.take() {
                    slice.append_to(request.text.buffer());
                }
                request.invocation = None;
                self.arrive_again(origin);
            }
        }
    }

    /// A whole request whose lane was lost: to whoever owns its function by now.
    fn arrive_again(&mut self, origin: Key) {
        let Some(mut request) = self.requests.remove(origin) else { return };
        let name = self.functions.get(request.function).map(|owned| &owned.record.manifest.name);
        let route = name.and_then(|name| self.routes.find(name)).and_then(|route| route.get());
        let Some(route) = route else { return self.reply(&request, Response::refusal(Refusal::NoSuchFunction)) };
        request.function = route.function;
        match route.owner(self.settings.shard, 0) {
            owner if owner == self.settings.shard => self.admit(request),
            owner => self.post(owner, Message::Invoke(request)),
        }
    }
}
