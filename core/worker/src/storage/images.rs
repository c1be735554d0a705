//! Images, one directory each, named by their content, whose files are those of their layers.
//!
//! Invariant: a directory that has its final name is complete and durable and never changes, and is removed only when neither a record nor
//! a version that may still run refers to it; a layer only when no such image has it. Images that no deployment came to refer to go with the
//! next removal or start. It does not know manifests or sandboxes.

mod layers;
mod store;

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use vilya_image::Limits;
use vilya_isolate::Unpacker;

use super::disposal::Disposal;
use super::registry::FunctionRecord;
use super::unpacking::{Desk, UnpackError};
use layers::Unpacking;
use store::Layers;
pub use store::Pin;

/// Where images are, in the state directory.
const IMAGES: &str = "images";
/// What is unpacked, or pulled for that. An image's name does not start with a dot.
const INCOMING_PREFIX: &str = ".incoming-";
const PASSABLE: u32 = 0o711;
/// Where programs are looked for in an image that does not say.
const SEARCH_PATH: &str = "/usr/local/bin:/usr/bin:/bin";
/// Most variables taken of an image.
const ENVIRONMENT_MAX: usize = 64;
/// As many as the kernel follows.
const LINKS_MAX: usize = 40;

/// What stands in place of the image's own: who the sandbox's user is, and that no name is asked of a network. A container's engine mounts
/// files of its own on the last three, and needs something to mount them on.
const FILES: [(&str, &str); 6] = [
    ("etc/passwd", "root:x:0:0:root:/:/usr/sbin/nologin\nfunction:x:1000:1000:function:/tmp:/bin/sh\n"),
    ("etc/group", "root:x:0:\nfunction:x:1000:\n"),
    ("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n"),
    ("etc/hosts", "127.0.0.1 localhost function\n::1 localhost\n"),
    ("etc/hostname", "function\n"),
    ("etc/resolv.conf", ""),
];

/// The image of a deployed function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// SHA-256 over its layers, in hexadecimal.
    pub identity: String,
    /// Variables that it sets.
    pub environment: Vec<(String, String)>,
    /// The program that runs the function, as a path inside.
    pub interpreter: Option<String>,
    /// Where it was pulled from, with the digest: `registry.example/name@sha256:…`.
    #[serde(default)]
    pub pinned: Option<String>,
    /// Names of the layers that its files are shared with; none of an image that shares none.
    #[serde(default)]
    pub layers: Vec<String>,
}

impl ImageRecord {
    /// Its directory, relative to the state directory.
    pub fn directory(&self) -> PathBuf {
        Path::new(IMAGES).join(&self.identity)
    }
}

/// The images of a state directory.
#[derive(Debug)]
pub(super) struct Images {
    shelf: Shelf,
    /// Images of versions that are deployed no more and may still run.
    retired: HashMap<u64, ImageRecord>,
}

/// Where images are kept, for a thread that unpacks one.
#[derive(Clone, Debug)]
pub(super) struct Shelf {
    directory: PathBuf,
    layers: Arc<Layers>,
    limits: Limits,
    unpacker: Option<Arc<Unpacker>>,
}

/// An image that was verified, and flattened if it was not there.
#[derive(Debug)]
pub(super) struct Shelved {
    pub(super) image: ImageRecord,
    /// Its layers stay until this goes, or the image is recorded.
    pub(super) pins: Vec<Pin>,
}

impl Shelf {
    /// Verifies an image, has those of its layers unpacked that are not there, and writes what they add up to into `tree`, below `directory`,
    /// unless that was done before: then the layers are read all the same, since their names alone would give anyone who knows them the
    /// files, and there is no `tree`.
    pub(super) fn unpack(&self, archive: &Path, directory: &Path, tree: &Path) -> Result<Shelved, UnpackError> {
        let unpacker = self.unpacker.as_deref().ok_or(UnpackError::Never)?;
        let unpacking = Unpacking { desk: Desk { unpacker, directory }, archive, limits: self.limits };
        let (description, lines) = unpacking.describe()?;
        let hashed = |text: &str| super::hex(&Sha256::digest(text));
        let (identity, layers) = (hashed(&lines.concat()), lines.iter().map(|line| hashed(line)).collect::<Vec<_>>());
        let variables = description.environment.clone();
        let pins = if self.directory.join(&identity).is_dir() {
            Vec::new()
        } else {
            unpacking.flatten(description, &layers, &self.layers, tree, &FILES)?
        };
        let usable = |name: &str, value: &str| {
            !name.is_empty() && !name.starts_with("VILYA_") && !name.contains('\0') && !value.contains('\0')
        };
        let variables = variables.into_iter().filter(|(name, value)| usable(name, value));
        let environment = variables.take(ENVIRONMENT_MAX).collect();
        let image = ImageRecord { identity, environment, interpreter: None, pinned: None, layers };
        Ok(Shelved { image, pins })
    }
}

