//! A thread that joins ports of a sandbox's loopback to the same ports of the host's.
//!
//! Owns: the listening sockets in the sandbox's network namespace, and every connection made through them. Invariant: a sandbox's bytes reach
//! 127.0.0.1 at a port that was named, and nothing else; connections are bounded, and all end with the thread, which ends with its handle.
//! One thread a sandbox: one that floods its own delays nobody else's. Does not know: why the ports were named.

use std::io::{self, PipeWriter};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::thread::{self, JoinHandle};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, connect, setsockopt, socket, sockopt::Linger};

use super::flow::Flow;
use crate::limits::{FORWARDED, FORWARDER_STACK_BYTES};

/// Bytes moved at once.
const BUFFER_BYTES: usize = 16 << 10;
/// How long nothing is accepted after a failure: the process may be short of descriptors, and the socket stays readable.
const PAUSE_MS: u16 = 100;

/// A running forwarder; dropping it ends it and its connections.
#[derive(Debug)]
pub(crate) struct Forwarder {
    /// Closed to end the thread.
    end: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

impl Forwarder {
    /// Starts one. The calling thread must be in the host's network namespace.
    pub(super) fn start(listeners: Vec<(u16, TcpListener)>) -> io::Result<Forwarder> {
        listeners.iter().try_for_each(|(_, listener)| listener.set_nonblocking(true))?;
        let (ending, end) = io::pipe()?;
        let run = move || Desk { listeners, connections: Vec::new() }.run(ending.as_fd());
        let builder = thread::Builder::new().name("vilya-forward".into()).stack_size(FORWARDER_STACK_BYTES);
        Ok(Forwarder { end: Some(end), thread: Some(builder.spawn(run)?) })
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        drop(self.end.take());
        // A panic there has been reported, and its connections are closed.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

struct Desk {
    listeners: Vec<(u16, TcpListener)>,
    connections: Vec<Connection>,
}

/// What a polled descriptor is of.
#[derive(Clone, Copy)]
enum Place {
    End,
    Listener(usize),
    Connection(usize),
}

impl Desk {
    fn run(mut self, ending: BorrowedFd<'_>) {
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut paused = false;
        loop {
            let Ok(ready) = self.wait(ending, paused) else {
                // Descriptors of ours cannot be refused; memory may be short.
                thread::sleep(std::time::Duration::from_millis(PAUSE_MS.into()));
                continue;
            };
            paused = false;
            for place in &ready {
                match *place {
                    Place::End => return,
                    Place::Connection(index) => self.connections[index].carry(&mut buffer),
                    Place::Listener(index) => paused |= self.accept(index).is_err(),
                }
            }
            self.connections.retain(|connection| !connection.is_over());
        }
    }

    /// What there is something to do for, connections before those that are to be accepted.
    fn wait(&self, ending: BorrowedFd<'_>, paused: bool) -> io::Result<Vec<Place>> {
        let mut polled = vec![(PollFd::new(ending, PollFlags::POLLIN), Place::End)];
        for (index, connection) in self.connections.iter().enumerate() {
            let sides = [
                (&connection.inside, &connection.up, &connection.down),
                (&connection.outside, &connection.down, &connection.up),
            ];
            for (stream, from, to) in sides {
                let mut wanted = PollFlags::empty();
                wanted.set(PollFlags::POLLIN, from.wants_to_read());
                wanted.set(PollFlags::POLLOUT, to.wants_to_write());
                // One that is only hung up, and for which nothing is left to do, would be ready for ever.
                if !wanted.is_empty() {
                    polled.push((PollFd::new(stream.as_fd(), wanted), Place::Connection(index)));
                }
            }
        }
        if !paused && self.connections.len() < FORWARDED {
            let listeners = self.listeners.iter().enumerate();
            polled.extend(listeners.map(|(index, (_, listener))| {
                (PollFd::new(listener.as_fd(), PollFlags::POLLIN), Place::Listener(index))
            }));
        }
        let (mut descriptors, places): (Vec<_>, Vec<_>) = polled.into_iter().unzip();
        let timeout = if paused { PollTimeout::from(PAUSE_MS) } else { PollTimeout::NONE };
        match poll(&mut descriptors, timeout) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        }
        let ready = descriptors.iter().zip(places).filter(|(fd, _)| fd.any() == Some(true));
        Ok(ready.map(|(_, place)| place).collect())
    }

    /// Fails if nothing should be accepted for a while.
    fn accept(&mut self, index: usize) -> io::Result<()> {
        let (port, listener) = &self.listeners[index];
        if self.connections.len() >= FORWARDED {
            return Ok(());
        }
        let inside = match listener.accept() {
            Ok((inside, _)) => inside,
            Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::ECONNABORTED | libc::EINTR)) => {
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        inside.set_nonblocking(true)?;
        match to_the_host(*port) {
            Ok(outside) => self.connections.push(Connection::new(inside, outside)),
            Err(_) => refuse(&inside),
        }
        Ok(())
    }
}

/// Begins a connection to a service of the host. Whether it listens is seen when the first bytes are to be moved.
fn to_the_host(port: u16) -> io::Result<TcpStream> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let outside = socket(AddressFamily::Inet, SockType::Stream, flags, None)?;
    let service = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
    match connect(outside.as_raw_fd(), &SockaddrIn::from(service)) {
        Ok(()) | Err(Errno::EINPROGRESS) => {}
        Err(error) => return Err(error.into()),
    }
    let outside = TcpStream::from(outside);
    // Where nobody listens the kernel may join a socket to itself, which holds the port from the service.
    if outside.local_addr()? == SocketAddr::V4(service) {
        return Err(io::Error::from(io::ErrorKind::ConnectionRefused));
    }
    Ok(outside)
}

/// Ends a connection so that its other side sees a failure, not an end.
fn refuse(stream: &TcpStream) {
    // It is closed whether or not this can be set.
    let _ = setsockopt(stream, Linger, &libc::linger { l_onoff: 1, l_linger: 0 });
}

struct Connection {
    inside: TcpStream,
    outside: TcpStream,
    /// From the sandbox to the host.
    up: Flow,
    down: Flow,
    failed: bool,
}

impl Connection {
    fn new(inside: TcpStream, outside: TcpStream) -> Connection {
        for stream in [&inside, &outside] {
            // Bytes are passed on as they come; a refusal only costs time.
            let _ = stream.set_nodelay(true);
        }
        Connection { inside, outside, up: Flow::default(), down: Flow::default(), failed: false }
    }

