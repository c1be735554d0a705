//! The bare machine: a TCP echo, a cache line, a futex, an eventfd.

use std::time::Instant;

use vilya_benches::client::Client;
use vilya_benches::echo::EchoServer;
use vilya_benches::exchange::Exchange;
use vilya_benches::figures::Figures;
use vilya_benches::generator::Generator;
use vilya_benches::park::FutexPair;
use vilya_benches::peer::{CacheLine, EventPair};
use vilya_benches::sample::Samples;
use vilya_benches::{CLIENT_CORE, Failure, SERVER_CORE};

use super::{Pace, SMALL_BYTES, Section};

pub(crate) struct Floors {
    one: Client,
    alone: Generator,
    sixteen: Generator,
    message: Exchange,
}

impl Floors {
    pub(crate) fn start() -> Result<Floors, Failure> {
        let server = EchoServer::start()?;
        let one = server.client(SMALL_BYTES)?;
        let [alone, sixteen] = [1, 16].map(|connections| server.generator(SMALL_BYTES, connections));
        Ok(Floors { one, alone: alone?, sixteen: sixteen?, message: Exchange::echo(SMALL_BYTES) })
    }
}

impl Section for Floors {
    fn round(&mut self, pace: &Pace, figures: &mut Figures) -> Result<(), Failure> {
        let mut line = CacheLine::start(Some(SERVER_CORE));
        figures.push("floor.cacheline_rtt_us", trip_us(pace, 50, || line.round_trip()));
        // Before the next: its peer spins.
        drop(line);
        let mut futex = FutexPair::start(Some(CLIENT_CORE));
        figures.push("floor.futex_same_core_rtt_us", trip_us(pace, 1, || futex.round_trip()));
        let eventfd = EventPair::start(Some(CLIENT_CORE));
        figures.push("floor.eventfd_same_core_rtt_us", trip_us(pace, 1, || eventfd.round_trip()));
        let apart = EventPair::start(Some(SERVER_CORE));
        figures.push("beside.eventfd_other_core_rtt_us", trip_us(pace, 1, || apart.round_trip()));
        // Last, so that what is held against it follows at once.
        let mut echoed = self.one.time(&self.message, pace.requests)?;
        figures.push("floor.tcp_echo_p50_us", echoed.percentile_us(0.5));
        figures.push("floor.tcp_echo_p99_us", echoed.percentile_us(0.99));
        figures.push("floor.tcp_echo_rps_16", self.sixteen.run(&self.message, pace.window)?.per_second);
        figures.push("beside.tcp_echo_rps_1", self.alone.run(&self.message, pace.window)?.per_second);
        Ok(())
    }
}

/// How long one round trip takes, in microseconds: the median over batches, in each of which the clock is looked at
/// twice. `times` as many trips are made where they are so short that a batch would not outlast an interrupt.
pub(crate) fn trip_us(pace: &Pace, times: usize, mut trip: impl FnMut()) -> f64 {
    let (batches, trips) = (pace.batches.0, pace.batches.1 * times);
    let mut samples = Samples::default();
    // The peer's thread has started when the first trip is back.
    trip();
    for _ in 0..batches {
        let since = Instant::now();
        (0..trips).for_each(|_| trip());
        // Kept in picoseconds, since a trip may be a few nanoseconds.
        samples.push((since.elapsed().as_nanos() * 1000 / trips as u128) as u64);
    }
    samples.percentile_us(0.5) / 1000.0
}
