//! The settings of how functions reach other machines.
//!
//! Invariant: blocks of addresses begin where their prefix says, the range is of private addresses, and no nameserver is one that nobody ever
//! reaches. It does not know which addresses the host has.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use vilya_isolate::is_never_reached;
use vilya_isolate::limits::{DENIED, EGRESS_CONNECTIONS, EGRESS_PREFIX, NAMESERVERS};

use super::raw::Value;
use super::reader::{Reader, text, wrong_type};
use crate::egress::EgressSettings;

pub(super) fn read(reader: &mut Reader) -> EgressSettings {
    let usual = EgressSettings::default();
    EgressSettings {
        allowed: reader.boolean("sandbox.egress", usual.allowed),
        range: reader.read("sandbox.egress_range", |value| range(text(value)?)).unwrap_or(usual.range),
        denied: reader.read("sandbox.egress_denied", denied).unwrap_or(usual.denied),
        connections: reader.count("sandbox.egress_connections", usual.connections, 1..=EGRESS_CONNECTIONS),
        nameservers: reader.read("sandbox.nameservers", nameservers).unwrap_or(usual.nameservers),
    }
}

/// Keys, and values as TOML.
pub(super) fn settings(egress: &EgressSettings) -> Vec<(&'static str, String)> {
    let quoted = |text: String| toml::Value::String(text).to_string();
    let listed = |items: Vec<String>| format!("{items:?}");
    let nameservers = egress.nameservers.as_ref();
    let nameservers = nameservers.map(|list| listed(list.iter().map(Ipv4Addr::to_string).collect()));
    vec![
        ("sandbox.egress", egress.allowed.to_string()),
        ("sandbox.egress_range", quoted(egress.range.to_string())),
        ("sandbox.egress_denied", listed(egress.denied.iter().map(Ipv4Net::to_string).collect())),
        ("sandbox.egress_connections", egress.connections.to_string()),
        ("sandbox.nameservers", nameservers.unwrap_or_else(|| quoted("auto".to_owned()))),
    ]
}

fn block(text: &str) -> Result<Ipv4Net, String> {
    let wanted = "write one of version 4 such as \"10.20.0.0/16\"";
    let block: Ipv4Net = text.parse().map_err(|_| format!("\"{text}\" is no block of addresses: {wanted}"))?;
    if block.addr() == block.network() { Ok(block) } else { Err(format!("\"{text}\" begins at {}", block.trunc())) }
}

fn range(text: &str) -> Result<Ipv4Net, String> {
    let range = block(text)?;
    let (largest, smallest) = (EGRESS_PREFIX.start(), EGRESS_PREFIX.end());
    if !EGRESS_PREFIX.contains(&range.prefix_len()) {
        return Err(format!(
            "{range} is out of range: write a prefix of /{largest} to /{smallest}; a sandbox takes two addresses"
        ));
    }
    let is_provider_s = Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 10).contains(&range);
    if range.network().is_private() || is_provider_s {
        Ok(range)
    } else {
        Err(format!("{range} is not private: machines of others have these addresses; write one such as 10.213.0.0/16"))
    }
}

fn denied(value: &Value) -> Result<Vec<Ipv4Net>, String> {
    list(value, "a list of blocks such as [\"10.0.0.0/8\"]", DENIED, block)
}

fn nameservers(value: &Value) -> Result<Option<Vec<Ipv4Addr>>, String> {
    if matches!(value, Value::Text(word) | Value::Bare(word) if word == "auto") {
        return Ok(None);
    }
    let address = |text: &str| match text.parse() {
        Ok(address) if is_never_reached(address) => {
            Err(format!("{address} is reached by no sandbox: name a nameserver that other machines reach, too"))
        }
        Ok(address) => Ok(address),
        Err(_) => Err(format!("\"{text}\" is no address of version 4")),
    };
    list(value, "\"auto\", or a list of addresses such as [\"9.9.9.9\"]", NAMESERVERS, address).map(Some)
}

/// A list; on the command line and in variables its items are parted by commas.
fn list<T>(
    value: &Value,
    wanted: &str,
    most: usize,
    item: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, String> {
    let listed: Vec<&str> = match value {
        Value::List(items) => items.iter().map(text).collect::<Result<_, _>>()?,
        Value::Bare(list) => list.split(',').map(str::trim).filter(|one| !one.is_empty()).collect(),
        other => return Err(wrong_type(wanted, other)),
    };
    if listed.len() > most {
        return Err(format!("{} are too many: at most {most}", listed.len()));
    }
    listed.into_iter().map(item).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(items: &[&str]) -> Value {
        Value::List(items.iter().map(|item| Value::Text((*item).to_owned())).collect())
    }

    #[test]
    fn the_range_is_private_and_of_a_size_that_is_of_use() {
        for right in ["10.213.0.0/16", "192.168.7.0/24", "172.20.0.16/28", "100.64.0.0/16"] {
            assert_eq!(range(right).unwrap().to_string(), right);
        }
        let said = |wrong| range(wrong).unwrap_err();
        assert!(said("10.213.0.1/16").contains("begins at 10.213.0.0/16"));
        assert!(said("10.0.0.0/8").contains("/16 to /28") && said("10.213.0.0/29").contains("/16 to /28"));
        assert!(said("8.8.0.0/16").contains("not private"));
        assert!(said("fd00::/16").contains("version 4") && said("10.213.0.0").contains("no block"));
    }

    #[test]
    fn what_is_denied_is_a_list_of_blocks() {
        let read =
            |value: &Value| denied(value).map(|blocks| blocks.iter().map(Ipv4Net::to_string).collect::<Vec<_>>());
        assert_eq!(read(&texts(&["10.0.0.0/8", "0.0.0.0/0"])).unwrap(), ["10.0.0.0/8", "0.0.0.0/0"]);
        assert_eq!(read(&Value::Bare("10.0.0.0/8, 192.0.2.1/32".into())).unwrap(), ["10.0.0.0/8", "192.0.2.1/32"]);
        assert_eq!(read(&texts(&[])).unwrap(), [""; 0]);
        assert!(read(&texts(&["10.0.0.0"])).is_err() && read(&Value::Integer(10)).is_err());
        assert!(read(&texts(&["10.0.0.0/8"; DENIED + 1])).unwrap_err().contains("too many"));
    }

    #[test]
    fn nameservers_are_addresses_that_can_be_reached() {
        assert_eq!(nameservers(&Value::Text("auto".into())), Ok(None));
        assert_eq!(nameservers(&Value::Bare("auto".into())), Ok(None));
        assert_eq!(nameservers(&texts(&["10.0.0.2"])), Ok(Some(vec![Ipv4Addr::new(10, 0, 0, 2)])));
        assert_eq!(nameservers(&Value::Bare("9.9.9.9".into())), Ok(Some(vec![Ipv4Addr::new(9, 9, 9, 9)])));
        for wrong in ["127.0.0.53", "169.254.169.253", "::1", "dns.example"] {
            assert!(nameservers(&texts(&[wrong])).is_err(), "{wrong}");
        }
        assert!(nameservers(&texts(&["9.9.9.9"; NAMESERVERS + 1])).unwrap_err().contains("too many"));
    }
}
