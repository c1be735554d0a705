//! Warm invocations over the binary protocol. A worker that does not speak it leaves these figures empty.

use std::net::SocketAddr;

use vilya_benches::Failure;
use vilya_benches::client::Client;
use vilya_benches::exchange::Exchange;
use vilya_benches::figures::Figures;
use vilya_benches::generator::Generator;
use vilya_benches::syscalls;
use vilya_benches::testbed::Testbed;
use vilya_benches::wire::{Pipeline, learn};

use super::{ECHO, ECHO_MANY, Pace, SMALL_BYTES, Section};

const ANSWER_BYTES: usize = 4096;
/// Requests in flight on the connection that pipelines.
const DEPTH: usize = 512;

pub(crate) struct Binary<'a> {
    worker: &'a Testbed,
    one: Client,
    sixteen: Generator,
    pipeline: Pipeline,
    echo: Exchange,
    echo_many: Exchange,
}

impl<'a> Binary<'a> {
    pub(crate) fn start(worker: &'a Testbed, address: SocketAddr) -> Result<Binary<'a>, Failure> {
        let learned = learn(address, ECHO, SMALL_BYTES)?;
        let mut one = Client::connect(address, ANSWER_BYTES)?;
        one.exchange(&learned.opening)?;
        let mut sixteen = Generator::connect(address, 16)?;
        sixteen.run(&learned.opening, std::time::Duration::ZERO)?;
        Ok(Binary {
            worker,
            one,
            sixteen,
            pipeline: Pipeline::connect(address, ECHO_MANY, SMALL_BYTES, DEPTH)?,
            echo: learned.echo,
            echo_many: learn(address, ECHO_MANY, SMALL_BYTES)?.echo,
        })
    }

    /// The worker's counters of system calls, where nothing counts them from outside.
    fn counted(&self) -> Result<f64, Failure> {
        Ok(self.worker.metric("vilya_ring_enters_total")? + self.worker.metric("vilya_sandbox_wakes_total")?)
    }
}

impl Section for Binary<'_> {
    fn round(&mut self, pace: &Pace, figures: &mut Figures) -> Result<(), Failure> {
        let mut echoed = self.one.time(&self.echo, pace.requests)?;
        figures.push("binary.p50_us", echoed.percentile_us(0.5));
        figures.push("binary.p99_us", echoed.percentile_us(0.99));
        figures.push("binary.rps_16", self.sixteen.run(&self.echo_many, pace.window)?.per_second);
        figures.push("beside.one_at_a_time_binary_rps_16", self.sixteen.run(&self.echo, pace.window)?.per_second);
        figures.push("binary.pipelined_per_core", self.pipeline.run(pace.window)?.1);
        // By itself, since counting costs time.
        let before = self.counted()?;
        let mut pipelined = || self.pipeline.run(pace.window).map_err(Failure::from);
        let (calls, (answers, _)) = syscalls::during(self.worker.process(), &mut pipelined)?;
        let calls = match calls {
            Some(calls) => calls as f64,
            None => self.counted()? - before,
        };
        figures.push("binary.syscalls_per_invocation", calls / answers as f64);
        Ok(())
    }
}
