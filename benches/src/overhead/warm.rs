//! Warm invocations over HTTP: a Rust function that echoes, a Python function that says hello, and the bare protocol.
//!
//! Latency is of a function that takes one invocation at a time; throughput, of the same function where its manifest says
//! that one sandbox takes up to 64 (`concurrency`), so that one wake-up serves many. Throughput one at a time, in as many
//! sandboxes as the worker starts, stands beside it. Python's throughput is that of a worker as it comes, whose sandboxes run
//! on every core, since an interpreter that runs one invocation at a time is what takes the time; on the one core of the
//! others it stands beside.

use vilya_benches::Failure;
use vilya_benches::client::Client;
use vilya_benches::exchange::Exchange;
use vilya_benches::figures::Figures;
use vilya_benches::generator::Generator;
use vilya_benches::http;
use vilya_benches::testbed::Testbed;

use super::{ECHO, ECHO_MANY, HELLO, Pace, SMALL_BYTES, Section};

/// Room for a small answer.
const ANSWER_BYTES: usize = 16 * 1024;
/// Clients at once, each a figure.
const CLIENTS: [usize; 4] = [1, 16, 64, 256];

pub(crate) struct Warm {
    one: Client,
    default: Client,
    many: Vec<(usize, Generator)>,
    default_many: Generator,
    echo: Exchange,
    echo_many: Exchange,
    hello: Exchange,
    live: Exchange,
}

impl Warm {
    pub(crate) fn start(pinned: &Testbed, default: &Testbed) -> Result<Warm, Failure> {
        let connect = |&clients| Ok((clients, Generator::connect(pinned.address(), clients)?));
        let said = http::request("POST", &format!("/fn/{HELLO}"), br#"{"name": "world"}"#);
        let asked = b"GET /livez HTTP/1.1\r\nhost: bench\r\n\r\n".to_vec();
        Ok(Warm {
            one: Client::connect(pinned.address(), ANSWER_BYTES)?,
            default: Client::connect(default.address(), ANSWER_BYTES)?,
            many: CLIENTS.iter().map(connect).collect::<Result<_, Failure>>()?,
            default_many: Generator::connect(default.address(), 16)?,
            echo: http::echo(ECHO, SMALL_BYTES),
            echo_many: http::echo(ECHO_MANY, SMALL_BYTES),
            hello: Exchange { request: said, head: http::SUCCESS.to_vec(), tail: b"\"world\"}".to_vec() },
            live: Exchange { request: asked, head: http::SUCCESS.to_vec(), tail: b"live\n".to_vec() },
        })
    }
}

impl Section for Warm {
    fn round(&mut self, pace: &Pace, figures: &mut Figures) -> Result<(), Failure> {
        let mut echoed = self.one.time(&self.echo, pace.requests)?;
        figures.push("http.p50_us", echoed.percentile_us(0.5));
        figures.push("http.p99_us", echoed.percentile_us(0.99));
        let mut said = self.one.time(&self.hello, pace.requests)?;
        figures.push("python.http_p50_us", said.percentile_us(0.5));
        figures.push("python.http_p99_us", said.percentile_us(0.99));
        let mut lived = self.one.time(&self.live, pace.requests)?;
        figures.push("beside.livez_p50_us", lived.percentile_us(0.5));
        let mut said = self.default.time(&self.hello, pace.requests)?;
        figures.push("beside.default_python_http_p50_us", said.percentile_us(0.5));
        figures.push("beside.default_python_http_p99_us", said.percentile_us(0.99));
        for (clients, generator) in &mut self.many {
            let load = generator.run(&self.echo_many, pace.window)?;
            figures.push(&format!("http.rps_{clients}"), load.per_second);
            let load = generator.run(&self.echo, pace.window)?;
            figures.push(&format!("beside.one_at_a_time_http_rps_{clients}"), load.per_second);
            if *clients == 16 {
                let load = generator.run(&self.hello, pace.window)?;
                figures.push("beside.pinned_python_rps_16", load.per_second);
                figures.push("python.rps_16", self.default_many.run(&self.hello, pace.window)?.per_second);
            }
        }
        Ok(())
    }
}
