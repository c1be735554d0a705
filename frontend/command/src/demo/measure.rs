//! What the demo measures of one function, as a client on the same machine sees it: the first invocation, then one after
//! the other on one connection, then several clients at once. Every answer is checked, not only its status.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::connection::{Broken, Connection, Rendered, Reply};

/// How much of each phase.
#[derive(Clone, Copy, Debug)]
pub(super) struct Effort {
    /// Invocations one after the other, unless the time is up before.
    pub(super) sequential: usize,
    pub(super) sequential_time: Duration,
    pub(super) clients: usize,
    /// The clients run this long before their answers count, so that sandboxes they cause to start do not.
    pub(super) settling_time: Duration,
    pub(super) counted_time: Duration,
}

impl Effort {
    pub(super) const USUAL: Effort = Effort {
        sequential: 1_000,
        sequential_time: Duration::from_millis(1_200),
        clients: 4,
        settling_time: Duration::from_millis(400),
        counted_time: Duration::from_millis(800),
    };
}

/// One function under measurement.
pub(super) struct Subject<'a> {
    pub(super) address: SocketAddr,
    pub(super) request: Rendered,
    /// Says what is wrong with an answer's body, if anything is.
    pub(super) check: &'a (dyn Fn(&[u8]) -> Result<(), String> + Sync),
    /// Set when the person at the terminal has had enough.
    pub(super) interrupted: &'a AtomicBool,
}

/// Times in nanoseconds; percentiles by nearest rank.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Measured {
    pub(super) cold_ns: u64,
    /// Of it, as the worker says, the start of the sandbox.
    pub(super) cold_start_ns: Option<u64>,
    pub(super) warm_count: usize,
    pub(super) warm_p50_ns: u64,
    pub(super) warm_p99_ns: u64,
    /// The client's time less the function's own run: the price of the platform, the socket and the client.
    pub(super) overhead_p50_ns: Option<u64>,
    pub(super) throughput_per_s: f64,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum Unmeasured {
    #[error(transparent)]
    Broken(#[from] Broken),
    #[error("answered {status}: {body}")]
    Status { status: u16, body: String },
    #[error("answered 200 with a wrong result: {0}")]
    Wrong(String),
    #[error("the first invocation did not start a sandbox of its own")]
    NotCold,
    #[error("interrupted")]
    Interrupted,
}

impl Subject<'_> {
    pub(super) fn measure(&self, effort: &Effort) -> Result<Measured, Unmeasured> {
        let mut connection = Connection::open(self.address)?;
        let (cold, cold_ns) = self.invoke(&mut connection)?;
        if !cold.cold {
            return Err(Unmeasured::NotCold);
        }
        let (mut warm_ns, mut overhead_ns) = self.one_after_the_other(&mut connection, effort)?;
        drop(connection);
        let throughput_per_s = self.at_once(effort)?;
        Ok(Measured {
            cold_ns,
            cold_start_ns: cold.start_ms.map(to_ns),
            warm_count: warm_ns.len(),
            warm_p50_ns: percentile(&mut warm_ns, 50).ok_or(Unmeasured::Interrupted)?,
            warm_p99_ns: percentile(&mut warm_ns, 99).ok_or(Unmeasured::Interrupted)?,
            overhead_p50_ns: percentile(&mut overhead_ns, 50),
            throughput_per_s,
        })
    }

    /// One invocation, its answer checked outside the time taken.
    fn invoke(&self, connection: &mut Connection) -> Result<(Reply, u64), Unmeasured> {
        // Relaxed: a flag that stands alone; nothing is published with it.
        if self.interrupted.load(Ordering::Relaxed) {
            return Err(Unmeasured::Interrupted);
        }
        let sent = Instant::now();
        let reply = connection.exchange(&self.request)?;
        let took_ns = u64::try_from(sent.elapsed().as_nanos()).unwrap_or(u64::MAX);
        if reply.status != 200 {
            let body = String::from_utf8_lossy(connection.body()).trim().to_owned();
            return Err(Unmeasured::Status { status: reply.status, body });
        }
        (self.check)(connection.body()).map_err(Unmeasured::Wrong)?;
        Ok((reply, took_ns))
    }

    /// Times and overheads of sequential invocations.
    fn one_after_the_other(
        &self,
        connection: &mut Connection,
        effort: &Effort,
    ) -> Result<(Vec<u64>, Vec<u64>), Unmeasured> {
        let (mut times_ns, mut overheads_ns) = (Vec::new(), Vec::new());
        let until = Instant::now() + effort.sequential_time;
        while times_ns.is_empty() || (times_ns.len() < effort.sequential && Instant::now() < until) {
            let (reply, took_ns) = self.invoke(connection)?;
            times_ns.push(took_ns);
            overheads_ns.extend(reply.run_ms.map(|run_ms| took_ns.saturating_sub(to_ns(run_ms))));
        }
        Ok((times_ns, overheads_ns))
    }

    /// Answers a second with every client sending its next request when it has the last answer (a closed loop).
    fn at_once(&self, effort: &Effort) -> Result<f64, Unmeasured> {
        let counting = AtomicBool::new(false);
        let over = AtomicBool::new(false);
        let counted = AtomicU64::new(0);
        // Relaxed throughout: the flags and the count stand alone, and the threads are joined before the count is read.
        let client = || -> Result<(), Unmeasured> {
            let mut connection = Connection::open(self.address)?;
            while !over.load(Ordering::Relaxed) {
                self.invoke(&mut connection)?;
                if counting.load(Ordering::Relaxed) {
                    counted.fetch_add(1, Ordering::Relaxed);
                }
            }
            Ok(())
        };
        let mut counted_time = Duration::ZERO;
        let outcomes: Vec<Result<(), Unmeasured>> = thread::scope(|scope| {
            let clients: Vec<_> = (0..effort.clients).map(|_| scope.spawn(client)).collect();
            thread::sleep(effort.settling_time);
            counting.store(true, Ordering::Relaxed);
            let started = Instant::now();
            thread::sleep(effort.counted_time);
            counting.store(false, Ordering::Relaxed);
            counted_time = started.elapsed();
            over.store(true, Ordering::Relaxed);
            clients.into_iter().map(|client| client.join().expect("a client thread returns its failures")).collect()
        });
        outcomes.into_iter().collect::<Result<(), Unmeasured>>()?;
        Ok(counted.load(Ordering::Relaxed) as f64 / counted_time.as_secs_f64())
    }
}

