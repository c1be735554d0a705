//! The effective configuration as a TOML text, each value with where it came from.
//!
//! Invariant: reading the text back on the same host gives the same configuration. A value that was derived from the
//! machine is printed as the number it came to, except for the words (`auto`) that keep their meaning elsewhere.

use std::fmt::Write;

use vilya_isolate::OciRuntime;

use super::checked::{
    ConcurrencyPolicy, Config, Interpreter, KeepAlivePolicy, QueuePolicy, SandboxCores, Shards, Spin, SpreadPolicy,
};
use super::egress;
use super::units::{format_bytes, format_duration};

impl Config {
    /// The whole effective configuration as TOML.
    pub fn to_toml(&self) -> String {
        let mut out = String::from("# The effective configuration; after each value, where it came from.\n");
        let mut section = "";
        for (key, value) in self.settings() {
            // Every key has a section: `rules` names no other.
            let (table, name) = key.rsplit_once('.').unwrap_or(("", key));
            if table != section {
                let _ = write!(out, "\n[{table}]\n");
                section = table;
            }
            let origin = self.origin(key).map_or_else(String::new, |source| format!("  # {source}"));
            let _ = writeln!(out, "{name} = {value}{origin}");
        }
        out
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        let mut settings = self.server_settings();
        settings.extend(self.limit_settings());
        settings.extend(self.choice_settings());
        settings.extend(egress::settings(&self.sandbox.network.egress));
        settings.extend(self.images.settings());
        settings
    }

    fn server_settings(&self) -> Vec<(&'static str, String)> {
        let server = &self.server;
        vec![
            ("server.address", quoted(&server.address.to_string())),
            (
                "server.wire_address",
                quoted(&server.wire_address.map_or("off".to_owned(), |address| address.to_string())),
            ),
            ("server.state_directory", quoted(&server.state_directory.to_string_lossy())),
            ("server.max_payload", quoted(&format_bytes(server.max_payload_bytes))),
            ("server.header_timeout", quoted(&format_duration(server.header_timeout_ns))),
            ("server.idle_timeout", quoted(&format_duration(server.idle_timeout_ns))),
            ("server.body_timeout", quoted(&format_duration(server.body_timeout_ns))),
            ("server.drain_timeout", quoted(&format_duration(server.drain_timeout_ns))),
            ("server.connections", server.connections.to_string()),
        ]
    }

    fn limit_settings(&self) -> Vec<(&'static str, String)> {
        let limits = &self.limits;
        vec![
            ("limits.memory", quoted(&format_bytes(limits.memory_bytes))),
            ("limits.functions", limits.functions.to_string()),
            ("limits.invocations", limits.invocations.to_string()),
            ("limits.queue_per_function", limits.queue_per_function.to_string()),
            ("limits.sandboxes", limits.sandboxes.to_string()),
            ("limits.sandboxes_per_function", limits.sandboxes_per_function.to_string()),
            ("limits.starting", limits.starting.to_string()),
            ("limits.processes", limits.processes.to_string()),
            ("limits.tmp", quoted(&format_bytes(limits.tmp_bytes))),
            ("limits.open_files", limits.open_files.to_string()),
            ("limits.start_timeout", quoted(&format_duration(limits.start_timeout_ns))),
            ("limits.log_bytes", quoted(&format_bytes(limits.log_bytes))),
            ("limits.zygotes", quoted(&format_bytes(limits.zygotes_bytes))),
            ("limits.bodies", quoted(&format_bytes(limits.bodies_bytes))),
        ]
    }

    fn choice_settings(&self) -> Vec<(&'static str, String)> {
        let policies = &self.policies;
        let queue = match policies.queue {
            QueuePolicy::Fcfs => "fcfs",
            QueuePolicy::Sjf => "sjf",
        };
        let keep_alive = match policies.keep_alive {
            KeepAlivePolicy::Lru => "lru",
            KeepAlivePolicy::Ttl => "ttl",
            KeepAlivePolicy::GreedyDual => "greedy-dual",
        };
        let spread = match policies.spread {
            SpreadPolicy::Auto => "auto",
            SpreadPolicy::Off => "off",
            SpreadPolicy::Everywhere => "everywhere",
        };
        let idle_step = |ns| match ns {
            0 => "off".to_owned(),
            ns => format_duration(ns),
        };
        let concurrency = match policies.concurrency {
            ConcurrencyPolicy::Unlimited => quoted("unlimited"),
            ConcurrencyPolicy::Fixed(running) => running.to_string(),
        };
        let file = |file: &Interpreter| match file {
            Interpreter::Auto => quoted("auto"),
            Interpreter::Path(path) => quoted(&path.to_string_lossy()),
        };
        let cpu = self.sandbox.cpu_millis.map_or("none".to_owned(), |millis| (f64::from(millis) / 1000.0).to_string());
        let spin = |spin| match spin {
            Spin::Auto => "auto".to_owned(),
            Spin::Fixed(ns) => format_duration(ns),
        };
        vec![
            ("cores.shards", self.shards_setting()),
            ("cores.sandboxes", self.sandbox_cores_setting()),
            ("cores.pin", self.cores.pin.to_string()),
            ("cores.spin", quoted(&spin(self.cores.spin))),
            ("policies.queue", quoted(queue)),
            ("policies.keep_alive", quoted(keep_alive)),
            ("policies.keep_alive_ttl", quoted(&format_duration(policies.keep_alive_ttl_ns))),
            ("policies.trim_after", quoted(&idle_step(policies.trim_after_ns))),
            ("policies.freeze_after", quoted(&idle_step(policies.freeze_after_ns))),
            ("policies.quantum", quoted(&idle_step(policies.quantum_ns))),
            ("policies.concurrency", concurrency),
            ("policies.spread", quoted(spread)),
            ("runtimes.python.interpreter", file(&self.runtimes.python_interpreter)),
            ("runtimes.node.interpreter", file(&self.runtimes.node.interpreter)),
            ("runtimes.node.addon", file(&self.runtimes.node.addon)),
            ("sandbox.mechanism", quoted(self.sandbox.mechanism.as_str())),
            ("sandbox.oci_runtime", quoted(self.sandbox.oci_runtime.map_or("auto", OciRuntime::name))),
            ("sandbox.docker_socket", quoted(&self.sandbox.docker_socket.to_string_lossy())),
            ("sandbox.mitigations", quoted(if self.sandbox.mitigations { "on" } else { "off" })),
            ("sandbox.cpu", quoted(&cpu)),
            ("sandbox.spin", quoted(&spin(self.sandbox.spin))),
            ("sandbox.prepared", self.sandbox.prepared.to_string()),
            ("sandbox.prepared_images", self.sandbox.prepared_images.to_string()),
            ("sandbox.host_loopback_ports", format!("{:?}", self.sandbox.network.host_loopback_ports)),
            ("sandbox.node_ahead", self.sandbox.node_ahead.to_string()),
            ("sandbox.loaded", self.sandbox.loaded.to_string()),
        ]
    }

