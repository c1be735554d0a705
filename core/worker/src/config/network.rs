//! The settings of what functions may reach.
//!
//! Invariant: ports are from 1, few, and each is there once. It does not know what is listened at: see `rules` and the start of the worker.

use vilya_isolate::limits::PORTS;

use super::egress;
use super::raw::Value;
use super::reader::{Reader, wrong_type};
use crate::network::NetworkSettings;

pub(super) const PORTS_KEY: &str = "sandbox.host_loopback_ports";

pub(super) fn read(reader: &mut Reader) -> NetworkSettings {
    NetworkSettings {
        host_loopback_ports: reader.read(PORTS_KEY, ports).unwrap_or_default(),
        egress: egress::read(reader),
    }
}

/// A list of ports; `5432,6379` on the command line.
fn ports(value: &Value) -> Result<Vec<u16>, String> {
    const EXAMPLE: &str = "a list of ports such as [5432, 6379]";
    let understood = |text: &str| text.parse().map_err(|_| format!("\"{text}\" is not a port: write {EXAMPLE}"));
    let numbers: Vec<i64> = match value {
        Value::List(items) => items
            .iter()
            .map(|item| match item {
                Value::Integer(port) => Ok(*port),
                other => Err(wrong_type("a port", other)),
            })
            .collect::<Result<_, _>>()?,
        Value::Bare(text) => {
            let inner = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text).trim();
            inner.split(',').map(str::trim).filter(|part| !part.is_empty()).map(understood).collect::<Result<_, _>>()?
        }
        other => return Err(wrong_type(EXAMPLE, other)),
    };
    let mut ports = Vec::with_capacity(numbers.len());
    for number in numbers {
        match u16::try_from(number) {
            Ok(port) if port > 0 && !ports.contains(&port) => ports.push(port),
            Ok(port) if port > 0 => return Err(format!("{port} is there twice: write it once")),
            _ => return Err(format!("{number} is not a port: write 1 to 65535")),
        }
    }
    if ports.len() > PORTS { Err(format!("{} ports are too many: at most {PORTS}", ports.len())) } else { Ok(ports) }
}
