//! What the frames of a client ask for: streams begin, payloads come in, answers are cancelled or given more credit.
//!
//! Invariant: a frame that contradicts the connection's table of streams breaks the connection; nothing of it is done. It
//! performs no input or output: what the shard has to do is returned, one thing at a time.

use vilya_engine::Refusal;
use vilya_protocol::error::ErrorKind;
use vilya_protocol::wire::{self, Hello, Item, RequestHead};

use super::connection::{IN_FLIGHT, REQUEST_CREDIT_BYTES, Stage, WireConnection};
use super::stream::{Incoming, Phase, Stream};
use crate::config::units::format_bytes;
use crate::pool::Pool;
use crate::request::{RequestIds, RequestText, unix_ms};
use crate::response::Response;
use crate::route::{CurrentRoute, RouteTable};
use crate::shard::connection::BodyBudget;
use crate::shard::upload::{UPLOAD_BYTES, Upload};
use crate::slots::Slots;

/// What of the shard's frames need to be taken in.
pub(super) struct FrameIntake<'a> {
    pub(super) routes: &'a RouteTable,
    pub(super) bodies: &'a mut BodyBudget,
    pub(super) pool: &'a mut Pool,
    pub(super) uploads: &'a mut Slots<Upload>,
    pub(super) ids: &'a mut RequestIds,
    pub(super) shard: usize,
    pub(super) now_ns: u64,
    pub(super) max_payload_bytes: u64,
    pub(super) is_draining: bool,
}

/// What the shard has to do after bytes were taken in.
pub(super) enum Wanted {
    /// Receive more.
    More,
    /// A client said hello.
    Greet(Hello),
    /// A lane may take the payload in that comes.
    AskForLane { id: u64 },
    /// There is room for the rest of a payload.
    Grant { id: u64 },
    /// The payload of a request is whole.
    Run { id: u64 },
    /// A request is answered before it is whole.
    Refuse { id: u64, response: Box<Response> },
    /// Nobody waits for an answer any more.
    Cancel { id: u64 },
    /// A stalled answer may go on.
    Credited { id: u64 },
    /// The client has sent all it will of a request that is answered already.
    Sent { id: u64 },
    /// Something was put into the outbox.
    Flush,
    /// The client broke the protocol.
    Break { status: u16, text: &'static str },
}

const BROKEN: u16 = ErrorKind::ProtocolBroken.status();

fn broken(text: &'static str) -> Wanted {
    Wanted::Break { status: BROKEN, text }
}

/// Takes in bytes up to the first thing the shard has to act on. Returns how many were used.
pub(super) fn take(wire: &mut WireConnection, input: &[u8], intake: &mut FrameIntake<'_>) -> (usize, Wanted) {
    let mut used = 0;
    loop {
        let step = match wire.decoder.decode(&input[used..]) {
            Ok(step) => step,
            Err(error) => return (used, Wanted::Break { status: error.status(), text: error.message }),
        };
        used += step.consumed;
        let wanted = match step.item {
            Item::NeedMore => return (used, Wanted::More),
            Item::Hello(hello) => Some(Wanted::Greet(hello)),
            Item::Request(head) => {
                let credit_bytes = wire.response_credit_bytes;
                match begin(&mut wire.streams, credit_bytes, &mut wire.serial, &head, intake) {
                    Err(text) => Some(broken(text)),
                    Ok(wanted) => {
                        wire.current = Some(head.id);
                        wanted
                    }
                }
            }
            Item::Data { id, payload_bytes, end } => match wire.streams.get_mut(&id) {
                None => Some(broken("DATA names a request that is not in flight")),
                Some(stream) => match stream.announce(u64::from(payload_bytes), end) {
                    Err(text) => Some(broken(text)),
                    Ok(()) => {
                        wire.current = Some(id);
                        None
                    }
                },
            },
            Item::Payload { bytes, frame_done } => {
                wire.current.and_then(|id| payload(&mut wire.streams, id, bytes, frame_done, intake))
            }
            Item::Credit { id, bytes } => wire.streams.get_mut(&id).and_then(|stream| {
                stream.credit_bytes = stream.credit_bytes.saturating_add(bytes);
                stream.rest.as_ref()?;
                stream.credit_by_ns = u64::MAX;
                Some(Wanted::Credited { id })
            }),
            // An id that is not in flight: the cancel crossed the answer.
            Item::Cancel { id } => wire.streams.contains_key(&id).then_some(Wanted::Cancel { id }),
            Item::Ping { id, body } => {
                wire::pong(wire.outbox.text(intake.pool), id, body);
                Some(Wanted::Flush)
            }
        };
        if let Some(wanted) = wanted {
            return (used, wanted);
        }
    }
}

/// Begins a stream. What has to be done about it now, if anything has.
fn begin(
    streams: &mut super::connection::Streams,
    credit_bytes: u64,
    serial: &mut u32,
    head: &RequestHead<'_>,
    intake: &mut FrameIntake<'_>,
) -> Result<Option<Wanted>, &'static str> {
    let id = head.id;
    if streams.contains_key(&id) {
        return Err("the id of a REQUEST is in flight");
    }
    if streams.len() >= IN_FLIGHT {
        return Err("more requests are in flight than WELCOME allows");
    }
    // 0 is nobody's: see `end_stream`.
    *serial = serial.wrapping_add(1).max(1);
    let mut stream = Stream {
        serial: *serial,
        phase: Phase::Answered,
        total_bytes: head.bytes,
        received_bytes: 0,
        granted_bytes: REQUEST_CREDIT_BYTES,
        charged_bytes: 0,
        is_sent: false,
        deadline_ns: match head.deadline_ms {
            0 => u64::MAX,
            ms => intake.now_ns.saturating_add(u64::from(ms) * 1_000_000),
        },
        credit_bytes,
        credit_by_ns: u64::MAX,
        begun: false,
        rest: None,
        part: None,
    };
    stream.announce(u64::from(head.payload_bytes), head.whole())?;
    let wanted = match admit(head, &mut stream, intake) {
        Err(response) => Some(Wanted::Refuse { id, response }),
        Ok(true) => Some(Wanted::AskForLane { id }),
        // Without a payload no part of it is waited for.
        Ok(false) if head.bytes == 0 => Some(Wanted::Run { id }),
        // Its function is another shard's: it is buffered here, and charged for.
        Ok(false) => (head.bytes > stream.granted_bytes).then_some(Wanted::Grant { id }),
    };
    streams.insert(id, stream);
    Ok(wanted)
}

