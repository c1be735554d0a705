//! A client's session against a server that does anything: it never panics, and what it sends keeps the rules of the
//! protocol, whatever it is told.
//!
//! Input: five bytes of settings, of which the third also says whether parts are taken, then commands of three bytes each:
//! what, for which request, how much.

#![no_main]

use std::collections::HashMap;

use libfuzzer_sys::fuzz_target;
use vilya_client::{Event, Options, Report, Request, ResponseHead, Session, Welcome};
use vilya_protocol::wire::{self, Item, Limits, ServerDecoder};

const PAYLOAD: [u8; 20_000] = [b'p'; 20_000];

/// What the server knows of a request in flight.
#[derive(Default)]
struct Asked {
    bytes: u64,
    have: u64,
    granted: u64,
    sending_over: bool,
    cancelled: bool,
    /// Of the answer: its size, what was sent, what may be.
    answered: bool,
    in_parts: bool,
    /// The client grants more only for what it says that it took, and so much came that it did not.
    held: bool,
    untaken: u64,
    size: u64,
    sent: u64,
    credit: u64,
    receiving_over: bool,
}

struct Server {
    decoder: ServerDecoder,
    welcome: Welcome,
    window_bytes: u64,
    takes_parts: bool,
    asked: HashMap<u64, Asked>,
}

impl Server {
    /// Reads what the client sends, and holds it to the rules.
    fn read(&mut self, input: &[u8]) {
        let mut at = 0;
        loop {
            let step = self
                .decoder
                .decode(&input[at..])
                .expect("the client's frames are well formed");
            at += step.consumed;
            match step.item {
                Item::NeedMore => return,
                Item::Hello(hello) => {
                    assert_eq!(hello.response_credit_bytes, self.window_bytes);
                    assert_eq!(hello.takes_parts, self.takes_parts);
                }
                Item::Request(head) => {
                    let asked = Asked {
                        bytes: head.bytes,
                        granted: self.welcome.request_credit_bytes,
                        sending_over: head.whole(),
                        credit: self.window_bytes,
                        have: u64::from(head.payload_bytes),
                        ..Asked::default()
                    };
                    assert!(asked.have <= asked.granted, "sent beyond the credit");
                    assert!(asked.bytes <= self.welcome.payload_bytes);
                    assert!(
                        self.asked.insert(head.id, asked).is_none(),
                        "an id is in flight twice"
                    );
                    assert!(
                        self.asked.len() <= self.welcome.in_flight as usize,
                        "too many in flight"
                    );
                }
                Item::Data {
                    id,
                    payload_bytes,
                    end,
                } => {
                    let asked = self
                        .asked
                        .get_mut(&id)
                        .expect("DATA is of a request in flight");
                    assert!(!asked.sending_over, "DATA after END or CANCEL");
                    asked.have += u64::from(payload_bytes);
                    assert!(asked.have <= asked.granted, "sent beyond the credit");
                    assert!(asked.have <= asked.bytes && end == (asked.have == asked.bytes));
                    asked.sending_over = end;
                    self.settle(id);
                }
                Item::Payload { bytes, .. } => assert!(bytes.iter().all(|byte| *byte == b'p')),
                Item::Credit { id, bytes } => {
                    let asked = self
                        .asked
                        .get_mut(&id)
                        .expect("CREDIT is of a request in flight");
                    assert!(!asked.receiving_over, "CREDIT after the END");
                    asked.credit += bytes;
                    assert!(
                        asked.credit - asked.sent + asked.untaken <= self.window_bytes,
                        "more than the window is granted"
                    );
                }
                Item::Cancel { id } => {
                    let asked = self
                        .asked
                        .get_mut(&id)
                        .expect("CANCEL is of a request in flight");
                    assert!(!asked.cancelled, "CANCEL twice");
                    asked.cancelled = true;
                    asked.sending_over = true;
                    self.settle(id);
                }
                Item::Ping { .. } => {}
            }
        }
    }

    fn settle(&mut self, id: u64) {
        if self
            .asked
            .get(&id)
            .is_some_and(|asked| asked.sending_over && asked.receiving_over)
        {
            self.asked.remove(&id);
        }
    }

    /// A frame that keeps the rules, or nothing.
    fn answer(&mut self, id: u64, amount: u64, out: &mut Vec<u8>) {
        let Some(asked) = self
            .asked
            .get_mut(&id)
            .filter(|asked| !asked.receiving_over)
        else {
            return;
        };
        let first = !asked.answered;
        if first {
            asked.answered = true;
            asked.size = amount * amount;
            asked.in_parts = self.takes_parts && asked.sending_over && amount % 2 == 1;
        }
        if asked.in_parts {
            return self.answer_in_parts(id, first, amount, out);
        }
        let left = asked.size - asked.sent;
        let part = left
            .min(asked.credit - asked.sent)
            .min(amount * 16)
            .min(4000);
        if first {
            let head = ResponseHead {
                id,
                status: 200,
                bytes: asked.size,
                in_parts: false,
                report: Report::default(),
                content_type: b"",
                payload_bytes: part as u32,
            };
            wire::response_head(out, &head).expect("it is valid");
        } else if part > 0 {
            wire::data_head(out, id, part as u32, part == left);
        } else if asked.cancelled {
            wire::data_head(out, id, 0, true);
            asked.receiving_over = true;
        }
        out.resize(out.len() + part as usize, b'a');
        asked.send(part);
        asked.receiving_over |= asked.sent == asked.size;
        self.settle(id);
    }

