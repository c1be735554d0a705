//! The ways of making sandboxes that a worker may use, and those that it has set up.
//!
//! Invariant: a mechanism is set up once, on the thread that starts sandboxes: the worker's own choice when the worker starts, any other when a
//! function first asks for it. One that cannot be set up fails that start alone, and is tried again with the next. It does not know how
//! any of them works.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use vilya_isolate::{
    CgroupPreference, Docker, DockerOptions, Mechanism, Native, NativeOptions, Oci, OciOptions, OciRuntime, Protection,
    Protections, SetupError,
};

use crate::network::{Network, NetworkSettings};

/// A way of making sandboxes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MechanismKind {
    /// By the worker itself: namespaces, mounts, seccomp, control groups.
    Native,
    /// By crun or runc.
    Oci,
    /// By a Docker engine on this host.
    Docker,
}

impl MechanismKind {
    /// Each with its word in the configuration and in manifests.
    pub const CHOICES: [(&'static str, MechanismKind); 3] =
        [("native", MechanismKind::Native), ("oci", MechanismKind::Oci), ("docker", MechanismKind::Docker)];

    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            MechanismKind::Native => "native",
            MechanismKind::Oci => "oci",
            MechanismKind::Docker => "docker",
        }
    }
}

/// What each mechanism is set up with.
#[derive(Clone, Debug)]
pub(crate) struct MechanismSettings {
    pub(crate) chosen: MechanismKind,
    pub(crate) state_directory: PathBuf,
    pub(crate) worker_id: String,
    pub(crate) oci_runtime: Option<OciRuntime>,
    pub(crate) docker_socket: PathBuf,
    /// Of the native mechanism.
    pub(crate) mitigations: bool,
    pub(crate) network: NetworkSettings,
}

impl MechanismSettings {
    /// Whether a mechanism is there, as far as it can be told without setting it up.
    ///
    /// # Errors
    /// What is missing, and what to do.
    pub(crate) fn check(&self, kind: MechanismKind) -> Result<(), String> {
        match kind {
            MechanismKind::Native => Ok(()),
            MechanismKind::Oci => vilya_isolate::oci_available(self.oci_runtime),
            MechanismKind::Docker => vilya_isolate::docker_available(&self.docker_socket),
        }
    }

    /// Whether functions that ask for this network and this mechanism, or for none, will have it.
    ///
    /// # Errors
    /// Why not, and what to do.
    pub(crate) fn check_network(&self, asked: Network, mechanism: Option<MechanismKind>) -> Result<(), String> {
        self.network.check(asked, mechanism.unwrap_or(self.chosen))
    }

    fn set_up(&self, kind: MechanismKind) -> Result<Box<dyn Mechanism>, SetupError> {
        let (state_directory, worker_id) = (self.state_directory.clone(), self.worker_id.clone());
        let made: Box<dyn Mechanism> = match kind {
            MechanismKind::Native => {
                let (cgroup, mitigations) = (CgroupPreference::Auto, self.mitigations);
                let mut native = Native::new(NativeOptions { state_directory, worker_id, cgroup, mitigations })?;
                if self.network.egress.allowed {
                    native.allow_egress(self.network.egress.options());
                }
                Box::new(native)
            }
            MechanismKind::Oci => {
                Box::new(Oci::new(&OciOptions { state_directory, worker_id, runtime: self.oci_runtime })?)
            }
            MechanismKind::Docker => {
                let socket = self.docker_socket.clone();
                Box::new(Docker::new(DockerOptions { state_directory, worker_id, socket })?)
            }
        };
        report(made.name(), made.protections());
        Ok(made)
    }
}

/// The mechanisms that are set up.
pub(crate) struct Mechanisms {
    settings: MechanismSettings,
    made: BTreeMap<MechanismKind, Box<dyn Mechanism>>,
}

impl Mechanisms {
    /// Sets the worker's own choice up.
    ///
    /// # Errors
    /// When it cannot be; the message says what to change.
    pub(crate) fn new(settings: MechanismSettings) -> Result<Mechanisms, SetupError> {
        let chosen = settings.set_up(settings.chosen)?;
        Ok(Mechanisms { made: BTreeMap::from([(settings.chosen, chosen)]), settings })
    }

    /// The worker's own choice.
    pub(crate) fn chosen(&mut self) -> &mut dyn Mechanism {
        let made = self.made.get_mut(&self.settings.chosen);
        made.expect("it was set up when the worker started").as_mut()
    }

    /// Whether a function that asks for this gets the worker's own choice.
    pub(crate) fn is_chosen(&self, wanted: Option<MechanismKind>) -> bool {
        wanted.is_none_or(|wanted| wanted == self.settings.chosen)
    }

    /// The one that a function asks for, or the worker's choice.
    ///
    /// # Errors
    /// When it cannot be set up; the message says what to change.
    pub(crate) fn get(&mut self, wanted: Option<MechanismKind>) -> Result<&mut dyn Mechanism, SetupError> {
        let kind = wanted.unwrap_or(self.settings.chosen);
        match self.made.entry(kind) {
            std::collections::btree_map::Entry::Occupied(made) => Ok(made.into_mut().as_mut()),
            std::collections::btree_map::Entry::Vacant(place) => Ok(place.insert(self.settings.set_up(kind)?).as_mut()),
        }
    }
}

/// Says what a mechanism protects by, and what it does not.
fn report(mechanism: &str, protections: &Protections) {
    let (kept, missing): (Vec<&Protection>, Vec<&Protection>) =
        protections.iter().partition(|protection| protection.in_force);
    let names: Vec<&str> = kept.iter().map(|protection| protection.name).collect();
    tracing::info!(mechanism, "sandboxes are protected by: {}", names.join(", "));
    for Protection { name, detail, .. } in kept {
        tracing::debug!(mechanism, "{name}: {detail}");
    }
    for Protection { name, detail, .. } in missing {
        tracing::warn!(mechanism, "{name}: NOT in force: {detail}");
    }
}
