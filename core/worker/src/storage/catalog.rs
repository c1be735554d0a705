//! Deploying, listing and removing functions: the registry and the bundles together.
//!
//! Invariant: a record is written only after its bundle is complete and durable under its final name, and a bundle's
//! directory is removed only when no record names it; so a crash between any two steps leaves nothing but directories
//! that no record names, which [`Catalog::open`] removes. It does not know who still runs an old version: the caller
//! says with [`Catalog::discard`] when nobody does.

mod deployment;

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vilya_distribution::PullError;
use vilya_image::bundle::{BundleLimits, Unpacked};
use vilya_isolate::Unpacker;

use super::disposal::Disposal;
use super::images::Images;
use super::registry::{FunctionRecord, Registry, RegistryError};
use super::unpacking::UnpackError;
use crate::config::Problem;
use crate::config::units::format_bytes;
use crate::manifest::{self, Manifest, Runtime};
use crate::mechanisms::MechanismSettings;

pub use deployment::{Asked, Deployed, Fetched, Opened, Prepared, Wanted};

const BUNDLES: &str = "bundles";
/// Others may pass through the directory to a bundle whose name they know, but not list it.
const PASSABLE: u32 = 0o711;

/// Whose fault a [`CatalogError`] is, and so which status answers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The archive or its manifest is wrong: 400.
    InvalidFunction,
    /// There is no function of that name: 404.
    NoSuchFunction,
    /// The archive is too large once unpacked: 413.
    PayloadTooLarge,
    /// There are as many functions as allowed: 507.
    FunctionsFull,
    /// The disk is full: 507.
    DiskFull,
    /// The image's registry failed: 502.
    RegistryFailed,
    /// The worker is stopping: 503.
    Stopping,
    /// The worker or its machine failed: 500.
    Internal,
}

impl Fault {
    /// Whose fault an error of the disk is.
    pub(super) fn of_disk(source: &io::Error) -> Fault {
        if super::is_full(source) { Fault::DiskFull } else { Fault::Internal }
    }
}

/// Why the catalog could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The name in the request cannot be a function's.
    #[error("{0}")]
    Name(String),
    /// The archive, or the image in it, was refused or could not be unpacked.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    /// The image was not pulled.
    #[error(transparent)]
    Pull(#[from] PullError),
    /// The manifest has problems.
    #[error("the manifest has {} problem(s):{}", .0.len(), listed(.0))]
    Manifest(Vec<Problem>),
    /// The manifest and the rest of the request or the worker do not agree.
    #[error("{0}")]
    Mismatch(String),
    /// There is no such function.
    #[error("no function is named \"{0}\"; `vilya list` shows those there are")]
    NoSuchFunction(String),
    /// There are as many functions as allowed.
    #[error("{0} functions are deployed, as many as limits.functions allows: remove one, or raise the limit")]
    FunctionsFull(u32),
    /// The registry failed.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The disk said no.
    #[error(
        "cannot use {}: {source}; check that this user may write there and that the disk has room",
        path.display()
    )]
    Disk {
        /// What was used.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

fn listed(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("\n  {problem}")).collect()
}

impl CatalogError {
    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        let disk = Fault::of_disk;
        match self {
            CatalogError::Name(_) | CatalogError::Manifest(_) | CatalogError::Mismatch(_) => Fault::InvalidFunction,
            CatalogError::NoSuchFunction(_) => Fault::NoSuchFunction,
            CatalogError::FunctionsFull(_) => Fault::FunctionsFull,
            CatalogError::Unpack(error) => error.fault(),
            CatalogError::Pull(error) => match error {
                PullError::Disk { source, .. } => disk(source),
                PullError::Invalid(_) | PullError::NotFound(_) | PullError::Unauthorized(_) => Fault::InvalidFunction,
                PullError::TooLarge(_) => Fault::PayloadTooLarge,
                PullError::Stopped => Fault::Stopping,
                _ => Fault::RegistryFailed,
            },
            CatalogError::Registry(RegistryError::Disk { source, .. }) | CatalogError::Disk { source, .. } => {
                disk(source)
            }
            CatalogError::Registry(_) => Fault::Internal,
        }
    }
}

/// Bounds on what may be deployed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CatalogLimits {
    /// Functions.
    pub functions: u32,
    /// Memory that a manifest may ask for: what a shard can give one sandbox.
    pub function_memory_bytes: u64,
    /// Bounds of each bundle.
    pub bundle: BundleLimits,
    /// Largest image.
    pub image_bytes: u64,
}

/// The functions of this worker.
#[derive(Debug)]
pub struct Catalog {
    state_directory: PathBuf,
    registry: Registry,
    images: Images,
    disposal: Disposal,
    unpacker: Option<Arc<Unpacker>>,
    limits: CatalogLimits,
    /// What functions may ask for; unknown until it is said.
    mechanisms: Option<MechanismSettings>,
    /// Deployments so far: each has directories of its own until it is done.
    deployments: u64,
}

