//! Container images and functions' folders: read, verified, unpacked layer by layer, and laid together in one directory.
//!
//! Owns: what is accepted as an image or a bundle, and every check of it. Invariant: an image is hostile until proven otherwise; a directory that
//! [`Image::flatten`] returned for holds only directories, regular files and symbolic links, made from layers whose digests were right, and
//! nothing was written outside it. Does not know: functions, sandboxes, registries, or where the directory goes.

pub mod bundle;
mod changes;
mod compression;
mod error;
mod layers;
mod message;
mod source;
mod tree;
mod union;
mod work;

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};

use serde::Deserialize;

pub use changes::CHANGES_BYTES_MAX;
pub use error::ImageError;
use source::Source;
pub use tree::{COVERED, Limits, Size};
pub use union::{merge, size};
pub use work::{Answer, Request, WorkError, work};

/// An image whose description was read and verified; its layers are verified as they are flattened.
#[derive(Debug)]
pub struct Image {
    source: Source,
    description: Description,
}

/// What an image says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// From the lowest to the highest.
    pub layers: Vec<Layer>,
    /// `NAME` and value, in the order of the image.
    pub environment: Vec<(String, String)>,
}

/// A layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Where its bytes are.
    pub place: Place,
    /// SHA-256 of the bytes as they lie there; a docker archive says none.
    pub digest: Option<String>,
    /// SHA-256 of its tar.
    pub diff_id: String,
}

/// Where a layer lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the archive.
    Range {
        /// The first byte.
        offset: u64,
        /// How many.
        bytes: u64,
    },
    /// A blob of the folder, by the digits of its name.
    Blob(String),
}

impl fmt::Display for Layer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "layer {}", self.digest.as_ref().unwrap_or(&self.diff_id))
    }
}

/// Most layers: what the usual builders stop at.
pub(crate) const LAYERS_MAX: usize = 128;

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: String,
    #[serde(default, rename = "mediaType")]
    media_type: String,
    platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

#[derive(Deserialize)]
struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Saved {
    #[serde(rename = "Config")]
    config: String,
    #[serde(rename = "Layers")]
    layers: Vec<String>,
}

#[derive(Deserialize)]
struct Configuration {
    rootfs: RootFs,
    config: Option<Settings>,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<String>,
}

#[derive(Deserialize)]
struct Settings {
    #[serde(rename = "Env")]
    environment: Option<Vec<String>>,
}

impl Image {
    /// Reads what an image says of itself: an OCI image layout, as a folder or a tar of it, or what `docker save` writes.
    ///
    /// # Errors
    /// When it is none of these, is damaged, or is not for this machine.
    pub fn open(path: &Path) -> Result<Image, ImageError> {
        Image::read(Source::open(path)?)
    }

    /// The same of an archive that is open.
    ///
    /// # Errors
    /// As [`Image::open`].
    pub fn open_archive(file: File) -> Result<Image, ImageError> {
        Image::read(Source::archive(file)?)
    }

    fn read(source: Source) -> Result<Image, ImageError> {
        if source.has("index.json") { Image::open_layout(source) } else { Image::open_saved(source) }
    }

    fn open_layout(source: Source) -> Result<Image, ImageError> {
        let mut index: Index = source.json("index.json", None)?;
        // An index may name another, which names a manifest a platform; no deeper.
        let mut digest = chosen(&index)?;
        if chosen_is_index(&index, &digest) {
            index = source.blob_json(&digest)?;
            digest = chosen(&index)?;
        }
        let manifest: Manifest = source.blob_json(&digest)?;
        let configuration: Configuration = source.blob_json(&manifest.config.digest)?;
        let layers = manifest.layers.into_iter().map(|layer| {
            if layer.media_type.ends_with("+encrypted") {
                return Err(ImageError::invalid("a layer is encrypted: export the image decrypted"));
            }
            let name = source::blob_name(&layer.digest)?;
            Ok((name, Some(source::hexadecimal(&layer.digest)?.to_owned())))
        });
        let layers = layers.collect::<Result<Vec<_>, ImageError>>()?;
        Image::new(source, layers, configuration)
    }

