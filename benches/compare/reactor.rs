//! The request path on this project's reactor, in the shape of a shard's turn.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::mpsc;

use vilya_protocol::http::{Decoder, Limits};
use vilya_reactor::{Completion, Config, Op, Outcome, Reactor, SendData, Wait};

use super::Server;
use super::desk::{self, Desk};
use crate::SERVER_CORE;
use crate::peer::pin;

const LISTENER: u64 = u64::MAX;
const DOORBELL: u64 = u64::MAX - 1;

struct Connection {
    /// None when it is over.
    socket: Option<OwnedFd>,
    decoder: Decoder,
    body: Vec<u8>,
    /// The buffer of the last answer, to be used again.
    output: Vec<u8>,
}

struct Loop {
    reactor: Reactor,
    desk: Desk,
    connections: Vec<Connection>,
}

pub(super) fn start() -> io::Result<Server> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let (tell, started) = mpsc::channel();
    std::thread::Builder::new().name("compare-reactor".into()).spawn(move || {
        pin(Some(SERVER_CORE));
        let made = Loop::new(&listener);
        let running = match made {
            Ok(running) => running,
            Err(error) => return drop(tell.send(Err(error))),
        };
        let _ = tell.send(Ok(()));
        // Its clients find their connections closed, and report that.
        let _ = running.run();
    })?;
    started.recv().map_err(io::Error::other)??;
    Ok(Server { address })
}

impl Loop {
    fn new(listener: &TcpListener) -> io::Result<Loop> {
        let config = Config { entries: 1024, completion_entries: 8192, ..Config::default() };
        let mut reactor = Reactor::new(&config).map_err(io::Error::other)?;
        let desk = Desk::start(None)?;
        let doorbell = Op::Poll { fd: desk.doorbell().as_raw_fd() };
        for (owner, op) in [(DOORBELL, doorbell), (LISTENER, Op::Accept { listener: listener.as_raw_fd() })] {
            reactor.submit(owner, op).map_err(|refused| io::Error::other(format!("{:?}", refused.reason)))?;
        }
        Ok(Loop { reactor, desk, connections: Vec::new() })
    }

    fn run(mut self) -> io::Result<()> {
        let mut completions = Vec::new();
        loop {
            self.desk.wake();
            let wait = if self.desk.announce_park() { Wait::Forever } else { Wait::No };
            self.reactor.turn(wait, &mut completions)?;
            self.desk.announce_unpark();
            for completion in completions.drain(..) {
                self.complete(completion)?;
            }
            let (reactor, connections) = (&mut self.reactor, &mut self.connections);
            self.desk.answers(|connection, body| answer(reactor, &mut connections[connection], connection, body))?;
        }
    }

    fn complete(&mut self, completion: Completion) -> io::Result<()> {
        let owner = completion.owner as usize;
        match completion.outcome {
            Outcome::Accepted(socket) => self.accept(socket),
            Outcome::Received(chunk) => {
                let connection = &mut self.connections[owner];
                let read = desk::read(&mut connection.decoder, self.reactor.chunk(&chunk), &mut connection.body);
                self.reactor.recycle(chunk);
                match read {
                    Ok(true) => self.desk.submit(owner, &connection.body),
                    Ok(false) => Ok(()),
                    Err(error) => Err(error),
                }
            }
            Outcome::Sent(SendData::Owned(buffer)) => {
                self.connections[owner].output = buffer;
                Ok(())
            }
            Outcome::Ended | Outcome::Failed { .. } => {
                if let Some(connection) = self.connections.get_mut(owner) {
                    connection.socket = None;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn accept(&mut self, socket: OwnedFd) -> io::Result<()> {
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true)?;
        let receive = Op::Receive { socket: stream.as_raw_fd() };
        let owner = self.connections.len();
        let refused = |refused: vilya_reactor::Refused| io::Error::other(format!("{:?}", refused.reason));
        self.reactor.submit(owner as u64, receive).map_err(refused)?;
        self.connections.push(Connection {
            socket: Some(stream.into()),
            decoder: Decoder::new(Limits::default()),
            body: Vec::new(),
            output: Vec::new(),
        });
        Ok(())
    }
}

fn answer(reactor: &mut Reactor, connection: &mut Connection, owner: usize, body: &[u8]) {
    let Some(socket) = &connection.socket else { return };
    let mut output = std::mem::take(&mut connection.output);
    output.clear();
    desk::write(body, &mut output);
    let send = Op::Send { socket: socket.as_raw_fd(), data: SendData::Owned(output) };
    if reactor.submit(owner as u64, send).is_err() {
        connection.socket = None;
    }
}
