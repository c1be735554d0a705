//! A deployment in two steps, between which an image may be pulled: prepared from the archive, completed with the image.
//!
//! Invariant: a deployment that is dropped before it is completed leaves nothing. It takes effect when it is completed, whatever was
//! deployed since it was prepared. It does not know registries: who pulls is told what and where to.

use std::collections::HashMap;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use vilya_distribution::Reference;

use super::{Catalog, CatalogError, bundle_name, disk};
use crate::manifest::{self, Manifest, Runtime};
use crate::storage::bundle::{self, Unpacked};
use crate::storage::images::ImageRecord;
use crate::storage::registry::FunctionRecord;

/// A function's name cannot start with a dot, so that no bundle is mistaken for this.
const INCOMING_PREFIX: &str = ".incoming-";

/// What came of a deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deployed {
    /// The new record.
    pub record: FunctionRecord,
    /// The record it replaced, to be given to [`Catalog::discard`] once its version runs no more.
    pub replaced: Option<FunctionRecord>,
}

/// A deployment whose bundle is unpacked and checked.
#[derive(Debug)]
pub struct Prepared {
    name: String,
    manifest: Manifest,
    digest: String,
    unpacked: Unpacked,
    wanted: Option<Wanted>,
    /// Holds the bundle until it is moved.
    _incoming: Incoming,
}

/// An image to be pulled.
#[derive(Debug)]
pub struct Wanted {
    /// Which.
    pub reference: Reference,
    /// Images that were pulled before and are there still, by registry, name and digest.
    pub known: HashMap<String, ImageRecord>,
    directory: Incoming,
}

impl Wanted {
    /// An empty directory for it.
    pub fn directory(&self) -> &Path {
        &self.directory.path
    }
}

/// An image that was pulled.
#[derive(Debug)]
pub enum Fetched {
    /// It is one of [`Wanted::known`].
    Known(ImageRecord),
    /// It is in [`Wanted::directory`], and this is its registry, name and digest.
    Layout(String),
}

impl Prepared {
    /// The function's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The image to be pulled before it can be completed.
    pub fn wanted(&self) -> Option<&Wanted> {
        self.wanted.as_ref()
    }
}

impl Catalog {
    /// Unpacks and checks a function. Nothing that is deployed is changed.
    pub fn prepare(&mut self, name: &str, archive: &[u8]) -> Result<Prepared, CatalogError> {
        manifest::check_name(name).map_err(CatalogError::Name)?;
        self.check_count(name)?;
        let number = self.deployments;
        self.deployments += 1;
        let incoming = Incoming::make(self.bundles().join(format!("{INCOMING_PREFIX}{number}")))?;
        let unpacked = bundle::unpack(archive, &incoming.path, manifest::FILE_NAME, self.limits.bundle)?;
        let manifest = self.read_manifest(name, &unpacked)?;
        let wanted = match manifest.image_reference() {
            None => None,
            Some(reference) => {
                let directory = Incoming::make(self.bundles().join(format!("{INCOMING_PREFIX}{number}-image")))?;
                Some(Wanted { reference, known: self.pulled()?, directory })
            }
        };
        let digest = crate::storage::hex(&Sha256::digest(archive));
        Ok(Prepared { name: name.to_owned(), manifest, digest, unpacked, wanted, _incoming: incoming })
    }

    /// Registers a function whose image, if it wanted one, was pulled. When this returns, a crash loses nothing of it; when it fails,
    /// what was deployed before stays as it was.
    pub fn complete(
        &mut self,
        prepared: Prepared,
        fetched: Option<Fetched>,
        now_unix_ms: u64,
    ) -> Result<Deployed, CatalogError> {
        self.check_count(&prepared.name)?;
        let image = match (&prepared.wanted, fetched) {
            (Some(wanted), Some(fetched)) => Some(self.take_pulled(&prepared.manifest, wanted, fetched)?),
            _ => self.take_image(&prepared.unpacked, &prepared.manifest)?,
        };
        let version = self.registry.next_version();
        let bundle = bundle_name(&prepared.name, version);
        self.place(&prepared.unpacked.root, &bundle)?;
        let record = FunctionRecord {
            name: prepared.name,
            version,
            manifest: prepared.manifest,
            bundle,
            digest: prepared.digest,
            bundle_bytes: prepared.unpacked.bytes,
            image,
            deployed_unix_ms: now_unix_ms,
        };
        match self.registry.put(&record) {
            Ok(replaced) => {
                replaced.iter().for_each(|replaced| self.images.retire(replaced));
                Ok(Deployed { record, replaced })
            }
            Err(error) => {
                // No record names it; if this fails too, the next start removes it.
                let _ = std::fs::remove_dir_all(self.bundle_path(&record));
                Err(error.into())
            }
        }
    }

