//! A decoder over the life of a connection: it starts each request afresh, and once warm it neither copies nor allocates.

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use vilya_protocol::http::{Decoder, Head, Item, Limits, ResponseHead};
use vilya_protocol::wire;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

/// The system's allocator, counting what this thread asks of it.
struct Counting;

// SAFETY: every call is passed on unchanged to the system's allocator; counting touches only a thread-local cell that
// needs no allocation and no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promises are those that System asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above; `pointer` came from `System` in `alloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const POST: &[u8] = b"POST /fn/echo?a=b HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello";
const CHUNKED: &[u8] =
    b"POST /fn/echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n";

/// Decodes `wire` in two pieces, shows each head, and returns how many requests ended.
fn decode(decoder: &mut Decoder, wire: &[u8], cut: usize, mut look: impl FnMut(&Head<'_>)) -> usize {
    let mut whole = 0;
    for piece in [&wire[..cut], &wire[cut..]] {
        let mut at = 0;
        loop {
            let step = decoder.decode(&piece[at..]).expect("the requests are right");
            at += step.consumed;
            match step.item {
                Item::NeedMore => break,
                Item::Head(head) => look(&head),
                Item::Body(_) => {}
                Item::End => whole += 1,
            }
        }
    }
    whole
}

#[test]
fn a_connection_may_carry_any_number_of_requests() {
    // Many times each limit of a single request, in sum.
    let limits = Limits { head_bytes: 128, headers: 3, target_bytes: 40, body_bytes: 5 };
    let mut decoder = Decoder::new(limits);
    for round in 0..500 {
        for wire in [POST, CHUNKED] {
            assert_eq!(decode(&mut decoder, wire, round % wire.len(), |_| {}), 1);
            assert!(decoder.ended());
        }
    }
}

#[test]
fn a_whole_head_is_parsed_where_it_lies() {
    let mut decoder = Decoder::new(Limits::DEFAULT);
    let place = POST.as_ptr_range();
    decode(&mut decoder, POST, 0, |head| {
        let parts = [head.path().as_bytes(), head.header("host").expect("it is there"), head.method_text().as_bytes()];
        for part in parts {
            assert!(place.contains(&part.as_ptr()), "{part:?} was copied");
        }
    });
}

#[test]
fn nothing_is_allocated_once_warm() {
    let mut decoder = Decoder::new(Limits::DEFAULT);
    let mut out = Vec::new();
    let round = |decoder: &mut Decoder, out: &mut Vec<u8>| {
        for wire in [POST, CHUNKED] {
            for cut in 0..wire.len() {
                decode(decoder, wire, cut, |head| {
                    out.clear();
                    let headers = [("x-request-id", head.path())];
                    ResponseHead { content_type: Some("text/plain"), headers: &headers, ..ResponseHead::new(200) }
                        .write(out);
                });
            }
        }
    };
    round(&mut decoder, &mut out);
    let before = ALLOCATIONS.get();
    round(&mut decoder, &mut out);
    assert_eq!(ALLOCATIONS.get() - before, 0);
    // The count counts.
    decoder.release_memory();
    round(&mut decoder, &mut out);
    assert!(ALLOCATIONS.get() > before);
}

#[test]
fn frames_cost_no_allocation() {
    let mut out = wire::adversarial::hello();
    let greeting = out.len();
    let write = |out: &mut Vec<u8>| {
        let head = wire::RequestHead { bytes: 3, payload_bytes: 2, ..wire::RequestHead::new(7, "echo") };
        wire::request_head(out, &head).expect("the head is valid");
        out.extend_from_slice(b"ab");
        wire::data_head(out, 7, 1, true);
        out.extend_from_slice(b"c");
        wire::ping(out, 1, b"body");
        wire::cancel(out, 7);
    };
    write(&mut out);
    let mut decoder = wire::ServerDecoder::new(wire::Limits::DEFAULT);
    decoder.decode(&out).expect("it is valid");
    let before = ALLOCATIONS.get();
    for cut in greeting..out.len() {
        // Into a buffer that has had its size.
        out.truncate(greeting);
        write(&mut out);
        for piece in [&out[greeting..cut], &out[cut..]] {
            let mut at = 0;
            loop {
                let step = decoder.decode(&piece[at..]).expect("it is valid");
                at += step.consumed;
                if step.item == wire::Item::NeedMore {
                    break;
                }
            }
        }
        assert!(decoder.at_frame_start());
    }
    assert_eq!(ALLOCATIONS.get() - before, 0);
}