impl Images {
    pub(super) fn open(state_directory: &Path, max_bytes: u64) -> io::Result<Images> {
        let directory = state_directory.join(IMAGES);
        super::ensure_directory(&directory, PASSABLE)?;
        let limits = Limits { bytes: max_bytes, ..Limits::default() };
        let layers = Arc::new(Layers::open(state_directory)?);
        Ok(Images { shelf: Shelf { directory, layers, limits, unpacker: None }, retired: HashMap::new() })
    }

    /// With a process that unpacks.
    pub(super) fn unpacked_by(&mut self, unpacker: Arc<Unpacker>) {
        self.shelf.unpacker = Some(unpacker);
    }

    pub(super) fn shelf(&self) -> Shelf {
        self.shelf.clone()
    }

    /// A place to unpack one at, which nothing sweeps before the next start.
    pub(super) fn incoming(&self, number: u64) -> PathBuf {
        self.shelf.directory.join(format!("{INCOMING_PREFIX}{number}"))
    }

    /// Whether an image is there whole.
    pub(super) fn has(&self, image: &ImageRecord) -> bool {
        self.shelf.directory.join(&image.identity).is_dir()
    }

    /// Where a program is in an image that is there or was unpacked into `tree`, as a path inside: on the PATH that the image sets.
    pub(super) fn find_program(&self, image: &ImageRecord, tree: &Path, program: &str) -> Option<String> {
        let place = self.shelf.directory.join(&image.identity);
        let at = if place.is_dir() { &place } else { tree };
        let set = image.environment.iter().rfind(|(name, _)| name == "PATH");
        let path = set.map_or(SEARCH_PATH, |(_, path)| path);
        let folders = path.split(':').filter(|part| part.starts_with('/'));
        folders.map(|part| format!("{part}/{program}")).find(|candidate| is_file_within(at, candidate))
    }

    /// Keeps an image that was unpacked, durably, unless it is there.
    pub(super) fn keep(&self, image: &ImageRecord, tree: &Path) -> io::Result<()> {
        if self.has(image) {
            return Ok(());
        }
        std::fs::rename(tree, self.shelf.directory.join(&image.identity))?;
        super::sync_directory(&self.shelf.directory)
    }

    /// A version is deployed no more; it may still run.
    pub(super) fn retire(&mut self, record: &FunctionRecord) {
        self.retired.extend(record.image.clone().map(|image| (record.version, image)));
    }

    /// A version runs no more. Removes what nothing refers to then.
    pub(super) fn end(
        &mut self,
        record: &FunctionRecord,
        deployed: &[FunctionRecord],
        disposal: &Disposal,
    ) -> io::Result<()> {
        let is_known = self.retired.remove(&record.version).is_some();
        if is_known { self.sweep(deployed, disposal) } else { Ok(()) }
    }

    /// Removes every image and layer that neither a deployed version nor one that may still run refers to.
    pub(super) fn sweep(&self, deployed: &[FunctionRecord], disposal: &Disposal) -> io::Result<()> {
        self.sweep_but(deployed, disposal, |name| name.starts_with(INCOMING_PREFIX))
    }

    /// The same before anything is deployed: also what a crash left of an image.
    pub(super) fn sweep_all(&self, deployed: &[FunctionRecord], disposal: &Disposal) -> io::Result<()> {
        self.sweep_but(deployed, disposal, |_| false)
    }

    fn sweep_but(
        &self,
        deployed: &[FunctionRecord],
        disposal: &Disposal,
        is_spared: impl Fn(&str) -> bool,
    ) -> io::Result<()> {
        let images = deployed.iter().filter_map(|record| record.image.as_ref()).chain(self.retired.values());
        let (mut named, mut layers) = (HashSet::new(), HashSet::new());
        for image in images {
            named.insert(image.identity.as_str());
            layers.extend(image.layers.iter().map(String::as_str));
        }
        for entry in std::fs::read_dir(&self.shelf.directory)? {
            let entry = entry?;
            if !entry.file_name().to_str().is_some_and(|name| named.contains(name) || is_spared(name)) {
                disposal.take(&entry.path())?;
            }
        }
        self.shelf.layers.sweep(&layers, disposal)
    }
}

/// Whether a path names a file when `root` is `/`: links are followed as they would be inside.
fn is_file_within(root: &Path, path: &str) -> bool {
    let mut left: Vec<PathBuf> = vec![PathBuf::from(path)];
    let (mut at, mut links) = (root.to_owned(), 0);
    while let Some(path) = left.pop() {
        let mut components = path.components();
        let Some(component) = components.next() else { continue };
        left.push(components.as_path().to_owned());
        match component {
            Component::RootDir | Component::Prefix(_) => root.clone_into(&mut at),
            Component::ParentDir if at != root => drop(at.pop()),
            Component::ParentDir | Component::CurDir => {}
            Component::Normal(name) => {
                at.push(name);
                if let Ok(to) = std::fs::read_link(&at) {
                    links += 1;
                    if links > LINKS_MAX {
                        return false;
                    }
                    at.pop();
                    left.push(to);
                }
            }
        }
    }
    std::fs::symlink_metadata(&at).is_ok_and(|found| found.is_file())
}

#[cfg(test)]
mod tests;
