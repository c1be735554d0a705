//! The pairs of interfaces that join sandboxes to the host, and their addresses and routes, as messages.
//!
//! Owns: what is said to the kernel's routing. Invariant: a pair is made and named in one message, so that no half of it can be left without
//! the mark of its worker. Does not know: which addresses are free, or what may pass.

use std::io::{self, ErrorKind};
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};

use super::netlink::{Answer, Message, Socket, attributes, word};

/// What the names of our interfaces on the host begin with. The rest is the sandbox's address, so that no two workers use one at once.
const PREFIX: &str = "vy";
/// The interface of a sandbox, inside.
pub(super) const INSIDE: &str = "eth0";

const NEW: i32 = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
const ADDRESS_BITS: u8 = 31;

// linux/veth.h, linux/if_link.h, linux/ip.h
const VETH_INFO_PEER: u16 = 1;
const IFLA_INET_CONF: u16 = 1;
const IPV4_DEVCONF_FORWARDING: u16 = 1;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const IN6_ADDR_GEN_MODE_NONE: u8 = 1;

/// How a worker's interfaces are marked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Groups {
    /// Of living sandboxes.
    pub(super) open: u32,
    /// Of those that ended.
    pub(super) shut: u32,
}

/// What the interface of the sandbox at this address is called on the host.
pub(super) fn name(sandbox: Ipv4Addr) -> String {
    format!("{PREFIX}{:08x}", sandbox.to_bits())
}

/// Whether an interface of the host is one of a worker's.
pub(super) fn is_ours(name: &str) -> bool {
    name.strip_prefix(PREFIX).is_some_and(|rest| rest.len() == 8 && u32::from_str_radix(rest, 16).is_ok())
}

/// The kernel's `struct ifinfomsg`, with these flags both as values and as what is changed.
fn interface(flags: i32) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[8..12].copy_from_slice(&flags.to_ne_bytes());
    bytes[12..].copy_from_slice(&flags.to_ne_bytes());
    bytes
}

/// A pair: on the host by its name and in the group of its worker, inside in this namespace.
pub(super) fn pair(name: &str, group: u32, namespace: &OwnedFd) -> Message {
    let peer = Message::inside(&interface(0))
        .text(libc::IFLA_IFNAME, INSIDE)
        .number(libc::IFLA_NET_NS_FD, namespace.as_raw_fd().cast_unsigned());
    let kind = Message::inside(&[])
        .attribute(libc::IFLA_INFO_KIND, b"veth")
        .nested(libc::IFLA_INFO_DATA, Message::inside(&[]).nested(VETH_INFO_PEER, peer));
    Message::new(libc::RTM_NEWLINK, NEW, &interface(0))
        .text(libc::IFLA_IFNAME, name)
        .number(libc::IFLA_GROUP, group)
        .nested(libc::IFLA_LINKINFO, kind)
}

/// No address of version 6, not even a local one. Before the interface is up.
pub(super) fn without_version_6(name: &str) -> Message {
    let mode = Message::inside(&[]).attribute(IFLA_INET6_ADDR_GEN_MODE, &[IN6_ADDR_GEN_MODE_NONE]);
    let families = Message::inside(&[]).nested(libc::AF_INET6 as u16, mode);
    set(name, 0).nested(libc::IFLA_AF_SPEC, families)
}

/// What comes in there is passed on, whatever the host's default for an interface.
pub(super) fn forwarding(name: &str) -> Message {
    let settings = Message::inside(&[]).number(IPV4_DEVCONF_FORWARDING, 1);
    let settings = Message::inside(&[]).nested(IFLA_INET_CONF, settings);
    let families = Message::inside(&[]).nested(libc::AF_INET as u16, settings);
    set(name, 0).nested(libc::IFLA_AF_SPEC, families)
}

pub(super) fn up(name: &str) -> Message {
    set(name, libc::IFF_UP)
}

/// From here on it is in this group.
pub(super) fn regroup(name: &str, group: u32) -> Message {
    set(name, 0).number(libc::IFLA_GROUP, group)
}

fn set(name: &str, flags: i32) -> Message {
    Message::new(libc::RTM_SETLINK, 0, &interface(flags)).text(libc::IFLA_IFNAME, name)
}

/// The address of one end.
pub(super) fn address(index: u32, address: Ipv4Addr) -> Message {
    let mut structure = [0; 8];
    structure[0] = libc::AF_INET as u8;
    structure[1] = ADDRESS_BITS;
    structure[4..].copy_from_slice(&index.to_ne_bytes());
    let octets = address.octets();
    Message::new(libc::RTM_NEWADDR, NEW, &structure)
        .attribute(libc::IFA_LOCAL, &octets)
        .attribute(libc::IFA_ADDRESS, &octets)
}

/// Everything goes through the other end.
pub(super) fn default_route(index: u32, gateway: Ipv4Addr) -> Message {
    let mut structure = [0; 12];
    structure[0] = libc::AF_INET as u8;
    structure[4] = libc::RT_TABLE_MAIN;
    structure[5] = libc::RTPROT_BOOT;
    structure[7] = libc::RTN_UNICAST;
    Message::new(libc::RTM_NEWROUTE, NEW, &structure)
        .attribute(libc::RTA_GATEWAY, &gateway.octets())
        .number(libc::RTA_OIF, index)
}

/// Takes a pair away.
pub(super) fn removal(name: &str) -> Message {
    Message::new(libc::RTM_DELLINK, 0, &interface(0)).text(libc::IFLA_IFNAME, name)
}

/// Takes every pair of a group away, at once.
pub(super) fn removal_of(group: u32) -> Message {
    Message::new(libc::RTM_DELLINK, 0, &interface(0)).number(libc::IFLA_GROUP, group)
}

/// The index of an interface.
pub(super) fn index(socket: &Socket, name: &str) -> io::Result<u32> {
    let question = Message::new(libc::RTM_GETLINK, 0, &interface(0)).text(libc::IFLA_IFNAME, name);
    let answers = socket.ask(question)?;
    let answer = answers.iter().find(|answer| answer.kind == libc::RTM_NEWLINK);
    answer.map(|answer| word(&answer.body, 4)).ok_or_else(|| ErrorKind::NotFound.into())
}

/// Whether an interface is in one of these groups.
pub(super) fn is_in_group(socket: &Socket, name: &str, groups: Groups) -> io::Result<bool> {
    let question = Message::new(libc::RTM_GETLINK, 0, &interface(0)).text(libc::IFLA_IFNAME, name);
    Ok(socket.ask(question)?.iter().any(|answer| name_in_group(answer, groups).is_some()))
}

/// The names of every interface of ours in these groups.
pub(super) fn in_groups(socket: &Socket, groups: Groups) -> io::Result<Vec<String>> {
    let answers = socket.ask(Message::new(libc::RTM_GETLINK, libc::NLM_F_DUMP, &interface(0)))?;
    Ok(answers.iter().filter_map(|answer| name_in_group(answer, groups)).collect())
}

fn name_in_group(answer: &Answer, Groups { open, shut }: Groups) -> Option<String> {
    let body = answer.body.get(16..)?;
    let value = |wanted| attributes(body).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let name = String::from_utf8(value(libc::IFLA_IFNAME)?.strip_suffix(&[0])?.to_vec()).ok()?;
    let group = word(value(libc::IFLA_GROUP)?, 0);
    (is_ours(&name) && [open, shut].contains(&group)).then_some(name)
}
