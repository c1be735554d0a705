//! Having archives read and unpacked by a process that may do nothing else.
//!
//! Invariant: no byte of an archive is looked at here. What that process says is bounded, and what it made is looked at before anything is
//! done with it. It does not know what the files are for, nor, of images, what a layer is.

use std::fs::DirBuilder;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::memfd::{MFdFlags, memfd_create};
use vilya_image::bundle::{BundleError, BundleLimits, Unpacked};
use vilya_image::{Answer, ImageError, Request, WorkError};
use vilya_isolate::{Bounds, Finished, Job, JobError, Unpacker};

use super::catalog::Fault as WhoseFault;
use super::inspection::{self, Allowed, Fault};
use crate::manifest;

/// Why an archive was not unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// Something is wrong with the image.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// Something is wrong with the bundle.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The process that shall unpack it did not.
    #[error("the archive is not unpacked: {0}")]
    Job(#[from] JobError),
    /// What that process said or made cannot be.
    #[error("the archive is not taken: what came of unpacking it is not what may come of one ({0}): do not use it")]
    Untrue(String),
    /// This worker unpacks nothing.
    #[error("this worker unpacks no archives")]
    Never,
}

impl From<WorkError> for UnpackError {
    fn from(error: WorkError) -> UnpackError {
        match error {
            WorkError::Image(error) => error.into(),
            WorkError::Bundle(error) => error.into(),
        }
    }
}

impl UnpackError {
    /// Whose fault it is.
    pub(super) fn fault(&self) -> WhoseFault {
        match self {
            UnpackError::Image(ImageError::Disk { source, .. })
            | UnpackError::Bundle(BundleError::Disk { source, .. }) => WhoseFault::of_disk(source),
            UnpackError::Image(ImageError::TooLarge(_))
            | UnpackError::Bundle(BundleError::TooLarge { .. } | BundleError::TooManyEntries { .. }) => {
                WhoseFault::PayloadTooLarge
            }
            UnpackError::Job(JobError::Ended { .. } | JobError::Late(_) | JobError::Senseless)
            | UnpackError::Image(_)
            | UnpackError::Bundle(_)
            | UnpackError::Untrue(_) => WhoseFault::InvalidFunction,
            UnpackError::Job(JobError::Stopped) => WhoseFault::Stopping,
            UnpackError::Job(_) | UnpackError::Never => WhoseFault::Internal,
        }
    }

    /// An answer to something else.
    pub(super) fn senseless() -> UnpackError {
        UnpackError::Untrue("an answer without sense".to_owned())
    }
}

/// What is read.
#[derive(Clone, Copy, Debug)]
pub(super) enum Given<'a> {
    Folder(&'a Path),
    Archive(BorrowedFd<'a>),
}

/// A process that unpacks, and a directory to do it in that is used for nothing else.
#[derive(Clone, Copy, Debug)]
pub(super) struct Desk<'a> {
    pub(super) unpacker: &'a Unpacker,
    pub(super) directory: &'a Path,
}

/// What a process is to write.
#[derive(Clone, Copy, Debug)]
pub(super) struct Output<'a> {
    /// A directory, which is made.
    pub(super) tree: &'a Path,
    pub(super) allowed: Allowed,
}

impl Desk<'_> {
    /// Where a folder is shown to the process.
    pub(super) fn folder_of(given: Given<'_>) -> Option<PathBuf> {
        matches!(given, Given::Folder(_)).then(|| PathBuf::from(Unpacker::FOLDER))
    }

    /// What the process answers. What it made is looked at, taken over and on disk then.
    pub(super) fn ask(
        &self,
        request: &Request,
        given: Given<'_>,
        output: Option<Output<'_>>,
        bounds: Bounds,
    ) -> Result<Answer, UnpackError> {
        let disk = |path: &Path| {
            let path = path.to_owned();
            move |source| UnpackError::from(ImageError::Disk { path, source })
        };
        let staging = self.directory.join("root");
        match DirBuilder::new().mode(0o700).create(&staging) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(disk(&staging)(error)),
            _ => {}
        }
        if let Some(Output { tree, .. }) = output {
            DirBuilder::new().mode(0o700).create(tree).map_err(disk(tree))?;
        }
        let (folder, input) = match given {
            Given::Folder(folder) => (Some(folder), None),
            Given::Archive(archive) => (None, Some(archive)),
        };
        let (request, tree) = (request.to_bytes(), output.map(|output| output.tree));
        let job = Job { request: &request, staging: &staging, folder, input, tree, bounds };
        let Finished { answer, owner } = self.unpacker.run(&job)?;
        let answer = Answer::from_bytes(&answer).ok_or_else(UnpackError::senseless)??;
        if let Some(Output { tree, allowed }) = output {
            inspection::take(tree, owner.0, allowed).map_err(|fault| match fault {
                Fault::Untrue(why) => UnpackError::Untrue(why),
                Fault::Disk(path, source) => disk(&path)(source),
            })?;
        }
        Ok(answer)
    }

    /// Unpacks a function's folder.
    pub(super) fn unpack_bundle(&self, archive: &[u8], limits: BundleLimits) -> Result<Unpacked, UnpackError> {
        let mut input = std::fs::File::from(
            memfd_create(c"vilya-bundle", MFdFlags::MFD_CLOEXEC).map_err(|errno| JobError::System(errno.into()))?,
        );
        input.write_all(archive).and_then(|()| io::Seek::rewind(&mut input)).map_err(JobError::System)?;
        let tree = self.directory.join("tree");
        let manifest = manifest::FILE_NAME.to_owned();
        let request = Request::Unpack { tree: Unpacker::TREE.into(), manifest, limits };
        let bounds = Bounds {
            memory_bytes: UNPACKING_MEMORY_BYTES,
            file_bytes: limits.unpacked_bytes,
            processor: UNPACKING_PROCESSOR,
            patience: 2 * UNPACKING_PROCESSOR,
        };
        let allowed =
            Allowed { entries: limits.entries.into(), bytes: limits.unpacked_bytes, depth: BUNDLE_DEPTH, links: false };
        let output = Some(Output { tree: &tree, allowed });
        let Answer::Unpacked(bytes) = self.ask(&request, Given::Archive(input.as_fd()), output, bounds)? else {
            return Err(UnpackError::senseless());
        };
        let root = root_of(&tree).map_err(|source| BundleError::Disk { path: tree.clone(), source })?;
        let missing = || BundleError::NoManifest { name: manifest::FILE_NAME.to_owned() };
        Ok(Unpacked { root: root.ok_or_else(missing)?, bytes })
    }
}

/// Room for names, the list of a zip and a decompressor.
const UNPACKING_MEMORY_BYTES: u64 = 128 << 20;
/// What a folder of 512 MiB needs many times over.
const UNPACKING_PROCESSOR: Duration = Duration::from_secs(60);
/// Folders in folders, and the file in them.
const BUNDLE_DEPTH: usize = 33;

/// The directory that has the manifest: this one, or the only one in it. No links are in it.
fn root_of(tree: &Path) -> io::Result<Option<PathBuf>> {
    let has_manifest = |directory: &Path| directory.join(manifest::FILE_NAME).is_file();
    if has_manifest(tree) {
        return Ok(Some(tree.to_owned()));
    }
    let mut entries = std::fs::read_dir(tree)?;
    let (only, more) = (entries.next().transpose()?, entries.next().transpose()?);
    let only = only.filter(|_| more.is_none()).map(|entry| entry.path());
    Ok(only.filter(|only| has_manifest(only)))
}
