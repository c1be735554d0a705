//! A blocking client: one connection, one request at a time. What a user with a single client feels.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use crate::exchange::Exchange;
use crate::sample::Samples;

/// A connection that is kept.
pub struct Client {
    stream: TcpStream,
    answer: Vec<u8>,
}

impl Client {
    /// Connects; answers may have up to so many bytes.
    ///
    /// # Errors
    /// Nobody listens there.
    pub fn connect(address: SocketAddr, answer_bytes: usize) -> io::Result<Client> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Client { stream, answer: vec![0; answer_bytes] })
    }

    /// Sends a request and reads its whole answer.
    ///
    /// # Errors
    /// The connection's, or an answer that was not expected or is too long.
    pub fn exchange(&mut self, exchange: &Exchange) -> io::Result<()> {
        self.stream.write_all(&exchange.request)?;
        let mut filled = 0;
        loop {
            let read = self.stream.read(&mut self.answer[filled..])?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            filled += read;
            if exchange.is_whole(&self.answer[..filled])? {
                return Ok(());
            }
        }
    }

    /// So many exchanges, one after the other, each timed.
    ///
    /// # Errors
    /// Those of [`Client::exchange`].
    pub fn time(&mut self, exchange: &Exchange, count: usize) -> io::Result<Samples> {
        let mut samples = Samples::default();
        for _ in 0..count {
            let since = Instant::now();
            self.exchange(exchange)?;
            samples.push(since.elapsed().as_nanos() as u64);
        }
        Ok(samples)
    }
}
