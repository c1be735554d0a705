//! An image, from an archive or folder to a tree.
//!
//! Invariant: what is taken of an image's own word is what it may say anything about: its variables, where its layers are, and what they are
//! when they are unpacked. The name that it is kept by is made of the digests of layers as they were read here, and the process that
//! flattens them is told those places alone, so one that was taken over by a layer can spoil images with that very layer and no others. It
//! does not know what the tree is for.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use sha2::{Digest, Sha256};
use vilya_image::{Answer, Description, ImageError, Layer, Limits, Place, Request};
use vilya_isolate::{Bounds, Unpacker};

use crate::storage::inspection::Allowed;
use crate::storage::unpacking::{Desk, Given, Output, UnpackError};

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
    pub(super) desk: Desk<'a>,
    /// The archive or the folder.
    pub(super) archive: &'a Path,
    pub(super) limits: Limits,
}

impl Unpacking<'_> {
    /// What the image says of itself, once its layers are known to be what it calls them by; and the name to keep it by.
    pub(super) fn describe(&self) -> Result<(Description, String), UnpackError> {
        let answer = self.given(|given| {
            self.desk.ask(&Request::Describe { folder: Desk::folder_of(given) }, given, None, DESCRIBING)
        })?;
        let Answer::Described(description) = answer else { return Err(UnpackError::senseless()) };
        let mut identity = Sha256::new();
        for layer in &description.layers {
            identity.update(format!("{} {}\n", self.verified(layer)?, layer.diff_id));
        }
        Ok((description, crate::storage::hex(&identity.finalize())))
    }

    /// Writes the files into a directory that is made for it.
    pub(super) fn flatten(
        &self,
        description: Description,
        tree: &Path,
        files: &[(&str, &str)],
    ) -> Result<(), UnpackError> {
        let Limits { entries, bytes, depth, .. } = self.limits;
        let seconds = FLATTENING_SECONDS + bytes / FLATTENING_BYTES_A_SECOND;
        let bounds = Bounds {
            memory_bytes: FLATTENING_MEMORY_BYTES,
            file_bytes: bytes,
            processor: Duration::from_secs(seconds),
            patience: Duration::from_secs(2 * seconds),
        };
        let output = Output { tree, allowed: Allowed { entries, bytes, depth, links: true } };
        // Their digests were looked at here.
        let layers = description.layers.into_iter().map(|layer| Layer { digest: None, ..layer }).collect();
        let answer = self.given(|given| {
            let request = Request::Flatten {
                folder: Desk::folder_of(given),
                layers,
                tree: Unpacker::TREE.into(),
                limits: self.limits,
                files: files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect(),
            };
            self.desk.ask(&request, given, Some(output), bounds)
        })?;
        if matches!(answer, Answer::Flattened(_)) { Ok(()) } else { Err(UnpackError::senseless()) }
    }

    fn folder(&self) -> Option<&Path> {
        self.archive.is_dir().then_some(self.archive)
    }

    fn given<T>(&self, ask: impl FnOnce(Given<'_>) -> Result<T, UnpackError>) -> Result<T, UnpackError> {
        if let Some(folder) = self.folder() {
            return ask(Given::Folder(folder));
        }
        let opened = File::open(self.archive);
        let archive = opened.map_err(|source| ImageError::Disk { path: self.archive.to_owned(), source })?;
        ask(Given::Archive(archive.as_fd()))
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
            _ => return Err(UnpackError::senseless()),
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
