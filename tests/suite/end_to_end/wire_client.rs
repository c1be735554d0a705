//! A client of the binary protocol as plain as can be: one frame at a time, on the codec alone, so that a test can also
//! send what no client should.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use vilya_protocol::wire::{self, ClientDecoder, ClientItem, Hello, RequestHead};

use super::worker::{PATIENCE, Worker};

/// Bytes that a client of most tests lets each answer have before it is asked for more.
pub(super) const WINDOW: u64 = 256 * 1024;

const HELLO: Hello =
    Hello { lowest_version: 1, highest_version: 1, wants_map: false, takes_parts: false, response_credit_bytes: 0 };

/// A frame that the worker sent, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    Welcome {
        shard: u16,
        ports: Vec<u16>,
        max_payload: u64,
        request_credit: u64,
    },
    Map {
        whole: bool,
        entries: Vec<(String, Vec<u16>)>,
    },
    Response {
        id: u64,
        status: u16,
        bytes: u64,
        in_parts: bool,
        start: u8,
        shard: u16,
        content_type: String,
        payload: Vec<u8>,
        end: bool,
    },
    Data {
        id: u64,
        payload: Vec<u8>,
        end: bool,
    },
    Cut {
        id: u64,
        status: u16,
        body: String,
    },
    Credit {
        id: u64,
        bytes: u64,
    },
    Pong {
        id: u64,
        body: Vec<u8>,
    },
    Goaway {
        status: u16,
        text: String,
    },
}

/// An answer, put together.
#[derive(Debug)]
pub(super) struct WireAnswer {
    pub(super) status: u16,
    pub(super) start: u8,
    pub(super) shard: u16,
    pub(super) content_type: String,
    pub(super) body: Vec<u8>,
    pub(super) in_parts: bool,
    /// Why it is not whole.
    pub(super) cut: Option<(u16, String)>,
}

pub(super) struct WireClient {
    stream: TcpStream,
    decoder: ClientDecoder,
    frames: VecDeque<Frame>,
    /// The frame whose payload is coming.
    open: Option<Frame>,
    pub(super) welcome: Frame,
}

impl WireClient {
    /// Connects and greets; `credit` is what each answer may send unasked.
    pub(super) fn connect(address: SocketAddr, wants_map: bool, credit: u64) -> WireClient {
        let mut client = WireClient::silent(address);
        client.greet(1, 1, wants_map, credit);
        client.welcome = client.next();
        assert!(matches!(client.welcome, Frame::Welcome { .. }), "{:?}", client.welcome);
        client
    }

    /// As `connect`, for answers in parts.
    pub(super) fn for_parts(address: SocketAddr, credit: u64) -> WireClient {
        let mut client = WireClient::silent(address);
        client.say_hello(&Hello { takes_parts: true, response_credit_bytes: credit, ..HELLO });
        client.welcome = client.next();
        assert!(matches!(client.welcome, Frame::Welcome { .. }), "{:?}", client.welcome);
        client
    }

    /// Connects to any shard, without the map.
    pub(super) fn of(worker: &Worker) -> WireClient {
        WireClient::connect(worker.wire_address, false, WINDOW)
    }

    /// Connects and says nothing.
    pub(super) fn silent(address: SocketAddr) -> WireClient {
        let stream = TcpStream::connect(address).expect("the worker listens");
        stream.set_nodelay(true).expect("a TCP socket");
        stream.set_read_timeout(Some(PATIENCE)).expect("a TCP socket");
        stream.set_write_timeout(Some(PATIENCE)).expect("a TCP socket");
        WireClient {
            stream,
            decoder: ClientDecoder::new(),
            frames: VecDeque::new(),
            open: None,
            welcome: Frame::Goaway { status: 0, text: String::new() },
        }
    }

    pub(super) fn greet(&mut self, lowest_version: u16, highest_version: u16, wants_map: bool, credit: u64) {
        self.say_hello(&Hello { lowest_version, highest_version, wants_map, response_credit_bytes: credit, ..HELLO });
    }

    fn say_hello(&mut self, hello: &Hello) {
        let mut out = Vec::new();
        wire::hello(&mut out, hello);
        self.send(&out);
    }

