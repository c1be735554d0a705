//! The client's half of the binary protocol: what a closed loop sends, and a client that pipelines on one connection.
//!
//! Payloads are small: a request and its answer are one frame each.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use vilya_protocol::wire::{ClientDecoder, ClientItem, Hello, RequestHead, VERSION, hello, request_head};

use crate::exchange::{Exchange, MARK, payload};

/// Where a header has the id of its request.
const ID_OFFSET: usize = 8;
/// The part of a header that is the same in every answer of one kind: length, kind, flags and status.
const ALIKE_BYTES: usize = 8;
/// The server may send this much of an answer at once.
const RESPONSE_CREDIT_BYTES: u64 = 1 << 20;
const INPUT_BYTES: usize = 256 * 1024;
/// A server that says nothing for so long is dead.
const PATIENCE_MS: u16 = 30_000;

/// What was learned of a server: how a connection opens, and an echo on an open one.
pub struct Learned {
    /// HELLO, and the WELCOME that it got.
    pub opening: Exchange,
    /// A request with id 1, and how its answers begin.
    pub echo: Exchange,
    /// Requests that a connection may have in flight.
    pub in_flight: usize,
    /// The port of each shard.
    pub ports: Vec<u16>,
}

/// Opens a connection and makes one request, so that a closed loop needs to decode nothing.
///
/// # Errors
/// The connection's, or a server that does not answer with the payload.
pub fn learn(address: SocketAddr, function: &str, bytes: usize) -> io::Result<Learned> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let mut decoder = ClientDecoder::new();
    stream.write_all(&greeting())?;
    let (mut in_flight, mut shard_ports, mut welcomed) = (0, Vec::new(), Vec::new());
    until(&mut stream, &mut decoder, &mut welcomed, |item| match item {
        ClientItem::Welcome { welcome, ports } if welcome.request_credit_bytes >= bytes as u64 => {
            in_flight = welcome.in_flight as usize;
            shard_ports = ports.collect();
            Ok(true)
        }
        other => Err(unexpected(&other)),
    })?;
    let request = request(function, bytes)?;
    stream.write_all(&request)?;
    let mut answer = Vec::new();
    until(&mut stream, &mut decoder, &mut answer, |item| match item {
        ClientItem::Response(head) if head.status == 200 && head.bytes == bytes as u64 && head.whole() => Ok(false),
        ClientItem::Payload { frame_done, .. } => Ok(frame_done),
        other => Err(unexpected(&other)),
    })?;
    let head = answer[..ALIKE_BYTES].to_vec();
    Ok(Learned {
        opening: Exchange { request: greeting(), head: welcomed.clone(), tail: welcomed },
        echo: Exchange { request, head, tail: MARK.to_vec() },
        in_flight,
        ports: shard_ports,
    })
}

/// Reads and decodes until `done` says so; what was read is in `bytes`.
fn until(
    stream: &mut TcpStream,
    decoder: &mut ClientDecoder,
    bytes: &mut Vec<u8>,
    mut done: impl FnMut(ClientItem<'_>) -> io::Result<bool>,
) -> io::Result<()> {
    let mut piece = [0; 4096];
    loop {
        let read = stream.read(&mut piece)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes.extend_from_slice(&piece[..read]);
        let mut at = 0;
        while at < read {
            let step = decoder.decode(&piece[at..read]).map_err(io::Error::other)?;
            at += step.consumed;
            if !matches!(step.item, ClientItem::NeedMore) && done(step.item)? {
                return Ok(());
            }
        }
    }
}

fn unexpected(item: &ClientItem<'_>) -> io::Error {
    io::Error::other(format!("not the frame that was expected: {item:?}"))
}

fn greeting() -> Vec<u8> {
    let mut out = Vec::new();
    let versions = Hello {
        lowest_version: VERSION,
        highest_version: VERSION,
        wants_map: false,
        takes_parts: false,
        response_credit_bytes: RESPONSE_CREDIT_BYTES,
    };
    hello(&mut out, &versions);
    out
}

fn request(function: &str, bytes: usize) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    let head = RequestHead { bytes: bytes as u64, payload_bytes: bytes as u32, ..RequestHead::new(1, function) };
    request_head(&mut out, &head).map_err(io::Error::other)?;
    out.extend_from_slice(&payload(bytes));
    Ok(out)
}

/// One connection with many requests in flight. Requests are sent in batches: when a quarter of them is answered.
pub struct Pipeline {
    stream: TcpStream,
    decoder: ClientDecoder,
    request: Vec<u8>,
    payload_bytes: u64,
    /// By id: whether its request is in flight. The first is no id.
    busy: Vec<bool>,
    free: Vec<u64>,
    output: Vec<u8>,
    written: usize,
    input: Box<[u8]>,
    /// Whose payload is being read.
    answering: u64,
}

impl Pipeline {
    /// Opens a connection for so many requests in flight, or as many as the server allows.
    ///
    /// # Errors
    /// The connection's, or a server that does not answer with the payload.
    pub fn connect(address: SocketAddr, function: &str, bytes: usize, depth: usize) -> io::Result<Pipeline> {
        let learned = learn(address, function, bytes)?;
        let depth = depth.min(learned.in_flight);
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        let mut decoder = ClientDecoder::new();
        stream.write_all(&learned.opening.request)?;
        until(&mut stream, &mut decoder, &mut Vec::new(), |item| Ok(matches!(item, ClientItem::Welcome { .. })))?;
        stream.set_nonblocking(true)?;
        Ok(Pipeline {
            stream,
            decoder,
            output: Vec::with_capacity(depth * learned.echo.request.len()),
            request: learned.echo.request,
            payload_bytes: bytes as u64,
            busy: vec![false; depth + 1],
            free: (1..=depth as u64).collect(),
            written: 0,
            input: vec![0; INPUT_BYTES].into_boxed_slice(),
            answering: 0,
        })
    }

