//! From what was typed to a worker's checked configuration, or every problem of it, one a line.

use vilya_worker::config::{Config, Host, Problem, Sources};

use crate::arguments::ConfigSources;
use crate::failure::Failure;
use crate::output::{Screen, complain};

/// The configuration that `serve` would run with.
pub(crate) fn load(typed: &ConfigSources) -> Result<Config, Failure> {
    checked(&Sources::discover(typed.config.clone(), overrides(typed)?))
}

/// A configuration of exactly these settings over the built-in values: no file, no environment.
pub(crate) fn fixed(settings: &[(&str, String)]) -> Result<Config, Failure> {
    let flags = settings.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
    checked(&Sources { flags, ..Sources::default() })
}

/// `config check`.
pub(crate) fn check(typed: &ConfigSources, screen: &mut Screen) -> Result<(), Failure> {
    let config = load(typed)?;
    screen.line(format_args!("the configuration is good; it listens on {}", config.server.address))
}

/// `config print`.
pub(crate) fn print(typed: &ConfigSources, screen: &mut Screen) -> Result<(), Failure> {
    screen.bytes(load(typed)?.to_toml().as_bytes())
}

fn checked(sources: &Sources) -> Result<Config, Failure> {
    let host = Host::read()
        .map_err(|error| Failure::local(format_args!("cannot read this machine's cores and memory: {error}")))?;
    Config::load(sources, &host).map_err(|problems| summary(&problems))
}

/// Says all problems and keeps the one line that ends the command.
fn summary(problems: &[Problem]) -> Failure {
    match problems {
        [only] => Failure::usage(only),
        several => {
            several.iter().for_each(complain);
            let count = several.len();
            Failure::usage(format_args!("{count} problems in the configuration: correct them"))
        }
    }
}

/// The flags as dotted keys and values; `--address` is the last word on where to listen.
fn overrides(typed: &ConfigSources) -> Result<Vec<(String, String)>, Failure> {
    let mut flags = Vec::new();
    for set in &typed.sets {
        let (key, value) = set.split_once('=').filter(|(key, _)| key.contains('.')).ok_or_else(|| {
            Failure::usage(format_args!(
                "--set {set}: write section.key=value, as in --set server.address=127.0.0.1:8080"
            ))
        })?;
        flags.push((key.trim().to_owned(), value.trim().to_owned()));
    }
    flags.extend(typed.address.iter().map(|address| ("server.address".to_owned(), address.clone())));
    Ok(flags)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(sets: &[&str], address: Option<&str>) -> ConfigSources {
        ConfigSources {
            config: None,
            sets: sets.iter().map(|set| (*set).to_owned()).collect(),
            address: address.map(str::to_owned),
        }
    }

    #[test]
    fn a_setting_is_a_dotted_key_and_a_value() {
        let flags = overrides(&typed(&["a.b=c=d"], Some("127.0.0.1:1"))).unwrap();
        let flags: Vec<(&str, &str)> = flags.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(flags, [("a.b", "c=d"), ("server.address", "127.0.0.1:1")]);
        for wrong in ["a.b", "a=b", "=x"] {
            assert_eq!(overrides(&typed(&[wrong], None)).unwrap_err().fault().code(), 2, "{wrong}");
        }
    }

    #[test]
    fn fixed_settings_are_in_force_and_wrong_ones_are_refused() {
        let config = fixed(&[("server.address", "127.0.0.1:0".to_owned())]).unwrap();
        assert_eq!(config.server.address.port(), 0);
        let failure = fixed(&[("server.address", "nonsense".to_owned())]).unwrap_err();
        assert_eq!(failure.fault().code(), 2);
        assert!(failure.to_string().contains("server.address"), "{failure}");
    }
}
