//! What functions will reach of the host.

use super::{limited, ok};
use crate::doctor::Finding;
use crate::doctor::facts::Facts;
use crate::mechanisms::MechanismKind;

pub(super) fn ports(facts: &Facts) -> Vec<Finding> {
    let group = "worker";
    if facts.ports.is_empty() {
        let detail =
            "no port may be reached: a function with network = \"host-loopback\" is refused when it is deployed";
        return vec![ok(group, "host loopback", detail)];
    }
    if facts.mechanism != MechanismKind::Native {
        let detail = format!("sandboxes made by {} reach nothing, whatever ports are listed", facts.mechanism.as_str());
        let mend = "mechanism = \"native\" in the function.toml of functions that ask for it";
        return vec![limited(group, "host loopback", detail, mend)];
    }
    facts
        .ports
        .iter()
        .map(|(port, answer)| {
            let name = format!("host loopback {port}");
            match answer {
                Ok(()) => ok(group, &name, "functions that ask for the host's loopback reach what listens there"),
                Err(why) => limited(
                    group,
                    &name,
                    format!("{why}: functions would be refused too"),
                    "start what shall listen at 127.0.0.1, or take the port out of sandbox.host_loopback_ports",
                ),
            }
        })
        .collect()
}
