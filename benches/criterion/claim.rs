//! What the worker pays to believe an answer, and how many small invocations one pair of rings carries.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use vilya_benches::peer::pin;
use vilya_benches::pipeline::{Loopback, Pipeline};
use vilya_ipc::claim;
use vilya_ipc::layout::{
    CompletionDescriptor, DESCRIPTOR_BYTES, Geometry, METADATA_BYTES, RegionSpec, completion_kind,
};

const LANES: u16 = 64;

fn checking(c: &mut Criterion) {
    pin(Some(0));
    let mut group = c.benchmark_group("claim");
    let geometry = Geometry::new(&RegionSpec { lanes: LANES, payload_limit_bytes: 1 << 20 }).expect("a sound spec");
    let in_slot = geometry.completion_slot(3) + DESCRIPTOR_BYTES;
    let in_lane = geometry.response_lane(7).start + METADATA_BYTES;
    for (name, payload_offset, payload_bytes) in [("check_in_slot", in_slot, 64), ("check_in_lane", in_lane, 1 << 20)] {
        let kind = completion_kind::RETURNED;
        let raw = CompletionDescriptor { kind, lane: 7, payload_offset, payload_bytes, ..Default::default() };
        group.bench_function(name, |bencher| bencher.iter(|| claim::check(black_box(&raw), 3, &geometry)));
    }
    for bytes in [0, 64, 16 << 10] {
        let payload = vec![7; bytes];
        group.bench_function(format!("pop_{bytes}_bytes"), |bencher| {
            let mut pair = Loopback::new(LANES);
            bencher.iter_custom(|claims| {
                let rounds = claims.div_ceil(u64::from(LANES));
                let took: Duration = (0..rounds).map(|_| pair.time_pops(&payload)).sum();
                // As long as `claims` would have taken.
                took.mul_f64(claims as f64 / (rounds * u64::from(LANES)) as f64)
            });
        });
    }
    group.finish();
}

fn pipelined(c: &mut Criterion) {
    pin(Some(0));
    let mut group = c.benchmark_group("ring_pipelined");
    group.throughput(Throughput::Elements(1));
    for (place, core) in [("same_core", 0), ("other_core", 1)] {
        for lanes in [1, LANES] {
            group.bench_function(format!("{place}_{lanes}_lanes"), |bencher| {
                let mut pipeline = Pipeline::start(lanes, Some(core));
                bencher.iter_custom(|invocations| {
                    let started = std::time::Instant::now();
                    pipeline.answer(invocations, b"hello");
                    started.elapsed()
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, checking, pipelined);
criterion_main!(benches);
