//! What functions reach besides themselves, and what the operator lets them.
//!
//! Invariant: a function reaches what its manifest asks for, and of the host only ports that the operator named, among which none is the
//! worker's own. It does not know how a sandbox comes to reach anything.

use serde::{Deserialize, Serialize};
use vilya_isolate::Reach;

use crate::egress::EgressSettings;
use crate::mechanisms::MechanismKind;

/// `network` in a manifest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Network {
    /// A loopback of its own.
    #[default]
    None,
    /// And ports of the host's 127.0.0.1.
    HostLoopback,
    /// And other machines.
    Egress,
}

impl Network {
    /// Each with its word in manifests.
    pub const CHOICES: [(&'static str, Network); 3] =
        [("none", Network::None), ("host-loopback", Network::HostLoopback), ("egress", Network::Egress)];

    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Network::None => "none",
            Network::HostLoopback => "host-loopback",
            Network::Egress => "egress",
        }
    }
}

/// What the operator lets functions reach.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkSettings {
    /// TCP ports of the host's 127.0.0.1.
    pub host_loopback_ports: Vec<u16>,
    /// Other machines.
    pub egress: EgressSettings,
}

impl NetworkSettings {
    /// What a sandbox reaches whose function asks for this.
    ///
    /// # Errors
    /// Why it cannot, and what to do.
    pub(crate) fn reach(&self, asked: Network) -> Result<Reach, String> {
        match asked {
            Network::None => Ok(Reach::Nothing),
            Network::HostLoopback if self.host_loopback_ports.is_empty() => {
                Err("no port of this host's loopback may be reached: name some in the worker's sandbox.host_loopback_ports, \
                     for example [5432]"
                    .to_owned())
            }
            Network::Egress => self.egress.reach(),
            Network::HostLoopback => Ok(Reach::HostLoopback { ports: self.host_loopback_ports.clone() }),
        }
    }

    /// Whether a function that asks for this, made by this mechanism, will have it.
    ///
    /// # Errors
    /// Why not, and what to do.
    pub(crate) fn check(&self, asked: Network, mechanism: MechanismKind) -> Result<(), String> {
        if asked != Network::None && mechanism != MechanismKind::Native {
            let mechanism = mechanism.as_str();
            return Err(format!("sandboxes made by \"{mechanism}\" reach nothing: add mechanism = \"native\""));
        }
        self.reach(asked)?;
        if asked == Network::Egress { self.egress.check() } else { Ok(()) }
    }

    /// Whether none of the ports is one of these, at which the worker listens.
    ///
    /// # Errors
    /// The port, and what to do.
    pub(crate) fn keep_off(&self, own: impl IntoIterator<Item = u16>) -> Result<(), String> {
        own.into_iter().find(|port| self.host_loopback_ports.contains(port)).map_or(Ok(()), |port| {
            Err(format!(
                "{port} is the worker's own port, which no function may reach: take it out, or move the worker"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_needs_the_operator_and_the_workers_own_mechanism() {
        let nothing = NetworkSettings::default();
        let some = NetworkSettings { host_loopback_ports: vec![5432], ..nothing.clone() };
        for mechanism in [MechanismKind::Native, MechanismKind::Oci, MechanismKind::Docker] {
            assert_eq!(nothing.check(Network::None, mechanism), Ok(()));
        }
        let refused = nothing.check(Network::HostLoopback, MechanismKind::Native).unwrap_err();
        assert!(refused.contains("sandbox.host_loopback_ports"), "{refused}");
        assert_eq!(some.check(Network::HostLoopback, MechanismKind::Native), Ok(()));
        for mechanism in [MechanismKind::Oci, MechanismKind::Docker] {
            assert!(some.check(Network::HostLoopback, mechanism).unwrap_err().contains("mechanism = \"native\""));
        }
        assert_eq!(some.reach(Network::HostLoopback), Ok(Reach::HostLoopback { ports: vec![5432] }));
        assert_eq!(some.reach(Network::None), Ok(Reach::Nothing));
        let refused = some.check(Network::Egress, MechanismKind::Native).unwrap_err();
        assert!(refused.contains("sandbox.egress = true"), "{refused}");
        let mut lets_out = nothing.clone();
        lets_out.egress.allowed = true;
        assert!(lets_out.check(Network::Egress, MechanismKind::Oci).unwrap_err().contains("mechanism = \"native\""));
        assert_eq!(lets_out.reach(Network::Egress), Ok(Reach::Egress { nameservers: vec![] }));
    }

    #[test]
    fn the_workers_own_ports_are_nobodys() {
        let settings = NetworkSettings { host_loopback_ports: vec![5432, 7880], ..NetworkSettings::default() };
        assert_eq!(settings.keep_off([7878, 7879]), Ok(()));
        assert!(settings.keep_off([7878, 7879, 7880]).unwrap_err().starts_with("7880 is the worker's own"));
    }
}
