//! What a round trip through the reactor costs beside blocking `std::net`.
//!
//! One client, one loopback connection for each server, and rounds of the two interleaved, so that both see the same
//! machine. Prints the median round trip of each and their ratio:
//! `cargo run --release -p vilya-reactor --example echo`.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::thread;
use std::time::Instant;

use vilya_reactor::{Config, Op, Outcome, Reactor, SendData, Wait};

const ROUNDS: usize = 20;
const TRIPS_PER_ROUND: usize = 2_000;
const MESSAGE_BYTES: usize = 64;

fn main() {
    let blocking = listen();
    let reactor = listen();
    let mut to_blocking = connect(&blocking);
    let mut to_reactor = connect(&reactor);
    let servers = [thread::spawn(move || serve_blocking(&blocking)), thread::spawn(move || serve_reactor(&reactor))];
    let (mut blocking_ns, mut reactor_ns) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        round_trips(&mut to_blocking, &mut blocking_ns);
        round_trips(&mut to_reactor, &mut reactor_ns);
    }
    for stream in [to_blocking, to_reactor] {
        stream.shutdown(Shutdown::Write).expect("the server still reads");
    }
    for server in servers {
        server.join().expect("a server panicked");
    }
    let (blocking_ns, reactor_ns) = (median(&mut blocking_ns), median(&mut reactor_ns));
    println!("blocking std::net  {blocking_ns:>7} ns");
    println!("reactor            {reactor_ns:>7} ns");
    println!("ratio              {:>7.3}", reactor_ns as f64 / blocking_ns as f64);
}

fn listen() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").expect("loopback is up")
}

fn connect(listener: &TcpListener) -> TcpStream {
    let address = listener.local_addr().expect("a bound socket has an address");
    let stream = TcpStream::connect(address).expect("the listener's backlog has room");
    stream.set_nodelay(true).expect("TCP has TCP_NODELAY");
    stream
}

fn round_trips(stream: &mut TcpStream, times_ns: &mut Vec<u64>) {
    let mut message = [7; MESSAGE_BYTES];
    for _ in 0..TRIPS_PER_ROUND {
        let start = Instant::now();
        stream.write_all(&message).expect("the server reads");
        stream.read_exact(&mut message).expect("the server echoes");
        times_ns.push(start.elapsed().as_nanos() as u64);
    }
}

fn median(times_ns: &mut [u64]) -> u64 {
    times_ns.sort_unstable();
    times_ns[times_ns.len() / 2]
}

fn serve_blocking(listener: &TcpListener) {
    let (mut stream, _) = listener.accept().expect("a client connects");
    stream.set_nodelay(true).expect("TCP has TCP_NODELAY");
    let mut buffer = [0; 16 * 1024];
    loop {
        match stream.read(&mut buffer).expect("the client sends") {
            0 => return,
            bytes => stream.write_all(&buffer[..bytes]).expect("the client reads"),
        }
    }
}

fn serve_reactor(listener: &TcpListener) {
    let mut reactor = Reactor::new(&Config::default()).expect("this host has io_uring");
    let mut out = Vec::new();
    let accept = reactor.submit(0, Op::Accept { listener: listener.as_raw_fd() }).expect("nothing is in flight");
    let mut stream: Option<TcpStream> = None;
    let mut spare = Vec::new();
    let mut trips = 0_u64;
    'serve: loop {
        reactor.turn(Wait::Forever, &mut out).expect("the ring works");
        for completion in out.drain(..) {
            match completion.outcome {
                Outcome::Accepted(socket) => {
                    let accepted = TcpStream::from(socket);
                    accepted.set_nodelay(true).expect("TCP has TCP_NODELAY");
                    let receive = Op::Receive { socket: accepted.as_raw_fd() };
                    reactor.submit(0, receive).expect("little is in flight");
                    stream = Some(accepted);
                }
                Outcome::Received(chunk) => {
                    trips += 1;
                    let mut bytes: Vec<u8> = std::mem::take(&mut spare);
                    bytes.clear();
                    bytes.extend_from_slice(reactor.chunk(&chunk));
                    reactor.recycle(chunk);
                    let socket = stream.as_ref().expect("accepted before it received").as_raw_fd();
                    let send = Op::Send { socket, data: SendData::Owned(bytes) };
                    reactor.submit(0, send).expect("little is in flight");
                }
                Outcome::Sent(SendData::Owned(bytes)) => spare = bytes,
                Outcome::Ended => break 'serve,
                other => panic!("{other:?}"),
            }
        }
    }
    reactor.abandon(accept);
    let counters = reactor.counters();
    println!("reactor: {:.2} enters a trip", counters.enters as f64 / trips as f64);
}
