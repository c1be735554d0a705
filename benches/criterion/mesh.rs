//! A message from one shard to another and back, both asleep in between, against a bare pair of eventfds.

use criterion::{Criterion, criterion_group, criterion_main};
use vilya_benches::mesh::MeshPair;
use vilya_benches::peer::{EventPair, pin};

fn round_trip(c: &mut Criterion) {
    pin(Some(0));
    let mut group = c.benchmark_group("mesh_round_trip");
    group.bench_function("floor_eventfd_pair", |bencher| {
        let pair = EventPair::start(Some(1));
        bencher.iter(|| pair.round_trip());
    });
    group.bench_function("channel_and_ring_message", |bencher| {
        let mut pair = MeshPair::start(Some(1));
        bencher.iter(|| pair.round_trip());
    });
    group.finish();
}

criterion_group!(benches, round_trip);
criterion_main!(benches);
