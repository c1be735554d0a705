//! Payloads by size: how long an echo takes, and the processor time that the worker spends on it, against a bare server
//! that copies the same bytes in and out of its socket.

use vilya_benches::Failure;
use vilya_benches::client::Client;
use vilya_benches::echo::EchoServer;
use vilya_benches::exchange::Exchange;
use vilya_benches::figures::Figures;
use vilya_benches::http;
use vilya_benches::testbed::Testbed;

use super::{ECHO, Pace, Section};

/// Room for the head of an answer.
const HEAD_BYTES: usize = 4096;
/// Of the smallest payloads no more are sent, so that a round stays short.
const COUNT_MOST: usize = 500;

const SIZES: [(&str, usize); 4] =
    [("kib_1_us", 1 << 10), ("kib_64_us", 64 << 10), ("mib_1_us", 1 << 20), ("mib_16_us", 16 << 20)];

pub(crate) struct Payloads<'a> {
    worker: &'a Testbed,
    echo: EchoServer,
    sizes: Vec<Size>,
}

struct Size {
    name: &'static str,
    bytes: usize,
    bare: Client,
    bare_message: Exchange,
    http: Client,
    http_message: Exchange,
}

impl Payloads<'_> {
    pub(crate) fn start(worker: &Testbed) -> Result<Payloads<'_>, Failure> {
        let echo = EchoServer::start()?;
        let size = |(name, bytes)| {
            Ok(Size {
                name,
                bytes,
                bare: echo.client(bytes)?,
                bare_message: Exchange::echo(bytes),
                http: Client::connect(worker.address(), bytes + HEAD_BYTES)?,
                http_message: http::echo(ECHO, bytes),
            })
        };
        let sizes = SIZES.into_iter().map(size).collect::<Result<_, Failure>>()?;
        Ok(Payloads { worker, echo, sizes })
    }
}

impl Section for Payloads<'_> {
    fn round(&mut self, pace: &Pace, figures: &mut Figures) -> Result<(), Failure> {
        for size in &mut self.sizes {
            let count = (pace.payload_bytes / size.bytes).clamp(1, COUNT_MOST);
            let (name, per_echo) = (size.name, 1000.0 * count as f64);
            let before_ns = self.echo.cpu_ns()?;
            let mut bare = size.bare.time(&size.bare_message, count)?;
            figures.push(&format!("beside.echo_{name}"), bare.percentile_us(0.5));
            figures.push(&format!("beside.echo_cpu_{name}"), (self.echo.cpu_ns()? - before_ns) as f64 / per_echo);
            let before_ns = self.worker.cpu_ns()?;
            let mut echoed = size.http.time(&size.http_message, count)?;
            figures.push(&format!("payload.{name}"), echoed.percentile_us(0.5));
            figures.push(&format!("payload_cpu.{name}"), (self.worker.cpu_ns()? - before_ns) as f64 / per_echo);
        }
        Ok(())
    }
}
