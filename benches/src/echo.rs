//! The floor of every request: a blocking TCP server that sends back what it got, a thread a connection.
//!
//! A connection begins with the size of its messages in eight bytes (little-endian); each message is read whole before
//! it is sent back, as a request is read whole before a function answers it.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use crate::SERVER_CORE;
use crate::client::Client;
use crate::exchange::Exchange;
use crate::generator::Generator;
use crate::peer::pin;
use crate::process;

/// The threads' name, by which their processor time is found.
const THREAD: &str = "floor-echo";

/// The server; it serves until the program ends.
#[derive(Clone, Copy, Debug)]
pub struct EchoServer {
    address: SocketAddr,
}

impl EchoServer {
    /// Starts it on the server's core.
    ///
    /// # Errors
    /// The machine has no sockets or threads left.
    pub fn start() -> io::Result<EchoServer> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        std::thread::spawn(move || {
            pin(Some(SERVER_CORE));
            for stream in listener.incoming().map_while(Result::ok) {
                // A thread that cannot be made closes the connection, which its client reports.
                let _ = std::thread::Builder::new().name(THREAD.into()).spawn(move || serve(stream));
            }
        });
        Ok(EchoServer { address })
    }

    /// A blocking client for messages of so many bytes.
    ///
    /// # Errors
    /// The connection's.
    pub fn client(self, bytes: usize) -> io::Result<Client> {
        let mut client = Client::connect(self.address, bytes)?;
        client.exchange(&opening(bytes))?;
        Ok(client)
    }

    /// So many connections for messages of so many bytes.
    ///
    /// # Errors
    /// A connection's.
    pub fn generator(self, bytes: usize, connections: usize) -> io::Result<Generator> {
        let mut generator = Generator::connect(self.address, connections)?;
        generator.run(&opening(bytes), std::time::Duration::ZERO)?;
        Ok(generator)
    }

    /// Processor time of all its connections' threads so far.
    ///
    /// # Errors
    /// The kernel keeps no such account.
    pub fn cpu_ns(self) -> io::Result<u64> {
        process::threads_cpu_ns(std::process::id(), |name| name == THREAD)
    }
}

/// The size, then the first message.
fn opening(bytes: usize) -> Exchange {
    let message = Exchange::echo(bytes);
    let request = [&(bytes as u64).to_le_bytes()[..], &message.request].concat();
    Exchange { request, ..message }
}

fn serve(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut bytes = [0; 8];
    stream.read_exact(&mut bytes)?;
    let mut message = vec![0; u64::from_le_bytes(bytes) as usize];
    loop {
        stream.read_exact(&mut message)?;
        stream.write_all(&message)?;
    }
}
