//! The binary protocol: what is encoded is decoded, at any split; what breaks a rule is refused; nothing panics.

use proptest::prelude::*;
use vilya_protocol::error::ErrorKind;
use vilya_protocol::wire::adversarial::{
    from_client, from_server, malformed_from_client, malformed_from_server, read_client, read_server,
};
use vilya_protocol::wire::{self, Header, Item, Limits, RequestHead, ResponseHead, ServerDecoder};

#[test]
fn valid_streams_are_read_whole_and_byte_by_byte() {
    let (wire, events) = from_client();
    let every: Vec<usize> = (0..wire.len()).collect();
    for cuts in [&[][..], &every] {
        let reading = read_server(&wire, Limits::DEFAULT, cuts);
        assert_eq!(reading.error, None);
        assert_eq!(reading.events, events);
        assert!(reading.at_frame_start);
    }
    let (wire, events) = from_server();
    let every: Vec<usize> = (0..wire.len()).collect();
    for cuts in [&[][..], &every] {
        let reading = read_client(&wire, cuts);
        assert_eq!(reading.error, None);
        assert_eq!(reading.events, events);
        assert!(reading.at_frame_start);
    }
}

#[test]
fn a_stream_that_ends_within_a_frame_is_seen_to() {
    let (wire, events) = from_client();
    let mut at_start = 0;
    for end in 0..wire.len() {
        let reading = read_server(&wire[..end], Limits::DEFAULT, &[]);
        assert_eq!(reading.error, None);
        at_start += usize::from(reading.at_frame_start);
    }
    assert_eq!(at_start, events.len(), "once before each frame");
}

#[test]
fn every_broken_rule_is_refused_at_any_split() {
    for case in malformed_from_client() {
        let every: Vec<usize> = (0..case.wire.len()).collect();
        let whole = read_server(&case.wire, Limits::DEFAULT, &[]);
        let error = whole.error.unwrap_or_else(|| panic!("{} was taken", case.name));
        assert_eq!((error.kind, error.status()), (ErrorKind::ProtocolBroken, 400));
        assert_eq!(read_server(&case.wire, Limits::DEFAULT, &every), whole, "{}", case.name);
    }
    for case in malformed_from_server() {
        let every: Vec<usize> = (0..case.wire.len()).collect();
        let whole = read_client(&case.wire, &[]);
        assert!(whole.error.is_some(), "{} was taken", case.name);
        assert_eq!(read_client(&case.wire, &every), whole, "{}", case.name);
    }
}

#[test]
fn payload_may_be_received_past_the_decoder() {
    let mut wire = wire::adversarial::hello();
    let head = RequestHead { bytes: 10, payload_bytes: 10, ..RequestHead::new(1, "echo") };
    wire::request_head(&mut wire, &head).expect("the head is valid");
    let at_payload = wire.len();
    wire.extend_from_slice(b"0123456789");
    wire::cancel(&mut wire, 1);

    let mut decoder = ServerDecoder::new(Limits::DEFAULT);
    let hello = decoder.decode(&wire).expect("it is valid").consumed;
    assert!(decoder.at_frame_start());
    decoder.decode(&wire[hello..]).expect("it is valid");
    assert_eq!((decoder.payload_due(), decoder.at_frame_start()), (10, false));
    let step = decoder.decode(&wire[at_payload..at_payload + 3]).expect("it is valid");
    assert_eq!(step.item, Item::Payload { bytes: b"012", frame_done: false });
    assert!(!decoder.payload_received(4));
    assert_eq!(decoder.payload_due(), 3);
    assert!(decoder.payload_received(3));
    assert!(decoder.at_frame_start());
    let step = decoder.decode(&wire[at_payload + 10..]).expect("it is valid");
    assert_eq!(step.item, Item::Cancel { id: 1 });
}