    fn check_count(&self, name: &str) -> Result<(), CatalogError> {
        if self.registry.get(name)?.is_none() && self.registry.len()? >= u64::from(self.limits.functions) {
            return Err(CatalogError::FunctionsFull(self.limits.functions));
        }
        Ok(())
    }

    /// What was pulled for the functions that are deployed. Whoever may deploy could pull it again with the worker's credentials, so
    /// having it without that gives them nothing; the same content under another name they would have to show.
    fn pulled(&self) -> Result<HashMap<String, ImageRecord>, CatalogError> {
        let images = self.registry.list()?.into_iter().filter_map(|record| record.image);
        let there = images.filter(|image| self.images.has(image));
        Ok(there.filter_map(|image| Some((image.pinned.clone()?, image))).collect())
    }

    fn take_pulled(&self, manifest: &Manifest, wanted: &Wanted, fetched: Fetched) -> Result<ImageRecord, CatalogError> {
        let image = match fetched {
            Fetched::Known(image) if self.images.has(&image) => {
                // It may have been pulled for a function of another runtime.
                let interpreter = self.images.interpreter(&image, manifest.runtime.interpreter());
                ImageRecord { interpreter, ..image }
            }
            Fetched::Known(_) => {
                let message =
                    "the image was removed with its last function while this one was deployed: deploy it again";
                return Err(CatalogError::Mismatch(message.to_owned()));
            }
            Fetched::Layout(pinned) => {
                let image = self.images.add(&wanted.directory.path, manifest.runtime.interpreter())?;
                ImageRecord { pinned: Some(pinned), ..image }
            }
        };
        check_interpreter(manifest, &image)?;
        Ok(image)
    }

    /// Flattens the image that lies in the bundle, and takes its archive out of that.
    fn take_image(&self, unpacked: &Unpacked, manifest: &Manifest) -> Result<Option<ImageRecord>, CatalogError> {
        let Some(name) = &manifest.image else { return Ok(None) };
        let path = unpacked.root.join(name);
        if !path.exists() {
            let message = format!(
                "image = \"{name}\" is not beside {}: add it, or name one of a registry in full, such as docker.io/python:3.13-slim",
                manifest::FILE_NAME
            );
            return Err(CatalogError::Mismatch(message));
        }
        let image = self.images.add(&path, manifest.runtime.interpreter())?;
        check_interpreter(manifest, &image)?;
        let removed = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        removed.map_err(disk(&path))?;
        Ok(Some(image))
    }
}

fn check_interpreter(manifest: &Manifest, image: &ImageRecord) -> Result<(), CatalogError> {
    if let (Some(wanted), None) = (manifest.runtime.interpreter(), &image.interpreter) {
        let name = manifest.image.as_deref().unwrap_or_default();
        let oldest = if manifest.runtime == Runtime::Node { "Node 18" } else { "Python 3.9" };
        let message =
            format!("image = \"{name}\" has no {wanted} on its PATH: use an image that has {oldest} or later");
        return Err(CatalogError::Mismatch(message));
    }
    Ok(())
}

/// A directory of a deployment under way; removed with everything left in it when this is dropped.
#[derive(Debug)]
struct Incoming {
    path: PathBuf,
}

impl Incoming {
    fn make(path: PathBuf) -> Result<Incoming, CatalogError> {
        // An earlier deployment that failed may not have been able to clean up.
        match std::fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(disk(&path)(error));
            }
            _ => {}
        }
        DirBuilder::new().mode(0o700).create(&path).map_err(disk(&path))?;
        Ok(Incoming { path })
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        // Absent when the bundle was its root and was moved; otherwise what cannot be removed now goes at the next start.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}
