//! A load that makes sense: what was typed, checked and completed, with every bound of the generator in one place.
//!
//! Invariant: a [`Plan`] can be run as it is; whatever is wrong with the arguments has been said before anything is sent.

use std::net::{SocketAddr, ToSocketAddrs};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use vilya_worker::config::units::parse_duration;

use super::arguments::{Arrivals, Load};
use super::request::{Function, PayloadSize, Payloads, Shape, functions};
use super::schedule::Mix;
pub(super) use crate::arguments::Protocol;
use crate::failure::Failure;

const CLIENTS_MAX: usize = 16_384;
const PIPELINE_MAX: usize = 65_536;
/// Clients, by the requests that each may have in flight.
const PLACES_MAX: usize = 1 << 20;
const THREADS_MAX: usize = 64;
const STEPS_MAX: usize = 100;
const RATE_MAX_PER_S: f64 = 10_000_000.0;
const OPEN_LOOP_CONNECTIONS: usize = 256;
/// Descriptors that are not connections: standard ones, epoll and timers, the rows.
const OTHER_DESCRIPTORS: u64 = 32 + 2 * THREADS_MAX as u64;

/// What makes clients send.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Pace {
    /// The answer to the last request.
    Closed,
    /// A schedule, at each of these rates in turn.
    Open { arrivals: Arrivals, rates_per_s: Vec<f64> },
}

/// How much is counted in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    Duration { ns: u64 },
    Count(u64),
}

#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) server: String,
    pub(super) protocol: Protocol,
    pub(super) address: SocketAddr,
    pub(super) content_type: String,
    /// Most requests in flight on one connection.
    pub(super) pipeline: usize,
    pub(super) functions: Vec<Function>,
    pub(super) payloads: Vec<PayloadSize>,
    pub(super) pace: Pace,
    /// Clients of a closed loop, the most connections of an open one.
    pub(super) clients: usize,
    pub(super) threads: usize,
    pub(super) warm_up_ns: u64,
    pub(super) extent: Extent,
    pub(super) timeout_ns: u64,
    pub(super) seed: u64,
}