#[test]
fn heads_that_break_a_rule_are_not_encoded() {
    let long = [b'a'; 256];
    let request = RequestHead::new(1, "echo");
    let response = ResponseHead {
        id: 1,
        status: 200,
        bytes: 0,
        in_parts: false,
        report: wire::Report::default(),
        content_type: b"",
        payload_bytes: 0,
    };
    let mut out = Vec::new();
    for head in [
        RequestHead { id: 0, ..request },
        RequestHead { name: "", ..request },
        RequestHead { name: "Echo", ..request },
        RequestHead { content_type: &long, ..request },
        RequestHead { content_type: b"a\nb", ..request },
        RequestHead { trace_parent: &long, ..request },
        RequestHead { payload_bytes: 1, ..request },
        RequestHead { payload_bytes: u32::MAX, bytes: u64::MAX, ..request },
    ] {
        assert!(wire::request_head(&mut out, &head).is_err(), "{head:?}");
    }
    for head in [
        ResponseHead { id: 0, ..response },
        ResponseHead { status: 0, ..response },
        ResponseHead { content_type: &long, ..response },
        ResponseHead { payload_bytes: 1, ..response },
        ResponseHead { in_parts: true, bytes: 1, ..response },
        ResponseHead { in_parts: true, status: 500, ..response },
        ResponseHead { in_parts: true, payload_bytes: u32::MAX, ..response },
    ] {
        assert!(wire::response_head(&mut out, &head).is_err(), "{head:?}");
    }
    assert!(out.is_empty());
}

/// Bytes near a valid stream: some of its bytes are changed, some of it is missing or doubled.
fn damaged(valid: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    let length = valid.len();
    let changes = prop::collection::vec((0..length, any::<u8>()), 0..4);
    (changes, 0..length, 0..length, any::<bool>()).prop_map(move |(changes, from, to, splice)| {
        let mut wire = valid.clone();
        for (at, byte) in changes {
            wire[at] = byte;
        }
        if splice {
            wire = [&wire[..from], &wire[to..]].concat();
        }
        wire
    })
}

fn any_head() -> impl Strategy<Value = (Header, Vec<u8>)> {
    let name = "[a-z0-9][a-z0-9-]{0,62}";
    let value = "[!-~]{0,255}";
    let head = (name, value, value, 1..=u64::MAX, any::<u32>(), 0..5000u32, 0..3u64);
    head.prop_map(|(name, content_type, trace_parent, id, deadline_ms, payload_bytes, more)| {
        let (content_type, trace_parent) = (content_type.as_bytes(), trace_parent.as_bytes());
        let bytes = u64::from(payload_bytes) + more;
        let head = RequestHead { id, bytes, deadline_ms, name: &name, content_type, trace_parent, payload_bytes };
        let mut out = Vec::new();
        wire::request_head(&mut out, &head).expect("the head is valid");
        let header =
            Header::decode(out.first_chunk().expect("it has a header"), &Limits::DEFAULT).expect("it is valid");

        let mut decoder = ServerDecoder::new(Limits::DEFAULT);
        decoder.decode(&wire::adversarial::hello()).expect("it is valid");
        let step = decoder.decode(&out).expect("it is valid");
        assert_eq!((step.consumed, step.item), (out.len(), Item::Request(head)));
        (header, out)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn heads_are_read_back((header, out) in any_head()) {
        prop_assert_eq!(&out[..32], &header.encode()[..]);
        prop_assert_eq!(header.end(), header.bytes == u64::from(header.length) - (out.len() as u64 - 32));
    }

    #[test]
    fn any_header_that_is_taken_is_encoded_to_the_same_bytes(bytes: [u8; 32], kind in 0u8..14, low in any::<bool>()) {
        let mut bytes = bytes;
        bytes[4] = kind;
        if low {
            bytes[1..4].fill(0);
            bytes[5..8].fill(0);
            bytes[16..].fill(0);
        }
        if let Ok(header) = Header::decode(&bytes, &Limits::DEFAULT) {
            prop_assert_eq!(header.encode(), bytes);
        }
    }

    #[test]
    fn servers_read_the_same_at_any_split(
        wire in prop_oneof![
            Just(from_client().0),
            damaged(from_client().0),
            prop::collection::vec(any::<u8>(), 0..200).prop_map(|bytes| [wire::adversarial::hello(), bytes].concat()),
            prop::collection::vec(any::<u8>(), 0..200),
        ],
        cuts in prop::collection::vec(any::<usize>(), 0..12),
    ) {
        prop_assert_eq!(read_server(&wire, Limits::DEFAULT, &cuts), read_server(&wire, Limits::DEFAULT, &[]));
    }

    #[test]
    fn clients_read_the_same_at_any_split(
        wire in prop_oneof![
            Just(from_server().0),
            damaged(from_server().0),
            prop::collection::vec(any::<u8>(), 0..200),
        ],
        cuts in prop::collection::vec(any::<usize>(), 0..12),
    ) {
        prop_assert_eq!(read_client(&wire, &cuts), read_client(&wire, &[]));
    }
}