    /// Keeps requests in flight for so long, then waits for the last answers: answers, and answers a second.
    ///
    /// # Errors
    /// The connection's, or an answer that was not expected.
    pub fn run(&mut self, window: Duration) -> io::Result<(u64, f64)> {
        let started = Instant::now();
        let batch = (self.busy.len() / 4).max(1);
        let mut answers = 0;
        loop {
            let sending = started.elapsed() < window;
            if sending && self.free.len() >= batch {
                self.fill();
            }
            self.flush()?;
            match self.stream.read(&mut self.input) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => answers += self.take(read)?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if !sending && self.free.len() + 1 == self.busy.len() {
                        return Ok((answers, answers as f64 / started.elapsed().as_secs_f64()));
                    }
                    if self.free.len() < batch || !sending {
                        self.wait()?;
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Puts a request for every free id behind what waits to be sent.
    fn fill(&mut self) {
        for id in self.free.drain(..) {
            self.busy[id as usize] = true;
            let at = self.output.len() + ID_OFFSET;
            self.output.extend_from_slice(&self.request);
            self.output[at..at + 8].copy_from_slice(&id.to_le_bytes());
        }
    }

    /// Sends as much as the socket takes.
    fn flush(&mut self) -> io::Result<()> {
        while self.written < self.output.len() {
            match self.stream.write(&self.output[self.written..]) {
                Ok(written) => self.written += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        self.output.clear();
        self.written = 0;
        Ok(())
    }

    fn wait(&self) -> io::Result<()> {
        let mut events = PollFlags::POLLIN;
        events.set(PollFlags::POLLOUT, self.written < self.output.len());
        match poll(&mut [PollFd::new(self.stream.as_fd(), events)], PollTimeout::from(PATIENCE_MS))? {
            0 => Err(io::ErrorKind::TimedOut.into()),
            _ => Ok(()),
        }
    }

    /// Decodes what was read; how many requests it answered.
    fn take(&mut self, read: usize) -> io::Result<u64> {
        let (mut at, mut answers) = (0, 0);
        while at < read {
            let step = self.decoder.decode(&self.input[at..read]).map_err(io::Error::other)?;
            at += step.consumed;
            match step.item {
                ClientItem::NeedMore | ClientItem::Payload { frame_done: false, .. } => {}
                ClientItem::Response(head)
                    if head.status == 200 && head.bytes == self.payload_bytes && head.whole() =>
                {
                    self.answering = head.id;
                }
                ClientItem::Payload { frame_done: true, .. } => {
                    let busy = self.busy.get_mut(self.answering as usize).filter(|busy| **busy);
                    *busy.ok_or_else(|| io::Error::other("an answer to no request"))? = false;
                    self.free.push(self.answering);
                    answers += 1;
                }
                other => return Err(unexpected(&other)),
            }
        }
        Ok(answers)
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use vilya_protocol::wire::{Item, Limits, Report, ResponseHead, ServerDecoder, Welcome, response_head, welcome};

    use super::*;
    use crate::client::Client;

    /// A server that echoes; small requests come whole in one frame.
    fn serve(mut stream: TcpStream) -> io::Result<()> {
        let mut decoder = ServerDecoder::new(Limits::DEFAULT);
        let (mut input, mut out, mut id, mut body) = ([0; 4096], Vec::new(), 0, Vec::new());
        loop {
            let read = stream.read(&mut input)?;
            let mut at = 0;
            while at < read {
                let step = decoder.decode(&input[at..read]).map_err(io::Error::other)?;
                at += step.consumed;
                match step.item {
                    Item::Hello(_) => {
                        let offer = Welcome {
                            version: VERSION,
                            shard: 0,
                            frame_bytes: Limits::DEFAULT.frame_bytes,
                            in_flight: 100,
                            payload_bytes: 1 << 20,
                            request_credit_bytes: 1 << 16,
                        };
                        welcome(&mut out, &offer, &[7880]);
                    }
                    Item::Request(head) => id = head.id,
                    Item::Payload { bytes, frame_done } => {
                        body.extend_from_slice(bytes);
                        if frame_done {
                            let bytes = body.len();
                            let head = ResponseHead {
                                id,
                                status: 200,
                                bytes: bytes as u64,
                                in_parts: false,
                                report: Report::default(),
                                content_type: b"",
                                payload_bytes: bytes as u32,
                            };
                            response_head(&mut out, &head).map_err(io::Error::other)?;
                            out.append(&mut body);
                        }
                    }
                    _ => {}
                }
            }
            stream.write_all(&out)?;
            out.clear();
            if read == 0 {
                return Ok(());
            }
        }
    }

    fn server() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                std::thread::spawn(move || serve(stream));
            }
        });
        address
    }

    #[test]
    fn what_was_learned_of_a_server_serves_a_client_that_decodes_nothing() {
        let address = server();
        let learned = learn(address, "echo", 64).unwrap();
        let mut client = Client::connect(address, 4096).unwrap();
        client.exchange(&learned.opening).unwrap();
        assert!(client.time(&learned.echo, 10).is_ok());
        assert_eq!((learned.in_flight, learned.ports), (100, vec![7880]));
    }

    #[test]
    fn a_pipeline_gets_every_answer_and_ends_with_none_in_flight() {
        let mut pipeline = Pipeline::connect(server(), "echo", 64, 256).unwrap();
        for _ in 0..3 {
            let (answers, _) = pipeline.run(Duration::from_millis(5)).unwrap();
            assert!(answers >= 100, "{answers}");
            assert_eq!(pipeline.free.len(), 100, "what the server allows");
        }
    }
}