fn to_ns(duration_ms: f64) -> u64 {
    // A float-to-integer `as` saturates, and a negative or missing number is zero.
    (duration_ms * 1e6) as u64
}

/// The smallest value that at least `percent` of the values do not exceed (nearest rank). `None` of nothing.
fn percentile(values: &mut [u64], percent: usize) -> Option<u64> {
    values.sort_unstable();
    let rank = (values.len() * percent).div_ceil(100).max(1);
    values.get(rank - 1).copied()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    /// A worker of one function with an empty request body: the first answer is cold, all say `body`.
    fn worker(status: u16, body: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let started = std::sync::Arc::new(AtomicBool::new(false));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, started) = (stream.unwrap(), std::sync::Arc::clone(&started));
                thread::spawn(move || {
                    let mut request = [0; 4096];
                    while stream.read(&mut request).is_ok_and(|bytes| bytes > 0) {
                        let start = if started.swap(true, Ordering::SeqCst) { "warm" } else { "cold" };
                        let answer = format!(
                            "HTTP/1.1 {status} X\r\ncontent-length: {}\r\nx-vilya-start: {start}\r\n\
                             server-timing: run;dur=0\r\n\r\n{body}",
                            body.len()
                        );
                        if stream.write_all(answer.as_bytes()).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        address
    }

    const BRIEF: Effort = Effort {
        sequential: 5,
        sequential_time: Duration::from_secs(60),
        clients: 2,
        settling_time: Duration::ZERO,
        counted_time: Duration::from_millis(20),
    };

    fn measure(address: SocketAddr, interrupted: bool) -> Result<Measured, Unmeasured> {
        let check = |body: &[u8]| if body == b"right" { Ok(()) } else { Err("not right".to_owned()) };
        let request = Rendered::invocation("f", "text/plain", b"");
        Subject { address, request, check: &check, interrupted: &AtomicBool::new(interrupted) }.measure(&BRIEF)
    }

    #[test]
    fn a_function_that_answers_right_is_measured() {
        let measured = measure(worker(200, "right"), false).unwrap();
        assert_eq!(measured.warm_count, BRIEF.sequential);
        assert!(measured.warm_p50_ns <= measured.warm_p99_ns);
        assert_eq!(measured.overhead_p50_ns, Some(measured.warm_p50_ns));
        assert_eq!(measured.cold_start_ns, None);
    }

    #[test]
    fn wrong_answers_failures_and_interrupts_are_no_measurement() {
        assert!(matches!(measure(worker(200, "wrong"), false), Err(Unmeasured::Wrong(_))));
        assert!(matches!(measure(worker(500, "right"), false), Err(Unmeasured::Status { status: 500, .. })));
        assert!(matches!(measure(worker(200, "right"), true), Err(Unmeasured::Interrupted)));
        let used = worker(200, "right");
        measure(used, false).unwrap();
        assert!(matches!(measure(used, false), Err(Unmeasured::NotCold)));
    }

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let mut values: Vec<u64> = (1..=200).rev().collect();
        assert_eq!(percentile(&mut values, 50), Some(100));
        assert_eq!(percentile(&mut values, 99), Some(198));
        assert_eq!(percentile(&mut [7], 99), Some(7));
        assert_eq!(percentile(&mut [], 50), None);
    }
}
