//! A deployment in steps: asked for, its archive unpacked by whoever has the time, prepared from that, its image fetched in the same way,
//! completed.
//!
//! Invariant: a deployment that is dropped before it is completed leaves nothing. It takes effect when it is completed, whatever was
//! deployed since it was asked for. Unpacking and fetching change nothing that others see. It does not know threads.

use std::collections::HashMap;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};
use vilya_distribution::{PullError, Puller, Reference};
use vilya_image::bundle::{BundleLimits, Unpacked};
use vilya_isolate::Unpacker;

use super::{Catalog, CatalogError, bundle_name, disk};
use crate::manifest::{self, Manifest, Runtime};
use crate::storage::images::{ImageRecord, Pin, Shelf, Shelved};
use crate::storage::registry::FunctionRecord;
use crate::storage::unpacking::{Desk, UnpackError};

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

/// A deployment that was asked for: nobody has looked at its archive.
#[derive(Debug)]
pub struct Asked {
    name: String,
    archive: Vec<u8>,
    number: u64,
    limits: BundleLimits,
    unpacker: Arc<Unpacker>,
    incoming: Incoming,
}

/// A deployment whose archive is unpacked, and not checked.
#[derive(Debug)]
pub struct Opened {
    name: String,
    number: u64,
    digest: String,
    unpacked: Unpacked,
    incoming: Incoming,
}

/// A deployment whose bundle is unpacked and checked.
#[derive(Debug)]
pub struct Prepared {
    name: String,
    number: u64,
    manifest: Manifest,
    digest: String,
    unpacked: Unpacked,
    wanted: Option<Wanted>,
    /// Holds the bundle until it is moved.
    _incoming: Incoming,
}

/// An image to be had, from its registry or from the bundle.
#[derive(Debug)]
pub struct Wanted {
    origin: Origin,
    shelf: Shelf,
    /// Images that were pulled before and are there still, by registry, name and digest.
    known: HashMap<String, ImageRecord>,
    directory: Incoming,
}

#[derive(Debug)]
enum Origin {
    Registry(Reference),
    /// A file or folder of the bundle.
    Bundle(PathBuf),
}

/// An image that was had.
#[derive(Debug)]
pub enum Fetched {
    /// It was there already.
    Known(ImageRecord),
    /// It is unpacked where it was wanted, and its layers are kept for it until it is recorded.
    Unpacked(ImageRecord, Vec<Pin>),
}

impl Wanted {
    /// The image's name in its registry, if it is in one.
    pub fn reference(&self) -> Option<&Reference> {
        match &self.origin {
            Origin::Registry(reference) => Some(reference),
            Origin::Bundle(_) => None,
        }
    }

    /// Pulls the image if it has to be, verifies and unpacks it: what takes long. Nothing outside its own directory is changed.
    ///
    /// # Errors
    /// Whatever is wrong with the image or its registry.
    pub fn fetch(&self, puller: Option<&Puller>) -> Result<Fetched, CatalogError> {
        let (archive, pinned) = match &self.origin {
            Origin::Bundle(archive) => (archive.clone(), None),
            Origin::Registry(reference) => {
                let puller = puller.ok_or(PullError::Stopped)?;
                match self.pull(puller, reference)? {
                    Ok(image) => return Ok(Fetched::Known(image)),
                    Err((layout, pinned)) => (layout, Some(pinned)),
                }
            }
        };
        let tree = self.tree();
        let Shelved { image, pins } = self.shelf.unpack(&archive, &self.directory.path, &tree)?;
        let image = ImageRecord { pinned, ..image };
        Ok(if tree.is_dir() { Fetched::Unpacked(image, pins) } else { Fetched::Known(image) })
    }

    /// One that is known, or else a layout and what it is pinned to.
    fn pull(
        &self,
        puller: &Puller,
        reference: &Reference,
    ) -> Result<Result<ImageRecord, (PathBuf, String)>, PullError> {
        let known = |pinned: &String| self.known.get(pinned).cloned();
        if let Some(image) = reference.digest().and_then(|digest| known(&reference.pinned(digest))) {
            return Ok(Ok(image));
        }
        let pull = puller.begin(reference)?;
        let pinned = reference.pinned(pull.digest());
        if let Some(image) = known(&pinned) {
            return Ok(Ok(image));
        }
        let layout = self.directory.path.join("layout");
        let bytes = pull.write(&layout)?;
        tracing::info!(image = pinned, bytes, "pulled");
        Ok(Err((layout, pinned)))
    }

    fn tree(&self) -> PathBuf {
        self.directory.path.join("tree")
    }
}