impl Catalog {
    /// Opens the catalog of a state directory, making it if it is missing, and removes what a crash left there.
    pub fn open(state_directory: &Path, limits: CatalogLimits) -> Result<Catalog, CatalogError> {
        for directory in [state_directory, &state_directory.join(BUNDLES)] {
            super::ensure_directory(directory, PASSABLE).map_err(disk(directory))?;
        }
        // First the registry: its lock says that no other worker is unpacking here.
        let registry = Registry::open(state_directory)?;
        let images = Images::open(state_directory, limits.image_bytes).map_err(disk(state_directory))?;
        let disposal = Disposal::start(state_directory).map_err(disk(state_directory))?;
        let state_directory = state_directory.to_owned();
        let (unpacker, mechanisms, deployments) = (None, None, 0);
        let catalog =
            Catalog { state_directory, registry, images, disposal, unpacker, limits, mechanisms, deployments };
        catalog.sweep()?;
        Ok(catalog)
    }

    /// The same catalog, which refuses functions whose mechanism is not there.
    pub(crate) fn offering(self, mechanisms: MechanismSettings) -> Catalog {
        Catalog { mechanisms: Some(mechanisms), ..self }
    }

    /// The same catalog, whose archives this process unpacks.
    pub fn unpacked_by(mut self, unpacker: Arc<Unpacker>) -> Catalog {
        self.images.unpacked_by(Arc::clone(&unpacker));
        Catalog { unpacker: Some(unpacker), ..self }
    }

    /// Ends every unpacking, and begins no more.
    pub fn stop_unpacking(&self) {
        self.unpacker.iter().for_each(|unpacker| unpacker.stop());
    }

    /// The worker's id, made once for this state directory.
    pub fn worker_id(&self) -> &str {
        self.registry.worker_id()
    }

    /// All functions, by name.
    pub fn list(&self) -> Result<Vec<FunctionRecord>, CatalogError> {
        Ok(self.registry.list()?)
    }

    /// One function.
    pub fn get(&self, name: &str) -> Result<FunctionRecord, CatalogError> {
        self.registry.get(name)?.ok_or_else(|| CatalogError::NoSuchFunction(name.to_owned()))
    }

    /// Where a record's code is, as an absolute path if the state directory is one.
    pub fn bundle_path(&self, record: &FunctionRecord) -> PathBuf {
        self.state_directory.join(&record.bundle)
    }

    /// Forgets a function. Its code stays until [`Catalog::discard`] or the next start.
    pub fn remove(&mut self, name: &str) -> Result<FunctionRecord, CatalogError> {
        let removed = self.registry.remove(name)?.ok_or_else(|| CatalogError::NoSuchFunction(name.to_owned()))?;
        self.images.retire(&removed);
        Ok(removed)
    }

    /// Deletes the code of a version that was replaced or removed and runs no more.
    ///
    /// # Panics
    ///
    /// If the version is the deployed one, which would be a fault of the caller.
    pub fn discard(&mut self, record: &FunctionRecord) -> Result<(), CatalogError> {
        let current = self.registry.get(&record.name)?;
        assert!(
            current.is_none_or(|current| current.version != record.version),
            "version {} of {} is deployed and cannot be discarded",
            record.version,
            record.name
        );
        let path = self.state_directory.join(bundle_name(&record.name, record.version));
        self.disposal.take(&path).map_err(disk(&path))?;
        let records = self.registry.list()?;
        self.images.end(record, &records, &self.disposal).map_err(disk(&self.state_directory))
    }

    /// Removes what a deployment left that came to nothing: layers that were good, of an image that was not taken.
    pub fn forget_images(&self) -> Result<(), CatalogError> {
        let records = self.registry.list()?;
        self.images.sweep(&records, &self.disposal).map_err(disk(&self.state_directory))
    }

    fn bundles(&self) -> PathBuf {
        self.state_directory.join(BUNDLES)
    }

    fn read_manifest(&self, name: &str, unpacked: &Unpacked) -> Result<Manifest, CatalogError> {
        let path = unpacked.root.join(manifest::FILE_NAME);
        let size = std::fs::metadata(&path).map_err(disk(&path))?.len();
        if size > manifest::FILE_BYTES_MAX {
            let bound = format_bytes(manifest::FILE_BYTES_MAX);
            return Err(CatalogError::Mismatch(format!("{} is larger than {bound}", manifest::FILE_NAME)));
        }
        let bytes = std::fs::read(&path).map_err(disk(&path))?;
        let text = String::from_utf8(bytes)
            .map_err(|_| CatalogError::Mismatch(format!("{} is not UTF-8 text", manifest::FILE_NAME)))?;
        let manifest = Manifest::parse(&text).map_err(CatalogError::Manifest)?;
        self.check_manifest(name, &manifest)?;
        check_handler(&unpacked.root, &manifest)?;
        Ok(manifest)
    }