impl Plan {
    /// `cores` and `clock_seed` are what stands in for `--threads` and `--seed`.
    pub(super) fn new(server: &str, asked: &Load, cores: usize, clock_seed: u64) -> Result<Plan, Failure> {
        let (host, address) = match asked.wire.protocol {
            Protocol::Http => resolve(server)?,
            Protocol::Binary => {
                let address = &asked.wire.wire_address;
                (address.clone(), found(address)?)
            }
        };
        let Payloads { bytes, sizes: payloads } = Payloads::new(asked)?;
        let content_type = asked.content_type.as_deref().unwrap_or_else(|| bytes.content_type());
        if content_type.is_empty() || !content_type.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
            return Err(Failure::usage("--content-type: write a media type, such as application/json"));
        }
        if asked.wire.protocol == Protocol::Binary && content_type.len() > usize::from(u8::MAX) {
            return Err(Failure::usage("--content-type: over the binary protocol at most 255 characters"));
        }
        let shape = Shape { host: &host, content_type, bytes: &bytes.bytes, sizes: &payloads };
        let functions = functions(&asked.functions, &shape)?;
        let pace = pace(asked)?;
        let usual = if pace == Pace::Closed { 1 } else { OPEN_LOOP_CONNECTIONS };
        let clients = within("--clients", asked.clients.unwrap_or(usual), CLIENTS_MAX)?;
        let pipeline = within("--pipeline", asked.pipeline, PIPELINE_MAX)?;
        if pipeline > 1 && asked.wire.protocol == Protocol::Http {
            return Err(Failure::usage(
                "--pipeline: over HTTP a connection has one request at a time; add --protocol binary",
            ));
        }
        if clients * pipeline > PLACES_MAX {
            let product = format_args!("--clients {clients} times --pipeline {pipeline}: at most {PLACES_MAX}");
            return Err(Failure::usage(product));
        }
        let threads = within("--threads", asked.threads.unwrap_or((cores / 2).clamp(1, THREADS_MAX)), THREADS_MAX)?;
        let extent = match asked.count {
            Some(count) if count > 0 => Extent::Count(count),
            Some(_) => return Err(Failure::usage("--count 0: count at least one request")),
            None => Extent::Duration { ns: positive("--duration", &asked.duration)? },
        };
        Ok(Plan {
            server: match asked.wire.protocol {
                Protocol::Http => server.trim_end_matches('/').to_owned(),
                Protocol::Binary => host,
            },
            protocol: asked.wire.protocol,
            address,
            content_type: content_type.to_owned(),
            pipeline,
            functions,
            payloads,
            pace,
            clients,
            threads: threads.min(clients),
            warm_up_ns: duration_ns("--warm-up", &asked.warm_up)?,
            extent,
            timeout_ns: positive("--timeout", &asked.timeout)?,
            seed: asked.seed.unwrap_or(clock_seed),
        })
    }

    pub(super) fn mix(&self) -> Mix {
        let functions = self.functions.iter().map(|function| function.weight);
        Mix::new(functions, self.payloads.iter().map(|payload| payload.weight))
    }

    /// The rate of each step; a closed loop is one step without.
    pub(super) fn steps(&self) -> Vec<Option<f64>> {
        match &self.pace {
            Pace::Closed => vec![None],
            Pace::Open { rates_per_s, .. } => rates_per_s.iter().copied().map(Some).collect(),
        }
    }

    /// How many of the clients are `thread`'s: as even as can be.
    pub(super) fn clients_of(&self, thread: usize) -> usize {
        self.clients / self.threads + usize::from(thread < self.clients % self.threads)
    }

    /// How many requests may be in flight on `thread`.
    pub(super) fn places_of(&self, thread: usize) -> usize {
        self.clients_of(thread) * self.pipeline
    }

    /// Makes room for as many sockets as there may be connections: `lanes` a client.
    pub(super) fn reserve_descriptors(&self, lanes: usize) -> Result<(), Failure> {
        let needed = (self.clients * lanes) as u64 + OTHER_DESCRIPTORS;
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)
            .map_err(|error| Failure::local(format_args!("cannot read the limit on open files: {error}")))?;
        if soft >= needed {
            return Ok(());
        }
        setrlimit(Resource::RLIMIT_NOFILE, needed.min(hard), hard).ok().filter(|()| hard >= needed).ok_or_else(|| {
            Failure::local(format_args!(
                "{} clients need {needed} open files and {hard} are allowed: raise it with `ulimit -Hn`, or lower \
                     --clients",
                self.clients
            ))
        })
    }
}

fn resolve(server: &str) -> Result<(String, SocketAddr), Failure> {
    let base = server.trim_end_matches('/');
    let host =
        base.strip_prefix("http://").filter(|host| !host.is_empty() && !host.contains('/')).ok_or_else(|| {
            let usual = crate::arguments::DEFAULT_SERVER;
            Failure::usage(format_args!("{server:?} is no worker's address: write it as {usual}"))
        })?;
    let with_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let target = if with_port { host.to_owned() } else { format!("{host}:80") };
    Ok((host.to_owned(), found(&target)?))
}

fn found(target: &str) -> Result<SocketAddr, Failure> {
    let found = target.to_socket_addrs().ok().and_then(|mut addresses| addresses.next());
    found.ok_or_else(|| Failure::usage(format_args!("{target:?} is no host and port that can be found")))
}

fn pace(asked: &Load) -> Result<Pace, Failure> {
    let rates_per_s: Vec<f64> = asked.rate.iter().chain(&asked.rate_steps).copied().collect();
    if rates_per_s.len() > STEPS_MAX {
        return Err(Failure::usage(format_args!("--rate-steps: at most {STEPS_MAX}")));
    }
    if let Some(wrong) = rates_per_s.iter().find(|rate| !(**rate > 0.0 && **rate <= RATE_MAX_PER_S)) {
        return Err(Failure::usage(format_args!(
            "a rate of {wrong}: write requests per second, over 0 and up to {RATE_MAX_PER_S}"
        )));
    }
    Ok(if rates_per_s.is_empty() { Pace::Closed } else { Pace::Open { arrivals: asked.arrivals, rates_per_s } })
}