    fn open_saved(source: Source) -> Result<Image, ImageError> {
        // Names in a saved image are of any kind, and so lie in an archive only.
        if matches!(source, Source::Folder(_)) || !source.has("manifest.json") {
            return Err(ImageError::Unknown);
        }
        let mut saved: Vec<Saved> = source.json("manifest.json", None)?;
        let (Some(image), true) = (saved.pop(), saved.is_empty()) else {
            return Err(ImageError::invalid("it holds several images or none: save one"));
        };
        let configuration: Configuration = source.json(&image.config, None)?;
        let layers = image.layers.into_iter().map(|name| (name, None)).collect();
        Image::new(source, layers, configuration)
    }

    fn new(
        source: Source,
        layers: Vec<(String, Option<String>)>,
        configuration: Configuration,
    ) -> Result<Image, ImageError> {
        let diff_ids = configuration.rootfs.diff_ids;
        if layers.len() != diff_ids.len() || layers.is_empty() || layers.len() > LAYERS_MAX {
            return Err(ImageError::invalid(format!(
                "its manifest has {} layers and its configuration {}: there must be the same number, 1 to {LAYERS_MAX}",
                layers.len(),
                diff_ids.len()
            )));
        }
        let layers = layers.into_iter().zip(diff_ids).map(|((name, digest), diff_id)| {
            let diff_id = source::hexadecimal(&diff_id)?.to_owned();
            Ok(Layer { place: source.place(&name)?, digest, diff_id })
        });
        let layers = layers.collect::<Result<_, ImageError>>()?;
        let variables = configuration.config.and_then(|settings| settings.environment).unwrap_or_default();
        let variables = variables.iter().filter_map(|text| text.split_once('='));
        let environment = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Ok(Image { source, description: Description { layers, environment } })
    }

    /// What it says of itself.
    #[must_use]
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// Writes the files that the layers add up to into an empty directory, with `files` (path and text) in place of the image's own. Returns
    /// the bytes of the files. What was written before an error stays there; nothing is on disk yet. While it writes, the layers lie beside
    /// the directory.
    ///
    /// # Errors
    /// When a layer is not what its digests say, holds what is refused, is larger than the limits, or the disk says no.
    pub fn flatten(&self, directory: &Path, limits: Limits, files: &[(String, String)]) -> Result<u64, ImageError> {
        let mut name = directory.file_name().unwrap_or_default().to_owned();
        name.push(".layers");
        let place = directory.with_file_name(name);
        std::fs::read_dir(directory).and_then(|_| std::fs::create_dir(&place)).map_err(tree::disk(directory))?;
        let flattened = self.unpack_into(&place, limits).and_then(|layers| merge(&layers, directory, limits, files));
        std::fs::remove_dir_all(&place).map_err(tree::disk(&place))?;
        flattened
    }

    fn unpack_into(&self, place: &Path, limits: Limits) -> Result<Vec<PathBuf>, ImageError> {
        let mut earlier = Size::default();
        let unpacked = self.description.layers.iter().enumerate().map(|(number, layer)| {
            let place = place.join(number.to_string());
            std::fs::create_dir(&place).map_err(tree::disk(&place))?;
            let size = layers::unpack(&self.source, layer, tree::Tree::new(&place, limits, earlier)?)?;
            earlier.entries += size.entries;
            earlier.bytes += size.bytes;
            Ok(place)
        });
        unpacked.collect()
    }
}

/// The one manifest, or the one for this machine.
fn chosen(index: &Index) -> Result<String, ImageError> {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let fits = |descriptor: &&Descriptor| {
        let here = |platform: &Platform| platform.architecture == architecture && platform.os == "linux";
        descriptor.platform.as_ref().is_none_or(here)
    };
    let fitting: Vec<&Descriptor> = index.manifests.iter().filter(fits).collect();
    match fitting.as_slice() {
        [one] => Ok(one.digest.clone()),
        [] => Err(ImageError::invalid(format!("it has no image for linux/{architecture}"))),
        _ => Err(ImageError::invalid("it holds several images for this machine: export one")),
    }
}

fn chosen_is_index(index: &Index, digest: &str) -> bool {
    let chosen = index.manifests.iter().find(|descriptor| descriptor.digest == digest);
    chosen.is_some_and(|descriptor| {
        descriptor.media_type.contains("image.index") || descriptor.media_type.contains("manifest.list")
    })
}
