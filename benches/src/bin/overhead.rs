//! What a warm invocation costs over the bare machine: a blocking TCP echo and a Python function over HTTP, one client,
//! interleaved round by round in one run.
//!
//! The client runs on core 0; the echo server on core 1, and so do the one shard and the sandboxes of `pinned`. `default`
//! is a worker as it comes, on whatever cores the kernel and its configuration choose.
//!
//! Usage: `overhead [--json] [--rounds N] [--requests N]`.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::{Value, json};
use vilya_benches::peer::pin;
use vilya_benches::sample::{Rounds, Samples};
use vilya_worker::config::{Config, Host, Sources};
use vilya_worker::{Running, Worker};

/// The request of the floor: as many bytes as anchors of this field use for a small message.
const ECHO_BYTES: usize = 64;
const HELLO: &str = "def handler(event, context):\n    return {'hello': event['name']}\n";
const MANIFEST: &str = "name = \"hello\"\nruntime = \"python\"\nhandler = \"main.handler\"\n";

type Failure = Box<dyn std::error::Error>;

struct Options {
    json: bool,
    rounds: usize,
    requests: usize,
}

fn main() -> Result<(), Failure> {
    let options = options()?;
    // Before this thread is bound to one core, which is then all it would see.
    let machine = machine();
    let state = State::new()?;
    let core = std::thread::available_parallelism().map_or(0, |cores| usize::from(cores).min(2) - 1).to_string();
    let pinned = start(
        &state.0.join("pinned"),
        &[("cores.shards", &format!("[{core}]")), ("cores.sandboxes", &format!("[{core}]"))],
    )?;
    let default = start(&state.0.join("default"), &[])?;
    // After the workers have looked at the cores they may use.
    pin(Some(0));
    let figures = measure([pinned.address(), default.address()], &options);
    pinned.drain();
    default.drain();
    let report = figures?.report(machine, &options);
    if options.json {
        println!("{report:#}");
    } else {
        print_table(&report);
    }
    Ok(())
}

fn options() -> Result<Options, Failure> {
    let mut options = Options { json: false, rounds: 9, requests: 5000 };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut number = || -> Result<usize, Failure> {
            Ok(arguments.next().ok_or(format!("{argument} takes a number"))?.parse::<usize>()?.max(1))
        };
        match argument.as_str() {
            "--json" => options.json = true,
            "--rounds" => options.rounds = number()?,
            "--requests" => options.requests = number()?,
            other => return Err(format!("{other}: usage: overhead [--json] [--rounds N] [--requests N]").into()),
        }
    }
    Ok(options)
}

/// A state directory that goes with the program.
struct State(PathBuf);

