//! What functions reach of other machines, as the operator set it.
//!
//! Invariant: nobody is let out unless the operator said so, and then to no address that he denied. It does not know how a sandbox is joined
//! to the host's network.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use vilya_isolate::{EgressOptions, Reach, nameservers};

/// `sandbox.egress` and what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EgressSettings {
    /// Whether functions that ask for it reach other machines.
    pub allowed: bool,
    /// The addresses of their sandboxes.
    pub range: Ipv4Net,
    /// Addresses that they do not reach.
    pub denied: Vec<Ipv4Net>,
    /// Connections of one sandbox at once.
    pub connections: u32,
    /// Whom they ask for names; `None` is those of the host.
    pub nameservers: Option<Vec<Ipv4Addr>>,
}

/// Private networks, where services are that trust whoever comes: of RFC 1918, and of providers (RFC 6598).
const PRIVATE: [Ipv4Net; 4] = [
    Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 8),
    Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 10),
    Ipv4Net::new_assert(Ipv4Addr::new(172, 16, 0, 0), 12),
    Ipv4Net::new_assert(Ipv4Addr::new(192, 168, 0, 0), 16),
];

impl Default for EgressSettings {
    fn default() -> EgressSettings {
        EgressSettings {
            allowed: false,
            range: Ipv4Net::new_assert(Ipv4Addr::new(10, 213, 0, 0), 16),
            denied: PRIVATE.to_vec(),
            connections: 1024,
            nameservers: None,
        }
    }
}

impl EgressSettings {
    /// Settles on the nameservers that this host has now, so that rules and sandboxes name the same ones.
    pub(crate) fn settle(&mut self) {
        if self.allowed && self.nameservers.is_none() {
            let found = nameservers();
            if found.is_empty() {
                tracing::warn!(
                    "functions that reach other machines cannot ask for names: this host has no nameserver but itself; \
                     set sandbox.nameservers, for example [\"9.9.9.9\"]"
                );
            }
            self.nameservers = Some(found);
        }
    }

    /// What a sandbox reaches that is let out.
    ///
    /// # Errors
    /// That none is, and what to do.
    pub(crate) fn reach(&self) -> Result<Reach, String> {
        if self.allowed {
            Ok(Reach::Egress { nameservers: self.nameservers.clone().unwrap_or_default() })
        } else {
            Err("the worker lets no function reach other machines: set its sandbox.egress = true".to_owned())
        }
    }

    /// Whether this host allows it, too.
    ///
    /// # Errors
    /// Why not, and what to do.
    pub(crate) fn check(&self) -> Result<(), String> {
        self.options().check().map_err(|error| error.to_string())
    }

    /// Whether it does, tried: for `vilya doctor`; none where nobody is let out.
    pub(crate) fn trial(&self) -> Option<Result<(), String>> {
        self.allowed.then(|| self.options().trial().map_err(|error| error.to_string()))
    }

    pub(crate) fn options(&self) -> EgressOptions {
        EgressOptions {
            range: self.range,
            denied: self.denied.clone(),
            nameservers: self.nameservers.clone().unwrap_or_default(),
            connections: self.connections,
        }
    }
}
