//! A worker with so many shards, and for each of them a function that it owns and connections that it serves.
//!
//! Over HTTP the kernel deals connections out to the shards, so that more are opened than are wanted, and each is asked
//! whose it is: the shard whose counter of requests rises. Over the binary protocol each shard has a port.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread::ScopedJoinHandle;
use std::time::Duration;

use vilya_benches::exchange::Exchange;
use vilya_benches::generator::{Generator, Load};
use vilya_benches::peer::pin;
use vilya_benches::role::Role;
use vilya_benches::testbed::{RustFunction, Testbed};
use vilya_benches::wire::learn;
use vilya_benches::{Failure, http, machine};
use vilya_engine::policy::balance::BalancePolicy;

use super::cores::Places;

const SMALL_BYTES: usize = 64;
/// More than the requests for figures that may fall on the same shard meanwhile.
const KNOCKS: usize = 16;
/// Connections opened for one that is wanted, before it is given up that the kernel deals them out evenly.
const PATIENCE: usize = 100;

/// One protocol of a worker.
pub(crate) struct Fleet {
    worker: Arc<Testbed>,
    protocol: &'static str,
    places: Places,
    /// By shard.
    crews: Vec<Crew>,
}

struct Crew {
    generator: Generator,
    exchange: Exchange,
}

/// What the clients of one shard saw in one round.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) protocol: &'static str,
    pub(crate) shards: usize,
    pub(crate) shared: bool,
    pub(crate) shard: usize,
    pub(crate) server_core: usize,
    pub(crate) client_core: usize,
    pub(crate) per_second: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    /// Messages between shards, of all of them: a function that is asked for where it lives makes none.
    pub(crate) forwarded: f64,
}

impl Row {
    /// What it is averaged with.
    pub(crate) fn group(&self, round: usize) -> (&'static str, usize, bool, usize) {
        (self.protocol, self.shards, self.shared, round)
    }
}

impl Fleet {
    /// Starts a worker on these places; one fleet for each protocol that it speaks, with so many clients a shard.
    pub(crate) fn start(places: Places, clients: usize) -> Result<Vec<Fleet>, Failure> {
        let shards = places.servers.len();
        let worker = Arc::new(start_worker(&places)?);
        let names: Vec<String> = (0..shards).map(|shard| name_owned_by(shard, shards)).collect();
        for name in &names {
            worker.deploy_rust(RustFunction { name, role: Role::Echo, concurrency: 64 })?;
        }
        let fleet = |protocol, crews| Fleet { worker: Arc::clone(&worker), protocol, places: places.clone(), crews };
        let mut fleets = vec![fleet("http", http_crews(&worker, &names, clients)?)];
        if let Some(address) = worker.wire_address() {
            fleets.push(fleet("binary", binary_crews(address, &names, clients)?));
        }
        Ok(fleets)
    }

    /// Keeps all clients of all shards busy at once, each shard's on a thread of its own.
    pub(crate) fn run(&mut self, window: Duration) -> Result<Vec<Row>, Failure> {
        let Fleet { worker, protocol, places, crews } = self;
        let (shards, shared) = (crews.len(), places.shared());
        let forwarded = worker.metric("vilya_mesh_sent_total")?;
        let loads = std::thread::scope(|scope| {
            let mut threads = Vec::with_capacity(shards);
            for (crew, core) in crews.iter_mut().zip(places.clients.iter().copied()) {
                threads.push(scope.spawn(move || {
                    pin(Some(core));
                    crew.generator.run(&crew.exchange, window)
                }));
            }
            let join = |thread: ScopedJoinHandle<'_, io::Result<Load>>| thread.join().expect("a client does not panic");
            threads.into_iter().map(join).collect::<Vec<_>>()
        });
        let forwarded = worker.metric("vilya_mesh_sent_total")? - forwarded;
        let mut rows = Vec::with_capacity(shards);
        for (shard, load) in loads.into_iter().enumerate() {
            let mut load = load?;
            rows.push(Row {
                protocol,
                shards,
                shared,
                shard,
                server_core: places.servers[shard],
                client_core: places.clients[shard],
                per_second: load.per_second,
                p50_us: load.latency.percentile_us(0.5),
                p99_us: load.latency.percentile_us(0.99),
                forwarded,
            });
        }
        Ok(rows)
    }
}

/// A worker that sees its own cores alone, so that each shard's neighbours are its own core.
fn start_worker(places: &Places) -> Result<Testbed, Failure> {
    let cores = places.servers.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
    let start = || {
        machine::confine(&places.servers)?;
        Testbed::start(&[("cores.shards", &format!("[{cores}]")), ("cores.sandboxes", "near")])
    };
    std::thread::scope(|scope| scope.spawn(start).join().expect("it does not panic"))
}

fn name_owned_by(shard: usize, shards: usize) -> String {
    let names = (0..).map(|number| format!("echo-{number}"));
    let owned = |name: &String| BalancePolicy::Home.shard(name.as_bytes(), shards as u32) == shard as u32;
    names.into_iter().find(owned).expect("every shard owns some name")
}

fn http_crews(worker: &Testbed, names: &[String], clients: usize) -> Result<Vec<Crew>, Failure> {
    let shards = names.len();
    let mut streams: Vec<Vec<TcpStream>> = (0..shards).map(|_| Vec::new()).collect();
    for _ in 0..PATIENCE * shards * clients {
        if streams.iter().all(|of_shard| of_shard.len() == clients) {
            break;
        }
        let mut stream = TcpStream::connect(worker.address())?;
        let of_shard = &mut streams[shard_of(worker, &mut stream, shards)?];
        if of_shard.len() < clients {
            of_shard.push(stream);
        }
    }
    if streams.iter().any(|of_shard| of_shard.len() < clients) {
        return Err("the kernel gives some shard no connections".into());
    }
    let crew = |(streams, name): (_, &String)| {
        Ok(Crew { generator: Generator::over(streams)?, exchange: http::echo(name, SMALL_BYTES) })
    };
    streams.into_iter().zip(names).map(crew).collect()
}

/// The shard that serves a connection.
fn shard_of(worker: &Testbed, stream: &mut TcpStream, shards: usize) -> Result<usize, Failure> {
    if shards == 1 {
        return Ok(0);
    }
    let before = worker.metric_by_shard("vilya_http_requests_total", shards)?;
    for _ in 0..KNOCKS {
        stream.write_all(b"GET /livez HTTP/1.1\r\nhost: bench\r\n\r\n")?;
        let mut answer = [0; 4096];
        let mut filled = 0;
        while !answer[..filled].ends_with(b"live\n") {
            match stream.read(&mut answer[filled..])? {
                0 => return Err("the worker closed a connection".into()),
                read => filled += read,
            }
        }
    }
    let after = worker.metric_by_shard("vilya_http_requests_total", shards)?;
    let rise = |shard: &usize| after[*shard] - before[*shard];
    (0..shards).max_by(|a, b| rise(a).total_cmp(&rise(b))).ok_or_else(|| "there is no shard".into())
}

fn binary_crews(address: SocketAddr, names: &[String], clients: usize) -> Result<Vec<Crew>, Failure> {
    let ports = learn(address, &names[0], SMALL_BYTES)?.ports;
    let crew = |(name, port): (&String, u16)| {
        let address = SocketAddr::new(address.ip(), port);
        let learned = learn(address, name, SMALL_BYTES)?;
        let mut generator = Generator::connect(address, clients)?;
        generator.run(&learned.opening, Duration::ZERO)?;
        Ok(Crew { generator, exchange: learned.echo })
    };
    names.iter().zip(ports).map(crew).collect()
}
