//! What a sandbox reaches besides its own loopback.
//!
//! Owns: [`Reach`], its check, and what is kept for it while a sandbox lives. Invariant: a sandbox reaches nothing that its spec does not
//! name, and what is kept ends with it. Does not know: how its network namespace is made.

pub(crate) mod egress;
mod flow;
mod forwarder;

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use crate::limits::{NAMESERVERS, PORTS};
use crate::spec::SpecError;
use crate::sys;
use egress::Link;
use forwarder::Forwarder;

/// What a sandbox reaches besides its own loopback.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Reach {
    /// Nothing.
    #[default]
    Nothing,
    /// Services on the host's 127.0.0.1, each at the same port of the sandbox's.
    HostLoopback {
        /// Their TCP ports.
        ports: Vec<u16>,
    },
    /// Other machines, as far as the mechanism was told to let sandboxes reach them.
    Egress {
        /// Which of them it asks for names.
        nameservers: Vec<Ipv4Addr>,
    },
}

impl Reach {
    pub(crate) fn check(&self) -> Result<(), SpecError> {
        let refused =
            |what, value: usize, least, most| Err(SpecError::Bounds { what, value: value as u64, least, most });
        let ports = match self {
            Reach::Nothing => return Ok(()),
            Reach::Egress { nameservers } if nameservers.len() > NAMESERVERS => {
                return refused("the number of nameservers", nameservers.len(), 0, NAMESERVERS as u64);
            }
            Reach::Egress { .. } => return Ok(()),
            Reach::HostLoopback { ports } => ports,
        };
        if ports.is_empty() || ports.len() > PORTS {
            return refused("the number of ports of the host's loopback", ports.len(), 1, PORTS as u64);
        }
        if ports.contains(&0) {
            return refused("a port of the host's loopback", 0, 1, u16::MAX.into());
        }
        let repeated = ports.iter().enumerate().find(|(index, port)| ports[..*index].contains(port));
        repeated.map_or(Ok(()), |(_, port)| Err(SpecError::Repeated { port: *port }))
    }
}

/// Where a child hands over the sockets that it listens on for the host.
#[derive(Debug)]
pub(crate) struct Handover {
    ours: OwnedFd,
    theirs: OwnedFd,
    ports: Vec<u16>,
}

impl Handover {
    /// None where nothing is handed over.
    pub(crate) fn of(reach: &Reach) -> io::Result<Option<Handover>> {
        let Reach::HostLoopback { ports } = reach else { return Ok(None) };
        let (ours, theirs) = sys::packet_pair()?;
        Ok(Some(Handover { ours, theirs, ports: ports.clone() }))
    }

    /// The child's end.
    pub(crate) fn theirs(&self) -> RawFd {
        self.theirs.as_raw_fd()
    }

    /// Takes the sockets of a child that has got as far as its program, and forwards what arrives there.
    pub(crate) fn begin(self) -> io::Result<Forwarder> {
        let Handover { ours, theirs, ports } = self;
        // Without it, a socket that is missing is seen as an end and not waited for.
        drop(theirs);
        let mut listeners = Vec::with_capacity(ports.len());
        for port in ports {
            let (_, mut sockets) = sys::receive_owned(ours.as_fd(), &mut [0])?;
            let socket = sockets.pop().ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
            listeners.push((port, TcpListener::from(socket)));
        }
        Forwarder::start(listeners)
    }
}

/// What is kept for a living sandbox; dropping it ends it.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    pub(crate) forwarder: Option<Forwarder>,
    pub(crate) link: Option<Link>,
}

#[cfg(test)]
mod tests {
    use super::Reach;

    #[test]
    fn ports_are_few_named_and_distinct() {
        let of = |ports: &[u16]| Reach::HostLoopback { ports: ports.to_vec() }.check();
        assert!(of(&[5432, 80]).is_ok() && Reach::Nothing.check().is_ok());
        for wrong in [vec![], vec![0], vec![80, 5432, 80], (1..=33).collect()] {
            assert!(of(&wrong).is_err(), "{wrong:?}");
        }
    }
}
