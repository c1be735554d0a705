//! What the kernel remembers of a sandbox's connections.
//!
//! Owns: forgetting it. Invariant: an address that was forgotten gets no packet of a connection that another sandbox had, and none of those
//! counts in the host's table. Does not know: whose address it was.

use std::io;
use std::net::Ipv4Addr;

use nix::sys::socket::SockProtocol;

use super::netlink::{Message, Socket, attributes};

// linux/netfilter/nfnetlink_conntrack.h
const GET: i32 = 1;
const DELETE: i32 = 2;
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_IP: u16 = 1;
const IP_SOURCE: u16 = 1;
const ID: u16 = 12;
const FILTER: u16 = 25;
const FILTER_ORIGINAL: u16 = 1;
const FILTER_REPLY: u16 = 2;
const BY_SOURCE: u32 = 1;
/// Of `nfgenmsg`, which an answer begins with.
const STRUCTURE_BYTES: usize = 4;

/// Forgets every connection that this address began.
pub(super) fn forget(address: Ipv4Addr) -> io::Result<()> {
    let socket = Socket::open(SockProtocol::NetlinkNetFilter)?;
    let source = Message::inside(&[]).attribute(IP_SOURCE, &address.octets());
    let filter = Message::inside(&[]).number(FILTER_ORIGINAL, BY_SOURCE).number(FILTER_REPLY, 0);
    let question = message(GET, libc::NLM_F_DUMP)
        .nested(TUPLE_ORIGINAL, Message::inside(&[]).nested(TUPLE_IP, source))
        .nested(FILTER, filter);
    for answer in socket.ask(question)? {
        let body = answer.body.get(STRUCTURE_BYTES..).unwrap_or_default();
        let value = |wanted| attributes(body).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
        let (Some(tuple), Some(id)) = (value(TUPLE_ORIGINAL), value(ID)) else { continue };
        // Kernels before 5.8 list the others too.
        if source_of(tuple) == Some(&address.octets()) {
            let deletion = message(DELETE, 0).attribute(TUPLE_ORIGINAL, tuple).attribute(ID, id);
            match socket.perform(&[deletion], 0) {
                // It has ended meanwhile.
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
                deleted => deleted?,
            }
        }
    }
    Ok(())
}

fn source_of(tuple: &[u8]) -> Option<&[u8]> {
    let (_, addresses) = attributes(tuple).find(|(kind, _)| *kind == TUPLE_IP)?;
    attributes(addresses).find(|(kind, _)| *kind == IP_SOURCE).map(|(_, source)| source)
}

fn message(kind: i32, flags: i32) -> Message {
    let family = libc::AF_INET as u8;
    Message::new((libc::NFNL_SUBSYS_CTNETLINK << 8 | kind) as u16, flags, &[family, 0, 0, 0])
}