    /// As `answer`, where nobody knows the size: it ends when `amount` says so, well or not.
    fn answer_in_parts(&mut self, id: u64, first: bool, amount: u64, out: &mut Vec<u8>) {
        let asked = self.asked.get_mut(&id).expect("it was just there");
        let part = (asked.credit - asked.sent).min(amount * 16).min(4000);
        let ends = !first && amount % 8 < 2;
        if first {
            let head = ResponseHead {
                id,
                status: 200,
                bytes: 0,
                in_parts: true,
                report: Report::default(),
                content_type: b"",
                payload_bytes: part as u32,
            };
            wire::response_head(out, &head).expect("it is valid");
        } else if amount % 8 == 0 {
            wire::cut(out, id, 500, &vec![b'e'; amount as usize]);
            asked.receiving_over = true;
            return self.settle(id);
        } else if part > 0 || ends {
            wire::data_head(out, id, part as u32, ends);
        }
        out.resize(out.len() + part as usize, b'a');
        asked.send(part);
        asked.receiving_over |= ends;
        self.settle(id);
    }
}

impl Asked {
    fn send(&mut self, bytes: u64) {
        self.sent += bytes;
        if self.held {
            self.untaken += bytes;
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((&[credit, window, in_flight, frame, payload], commands)) = data.split_first_chunk()
    else {
        return;
    };
    let options = Options {
        window_bytes: u64::from(window) * 64,
        takes_parts: in_flight & 0x80 == 0,
        ..Options::DEFAULT
    };
    let mut session = Session::new(&options);
    let mut server = Server {
        decoder: ServerDecoder::new(Limits::DEFAULT),
        welcome: Welcome {
            version: 1,
            shard: 0,
            frame_bytes: 4096 + u32::from(frame),
            in_flight: u32::from(in_flight % 8) + 1,
            payload_bytes: u64::from(payload) * 100,
            request_credit_bytes: u64::from(credit) * 64,
        },
        window_bytes: options.window_bytes.max(1),
        takes_parts: options.takes_parts,
        asked: HashMap::new(),
    };
    let mut told = Vec::new();
    wire::welcome(&mut told, &server.welcome, &[1]);
    // Requests by the order in which they were started: id, and what was taken of the payload.
    let mut started: Vec<(u64, usize, usize)> = Vec::new();
    let mut honest = true;
    for command in core::iter::once([7, 0, 0].as_slice()).chain(commands.chunks_exact(3)) {
        let (which, amount) = (usize::from(command[1]), usize::from(command[2]));
        let mine = started.len().checked_sub(1 + which % 16);
        match command[0] % 13 {
            0 | 1 => {
                let bytes = amount * 78;
                let request = Request {
                    content_type: b"",
                    ..Request::new("f", &PAYLOAD[..bytes])
                };
                if let Ok(begun) = session.start(&request) {
                    started.push((begun.id, begun.taken, bytes));
                }
            }
            2 => {
                if let Some((id, taken, bytes)) = mine.map(|mine| &mut started[mine]) {
                    *taken += session.push(*id, &PAYLOAD[*taken..*bytes]);
                }
            }
            3 => {
                if let Some((id, ..)) = mine.map(|mine| started[mine]) {
                    session.cancel(id);
                }
            }
            4 | 5 | 6 => {
                if let Some((id, ..)) = mine.map(|mine| started[mine]) {
                    server.answer(id, amount as u64, &mut told);
                }
            }
            7 => {
                if let Some((id, ..)) = mine.map(|mine| started[mine]) {
                    wire::credit(&mut told, id, amount as u64 + 1);
                    if let Some(asked) = server.asked.get_mut(&id) {
                        asked.granted += amount as u64 + 1;
                    }
                }
            }
            10 => {
                // Before any of the answer: what came unheld is taken already.
                let asked = mine.and_then(|mine| {
                    Some((started[mine].0, server.asked.get_mut(&started[mine].0)?))
                });
                if let Some((id, asked)) = asked.filter(|(_, asked)| !asked.answered) {
                    session.hold(id);
                    asked.held = true;
                }
            }
            11 => {
                let asked = mine.and_then(|mine| {
                    Some((started[mine].0, server.asked.get_mut(&started[mine].0)?))
                });
                if let Some((id, asked)) = asked {
                    let bytes = asked.untaken.min(amount as u64 * 16);
                    asked.untaken -= bytes;
                    session.took(id, bytes as usize);
                }
            }
            12 => {
                let id = mine.map_or(1, |mine| started[mine].0);
                honest = false;
                wire::cut(&mut told, id, 500, &vec![b'e'; amount]);
            }
            8 => {
                let id = mine.map_or(1, |mine| started[mine].0);
                honest = false;
                wire::data_head(&mut told, id, amount as u32, which & 1 == 1 || amount == 0);
            }
            _ => {
                honest = false;
                told.extend_from_slice(command);
            }
        }
        let output = session.output().to_vec();
        session.sent(output.len());
        if honest {
            // A server that lies cannot tell whether the client keeps the rules.
            server.read(&output);
        }
        let mut at = 0;
        while at < told.len() {
            match session.read(&told[at..]) {
                Ok((consumed, event)) => {
                    assert!(consumed > 0);
                    if let Event::Payload { bytes, .. } = event {
                        assert!(!honest || bytes.iter().all(|byte| *byte == b'a'));
                    }
                    at += consumed;
                }
                Err(error) => {
                    assert!(!honest, "what keeps the rules is refused: {error}");
                    assert_eq!(session.read(b"x"), Err(error));
                    return;
                }
            }
        }
        told.clear();
        if !honest {
            continue;
        }
        let output = session.output().to_vec();
        session.sent(output.len());
        server.read(&output);
        assert_eq!(session.in_flight(), server.asked.len());
    }
});