    fn shards_setting(&self) -> String {
        match &self.cores.shards {
            Shards::Auto => quoted("auto"),
            Shards::Count(count) => count.to_string(),
            Shards::Cores(cores) => format!("{cores:?}"),
        }
    }

    fn sandbox_cores_setting(&self) -> String {
        match &self.cores.sandboxes {
            SandboxCores::Auto => quoted("auto"),
            SandboxCores::Near => quoted("near"),
            SandboxCores::Shard => quoted("shard"),
            SandboxCores::Cores(cores) => format!("{cores:?}"),
        }
    }
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Host, Sources};

    fn host() -> Host {
        Host { cores: vec![0, 1], memory_bytes: 3 << 30, state_directory: "/var/lib/vi \"l\" ya".into() }
    }

    fn read_back(config: &Config) -> Config {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("printed.toml");
        std::fs::write(&path, config.to_toml()).unwrap();
        let mut back = Config::load(&Sources { file: Some(path), ..Sources::default() }, &host()).unwrap();
        back.origins = config.origins.clone();
        back
    }

    #[test]
    fn what_is_printed_reads_back() {
        let defaults = Config::load(&Sources::default(), &host()).unwrap();
        assert_eq!(read_back(&defaults), defaults);
        let flags = [
            ("cores.shards", "0-1"),
            ("cores.sandboxes", "[1]"),
            ("cores.pin", "false"),
            ("sandbox.cpu", "1.25"),
            ("sandbox.spin", "0s"),
            ("sandbox.prepared", "0"),
            ("sandbox.prepared_images", "2"),
            ("sandbox.host_loopback_ports", "5432,6379"),
            ("sandbox.egress", "true"),
            ("sandbox.egress_range", "192.168.8.0/24"),
            ("sandbox.egress_denied", "10.0.0.0/8,192.0.2.0/24"),
            ("sandbox.egress_connections", "7"),
            ("sandbox.nameservers", "192.0.2.53"),
            ("sandbox.node_ahead", "3"),
            ("sandbox.loaded", "3"),
            ("sandbox.mechanism", "oci"),
            ("sandbox.oci_runtime", "runc"),
            ("sandbox.mitigations", "off"),
            ("sandbox.docker_socket", "/run/other.sock"),
            ("policies.queue", "sjf"),
            ("policies.keep_alive", "ttl"),
            ("policies.trim_after", "off"),
            ("policies.freeze_after", "1m"),
            ("policies.quantum", "5ms"),
            ("policies.concurrency", "12"),
            ("policies.spread", "off"),
            ("limits.memory", "1000000000"),
            ("images.pull", "false"),
            ("images.max_size", "1GiB"),
            ("images.pull_timeout", "1m"),
            ("images.insecure_registries", "r.example:5000,[::1]:80"),
            ("images.docker_config", "/etc/docker-of-vilya"),
            ("runtimes.python.interpreter", "/usr/bin/python3"),
            ("runtimes.node.interpreter", "/usr/bin/node"),
            ("runtimes.node.addon", "/opt/vilya.node"),
        ];
        let flags = flags.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
        let changed = Config::load(&Sources { flags, ..Sources::default() }, &host()).unwrap();
        assert_ne!(changed, defaults);
        assert_eq!(read_back(&changed), changed);
    }

    #[test]
    fn every_setting_is_printed_with_its_source() {
        let environment = vec![("VILYA_SERVER__MAX_PAYLOAD".into(), "1MiB".into())];
        let config = Config::load(&Sources { environment, ..Sources::default() }, &host()).unwrap();
        let printed: Vec<&str> = config.settings().iter().map(|(key, _)| *key).collect();
        for key in config.origins.keys() {
            assert!(printed.contains(key), "{key} is not printed");
        }
        assert_eq!(printed.len(), config.origins.len());
        assert!(config.to_toml().contains("max_payload = \"1MiB\"  # VILYA_SERVER__MAX_PAYLOAD\n"));
    }
}
