//! The examples of `WIRE.md` are what the encoders write and the decoders read.

use vilya_protocol::wire::adversarial::{read_client, read_server};
use vilya_protocol::wire::{self, Hello, Limits, Report, RequestHead, ResponseHead, Start, Welcome};

/// The bytes of each block of hexadecimal, in the order of the page.
fn examples() -> Vec<Vec<u8>> {
    let page = include_str!("../WIRE.md");
    let blocks = page.split("```hex\n").skip(1).map(|rest| rest.split("```").next().expect("a block ends"));
    let digits = |line: &str| line.split('#').next().map(str::to_owned).expect("a line has a beginning");
    let bytes = |line: String| {
        let pairs: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        pairs.into_iter().map(|pair| u8::from_str_radix(&pair, 16).expect("it is hexadecimal"))
    };
    blocks.map(|block| block.lines().map(digits).flat_map(bytes).collect()).collect()
}

fn encoded() -> Vec<Vec<u8>> {
    let frame = |write: &dyn Fn(&mut Vec<u8>)| {
        let mut out = Vec::new();
        write(&mut out);
        out
    };
    let hello = Hello {
        lowest_version: 1,
        highest_version: 1,
        wants_map: true,
        takes_parts: false,
        response_credit_bytes: 65_536,
    };
    let welcome = Welcome {
        version: 1,
        shard: 0,
        frame_bytes: 1 << 20,
        in_flight: 128,
        payload_bytes: 1 << 30,
        request_credit_bytes: 65_536,
    };
    let request = RequestHead {
        bytes: 2,
        payload_bytes: 2,
        deadline_ms: 250,
        content_type: b"application/json",
        ..RequestHead::new(1, "hello")
    };
    let report = Report {
        request_id: core::array::from_fn(|index| index as u8 + 1),
        queue_us: 3,
        start_us: 0,
        run_us: 42,
        shard: 1,
        start: Start::Warm,
    };
    let response = ResponseHead {
        id: 1,
        status: 200,
        bytes: 5,
        in_parts: false,
        report,
        content_type: b"text/plain",
        payload_bytes: 5,
    };
    let in_parts = ResponseHead { id: 3, bytes: 0, in_parts: true, payload_bytes: 8, ..response };
    let large = RequestHead { bytes: 100_000, payload_bytes: 65_536, ..RequestHead::new(2, "echo") };
    vec![
        frame(&|out| wire::hello(out, &hello)),
        frame(&|out| wire::welcome(out, &welcome, &[7880, 7881])),
        frame(&|out| wire::map(out, 7, true, 1 << 20, [("hello", &[1][..])])),
        frame(&|out| {
            wire::request_head(out, &request).expect("the head is valid");
            out.extend_from_slice(b"{}");
        }),
        frame(&|out| {
            wire::response_head(out, &response).expect("the head is valid");
            out.extend_from_slice(b"hello");
        }),
        frame(&|out| wire::request_head(out, &large).expect("the head is valid")),
        frame(&|out| wire::credit(out, 2, 65_536)),
        frame(&|out| wire::data_head(out, 2, 34_464, true)),
        frame(&|out| {
            wire::response_head(out, &in_parts).expect("the head is valid");
            out.extend_from_slice(b"tick 0 \n");
        }),
        frame(&|out| {
            wire::data_head(out, 3, 8, false);
            out.extend_from_slice(b"tick 1 \n");
        }),
        frame(&|out| wire::data_head(out, 3, 0, true)),
        frame(&|out| wire::cut(out, 3, 502, b"{\"errorType\":\"X\"}\n")),
        frame(&|out| wire::cancel(out, 2)),
        frame(&|out| wire::goaway(out, 503, "stopping")),
    ]
}

#[test]
fn the_examples_are_what_the_encoders_write() {
    let (examples, encoded) = (examples(), encoded());
    for (index, (example, encoded)) in examples.iter().zip(&encoded).enumerate() {
        assert_eq!(example, encoded, "block {index} of WIRE.md");
    }
    assert_eq!(examples.len(), encoded.len());
}

#[test]
fn the_examples_are_read() {
    let examples = examples();
    let [hello, welcome, map, request, response, large, credit, data, begun, part, end, cut, cancel, goaway] =
        examples.as_slice()
    else {
        panic!("WIRE.md has other examples than this test");
    };
    let payload = |bytes: usize| vec![b'x'; bytes];
    let client = [&hello[..], request, large, &payload(65_536), data, &payload(34_464), cancel].concat();
    let reading = read_server(&client, Limits::DEFAULT, &[]);
    assert_eq!((reading.error, reading.events.len(), reading.at_frame_start), (None, 5, true));
    let server = [&welcome[..], map, response, credit, begun, part, end, cut, goaway].concat();
    let reading = read_client(&server, &[]);
    assert_eq!((reading.error, reading.events.len(), reading.at_frame_start), (None, 9, true));
}

/// What the page says in numbers is what the code has.
#[test]
fn the_bounds_are_the_codes() {
    let page = include_str!("../WIRE.md").replace(',', "");
    let numbers =
        [wire::FRAME_BYTES_MIN, wire::FRAME_BYTES_CAP, wire::PING_BYTES, wire::GOAWAY_TEXT_BYTES, wire::CUT_BYTES];
    for number in numbers {
        assert!(page.contains(&format!(" {number} ")) || page.contains(&format!(" {number}\n")), "{number}");
    }
    assert!(page.contains("version 1\n"));
    assert_eq!(wire::VERSION, 1);
}
