//! Response decoding: no bytes make it panic, every call keeps its promises, and splits do not change what is read.
//!
//! Input: one byte for the size of the pieces, then the wire.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vilya_protocol::http::Limits;
use vilya_protocol::http::response::{Decoder, Item, Malformed};

const SMALL: Limits = Limits {
    head_bytes: 256,
    headers: 6,
    target_bytes: 64,
    body_bytes: 100,
};

#[derive(Debug, Default, PartialEq)]
struct Reading {
    heads: Vec<(u16, Option<u64>, bool, bool, usize)>,
    bodies: Vec<Vec<u8>>,
    whole: usize,
    failure: Option<Malformed>,
}

fn read(wire: &[u8], piece_bytes: usize, to_head_request: bool) -> Reading {
    let mut decoder = Decoder::new(SMALL);
    if to_head_request {
        decoder.next_answers_head();
    }
    let mut reading = Reading::default();
    let (mut at, mut shown) = (0, 0);
    loop {
        let step = match decoder.decode(&wire[at..shown]) {
            Ok(step) => step,
            Err(failure) => {
                reading.failure = Some(failure);
                return reading;
            }
        };
        assert!(step.consumed <= shown - at);
        let needs_more = matches!(step.item, Item::NeedMore);
        assert!(
            !needs_more || step.consumed == shown - at,
            "NeedMore takes all"
        );
        assert!(
            needs_more || matches!(step.item, Item::End) || step.consumed > 0,
            "the rest takes bytes"
        );
        match step.item {
            Item::NeedMore => {}
            Item::Interim(status) => reading.heads.push((status, None, false, false, 0)),
            Item::Head(head) => {
                let fields = head.headers().count();
                reading.heads.push((
                    head.status(),
                    head.content_length(),
                    head.chunked(),
                    head.keep_alive(),
                    fields,
                ));
                reading.bodies.push(Vec::new());
            }
            Item::Body(part) => reading
                .bodies
                .last_mut()
                .expect("a body follows its head")
                .extend_from_slice(part),
            Item::End => reading.whole += 1,
        }
        at += step.consumed;
        if needs_more {
            if shown == wire.len() {
                reading.failure = decoder.finish().err();
                return reading;
            }
            shown = wire.len().min(shown + piece_bytes);
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((&shape, wire)) = data.split_first() else {
        return;
    };
    let to_head_request = shape & 0x80 != 0;
    let whole = read(wire, wire.len().max(1), to_head_request);
    assert_eq!(
        whole,
        read(wire, usize::from(shape & 0x7f).max(1), to_head_request)
    );
    assert_eq!(whole, read(wire, 1, to_head_request));
    assert!(
        whole
            .bodies
            .iter()
            .all(|body| body.len() as u64 <= SMALL.body_bytes)
    );
});
