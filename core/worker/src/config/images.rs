//! Section `[images]`: whether and how images are pulled.
//!
//! Invariant: a registry in the list is a host and perhaps a port, in lower case, as a reference has it. It does not know registries.

use std::path::PathBuf;

use vilya_distribution::is_host;

use super::raw::Value;
use super::reader::{Reader, text, wrong_type};
use super::rules::absolute_path;
use super::units::{GIB, MIB, MINUTE_NS, SECOND_NS, format_bytes, format_duration};

/// Most registries that may be listed.
const REGISTRIES_MAX: usize = 64;

/// Section `[images]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Images {
    /// Whether images are pulled from registries at all.
    pub pull: bool,
    /// Largest image, to pull and unpacked.
    pub max_size_bytes: u64,
    /// Longest that pulling one may take.
    pub pull_timeout_ns: u64,
    /// Registries that are spoken to without TLS, besides those on this machine.
    pub insecure_registries: Vec<String>,
    /// The directory of Docker's `config.json`; `None` is where docker itself looks.
    pub docker_config: Option<PathBuf>,
}

impl Images {
    pub(super) fn read(reader: &mut Reader) -> Images {
        let docker_config = |value: &Value| match text(value)? {
            "auto" => Ok(None),
            path => absolute_path(path).map(Some),
        };
        Images {
            pull: reader.boolean("images.pull", true),
            max_size_bytes: reader.bytes("images.max_size", 4 * GIB, MIB..=1024 * GIB),
            pull_timeout_ns: reader.duration_ns("images.pull_timeout", 15 * MINUTE_NS, SECOND_NS..=24 * 60 * MINUTE_NS),
            insecure_registries: reader.read("images.insecure_registries", registries).unwrap_or_default(),
            docker_config: reader.read("images.docker_config", docker_config).unwrap_or(None),
        }
    }

    /// Keys, and values as TOML.
    pub(super) fn settings(&self) -> Vec<(&'static str, String)> {
        let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
        let docker_config = self.docker_config.as_ref().map_or("auto".into(), |path| path.to_string_lossy());
        vec![
            ("images.pull", self.pull.to_string()),
            ("images.max_size", quoted(&format_bytes(self.max_size_bytes))),
            ("images.pull_timeout", quoted(&format_duration(self.pull_timeout_ns))),
            ("images.insecure_registries", format!("{:?}", self.insecure_registries)),
            ("images.docker_config", quoted(&docker_config)),
        ]
    }
}

fn registries(value: &Value) -> Result<Vec<String>, String> {
    const WANTED: &str = "a list of registries such as [\"registry.example:5000\"]";
    let listed: Vec<&str> = match value {
        Value::List(items) => items.iter().map(text).collect::<Result<_, _>>()?,
        // Of a flag or a variable.
        Value::Bare(list) => list.split(',').map(str::trim).filter(|one| !one.is_empty()).collect(),
        other => return Err(wrong_type(WANTED, other)),
    };
    if listed.len() > REGISTRIES_MAX {
        return Err(format!("{} registries are too many: at most {REGISTRIES_MAX}", listed.len()));
    }
    let lower = listed.iter().map(|one| one.to_ascii_lowercase());
    let checked =
        lower.map(|one| if is_host(&one) { Ok(one) } else { Err(format!("\"{one}\" is no registry: write {WANTED}")) });
    checked.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_are_hosts_and_ports() {
        let list = |items: &[&str]| Value::List(items.iter().map(|item| Value::Text((*item).to_owned())).collect());
        assert_eq!(registries(&list(&["R.example:5000", "[::1]:1"])).unwrap(), ["r.example:5000", "[::1]:1"]);
        assert_eq!(
            registries(&Value::Bare("a.example, b.example:1".to_owned())).unwrap(),
            ["a.example", "b.example:1"]
        );
        assert_eq!(registries(&Value::Bare(String::new())).unwrap(), [""; 0]);
        for wrong in ["http://r.example", "r.example/app", "r.example:", "*.example"] {
            assert!(registries(&list(&[wrong])).unwrap_err().contains("is no registry"), "{wrong}");
        }
        assert!(registries(&Value::Integer(1)).is_err());
        assert!(registries(&list(&["r.example"; REGISTRIES_MAX + 1])).is_err());
    }
}
