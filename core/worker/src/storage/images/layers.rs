//! An image, from an archive or folder to a tree, by way of its layers.
//!
//! Invariant: what is taken of an image's own word is what it may say anything about: its variables, where its layers are, and what they are
//! when they are unpacked. The name that a layer is kept by is made of its digest as it was read here, and the process that unpacks it is
//! told that place alone and writes nothing else, so one that was taken over by a layer can spoil images with that very layer and no others.
//! It does not know what the tree is for.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};
use vilya_image::{Answer, CHANGES_BYTES_MAX, Description, ImageError, Layer, Limits, Place, Request, Size};
use vilya_isolate::{Bounds, Unpacker};

use super::store::{Layers, Pin};
use crate::storage::inspection::{self, Allowed};
use crate::storage::unpacking::{Desk, Given, Output, UnpackError};

/// Room for what an image says of itself.
const DESCRIBING: Bounds = Bounds {
    memory_bytes: 128 << 20,
    file_bytes: 0,
    processor: Duration::from_secs(60),
    patience: Duration::from_secs(300),
};
/// Room for the window of a decompressor and for the names of all entries.
const LAYER_MEMORY_BYTES: u64 = 512 << 20;
/// Processor time that any layer may take to unpack, and for how many more bytes another second.
const LAYER_SECONDS: u64 = 600;
const LAYER_BYTES_A_SECOND: u64 = 16 << 20;
/// What lies in a layer's directory besides its files: their own directory, and what it changes of other layers.
const BESIDES: Size = Size { entries: 2, bytes: CHANGES_BYTES_MAX };

/// A layer's line in what an image is named by.
fn line(digest: &str, diff_id: &str) -> String {
    format!("{digest} {diff_id}\n")
}

/// An image to be unpacked.
pub(super) struct Unpacking<'a> {
    pub(super) desk: Desk<'a>,
    /// The archive or the folder.
    pub(super) archive: &'a Path,
    pub(super) limits: Limits,
}

impl Unpacking<'_> {
    /// What the image says of itself, once its layers are known to be what it calls them by; and the names to keep the layers by.
    pub(super) fn describe(&self) -> Result<(Description, Vec<String>), UnpackError> {
        let answer = self.given(|given| {
            self.desk.ask(&Request::Describe { folder: Desk::folder_of(given) }, given, None, DESCRIBING)
        })?;
        let Answer::Described(description) = answer else { return Err(UnpackError::senseless()) };
        let named = |layer: &Layer| Ok(line(&self.verified(layer)?, &layer.diff_id));
        let lines = description.layers.iter().map(named).collect::<Result<Vec<_>, UnpackError>>()?;
        Ok((description, lines))
    }

    /// Writes what the layers add up to into a directory that is made for it; the layers are kept from being removed until they are recorded.
    pub(super) fn flatten(
        &self,
        description: Description,
        names: &[String],
        layers: &Arc<Layers>,
        tree: &Path,
        files: &[(&str, &str)],
    ) -> Result<Vec<Pin>, UnpackError> {
        let (mut pins, mut earlier) = (Vec::with_capacity(names.len()), Size::default());
        for (layer, name) in description.layers.into_iter().zip(names) {
            let place = self.desk.directory.join(format!("layer-{}", pins.len()));
            let pin = layers.obtain(name, || self.unpack(layer, &place, earlier).map(|()| place.clone()))?;
            let size = vilya_image::size(&pin.path(), self.limits)?;
            earlier.entries = earlier.entries.saturating_add(size.entries);
            earlier.bytes = earlier.bytes.saturating_add(size.bytes);
            pins.push(pin);
        }
        let paths: Vec<PathBuf> = pins.iter().map(Pin::path).collect();
        let files: Vec<(String, String)> =
            files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
        inspection::make_directory(tree).map_err(|source| ImageError::Disk { path: tree.to_owned(), source })?;
        vilya_image::merge(&paths, tree, self.limits, &files)?;
        inspection::sync(tree).map_err(|source| ImageError::Disk { path: tree.to_owned(), source })?;
        Ok(pins)
    }

    /// Has one layer unpacked into a directory that is made for it.
    fn unpack(&self, layer: Layer, place: &Path, earlier: Size) -> Result<(), UnpackError> {
        let Limits { entries, bytes, depth, .. } = self.limits;
        let seconds = LAYER_SECONDS + bytes / LAYER_BYTES_A_SECOND;
        let bounds = Bounds {
            memory_bytes: LAYER_MEMORY_BYTES,
            file_bytes: bytes.max(BESIDES.bytes),
            processor: Duration::from_secs(seconds),
            patience: Duration::from_secs(2 * seconds),
        };
        let (entries, bytes) = (entries.saturating_add(BESIDES.entries), bytes.saturating_add(BESIDES.bytes));
        let output = Output { tree: place, allowed: Allowed { entries, bytes, depth: depth + 1, links: true } };
        // Its digest was looked at here.
        let layer = Layer { digest: None, ..layer };
        let answer = self.given(|given| {
            let request = Request::Layer {
                folder: Desk::folder_of(given),
                layer,
                tree: Unpacker::TREE.into(),
                limits: self.limits,
                earlier,
            };
            self.desk.ask(&request, given, Some(output), bounds)
        })?;
        if matches!(answer, Answer::Layer(_)) { Ok(()) } else { Err(UnpackError::senseless()) }
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
