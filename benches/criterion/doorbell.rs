//! A round trip through the rings with both sides asleep, on one core and on two, against a bare pair of eventfds
//! and a bare pair of futexes.

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use vilya_benches::peer::{EventPair, FutexPair, RingPeer, pin};

fn parked(c: &mut Criterion) {
    pin(Some(0));
    for (place, core) in [("same_core", 0), ("other_core", 1)] {
        let mut group = c.benchmark_group(format!("doorbell_round_trip_{place}"));
        group.bench_function("floor_eventfd_pair", |bencher| {
            let pair = EventPair::start(Some(core));
            bencher.iter(|| pair.round_trip());
        });
        group.bench_function("floor_futex_pair", |bencher| {
            let mut pair = FutexPair::start(Some(core));
            bencher.iter(|| pair.round_trip());
        });
        group.bench_function("ring", |bencher| {
            let mut ring = RingPeer::start(Duration::ZERO, Some(core));
            bencher.iter(|| ring.round_trip_parked(b"hello"));
        });
        group.finish();
    }
}

criterion_group!(benches, parked);
criterion_main!(benches);
