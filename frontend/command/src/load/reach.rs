//! Where the worker is: over HTTP at one address; over the binary protocol at one a shard, with the owners of the functions.
//!
//! Invariant: a request to any of the addresses is answered; which one is a matter of hops. What changes while a run goes on
//! is followed by each thread for itself.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use vilya_client::{Error, Options};
use vilya_protocol::wire::{MapFrame, home_shard};

use super::plan::{Plan, Protocol};
use crate::failure::{Failure, Fault};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The ways to the worker, and which one each function takes.
#[derive(Clone, Debug)]
pub(super) struct Routes {
    /// A lane for each shard; over HTTP one.
    addresses: Vec<SocketAddr>,
    names: Vec<String>,
    /// By function.
    owners: Vec<Vec<u16>>,
    generation: u64,
    turn: usize,
}

impl Routes {
    /// Over HTTP, where there is one way.
    pub(super) fn single(plan: &Plan) -> Routes {
        Routes::new(plan, vec![plan.address])
    }

    fn new(plan: &Plan, addresses: Vec<SocketAddr>) -> Routes {
        let names: Vec<String> = plan.functions.iter().map(|function| function.name.clone()).collect();
        Routes { owners: vec![Vec::new(); names.len()], addresses, names, generation: 0, turn: 0 }
    }

    pub(super) fn lanes(&self) -> usize {
        self.addresses.len()
    }

    pub(super) fn address(&self, lane: usize) -> SocketAddr {
        self.addresses[lane]
    }

    /// What a client's lane is called in epoll's events.
    pub(super) fn token(&self, client: usize, lane: usize) -> u64 {
        (client * self.lanes() + lane) as u64
    }

    /// The client and lane of a token.
    pub(super) fn place(&self, token: u64) -> (usize, usize) {
        (token as usize / self.lanes(), token as usize % self.lanes())
    }

    /// The lane for a request to this function: of several owners each in turn.
    pub(super) fn lane(&mut self, function: usize) -> usize {
        if self.lanes() == 1 {
            return 0;
        }
        let owner = match self.owners[function].as_slice() {
            [] => usize::from(home_shard(&self.names[function], self.lanes() as u16)),
            [only] => usize::from(*only),
            several => {
                self.turn = self.turn.wrapping_add(1);
                usize::from(several[self.turn % several.len()])
            }
        };
        // A worker that came in the place of another may have more shards.
        owner % self.lanes()
    }

    /// Takes note of what the worker says of the functions; what is older than what is known is passed over.
    pub(super) fn learn(&mut self, frame: &MapFrame<'_>) {
        if frame.generation < self.generation {
            return;
        }
        self.generation = frame.generation;
        if frame.first {
            self.owners.iter_mut().for_each(Vec::clear);
        }
        for entry in frame.entries {
            if let Some(function) = self.names.iter().position(|name| name == entry.name) {
                self.owners[function].clear();
                self.owners[function].extend(entry.owners);
            }
        }
    }
}

/// Finds out that nobody is there before threads do, each by itself; and over the binary protocol where the shards are.
pub(super) fn knock(plan: &Plan) -> Result<Routes, Failure> {
    match plan.protocol {
        Protocol::Http => match TcpStream::connect_timeout(&plan.address, CONNECT_TIMEOUT) {
            Ok(_) => Ok(Routes::single(plan)),
            Err(error) => Err(absent(plan, &error)),
        },
        Protocol::Binary => {
            let options = Options { connect_timeout: CONNECT_TIMEOUT, wants_map: true, ..Options::DEFAULT };
            let connection = match vilya_client::Connection::connect(plan.address, &options) {
                Ok(connection) => connection,
                Err(Error::Io(error)) => return Err(absent(plan, &error)),
                Err(error) => {
                    let address = plan.address;
                    let said = format_args!("what answers at {address} does not speak the binary protocol: {error}");
                    return Err(Failure::new(Fault::Unreachable, said));
                }
            };
            // A shard without a port of its own is reached by the common one.
            let at = |port: &u16| match *port {
                0 => plan.address,
                port => SocketAddr::new(plan.address.ip(), port),
            };
            let mut routes = Routes::new(plan, connection.ports().iter().map(at).collect());
            for (owners, name) in routes.owners.iter_mut().zip(&routes.names) {
                owners.extend_from_slice(connection.map().owners(name));
            }
            routes.generation = connection.map().generation();
            Ok(routes)
        }
    }
}

fn absent(plan: &Plan, error: &std::io::Error) -> Failure {
    let other = match plan.protocol {
        Protocol::Http => "--server or VILYA_SERVER",
        Protocol::Binary => "--wire-address",
    };
    let server = &plan.server;
    let start = format_args!("start one with `vilya serve`, or name another with {other}");
    Failure::new(Fault::Unreachable, format_args!("no worker answers at {server} ({error}): {start}"))
}