impl State {
    fn new() -> io::Result<State> {
        let path = std::env::temp_dir().join(format!("vilya-overhead-{}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(State(path))
    }
}

impl Drop for State {
    fn drop(&mut self) {
        // What cannot be removed now is in the temporary directory.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn start(state: &Path, settings: &[(&str, &str)]) -> Result<Running, Failure> {
    let mut sources = Sources::default();
    for (key, value) in settings {
        sources.flags.push(((*key).into(), (*value).into()));
    }
    sources.flags.push(("server.address".into(), "127.0.0.1:0".into()));
    sources.flags.push(("server.state_directory".into(), state.display().to_string()));
    let config = Config::load(&sources, &Host::read()?)
        .map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))?;
    Ok(Worker::start(&config)?)
}

struct Figures {
    echo_p50_us: Rounds,
    echo_p99_us: Rounds,
    live_p50_us: Rounds,
    python_p50_us: Rounds,
    python_p99_us: Rounds,
    default_p50_us: Rounds,
    default_p99_us: Rounds,
}

fn measure(workers: [SocketAddr; 2], options: &Options) -> Result<Figures, Failure> {
    let [mut http, mut default] = [Connection::open(workers[0])?, Connection::open(workers[1])?];
    for connection in [&mut http, &mut default] {
        connection.exchange(&put("hello", &bundle()))?;
    }
    let invoke = post("hello", br#"{"name": "world"}"#);
    let live = b"GET /livez HTTP/1.1\r\nhost: bench\r\n\r\n".to_vec();
    let mut echo = Echo::start()?;
    let mut figures = Figures {
        echo_p50_us: Rounds::default(),
        echo_p99_us: Rounds::default(),
        live_p50_us: Rounds::default(),
        python_p50_us: Rounds::default(),
        python_p99_us: Rounds::default(),
        default_p50_us: Rounds::default(),
        default_p99_us: Rounds::default(),
    };
    // One round to warm up is thrown away.
    for round in 0..=options.rounds {
        let mut echoed = time(options.requests, || echo.exchange())?;
        let mut invoked = time(options.requests, || http.exchange(&invoke))?;
        let mut lived = time(options.requests, || http.exchange(&live))?;
        let mut by_default = time(options.requests, || default.exchange(&invoke))?;
        if round > 0 {
            figures.echo_p50_us.push(echoed.percentile_us(0.5));
            figures.echo_p99_us.push(echoed.percentile_us(0.99));
            figures.python_p50_us.push(invoked.percentile_us(0.5));
            figures.python_p99_us.push(invoked.percentile_us(0.99));
            figures.live_p50_us.push(lived.percentile_us(0.5));
            figures.default_p50_us.push(by_default.percentile_us(0.5));
            figures.default_p99_us.push(by_default.percentile_us(0.99));
        }
    }
    Ok(figures)
}

fn time(requests: usize, mut exchange: impl FnMut() -> io::Result<()>) -> io::Result<Samples> {
    let mut samples = Samples::default();
    for _ in 0..requests {
        let since = Instant::now();
        exchange()?;
        samples.push(since.elapsed().as_nanos() as u64);
    }
    Ok(samples)
}

impl Figures {
    fn report(&self, machine: Value, options: &Options) -> Value {
        let figure = |rounds: &Rounds| {
            let (least, most) = rounds.spread();
            json!({ "median": rounded(rounds.median()), "least": rounded(least), "most": rounded(most) })
        };
        json!({
            "machine": machine,
            "rounds": options.rounds,
            "requests": options.requests,
            "floor": { "tcp_echo_p50_us": figure(&self.echo_p50_us), "tcp_echo_p99_us": figure(&self.echo_p99_us) },
            "http": { "livez_p50_us": figure(&self.live_p50_us) },
            "python": { "http_p50_us": figure(&self.python_p50_us), "http_p99_us": figure(&self.python_p99_us) },
            "default": { "python_http_p50_us": figure(&self.default_p50_us), "python_http_p99_us": figure(&self.default_p99_us) },
            "ratio": {
                "python_http_p50": figure(&self.python_p50_us.over(&self.echo_p50_us)),
                "python_http_p99": figure(&self.python_p99_us.over(&self.echo_p99_us)),
                "http_livez_p50": figure(&self.live_p50_us.over(&self.echo_p50_us)),
                "default_python_http_p50": figure(&self.default_p50_us.over(&self.echo_p50_us)),
            },
        })
    }
}

fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

fn machine() -> Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model =
        cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ").map(|(_, name)| name));
    json!({
        "processor": model.unwrap_or("unknown"),
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
    })
}

fn print_table(report: &Value) {
    println!("{:<34}{:>10}{:>10}{:>10}", "", "median", "least", "most");
    for section in ["floor", "http", "python", "default", "ratio"] {
        for (name, figure) in report[section].as_object().into_iter().flatten() {
            let column = |of: &str| figure[of].as_f64().unwrap_or_default();
            let row = format!("{section}.{name}");
            println!("{row:<34}{:>10.3}{:>10.3}{:>10.3}", column("median"), column("least"), column("most"));
        }
    }
}

/// A blocking echo server on a thread, and a client of it.
struct Echo {
    stream: TcpStream,
    message: [u8; ECHO_BYTES],
}

impl Echo {
    fn start() -> io::Result<Echo> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        std::thread::spawn(move || -> io::Result<()> {
            pin(Some(1));
            let (mut stream, _) = listener.accept()?;
            stream.set_nodelay(true)?;
            let mut buffer = [0; ECHO_BYTES];
            loop {
                stream.read_exact(&mut buffer)?;
                stream.write_all(&buffer)?;
            }
        });
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Echo { stream, message: [7; ECHO_BYTES] })
    }

    fn exchange(&mut self) -> io::Result<()> {
        self.stream.write_all(&self.message)?;
        let mut back = [0; ECHO_BYTES];
        self.stream.read_exact(&mut back)
    }
}

/// A keep-alive HTTP connection.
struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    fn open(address: SocketAddr) -> io::Result<Connection> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Connection { stream, buffer: vec![0; 64 * 1024] })
    }

    /// Sends a request and reads its whole answer, which must be a success.
    fn exchange(&mut self, request: &[u8]) -> io::Result<()> {
        self.stream.write_all(request)?;
        let mut filled = 0;
        loop {
            let read = self.stream.read(&mut self.buffer[filled..])?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            filled += read;
            if whole(&self.buffer[..filled])? {
                return Ok(());
            }
        }
    }
}

/// Whether the bytes are a whole answer; an answer that is no success is an error.
fn whole(bytes: &[u8]) -> io::Result<bool> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(false) };
    let head = std::str::from_utf8(&bytes[..end]).map_err(io::Error::other)?;
    if !head.starts_with("HTTP/1.1 2") {
        return Err(io::Error::other(String::from_utf8_lossy(bytes).into_owned()));
    }
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("content-length").then(|| value.parse::<usize>().ok())?
    });
    Ok(bytes.len() >= end + 4 + length.unwrap_or(0))
}

fn post(name: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST /fn/{name} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn put(name: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("PUT /v1/functions/{name} HTTP/1.1\r\nhost: bench\r\ncontent-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// The function as a tar archive: two entries and two empty blocks (POSIX.1-1988 ustar).
fn bundle() -> Vec<u8> {
    let mut archive = Vec::new();
    for (name, text) in [("function.toml", MANIFEST), ("main.py", HELLO)] {
        let mut header = [0_u8; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[100..107].copy_from_slice(b"0000644");
        header[108..115].copy_from_slice(b"0000000");
        header[116..123].copy_from_slice(b"0000000");
        header[124..135].copy_from_slice(format!("{:011o}", text.len()).as_bytes());
        header[136..147].copy_from_slice(b"00000000000");
        header[156] = b'0';
        header[257..265].copy_from_slice(b"ustar\x0000");
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        archive.extend_from_slice(&header);
        archive.extend_from_slice(text.as_bytes());
        archive.resize(archive.len().next_multiple_of(512), 0);
    }
    archive.resize(archive.len() + 1024, 0);
    archive
}
