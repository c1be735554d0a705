//! Having an image unpacked by a process that may do nothing else.
//!
//! Invariant: no byte of an image is looked at here but to hash it. What is taken of an image's own word is what it may say anything about:
//! its variables, where its layers are, and what they are when they are unpacked. The name that it is kept by is made of the digests of
//! layers as they were read here, and the process that flattens them is given those places alone, so one that was taken over by a layer can
//! spoil images with that very layer and no others. It does not know what the tree is for.

use std::fs::{DirBuilder, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};
use vilya_image::{Answer, Description, ImageError, Layer, Limits, Place, Request};
use vilya_isolate::{Bounds, Finished, Job, JobError, Unpacker};

use super::inspection::{self, Fault};

/// Why an image was not unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// Something is wrong with it.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The process that shall unpack it did not.
    #[error("the image is not unpacked: {0}")]
    Job(#[from] JobError),
    /// What that process said or made cannot be of an image.
    #[error("the image is not taken: what came of unpacking it is not what an image may be ({0}): do not use it")]
    Untrue(String),
    /// This worker unpacks nothing.
    #[error("this worker unpacks no images")]
    Never,
}

/// Room for what an image says of itself.
const DESCRIBING: Bounds = Bounds {
    memory_bytes: 128 << 20,
    file_bytes: 0,
    processor: Duration::from_secs(60),
    patience: Duration::from_secs(300),
};
/// Room for the window of a decompressor and for the names of all entries.
const FLATTENING_MEMORY_BYTES: u64 = 512 << 20;
/// Processor time that any image may take to unpack, and for how many more bytes another second.
const FLATTENING_SECONDS: u64 = 600;
const FLATTENING_BYTES_A_SECOND: u64 = 16 << 20;

/// An image to be unpacked.
pub(super) struct Unpacking<'a> {
    pub(super) unpacker: &'a Unpacker,
    /// The archive or the folder.
    pub(super) archive: &'a Path,
    /// A directory of this deployment's own.
    pub(super) directory: &'a Path,
    pub(super) limits: Limits,
}

impl Unpacking<'_> {
    /// What the image says of itself, once its layers are known to be what it calls them by; and the name to keep it by.
    pub(super) fn describe(&self) -> Result<(Description, String), UnpackError> {
        let request = Request::Describe { folder: self.folder().map(|_| PathBuf::from(Unpacker::FOLDER)) };
        let (answer, _) = self.ask(&request, None, DESCRIBING)?;
        let Answer::Described(description) = answer else { return Err(senseless()) };
        let mut identity = Sha256::new();
        for layer in &description.layers {
            identity.update(format!("{} {}\n", self.verified(layer)?, layer.diff_id));
        }
        Ok((description, crate::storage::hex(&identity.finalize())))
    }

    /// Writes the files into a directory that is made for it. Everything is on disk then.
    pub(super) fn flatten(
        &self,
        description: Description,
        tree: &Path,
        files: &[(&str, &str)],
    ) -> Result<(), UnpackError> {
        let disk = |source| ImageError::Disk { path: tree.to_owned(), source };
        DirBuilder::new().mode(0o700).create(tree).map_err(disk)?;
        // Their digests were looked at here.
        let layers = description.layers.into_iter().map(|layer| Layer { digest: None, ..layer });
        let request = Request::Flatten {
            folder: self.folder().map(|_| PathBuf::from(Unpacker::FOLDER)),
            layers: layers.collect(),
            tree: Unpacker::TREE.into(),
            limits: self.limits,
            files: files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect(),
        };
        let seconds = FLATTENING_SECONDS + self.limits.bytes / FLATTENING_BYTES_A_SECOND;
        let bounds = Bounds {
            memory_bytes: FLATTENING_MEMORY_BYTES,
            file_bytes: self.limits.bytes,
            processor: Duration::from_secs(seconds),
            patience: Duration::from_secs(2 * seconds),
        };
        let (answer, owner) = self.ask(&request, Some(tree), bounds)?;
        let Answer::Flattened(_) = answer else { return Err(senseless()) };
        inspection::inspect(tree, owner, self.limits).map_err(|fault| match fault {
            Fault::Untrue(why) => UnpackError::Untrue(why),
            Fault::Disk(path, source) => ImageError::Disk { path, source }.into(),
        })?;
        lchown(tree, Some(nix::unistd::geteuid().as_raw()), Some(nix::unistd::getegid().as_raw())).map_err(disk)?;
        std::fs::set_permissions(tree, std::fs::Permissions::from_mode(0o755)).map_err(disk)?;
        File::open(tree).and_then(|tree| Ok(nix::unistd::syncfs(&tree)?)).map_err(disk)?;
        Ok(())
    }

    fn folder(&self) -> Option<&Path> {
        self.archive.is_dir().then_some(self.archive)
    }

    /// What the process answers, and whom the files belong to that it made.
    fn ask(&self, request: &Request, tree: Option<&Path>, bounds: Bounds) -> Result<(Answer, u32), UnpackError> {
        let disk = |path: &Path, source| ImageError::Disk { path: path.to_owned(), source };
        let staging = self.directory.join("root");
        match DirBuilder::new().mode(0o700).create(&staging) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(disk(&staging, error).into()),
            _ => {}
        }
        let folder = self.folder();
        let archive = folder.is_none().then(|| File::open(self.archive)).transpose();
        let archive = archive.map_err(|error| disk(self.archive, error))?;
        let input = archive.as_ref().map(AsFd::as_fd);
        let job = Job { request: &request.to_bytes(), staging: &staging, folder, input, tree, bounds };
        let Finished { answer, owner } = self.unpacker.run(&job)?;
        Ok((Answer::from_bytes(&answer).ok_or_else(senseless)??, owner.0))
    }

    /// The digest of a layer's bytes, which must be what the image calls it by.
    fn verified(&self, layer: &Layer) -> Result<String, UnpackError> {
        let read = |source| ImageError::Read { what: layer.to_string(), source };
        let mut part: Box<dyn Read> = match (&layer.place, self.folder()) {
            (Place::Blob(digits), Some(folder)) => {
                Box::new(File::open(folder.join("blobs/sha256").join(digits)).map_err(read)?)
            }
            (Place::Range { offset, bytes }, None) => {
                let mut archive = File::open(self.archive).map_err(read)?;
                archive.seek(SeekFrom::Start(*offset)).map_err(read)?;
                Box::new(archive.take(*bytes))
            }
            _ => return Err(senseless()),
        };
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 256 << 10];
        loop {
            match part.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => hash.update(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(read(error).into()),
            }
        }
        let found = crate::storage::hex(&hash.finalize());
        match &layer.digest {
            Some(wanted) if *wanted != found => {
                let what = "a layer".to_owned();
                Err(ImageError::Digest { what, found, wanted: wanted.clone() }.into())
            }
            _ => Ok(found),
        }
    }
}

fn senseless() -> UnpackError {
    UnpackError::Untrue("an answer without sense".to_owned())
}
