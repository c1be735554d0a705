//! What a decoder reads from a stream that comes in pieces, in a form that does not depend on the pieces.

use crate::wire::{
    ClientDecoder, ClientItem, Hello, Item, Limits, RequestHead, ResponseHead, ServerDecoder, Welcome, WireError,
};

/// Everything that was read, and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading<E> {
    /// In the order of the stream.
    pub events: Vec<E>,
    /// The error that ended it.
    pub error: Option<WireError>,
    /// Nothing of a frame was left over.
    pub at_frame_start: bool,
}

/// An item of a server's decoder, owned, with the pieces of each frame's payload joined.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "as in Item")]
pub enum ServerEvent {
    Hello(Hello),
    Request { head: String, whole: bool, payload: Vec<u8> },
    Data { id: u64, end: bool, payload: Vec<u8> },
    Credit { id: u64, bytes: u64 },
    Cancel { id: u64 },
    Ping { id: u64, body: Vec<u8> },
}

/// An item of a client's decoder, owned, with the pieces of each frame's payload joined.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "as in ClientItem")]
pub enum ClientEvent {
    Welcome { welcome: Welcome, ports: Vec<u16> },
    Map { generation: u64, first: bool, last: bool, entries: Vec<(String, Vec<u16>)> },
    Response { head: String, whole: bool, payload: Vec<u8> },
    Data { id: u64, end: bool, payload: Vec<u8> },
    Cut { id: u64, status: u16, body: Vec<u8> },
    Credit { id: u64, bytes: u64 },
    Pong { id: u64, body: Vec<u8> },
    Goaway { status: u16, text: String },
}

impl ServerEvent {
    /// The event of a request, as reading it gives it.
    pub fn request(head: &RequestHead<'_>, payload: &[u8]) -> ServerEvent {
        ServerEvent::Request { head: format!("{head:?}"), whole: head.whole(), payload: payload.to_vec() }
    }
}

impl ClientEvent {
    /// The event of an answer, as reading it gives it.
    pub fn response(head: &ResponseHead<'_>, payload: &[u8]) -> ClientEvent {
        ClientEvent::Response { head: format!("{head:?}"), whole: head.whole(), payload: payload.to_vec() }
    }
}

/// Reads `wire` as a server, cut at `cuts` (each taken modulo its length).
///
/// # Panics
/// If the decoder breaks its invariant.
pub fn read_server(wire: &[u8], limits: Limits, cuts: &[usize]) -> Reading<ServerEvent> {
    let mut decoder = ServerDecoder::new(limits);
    let mut events = Vec::new();
    for piece in pieces(wire, cuts) {
        let mut at = 0;
        loop {
            let due = decoder.payload_due();
            let step = match decoder.decode(&piece[at..]) {
                Ok(step) => step,
                Err(error) => return ended(events, error, decoder.decode(&[1]).err()),
            };
            at += step.consumed;
            assert!(step.consumed > 0 || (at == piece.len() && step.item == Item::NeedMore), "no progress");
            match step.item {
                Item::NeedMore => break assert_eq!(at, piece.len(), "input was left"),
                Item::Hello(hello) => events.push(ServerEvent::Hello(hello)),
                Item::Request(head) => events.push(ServerEvent::request(&head, &[])),
                Item::Data { id, end, .. } => events.push(ServerEvent::Data { id, end, payload: Vec::new() }),
                Item::Credit { id, bytes } => events.push(ServerEvent::Credit { id, bytes }),
                Item::Cancel { id } => events.push(ServerEvent::Cancel { id }),
                Item::Ping { id, body } => events.push(ServerEvent::Ping { id, body: body.to_vec() }),
                Item::Payload { bytes, frame_done } => {
                    assert!(!bytes.is_empty() && frame_done == (bytes.len() == due as usize));
                    match events.last_mut() {
                        Some(ServerEvent::Request { payload, .. } | ServerEvent::Data { payload, .. }) => {
                            payload.extend_from_slice(bytes);
                        }
                        other => panic!("payload after {other:?}"),
                    }
                }
            }
        }
    }
    Reading { events, error: None, at_frame_start: decoder.at_frame_start() }
}

/// Reads `wire` as a client, cut at `cuts` (each taken modulo its length).
///
/// # Panics
/// If the decoder breaks its invariant.
pub fn read_client(wire: &[u8], cuts: &[usize]) -> Reading<ClientEvent> {
    let mut decoder = ClientDecoder::new();
    let mut events = Vec::new();
    for piece in pieces(wire, cuts) {
        let mut at = 0;
        loop {
            let due = decoder.payload_due();
            let step = match decoder.decode(&piece[at..]) {
                Ok(step) => step,
                Err(error) => return ended(events, error, decoder.decode(&[1]).err()),
            };
            at += step.consumed;
            assert!(step.consumed > 0 || (at == piece.len() && step.item == ClientItem::NeedMore), "no progress");
            match step.item {
                ClientItem::NeedMore => break assert_eq!(at, piece.len(), "input was left"),
                ClientItem::Welcome { welcome, ports } => {
                    events.push(ClientEvent::Welcome { welcome, ports: ports.collect() });
                }
                ClientItem::Map(map) => events.push(ClientEvent::Map {
                    generation: map.generation,
                    first: map.first,
                    last: map.last,
                    entries: map.entries.map(|entry| (entry.name.to_owned(), entry.owners.collect())).collect(),
                }),
                ClientItem::Response(head) => events.push(ClientEvent::response(&head, &[])),
                ClientItem::Data { id, end, .. } => events.push(ClientEvent::Data { id, end, payload: Vec::new() }),
                ClientItem::Cut { id, status, body } => {
                    events.push(ClientEvent::Cut { id, status, body: body.to_vec() });
                }
                ClientItem::Credit { id, bytes } => events.push(ClientEvent::Credit { id, bytes }),
                ClientItem::Pong { id, body } => events.push(ClientEvent::Pong { id, body: body.to_vec() }),
                ClientItem::Goaway { status, text } => {
                    events.push(ClientEvent::Goaway { status, text: text.to_owned() });
                }
                ClientItem::Payload { bytes, frame_done } => {
                    assert!(!bytes.is_empty() && frame_done == (bytes.len() == due as usize));
                    match events.last_mut() {
                        Some(ClientEvent::Response { payload, .. } | ClientEvent::Data { payload, .. }) => {
                            payload.extend_from_slice(bytes);
                        }
                        other => panic!("payload after {other:?}"),
                    }
                }
            }
        }
    }
    Reading { events, error: None, at_frame_start: decoder.at_frame_start() }
}

fn ended<E>(events: Vec<E>, error: WireError, again: Option<WireError>) -> Reading<E> {
    assert_eq!(again, Some(error), "an error does not stay");
    Reading { events, error: Some(error), at_frame_start: false }
}

fn pieces<'a>(wire: &'a [u8], cuts: &[usize]) -> impl Iterator<Item = &'a [u8]> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (wire.len() + 1)).collect();
    cuts.push(wire.len());
    cuts.sort_unstable();
    let mut start = 0;
    cuts.into_iter().map(move |end| &wire[core::mem::replace(&mut start, end)..end])
}