/// Whether a lane is to be asked for, or why the request is refused.
fn admit(head: &RequestHead<'_>, stream: &mut Stream, intake: &mut FrameIntake<'_>) -> Result<bool, Box<Response>> {
    if head.bytes > intake.max_payload_bytes {
        let limit = format_bytes(intake.max_payload_bytes);
        let message =
            format!("the payload is over the limit of {limit}; send a smaller one, or raise server.max_payload");
        return Err(Response::error(ErrorKind::PayloadTooLarge, &message).into());
    }
    if intake.is_draining {
        return Err(Response::refusal(Refusal::Draining).into());
    }
    let found = intake.routes.find(head.name);
    let Some((current, route)) = found.and_then(|current| Some((current, current.get()?))) else {
        return Err(Response::no_such_function(head.name).into());
    };
    if !intake.bodies.take(head.bytes) {
        let message = "the worker holds as many bytes of request bodies as limits.bodies allows; try again later";
        return Err(Response::error(ErrorKind::Overloaded, message).into());
    }
    stream.charged_bytes = head.bytes;
    let asks = head.bytes >= UPLOAD_BYTES && route.is_here(intake.shard);
    let mut text = RequestText::new(intake.pool.take(), head.content_type, head.trace_parent);
    if !asks {
        // As much as may come before more credit is granted.
        text.reserve(head.bytes.min(REQUEST_CREDIT_BYTES) as usize);
    }
    stream.phase = Phase::Receiving(Incoming {
        route: CurrentRoute::clone(current),
        request_id: intake.ids.next(),
        received_unix_ms: unix_ms(),
        text,
        upload: None,
        asks,
    });
    Ok(asks)
}

/// Takes a part of a payload in. Whether the request can run.
fn payload(
    streams: &mut super::connection::Streams,
    id: u64,
    bytes: &[u8],
    frame_done: bool,
    intake: &mut FrameIntake<'_>,
) -> Option<Wanted> {
    let stream = streams.get_mut(&id)?;
    let is_whole = frame_done && stream.is_sent;
    match &mut stream.phase {
        Phase::Receiving(incoming) => {
            match incoming.upload.and_then(|upload| intake.uploads.get_mut(upload)) {
                Some(upload) => upload.append(bytes),
                None => incoming.text.append(bytes),
            }
            is_whole.then_some(Wanted::Run { id })
        }
        // Answered already: what crossed the answer is thrown away.
        _ => is_whole.then_some(Wanted::Sent { id }),
    }
}

impl WireConnection {
    /// The client has said hello.
    pub(super) fn open(&mut self, hello: &Hello) {
        self.stage = Stage::Open;
        self.wants_map = hello.wants_map;
        self.takes_parts = hello.takes_parts;
        self.response_credit_bytes = hello.response_credit_bytes;
    }
}