fn within(flag: &str, number: usize, most: usize) -> Result<usize, Failure> {
    if (1..=most).contains(&number) {
        return Ok(number);
    }
    Err(Failure::usage(format_args!("{flag} {number}: write a number from 1 to {most}")))
}

fn duration_ns(flag: &str, text: &str) -> Result<u64, Failure> {
    /// A day: beyond it the clock's arithmetic would have to be looked at again.
    const MOST_NS: u64 = 86_400_000_000_000;
    let ns = parse_duration(text).map_err(|error| Failure::usage(format_args!("{flag}: {error}")))?;
    if ns > MOST_NS { Err(Failure::usage(format_args!("{flag} {text}: at most 24h"))) } else { Ok(ns) }
}

fn positive(flag: &str, text: &str) -> Result<u64, Failure> {
    match duration_ns(flag, text)? {
        0 => Err(Failure::usage(format_args!("{flag} {text}: write a time over zero"))),
        ns => Ok(ns),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        load: Load,
    }

    pub(in crate::load) fn plan(words: &str) -> Result<Plan, Failure> {
        let line = Line::try_parse_from(["load"].into_iter().chain(words.split_whitespace())).unwrap();
        Plan::new("http://127.0.0.1:7878", &line.load, 8, 5)
    }

    #[test]
    fn what_was_not_typed_is_completed() {
        let closed = plan("hello").unwrap();
        assert_eq!((closed.clients, closed.threads, closed.seed), (1, 1, 5));
        assert_eq!(closed.extent, Extent::Duration { ns: 10_000_000_000 });
        assert_eq!(closed.steps(), [None]);
        let open = plan("hello --rate-steps 10,20.5").unwrap();
        assert_eq!((open.clients, open.threads), (256, 4));
        assert_eq!(open.steps(), [Some(10.0), Some(20.5)]);
    }

    #[test]
    fn the_binary_protocol_has_an_address_and_places_of_its_own() {
        let plan = plan("a -d {} --protocol binary --clients 5 --threads 2 --pipeline 3").unwrap();
        assert_eq!((plan.address, plan.server.as_str()), (([127, 0, 0, 1], 7879).into(), "127.0.0.1:7879"));
        assert_eq!([plan.places_of(0), plan.places_of(1)], [9, 6]);
        assert_eq!(
            (plan.functions[0].requests[0].payload(), plan.content_type.as_str()),
            (&b"{}"[..], "application/json")
        );
        let elsewhere = self::plan("a --protocol binary --wire-address 127.0.0.1:99").unwrap();
        assert_eq!((elsewhere.address.port(), elsewhere.pipeline), (99, 1));
    }

    #[test]
    fn nonsense_is_refused_before_anything_is_sent() {
        for words in [
            "a=0",
            "a=x",
            "a a=2",
            "../x",
            "a --clients 0",
            "a --clients 99999",
            "a --threads 0",
            "a --rate 0",
            "a --rate NaN",
            "a --rate-steps 10,-1",
            "a --count 0",
            "a --duration 0s",
            "a --duration 10",
            "a --warm-up 99h",
            "a --payload lots",
            "a --payload 1KiB,",
            "a --payload 1KiB=0",
            "a --payload 1KiB=1.5",
            "a --payload 1KiB,1024=2",
            "a --payload 1GiB,1",
            "a b --payload 600MiB",
            "a -d -",
            "a --pipeline 2",
            "a --protocol binary --pipeline 0",
            "a --protocol binary --clients 16000 --pipeline 1000",
            "a --protocol binary --wire-address 127.0.0.1",
        ] {
            assert_eq!(plan(words).err().map(|failure| failure.fault().code()), Some(2), "{words}");
        }
    }

    #[test]
    fn clients_are_shared_out_evenly_and_all() {
        let plan = plan("a --clients 7 --threads 3").unwrap();
        assert_eq!((0..3).map(|thread| plan.clients_of(thread)).collect::<Vec<_>>(), [3, 2, 2]);
    }
}
