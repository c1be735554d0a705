//! Container images: read, verified, and flattened into one directory.
//!
//! Owns: what is accepted as an image, and every check of it. Invariant: an image is hostile until proven otherwise; a directory that
//! [`Image::flatten`] returned for holds only directories, regular files and symbolic links, made from layers whose digests were right, and
//! nothing was written outside it. Does not know: functions, sandboxes, registries, or where the directory goes.

mod compression;
mod error;
mod layers;
mod source;
mod tree;

use std::path::Path;

use serde::Deserialize;
use sha2::{Digest, Sha256};

pub use error::ImageError;
use source::Source;
pub use tree::{COVERED, Limits};

/// An image whose description was read and verified; its layers are verified as they are flattened.
#[derive(Debug)]
pub struct Image {
    source: Source,
    layers: Vec<Layer>,
    /// `NAME` and value, in the order of the image.
    environment: Vec<(String, String)>,
}

/// A layer.
#[derive(Debug)]
struct Layer {
    /// Its name in the archive or folder.
    name: String,
    /// SHA-256 of the bytes as they lie there; a docker archive says none.
    digest: Option<String>,
    /// SHA-256 of its tar.
    diff_id: String,
}

/// Most layers: what the usual builders stop at.
const LAYERS_MAX: usize = 128;

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
        let source = Source::open(path)?;
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
        if !source.has("manifest.json") {
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
            Ok(Layer { name, digest, diff_id: source::hexadecimal(&diff_id)?.to_owned() })
        });
        let layers = layers.collect::<Result<_, ImageError>>()?;
        let variables = configuration.config.and_then(|settings| settings.environment).unwrap_or_default();
        let variables = variables.iter().filter_map(|text| text.split_once('='));
        let environment = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Ok(Image { source, layers, environment })
    }

    /// Names the content: the same for images with the same layers in the same order. 64 hexadecimal digits.
    #[must_use]
    pub fn identity(&self) -> String {
        let all: String = self.layers.iter().map(|layer| format!("{}\n", layer.diff_id)).collect();
        source::hex(&Sha256::digest(all.as_bytes()))
    }

    /// The variables that the image sets.
    #[must_use]
    pub fn environment(&self) -> &[(String, String)] {
        &self.environment
    }

    /// Writes the files that the layers add up to into an empty directory, with `files` (path and text) in place of the image's own. Returns
    /// the bytes of the files. What was written before an error stays there.
    ///
    /// # Errors
    /// When a layer is not what its digests say, holds what is refused, is larger than the limits, or the disk says no.
    pub fn flatten(&self, directory: &Path, limits: Limits, files: &[(&str, &str)]) -> Result<u64, ImageError> {
        let mut tree = tree::Tree::new(directory, limits);
        for layer in &self.layers {
            layers::apply(&self.source, layer, &mut tree)?;
        }
        tree.complete(files)
    }

    /// Reads every layer to its end, as [`Image::flatten`] does, and writes nothing: whoever names an image that is stored already
    /// shows by this that they have it.
    ///
    /// # Errors
    /// When a layer is not what its digests say, or is larger than the limits.
    pub fn verify(&self, limits: Limits) -> Result<(), ImageError> {
        self.layers.iter().try_for_each(|layer| layers::verify(&self.source, layer, limits))
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
