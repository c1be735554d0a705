//! Reading a request, writing a response head.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use vilya_protocol::http::{Decoder, Item, Limits, ResponseHead};

const SMALL: &[u8] = b"POST /fn/hello HTTP/1.1\r\nhost: localhost:7878\r\ncontent-type: application/json\r\n\
content-length: 17\r\n\r\n{\"name\": \"world\"}";
const BROWSER: &[u8] = b"POST /fn/hello HTTP/1.1\r\nHost: localhost:7878\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; \
rv:140.0) Gecko/20100101 Firefox/140.0\r\nAccept: */*\r\nAccept-Language: en-GB,en;q=0.5\r\nAccept-Encoding: gzip, \
deflate, br, zstd\r\nReferer: http://localhost:7878/\r\nContent-Type: application/json\r\nContent-Length: 17\r\nOrigin: \
http://localhost:7878\r\nConnection: keep-alive\r\nSec-Fetch-Dest: empty\r\nSec-Fetch-Mode: cors\r\nSec-Fetch-Site: \
same-origin\r\nPriority: u=4\r\n\r\n{\"name\": \"world\"}";

fn read_whole(decoder: &mut Decoder, request: &[u8]) -> usize {
    let mut at = 0;
    loop {
        let step = decoder.decode(&request[at..]).expect("the request is well formed");
        at += step.consumed;
        match step.item {
            Item::End => return at,
            Item::Head(head) => {
                black_box(head.header("content-type"));
            }
            Item::Body(bytes) => {
                black_box(bytes);
            }
            Item::NeedMore => panic!("the request is whole"),
        }
    }
}

fn parsing(c: &mut Criterion) {
    let mut group = c.benchmark_group("http_request");
    for (name, request) in [("small", SMALL), ("browser", BROWSER)] {
        group.throughput(Throughput::Bytes(request.len() as u64));
        group.bench_function(name, |bencher| {
            let mut decoder = Decoder::new(Limits::default());
            bencher.iter(|| read_whole(&mut decoder, black_box(request)));
        });
    }
    // The floor: looking at every byte once.
    group.throughput(Throughput::Bytes(SMALL.len() as u64));
    group.bench_function("floor_sum_of_bytes", |bencher| {
        bencher.iter(|| black_box(SMALL).iter().map(|&byte| u64::from(byte)).sum::<u64>());
    });
    group.finish();
}

fn writing(c: &mut Criterion) {
    c.bench_function("http_response_head", |bencher| {
        let mut out = Vec::with_capacity(1024);
        bencher.iter(|| {
            out.clear();
            ResponseHead {
                status: 200,
                content_type: Some("application/json"),
                content_length: Some(18),
                keep_alive: true,
                headers: &[("x-request-id", "0123456789abcdef0123456789abcdef"), ("x-vilya-start", "warm")],
            }
            .write(black_box(&mut out));
            out.len()
        });
    });
}

criterion_group!(benches, parsing, writing);
criterion_main!(benches);
