//! What may be typed after `vilya load`, and the manual that `--help` prints. Words only: [`super::plan`] says what they
//! come to, and refuses what makes no sense.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::arguments::Wire;

const MANUAL: &str = "\
Two ways to load:
  Closed loop, the default: each of --clients sends its next request when it has the answer to the last. It finds the
  throughput that so many clients reach. A slow answer also delays the requests that would have come after it, so its
  latencies say little about clients who come when they like.
  Open loop, with --rate or --rate-steps: requests are due by a schedule that does not wait for answers. Latency is
  counted from when a request was due, so a stall is felt by all that were due in it (no coordinated omission);
  service time, from when it was sent, is kept too. A request goes out on a free connection, or on a new one while
  there are fewer than --clients; beyond that it waits, its wait counts, and the report says that the bound was reached.

What is counted: requests due after the warm-up and before the end of the duration. Those still unanswered then are waited
  for, up to --timeout from when they were due. Latencies are of requests answered with 2xx; the others are counted by
  status and errorType, or by what broke, and have a row of their own. A request on a connection that breaks is not sent
  again.

What is reported: p50, p90, p99, p99.9, max and mean to three significant digits, up to ten minutes; the same for cold and
  warm starts apart, for the worker's own queue, start and run times (its server-timing header), and for overhead, which is
  latency less run; and a row a function and a size of payload, where there are several. Bytes are of whole messages,
  heads included.

Protocols: over HTTP a connection has one request at a time. With --protocol binary it has up to --pipeline of them, and each
  client has a connection to every shard that owns a function under load, so that no request is passed on; functions that
  move are followed. A closed loop then has --clients times --pipeline requests in flight.

Whether to believe it: the generator measures itself. Lateness is how long after a request was due, with a connection to
  spare, it was written; a thread's load is the time it ran and the time it waited for a core, as the kernel counts them.
  Where lateness is over a tenth of latency at p50, p99 or p99.9, or a thread's load is over nine tenths, the report says
  so: the figures then are an upper bound of latency, a lower one of throughput. On the machine of the worker, the generator
  takes processor time from what it measures.

--csv writes one row a counted request, with times in microseconds since the first step began to count:
  due_us,sent_us,done_us,function,status,start,queue_us,run_us,bytes_in,bytes_out,shard
  bytes_in are received, bytes_out sent, and tell sizes of payloads apart; status is a word where there was no answer; what
  is not known is empty. A thread of its own writes them. If the disk cannot keep up, rows are dropped and the report says
  how many.

Examples:
  vilya load hello -d '{\"name\": \"you\"}' --clients 16
  vilya load hello=9 thumbnail=1 --rate 500 --duration 30s
  vilya load upper --payload 64KiB --rate-steps 1000,2000,5000 --json
  vilya load upper --payload 1KiB=9,64KiB=1 --csv rows.csv
  vilya load hello --protocol binary --clients 2 --pipeline 64
  vilya load hello --clients 4 --count 10000 --warm-up 0s --csv rows.csv

Exit codes: 0 all requests succeeded, 1 some failed, 2 usage, 3 no worker answers, 5 this machine refused (a file, a
  socket), 130 interrupted (what was measured until then is printed).";

/// When requests of an open loop are due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Arrivals {
    /// Independent of each other, as many clients' are: exponential gaps
    Poisson,
    /// One every 1/rate seconds
    Constant,
}

/// `vilya load`, as typed.
#[derive(Clone, Debug, Args)]
#[command(after_long_help = MANUAL)]
pub(crate) struct Load {
    /// The functions; with several, WEIGHT (a whole number, 1 unless given) is each one's share of the requests
    #[arg(value_name = "NAME[=WEIGHT]", required = true)]
    pub(crate) functions: Vec<String>,
    /// Closed loop: clients. Open loop: the most connections [default: 1; 256 in an open loop]
    #[arg(long, value_name = "N")]
    pub(crate) clients: Option<usize>,
    #[command(flatten)]
    pub(crate) wire: Wire,
    /// Binary protocol: most requests in flight on one connection
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) pipeline: usize,
    /// Open loop: requests due per second
    #[arg(long, value_name = "R", conflicts_with = "rate_steps")]
    pub(crate) rate: Option<f64>,
    /// Open loop at each of these rates in turn, one row a rate
    #[arg(long, value_name = "R,R,...", value_delimiter = ',')]
    pub(crate) rate_steps: Vec<f64>,
    /// When requests of an open loop are due
    #[arg(long, value_enum, default_value = "poisson")]
    pub(crate) arrivals: Arrivals,
    /// How long requests are counted; of each rate step, too
    #[arg(long, value_name = "TIME", default_value = "10s", conflicts_with = "count")]
    pub(crate) duration: String,
    /// Count exactly so many requests instead (at each rate)
    #[arg(long, value_name = "N")]
    pub(crate) count: Option<u64>,
    /// How long to send before requests are counted; before each rate step, too
    #[arg(long, value_name = "TIME", default_value = "1s")]
    pub(crate) warm_up: String,
    /// A request not answered so long after it was due has failed
    #[arg(long, value_name = "TIME", default_value = "30s")]
    pub(crate) timeout: String,
    /// The payload: text, or @FILE for a file; nothing when absent
    #[arg(short, long, value_name = "DATA|@FILE", allow_hyphen_values = true, conflicts_with = "payload")]
    pub(crate) data: Option<String>,
    /// Payloads of these sizes, as 1KiB=9,64KiB: letters that repeat; WEIGHT (a whole number, 1 unless given) is each
    /// one's share of the requests to every function
    #[arg(long, value_name = "SIZE[=WEIGHT],...", value_delimiter = ',')]
    pub(crate) payload: Vec<String>,
    /// What the payload is; unless given, application/json when it is JSON, else text or bytes
    #[arg(long, value_name = "TYPE")]
    pub(crate) content_type: Option<String>,
    /// Threads that send [default: half of the cores, and no more than clients]
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,
    /// Where the schedule and the choice of functions and payloads start; the same seed gives the same ones [default: by
    /// the clock]
    #[arg(long, value_name = "S")]
    pub(crate) seed: Option<u64>,
    /// Print one JSON object, in seconds and bytes, instead of tables
    #[arg(long)]
    pub(crate) json: bool,
    /// Write one row a request to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) csv: Option<PathBuf>,
}
