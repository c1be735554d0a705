//! The same request path on glommio and on this project's reactor.

use vilya_benches::Failure;
use vilya_benches::client::Client;
use vilya_benches::compare::{self, Server};
use vilya_benches::exchange::Exchange;
use vilya_benches::figures::Figures;
use vilya_benches::generator::Generator;
use vilya_benches::http;

use super::{ECHO, Pace, SMALL_BYTES, Section};

const ANSWER_BYTES: usize = 4096;

pub(crate) struct Reactors {
    sides: [Side; 2],
    echo: Exchange,
}

struct Side {
    /// What its figures begin with.
    prefix: &'static str,
    one: Client,
    many: [(usize, Generator); 2],
}

impl Reactors {
    pub(crate) fn start() -> Result<Reactors, Failure> {
        let sides =
            [Side::new("glommio.", compare::on_glommio()?)?, Side::new("beside.reactor_", compare::on_reactor()?)?];
        Ok(Reactors { sides, echo: http::echo(ECHO, SMALL_BYTES) })
    }
}

impl Side {
    fn new(prefix: &'static str, server: Server) -> Result<Side, Failure> {
        let one = Client::connect(server.address, ANSWER_BYTES)?;
        let many = [16, 64].map(|clients| Ok((clients, Generator::connect(server.address, clients)?)));
        let [sixteen, most]: [Result<(usize, Generator), Failure>; 2] = many;
        Ok(Side { prefix, one, many: [sixteen?, most?] })
    }
}

impl Section for Reactors {
    fn round(&mut self, pace: &Pace, figures: &mut Figures) -> Result<(), Failure> {
        for Side { prefix, one, many } in &mut self.sides {
            let mut echoed = one.time(&self.echo, pace.requests)?;
            figures.push(&format!("{prefix}p50_us"), echoed.percentile_us(0.5));
            for (clients, generator) in many {
                let load = generator.run(&self.echo, pace.window)?;
                figures.push(&format!("{prefix}rps_{clients}"), load.per_second);
            }
        }
        Ok(())
    }
}