    fn check_manifest(&self, name: &str, manifest: &Manifest) -> Result<(), CatalogError> {
        if manifest.name != name {
            return Err(CatalogError::Mismatch(format!(
                "the request deploys \"{name}\" but {} says name = \"{}\": make them the same",
                manifest::FILE_NAME,
                manifest.name
            )));
        }
        if let (Some(mechanisms), Some(wanted)) = (&self.mechanisms, manifest.mechanism) {
            let missing = |why| CatalogError::Mismatch(format!("mechanism = \"{}\": {why}", wanted.as_str()));
            mechanisms.check(wanted).map_err(missing)?;
        }
        if let Some(mechanisms) = &self.mechanisms {
            let refused = |why| CatalogError::Mismatch(format!("network = \"{}\": {why}", manifest.network.as_str()));
            mechanisms.check_network(manifest.network, manifest.mechanism).map_err(refused)?;
        }
        let bound = self.limits.function_memory_bytes;
        if manifest.memory_bytes > bound {
            return Err(CatalogError::Mismatch(format!(
                "memory = \"{}\" is more than the {} that this worker can give one sandbox: lower it, or raise limits.memory",
                format_bytes(manifest.memory_bytes),
                format_bytes(bound)
            )));
        }
        Ok(())
    }

    /// Moves a complete bundle to its final name, durably.
    fn place(&self, root: &Path, bundle: &str) -> Result<(), CatalogError> {
        std::fs::set_permissions(root, Permissions::from_mode(0o755)).map_err(disk(root))?;
        let path = self.state_directory.join(bundle);
        std::fs::rename(root, &path).map_err(disk(&path))?;
        let bundles = self.bundles();
        super::sync_directory(&bundles).map_err(disk(&bundles))
    }

    /// Removes every directory under `bundles/` that no record names, and warns of records whose code is gone.
    fn sweep(&self) -> Result<(), CatalogError> {
        let records = self.registry.list()?;
        let named: std::collections::HashSet<&str> = records.iter().map(|record| record.bundle.as_str()).collect();
        let bundles = self.bundles();
        for entry in std::fs::read_dir(&bundles).map_err(disk(&bundles))? {
            let entry = entry.map_err(disk(&bundles))?;
            let is_named =
                entry.file_name().to_str().is_some_and(|name| named.contains(format!("{BUNDLES}/{name}").as_str()));
            let is_directory = entry.file_type().map_err(disk(&entry.path()))?.is_dir();
            if !is_named && is_directory {
                self.disposal.take(&entry.path()).map_err(disk(&entry.path()))?;
                tracing::info!(path = %entry.path().display(), "removed what an earlier run left");
            }
        }
        self.images.sweep_all(&records, &self.disposal).map_err(disk(&self.state_directory))?;
        for record in records.iter().filter(|record| !self.bundle_path(record).is_dir()) {
            tracing::warn!(
                function = record.name,
                bundle = record.bundle,
                "the code is missing: deploy the function again"
            );
        }
        Ok(())
    }
}

fn disk(path: &Path) -> impl FnOnce(io::Error) -> CatalogError {
    let path = path.to_owned();
    move |source| CatalogError::Disk { path, source }
}

fn bundle_name(name: &str, version: u64) -> String {
    format!("{BUNDLES}/{name}.{version}")
}

/// Checks that the bundle has what the handler names, and that an executable can be run.
fn check_handler(root: &Path, manifest: &Manifest) -> Result<(), CatalogError> {
    match manifest.runtime {
        Runtime::Python => {
            let module = manifest.handler.split('.').next().unwrap_or_default();
            if root.join(format!("{module}.py")).is_file() || root.join(module).is_dir() {
                return Ok(());
            }
            Err(CatalogError::Mismatch(format!(
                "handler = \"{}\" needs {module}.py beside {}, and the archive has none",
                manifest.handler,
                manifest::FILE_NAME
            )))
        }
        Runtime::Node => {
            let file = manifest.handler.rfind('/').map_or(0, |slash| slash + 1);
            let stem = file + manifest.handler[file..].find('.').unwrap_or_default();
            let module = &manifest.handler[..stem];
            if ["mjs", "js", "cjs"].iter().any(|extension| root.join(format!("{module}.{extension}")).is_file()) {
                return Ok(());
            }
            Err(CatalogError::Mismatch(format!(
                "handler = \"{}\" needs {module}.mjs, {module}.js or {module}.cjs, and the archive has none",
                manifest.handler
            )))
        }
        Runtime::Rust | Runtime::C => {
            let path = root.join(&manifest.handler);
            if !path.is_file() {
                return Err(CatalogError::Mismatch(format!(
                    "handler = \"{}\" is not a file of the archive: name the built executable",
                    manifest.handler
                )));
            }
            // Some archivers do not keep the bit.
            std::fs::set_permissions(&path, Permissions::from_mode(0o755)).map_err(disk(&path))
        }
    }
}

#[cfg(test)]
mod tests;
