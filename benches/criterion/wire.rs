//! The frames of the binary protocol: reading and writing heads, and a whole round trip of a client's session.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use vilya_client::{Event, Options, Request, Session};
use vilya_protocol::wire::{
    self, Hello, Item, Limits, Report, RequestHead, ResponseHead, ServerDecoder, Start, Welcome,
};

const PAYLOAD: &[u8] = b"{\"name\": \"world\"}";
const TRACE_PARENT: &[u8] = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

const fn request() -> RequestHead<'static> {
    let bytes = PAYLOAD.len();
    RequestHead {
        bytes: bytes as u64,
        payload_bytes: bytes as u32,
        content_type: b"application/json",
        ..RequestHead::new(7, "hello")
    }
}

const fn response(id: u64) -> ResponseHead<'static> {
    let report = Report { request_id: [7; 16], queue_us: 3, start_us: 0, run_us: 42, shard: 1, start: Start::Warm };
    let bytes = PAYLOAD.len();
    ResponseHead {
        id,
        status: 200,
        bytes: bytes as u64,
        in_parts: false,
        report,
        content_type: b"application/json",
        payload_bytes: bytes as u32,
    }
}

fn greeted() -> ServerDecoder {
    let mut decoder = ServerDecoder::new(Limits::DEFAULT);
    let mut out = Vec::new();
    let hello = Hello {
        lowest_version: 1,
        highest_version: 1,
        wants_map: false,
        takes_parts: false,
        response_credit_bytes: 1 << 20,
    };
    wire::hello(&mut out, &hello);
    decoder.decode(&out).expect("it is well formed");
    decoder
}

/// Reads to the end; how many items there were.
fn read_all(decoder: &mut ServerDecoder, input: &[u8]) -> usize {
    let (mut at, mut items) = (0, 0);
    loop {
        let step = decoder.decode(&input[at..]).expect("it is well formed");
        at += step.consumed;
        match step.item {
            Item::NeedMore => return items,
            item => {
                black_box(item);
                items += 1;
            }
        }
    }
}

fn parsing(c: &mut Criterion) {
    let mut small = Vec::new();
    wire::request_head(&mut small, &request()).expect("it is well formed");
    small.extend_from_slice(PAYLOAD);
    let mut traced = Vec::new();
    wire::request_head(&mut traced, &RequestHead { trace_parent: TRACE_PARENT, deadline_ms: 250, ..request() })
        .expect("it is well formed");
    traced.extend_from_slice(PAYLOAD);
    let mut group = c.benchmark_group("wire_request");
    for (name, input) in [("small", &small), ("traced", &traced)] {
        group.throughput(Throughput::Bytes(input.len() as u64));
        group.bench_function(name, |bencher| {
            let mut decoder = greeted();
            bencher.iter(|| read_all(&mut decoder, black_box(input)));
        });
    }
    // As a pipelined client's come: many to a read, the last cut off.
    let many = small.repeat(64);
    let (first, second) = many.split_at(many.len() - small.len() / 2);
    group.throughput(Throughput::Elements(64));
    group.bench_function("pipelined_64", |bencher| {
        let mut decoder = greeted();
        bencher.iter(|| read_all(&mut decoder, black_box(first)) + read_all(&mut decoder, black_box(second)));
    });
    // The floor: looking at every byte once.
    group.throughput(Throughput::Bytes(small.len() as u64));
    group.bench_function("floor_sum_of_bytes", |bencher| {
        bencher.iter(|| black_box(&small).iter().map(|&byte| u64::from(byte)).sum::<u64>());
    });
    group.finish();
}

fn writing(c: &mut Criterion) {
    let mut out = Vec::with_capacity(1024);
    c.bench_function("wire_response_head", |bencher| {
        bencher.iter(|| {
            out.clear();
            wire::response_head(black_box(&mut out), black_box(&response(7))).expect("it is well formed");
            out.len()
        });
    });
    c.bench_function("wire_request_head", |bencher| {
        bencher.iter(|| {
            out.clear();
            wire::request_head(black_box(&mut out), black_box(&request())).expect("it is well formed");
            out.len()
        });
    });
}

/// What a client spends on a request and its answer, sockets left out.
fn session(c: &mut Criterion) {
    let mut session = Session::new(&Options::DEFAULT);
    let mut input = Vec::new();
    let welcome = Welcome {
        version: 1,
        shard: 0,
        frame_bytes: 1 << 20,
        in_flight: 128,
        payload_bytes: 1 << 30,
        request_credit_bytes: 1 << 16,
    };
    wire::welcome(&mut input, &welcome, &[7880]);
    session.read(&input).expect("it is well formed");
    let asked = Request { content_type: b"application/json", ..Request::new("hello", PAYLOAD) };
    c.bench_function("wire_client_round_trip", |bencher| {
        bencher.iter(|| {
            let started = session.start(black_box(&asked)).expect("there is room");
            session.sent(session.output().len());
            input.clear();
            wire::response_head(&mut input, &response(started.id)).expect("it is well formed");
            input.extend_from_slice(PAYLOAD);
            let mut at = 0;
            loop {
                let (consumed, event) = session.read(black_box(&input[at..])).expect("it is well formed");
                at += consumed;
                if black_box(event) == Event::NeedMore {
                    return at;
                }
            }
        });
    });
}

criterion_group!(benches, parsing, writing, session);
criterion_main!(benches);