impl Asked {
    /// The function's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Grows with every deployment that is asked for.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Unpacks the archive: what may take long. Nothing outside its own directory is changed.
    ///
    /// # Errors
    /// Whatever is wrong with the archive.
    pub fn unpack(self) -> Result<Opened, CatalogError> {
        let Asked { name, archive, number, limits, unpacker, incoming } = self;
        let desk = Desk { unpacker: &unpacker, directory: &incoming.path };
        let unpacked = desk.unpack_bundle(&archive, limits)?;
        let digest = crate::storage::hex(&Sha256::digest(&archive));
        Ok(Opened { name, number, digest, unpacked, incoming })
    }
}

impl Prepared {
    /// The function's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// As it was when it was asked for.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The image to be fetched before it can be completed.
    pub fn wanted(&self) -> Option<&Wanted> {
        self.wanted.as_ref()
    }
}

impl Catalog {
    /// Begins a deployment. Nothing that is deployed is changed.
    pub fn ask(&mut self, name: &str, archive: Vec<u8>) -> Result<Asked, CatalogError> {
        manifest::check_name(name).map_err(CatalogError::Name)?;
        self.check_count(name)?;
        let unpacker = self.unpacker.clone().ok_or(UnpackError::Never)?;
        let number = self.deployments;
        self.deployments += 1;
        let incoming = Incoming::make(self.bundles().join(format!("{INCOMING_PREFIX}{number}")))?;
        Ok(Asked { name: name.to_owned(), archive, number, limits: self.limits.bundle, unpacker, incoming })
    }

    /// Checks a function that was unpacked. Nothing that is deployed is changed.
    pub fn prepare(&self, opened: Opened) -> Result<Prepared, CatalogError> {
        let Opened { name, number, digest, unpacked, incoming } = opened;
        let manifest = self.read_manifest(&name, &unpacked)?;
        let wanted = self.wanted(&manifest, &unpacked, number)?;
        Ok(Prepared { name, number, manifest, digest, unpacked, wanted, _incoming: incoming })
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
        let image = match (&prepared.wanted, &fetched) {
            (Some(wanted), Some(fetched)) => Some(self.take_image(&prepared.manifest, wanted, fetched)?),
            (wanted, _) => {
                assert!(wanted.is_none(), "an image that is wanted is fetched before");
                None
            }
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
                let _ = self.disposal.take(&self.bundle_path(&record));
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

    fn wanted(&self, manifest: &Manifest, unpacked: &Unpacked, number: u64) -> Result<Option<Wanted>, CatalogError> {
        let Some(name) = &manifest.image else { return Ok(None) };
        let path = unpacked.root.join(name);
        let (origin, known) = match manifest.image_reference() {
            Some(reference) => (Origin::Registry(reference), self.pulled()?),
            None if path.exists() => (Origin::Bundle(path), HashMap::new()),
            None => {
                return Err(CatalogError::Mismatch(format!(
                    "image = \"{name}\" is not beside {}: add it, or name one of a registry in full, such as \
                     docker.io/python:3.13-slim",
                    manifest::FILE_NAME
                )));
            }
        };
        let directory = Incoming::make(self.images.incoming(number))?;
        Ok(Some(Wanted { origin, shelf: self.images.shelf(), known, directory }))
    }

    /// Keeps the image, and takes its archive out of the bundle if it lies there.
    fn take_image(&self, manifest: &Manifest, wanted: &Wanted, fetched: &Fetched) -> Result<ImageRecord, CatalogError> {
        let tree = wanted.tree();
        let (image, is_new) = match fetched {
            Fetched::Known(image) => (image, false),
            Fetched::Unpacked(image, _) => (image, true),
        };
        if !is_new && !self.images.has(image) {
            let message = "the image was removed with its last function while this one was deployed: deploy it again";
            return Err(CatalogError::Mismatch(message.to_owned()));
        }
        let interpreter = self.interpreter(manifest, image, &tree)?;
        if is_new {
            self.images.keep(image, &tree).map_err(disk(&tree))?;
        }
        if let Origin::Bundle(path) = &wanted.origin {
            let removed = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
            removed.map_err(disk(path))?;
        }
        Ok(ImageRecord { interpreter, ..image.clone() })
    }

    /// The program in an image that runs a function, which must be there if the runtime needs one.
    fn interpreter(
        &self,
        manifest: &Manifest,
        image: &ImageRecord,
        tree: &Path,
    ) -> Result<Option<String>, CatalogError> {
        let Some(wanted) = manifest.runtime.interpreter() else { return Ok(None) };
        if let Some(found) = self.images.find_program(image, tree, wanted) {
            return Ok(Some(found));
        }
        let name = manifest.image.as_deref().unwrap_or_default();
        let oldest = if manifest.runtime == Runtime::Node { "Node 18" } else { "Python 3.9" };
        let message =
            format!("image = \"{name}\" has no {wanted} on its PATH: use an image that has {oldest} or later");
        Err(CatalogError::Mismatch(message))
    }
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
        // What cannot be removed now goes at the next start.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}