    pub(super) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the worker takes it");
    }

    /// Sends what the worker may refuse to take to its end.
    pub(super) fn try_send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// Whether the worker's system still takes bytes for this connection.
    pub(super) fn takes(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// The head of a request of which `now` of `total` bytes follow at once.
    pub(super) fn head(id: u64, name: &str, total: u64, now: u32, deadline_ms: u32) -> Vec<u8> {
        let mut out = Vec::new();
        let head = RequestHead {
            bytes: total,
            payload_bytes: now,
            deadline_ms,
            content_type: b"text/plain",
            ..RequestHead::new(id, name)
        };
        wire::request_head(&mut out, &head).expect("a valid head");
        out
    }

    /// Sends a whole request, as much at once as credit allows, the rest when it is granted.
    pub(super) fn request(&mut self, id: u64, name: &str, body: &[u8]) {
        let Frame::Welcome { request_credit, .. } = self.welcome else { panic!("not greeted") };
        let now = (body.len() as u64).min(request_credit) as usize;
        let mut out = WireClient::head(id, name, body.len() as u64, now as u32, 0);
        out.extend_from_slice(&body[..now]);
        self.send(&out);
        let mut sent = now;
        while sent < body.len() {
            let mut granted = loop {
                let at =
                    self.frames.iter().position(|frame| matches!(frame, Frame::Credit { id: of, .. } if *of == id));
                if let Some(Frame::Credit { bytes, .. }) = at.and_then(|at| self.frames.remove(at)) {
                    break bytes as usize;
                }
                let answered = |frame: &Frame| matches!(frame, Frame::Response { id: of, .. } if *of == id);
                if self.frames.iter().any(answered) {
                    return;
                }
                self.read();
            };
            while granted > 0 && sent < body.len() {
                let bytes = granted.min(body.len() - sent).min(1 << 20);
                let mut out = Vec::new();
                wire::data_head(&mut out, id, bytes as u32, sent + bytes == body.len());
                out.extend_from_slice(&body[sent..sent + bytes]);
                self.send(&out);
                (granted, sent) = (granted - bytes, sent + bytes);
            }
        }
    }

    /// The whole answer to a request, granting `window` bytes again and again.
    pub(super) fn answer(&mut self, id: u64, window: u64) -> WireAnswer {
        let is_of = |frame: &Frame| match frame {
            Frame::Response { id: of, .. } | Frame::Data { id: of, .. } | Frame::Cut { id: of, .. } => *of == id,
            Frame::Goaway { .. } => true,
            _ => false,
        };
        let mut answer: Option<WireAnswer> = None;
        loop {
            let at = self.frames.iter().position(is_of);
            let is_over = match at.and_then(|at| self.frames.remove(at)) {
                Some(Frame::Response { status, start, shard, content_type, payload, in_parts, end, .. }) => {
                    assert!(answer.is_none(), "answered twice");
                    let body = payload;
                    answer = Some(WireAnswer { status, start, shard, content_type, body, in_parts, cut: None });
                    end
                }
                Some(Frame::Cut { status, body, .. }) => {
                    answer.as_mut().expect("CUT follows RESPONSE").cut = Some((status, body));
                    true
                }
                Some(Frame::Data { payload, end, .. }) => {
                    answer.as_mut().expect("DATA follows RESPONSE").body.extend_from_slice(&payload);
                    end
                }
                Some(other) => panic!("{other:?}"),
                None => {
                    self.read();
                    continue;
                }
            };
            if is_over {
                return answer.expect("an answer has a head");
            }
            let mut out = Vec::new();
            wire::credit(&mut out, id, window);
            self.send(&out);
        }
    }

    pub(super) fn invoke(&mut self, id: u64, name: &str, body: &[u8]) -> WireAnswer {
        self.request(id, name, body);
        self.answer(id, 1 << 20)
    }

    pub(super) fn grant(&mut self, id: u64, bytes: u64) {
        let mut out = Vec::new();
        wire::credit(&mut out, id, bytes);
        self.send(&out);
    }

    /// The next frame of this answer; those of others wait.
    pub(super) fn next_of(&mut self, id: u64) -> Frame {
        let is_of = |frame: &Frame| match frame {
            Frame::Response { id: of, .. } | Frame::Data { id: of, .. } | Frame::Cut { id: of, .. } => *of == id,
            Frame::Goaway { .. } => true,
            _ => false,
        };
        loop {
            let at = self.frames.iter().position(is_of);
            if let Some(frame) = at.and_then(|at| self.frames.remove(at)) {
                return frame;
            }
            self.read();
        }
    }

    /// The last frame of an answer, without more credit.
    pub(super) fn last_of(&mut self, id: u64) -> Frame {
        loop {
            match self.next_of(id) {
                Frame::Data { end: false, .. } | Frame::Response { end: false, .. } => {}
                last => return last,
            }
        }
    }

    pub(super) fn cancel(&mut self, id: u64) {
        let mut out = Vec::new();
        wire::cancel(&mut out, id);
        self.send(&out);
    }

    /// The next frame.
    pub(super) fn next(&mut self) -> Frame {
        loop {
            if let Some(frame) = self.frames.pop_front() {
                return frame;
            }
            self.read();
        }
    }

    /// The next frame, if it is there already.
    pub(super) fn poll(&mut self) -> Option<Frame> {
        self.stream.set_nonblocking(true).expect("a TCP socket");
        let is_there = !matches!(self.stream.peek(&mut [0; 1]), Err(error) if error.kind() == ErrorKind::WouldBlock);
        self.stream.set_nonblocking(false).expect("a TCP socket");
        if self.frames.is_empty() && is_there {
            self.read();
        }
        self.frames.pop_front()
    }

    /// Whether the worker has closed the connection, whatever it said before.
    pub(super) fn is_closed(&mut self) -> bool {
        let mut rest = [0; 4096];
        loop {
            match self.stream.read(&mut rest) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return error.kind() == ErrorKind::ConnectionReset,
            }
        }
    }

    fn read(&mut self) {
        let mut bytes = vec![0; 1 << 16];
        let read = self.stream.read(&mut bytes).expect("the worker answers");
        assert!(read > 0, "the worker closed the connection; so far {:?}", self.frames);
        let mut used = 0;
        loop {
            let step = self.decoder.decode(&bytes[used..read]).expect("the worker keeps the protocol");
            used += step.consumed;
            let frame = match step.item {
                ClientItem::NeedMore => return,
                ClientItem::Welcome { welcome, ports } => Frame::Welcome {
                    shard: welcome.shard,
                    ports: ports.collect(),
                    max_payload: welcome.payload_bytes,
                    request_credit: welcome.request_credit_bytes,
                },
                ClientItem::Map(map) => Frame::Map {
                    whole: map.first,
                    entries: map.entries.map(|entry| (entry.name.to_owned(), entry.owners.collect())).collect(),
                },
                ClientItem::Response(head) => {
                    let due = head.payload_bytes;
                    let frame = Frame::Response {
                        id: head.id,
                        status: head.status,
                        bytes: head.bytes,
                        in_parts: head.in_parts,
                        start: head.report.start as u8,
                        shard: head.report.shard,
                        content_type: String::from_utf8_lossy(head.content_type).into_owned(),
                        payload: Vec::new(),
                        end: head.whole(),
                    };
                    if due > 0 {
                        self.open = Some(frame);
                        continue;
                    }
                    frame
                }
                ClientItem::Data { id, payload_bytes, end } => {
                    let frame = Frame::Data { id, payload: Vec::new(), end };
                    if payload_bytes > 0 {
                        self.open = Some(frame);
                        continue;
                    }
                    frame
                }
                ClientItem::Payload { bytes, frame_done } => {
                    let Some(Frame::Response { payload, .. } | Frame::Data { payload, .. }) = &mut self.open else {
                        panic!("a payload without a frame")
                    };
                    payload.extend_from_slice(bytes);
                    if !frame_done {
                        continue;
                    }
                    self.open.take().expect("it was just there")
                }
                ClientItem::Cut { id, status, body } => {
                    Frame::Cut { id, status, body: String::from_utf8_lossy(body).into_owned() }
                }
                ClientItem::Credit { id, bytes } => Frame::Credit { id, bytes },
                ClientItem::Pong { id, body } => Frame::Pong { id, body: body.to_vec() },
                ClientItem::Goaway { status, text } => Frame::Goaway { status, text: text.to_owned() },
            };
            self.frames.push_back(frame);
        }
    }
}
