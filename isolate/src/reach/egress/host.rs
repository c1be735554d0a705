//! What the host must have for sandboxes to reach other machines, and which nameservers it uses.
//!
//! Owns: the looks at the host. Invariant: nothing is changed. Does not know: links and rules.

use std::fs;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;

use ipnet::Ipv4Net;

use super::rules::NEVER;
use super::{EgressError, links};
use crate::limits::NAMESERVERS;
use crate::sys;

const FORWARDS: &str = "/proc/sys/net/ipv4/ip_forward";
const ROUTES: &str = "/proc/thread-self/net/route";
/// Where nameservers are written, the second for hosts whose first names one of their own that passes questions on.
const RESOLVERS: [&str; 2] = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];

/// Whether this host passes packets on, and has no use of its own for the range.
pub(super) fn check(range: Ipv4Net) -> Result<(), EgressError> {
    if !sys::is_root() {
        let why = "only root can join a sandbox to the host's network: run the worker as root";
        return Err(EgressError::Host(why.to_owned()));
    }
    let forwards = fs::read_to_string(FORWARDS).unwrap_or_default();
    if forwards.trim() != "1" {
        let why = "the host passes no packets on: sysctl -w net.ipv4.ip_forward=1, and the same in /etc/sysctl.d";
        return Err(EgressError::Host(why.to_owned()));
    }
    let routes = fs::read_to_string(ROUTES)
        .map_err(|source| EgressError::Kernel { action: "read the host's routes", source })?;
    match overlapping(&routes, range) {
        Some((interface, route)) => Err(EgressError::Host(format!(
            "{range} overlaps {route}, which the host reaches by {interface}: set sandbox.egress_range to addresses that are \
             of no use here, for example 10.214.0.0/16"
        ))),
        None => Ok(()),
    }
}

/// Whether this kernel speaks version 6 at all.
pub(super) fn has_version_6() -> bool {
    Path::new("/proc/sys/net/ipv6").exists()
}

/// A route in the kernel's list, but for the default and those of sandboxes, that leads into the range.
fn overlapping(routes: &str, range: Ipv4Net) -> Option<(&str, Ipv4Net)> {
    routes.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let number = |index: usize| u32::from_str_radix(fields.get(index)?, 16).ok().map(u32::from_be);
        let (interface, destination, mask) = (*fields.first()?, number(1)?, number(7)?);
        let route = Ipv4Net::with_netmask(destination.into(), mask.into()).ok()?;
        let meets = route.contains(&range.network()) || range.contains(&route.network());
        (route.prefix_len() > 0 && !links::is_ours(interface) && meets).then_some((interface, route))
    })
}

/// The nameservers of this host that a sandbox can ask: of version 4, and neither the host itself nor on its link alone.
#[must_use]
pub fn nameservers() -> Vec<Ipv4Addr> {
    let usable = |path: &str| -> Vec<Ipv4Addr> {
        let text = fs::read_to_string(path).unwrap_or_default();
        listed(&text).filter(|address| is_elsewhere(*address)).take(NAMESERVERS).collect()
    };
    RESOLVERS.into_iter().map(usable).find(|found| !found.is_empty()).unwrap_or_default()
}

fn listed(text: &str) -> impl Iterator<Item = Ipv4Addr> {
    text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next()? == "nameserver").then(|| words.next()?.parse().ok())?
    })
}

/// Only addresses of its own can be bound by a host.
fn is_elsewhere(address: Ipv4Addr) -> bool {
    !is_never_reached(address) && UdpSocket::bind((address, 0)).is_err()
}

/// Whether no sandbox reaches this address, whatever is set.
#[must_use]
pub fn is_never_reached(address: Ipv4Addr) -> bool {
    NEVER.iter().any(|block| block.contains(&address))
}

#[cfg(test)]
mod tests {
    use super::{listed, overlapping};

    /// In the order of networks, as a machine of this order prints it.
    fn route(interface: &str, destination: [u8; 4], mask: [u8; 4]) -> String {
        let print = |bytes| format!("{:08X}", u32::from_ne_bytes(bytes));
        format!("{interface}\t{}\t00000000\t0001\t0\t0\t0\t{}\t0\t0\t0\n", print(destination), print(mask))
    }

    #[test]
    fn a_range_that_the_host_uses_is_found() {
        let range = "10.213.0.0/16".parse().expect("a range");
        let found = |interface, destination, mask| {
            let routes = format!("Iface\tDestination\n{}", route(interface, destination, mask));
            overlapping(&routes, range).map(|(_, route)| route.to_string())
        };
        assert_eq!(found("eth0", [0; 4], [0; 4]), None, "the default");
        assert_eq!(found("eth0", [192, 0, 2, 0], [255, 255, 255, 0]), None);
        assert_eq!(found("eth0", [10, 213, 7, 0], [255, 255, 255, 0]).as_deref(), Some("10.213.7.0/24"));
        assert_eq!(found("tun0", [10, 0, 0, 0], [255, 0, 0, 0]).as_deref(), Some("10.0.0.0/8"));
        assert_eq!(found("vy0ad50003", [10, 213, 0, 2], [255, 255, 255, 254]), None, "a sandbox's");
    }

    #[test]
    fn nameservers_are_read_as_resolvers_do() {
        let text =
            "# nameserver 192.0.2.1\nnameserver 192.0.2.2\nnameserver ::1\noptions ndots:1\n nameserver\t192.0.2.3 \n";
        let found: Vec<_> = listed(text).map(|address| address.to_string()).collect();
        assert_eq!(found, ["192.0.2.2", "192.0.2.3"]);
    }
}
