//! A round trip through the rings with both sides awake, against a word on a shared cache line.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use vilya_benches::peer::{CacheLine, RingPeer, pin};

fn spinning(c: &mut Criterion) {
    pin(Some(0));
    let mut group = c.benchmark_group("ring_round_trip_spinning");
    group.bench_function("floor_cache_line", |bencher| {
        let mut line = CacheLine::start(Some(1));
        bencher.iter(|| line.round_trip());
    });
    for bytes in [0, 64, 1024, 16 << 10] {
        let payload = vec![7_u8; bytes];
        group.bench_function(format!("{bytes}_bytes"), |bencher| {
            let mut ring = RingPeer::start(Duration::from_secs(3600), Some(1));
            bencher.iter(|| ring.round_trip_spinning(black_box(&payload)));
        });
    }
    group.finish();
}

criterion_group!(benches, spinning);
criterion_main!(benches);