    fn carry(&mut self, buffer: &mut [u8]) {
        if self.failed {
            return;
        }
        let up = self.up.carry(&self.inside, &self.outside, buffer);
        let carried = up.and_then(|()| self.down.carry(&self.outside, &self.inside, buffer));
        if carried.is_err() {
            self.failed = true;
            [&self.inside, &self.outside].into_iter().for_each(refuse);
        }
    }

    fn is_over(&self) -> bool {
        self.failed || (self.up.has_ended() && self.down.has_ended())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read, Write};
    use std::net::{Shutdown, TcpListener, TcpStream};

    use super::Forwarder;
    use crate::limits::FORWARDED;

    /// A forwarder from a port of its own to that of a service, in one namespace; where to connect.
    fn forwarding_to(port: u16) -> (Forwarder, std::net::SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let address = listener.local_addr().expect("its address");
        (Forwarder::start(vec![(port, listener)]).expect("a thread"), address)
    }

    fn service() -> (TcpListener, u16) {
        let service = TcpListener::bind("127.0.0.1:0").expect("a service");
        let port = service.local_addr().expect("its address").port();
        (service, port)
    }

    #[test]
    fn every_byte_arrives_in_both_directions_and_then_the_end() {
        let (service, port) = service();
        let (_forwarder, address) = forwarding_to(port);
        let sent: Vec<u8> = (0..5_000_000_u32).map(|byte| (byte % 251) as u8).collect();
        let echo = std::thread::spawn(move || {
            let (mut stream, _) = service.accept().expect("a connection");
            let mut received = Vec::new();
            // Everything first, so that far more than fits the buffers in between is on its way.
            stream.read_to_end(&mut received).expect("what was sent");
            stream.write_all(&received).expect("the same back");
        });
        let mut client = TcpStream::connect(address).expect("the forwarder listens");
        client.write_all(&sent).expect("it is taken");
        client.shutdown(Shutdown::Write).expect("the end of it");
        let mut back = Vec::new();
        client.read_to_end(&mut back).expect("the answer");
        assert!(back == sent, "{} bytes of {}", back.len(), sent.len());
        echo.join().expect("the service");
    }

    #[test]
    fn a_port_without_a_service_fails_the_connection() {
        let (service, port) = service();
        drop(service);
        let (_forwarder, address) = forwarding_to(port);
        let mut client = TcpStream::connect(address).expect("the forwarder listens");
        let failure = client.read(&mut [0]).expect_err("an end would look like an answer");
        assert_eq!(failure.kind(), ErrorKind::ConnectionReset);
    }

    #[test]
    fn connections_are_bounded_and_the_next_is_served_when_one_ends() {
        let (service, port) = service();
        let (_forwarder, address) = forwarding_to(port);
        let mut held: Vec<(TcpStream, TcpStream)> = (0..FORWARDED)
            .map(|_| {
                let client = TcpStream::connect(address).expect("the forwarder listens");
                (client, service.accept().expect("it is passed on").0)
            })
            .collect();
        let mut late = TcpStream::connect(address).expect("it waits to be accepted");
        service.set_nonblocking(true).expect("its mode");
        // Bytes through one that is held show that the forwarder has looked at what waits since.
        held[0].0.write_all(b"x").expect("it is taken");
        held[0].1.read_exact(&mut [0]).expect("it is passed on");
        assert_eq!(service.accept().expect_err("one too many").kind(), ErrorKind::WouldBlock);
        service.set_nonblocking(false).expect("its mode");
        drop(held.pop());
        let (mut passed, _) = service.accept().expect("the one that waited");
        passed.write_all(b"y").expect("it is taken");
        late.read_exact(&mut [0]).expect("it is passed on");
    }

    #[test]
    fn everything_ends_with_the_handle() {
        let (service, port) = service();
        let (forwarder, address) = forwarding_to(port);
        let mut client = TcpStream::connect(address).expect("the forwarder listens");
        let (mut passed, _) = service.accept().expect("it is passed on");
        drop(forwarder);
        assert!(matches!(client.read(&mut [0]), Ok(0) | Err(_)));
        assert!(matches!(passed.read(&mut [0]), Ok(0) | Err(_)));
        assert_eq!(TcpStream::connect(address).expect_err("nobody listens").kind(), ErrorKind::ConnectionRefused);
    }
}
