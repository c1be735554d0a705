//! What a registry says an image is: an index, a manifest.
//!
//! Owns: reading them and choosing the manifest for this machine. Invariant: a document is an index or a manifest and not both, digests
//! are checked ones, and the sizes add up to no more than the limit before any blob is asked for. Does not know: how they came.

use serde::Deserialize;

use crate::digest::Digest;
use crate::error::PullError;

/// Largest index, manifest or configuration.
pub(crate) const DOCUMENT_BYTES_MAX: u64 = 4 << 20;
/// Most layers: what the usual builders stop at.
const LAYERS_MAX: usize = 128;

/// The kinds of document that are asked for.
pub(crate) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

/// A blob as a document names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) digest: Digest,
    pub(crate) bytes: u64,
}

#[derive(Debug)]
pub(crate) enum Document {
    /// The manifest for this machine.
    Index(Part),
    Manifest(Manifest),
}

#[derive(Debug)]
pub(crate) struct Manifest {
    pub(crate) config: Part,
    /// Each once, in order.
    pub(crate) layers: Vec<Part>,
}

#[derive(Deserialize)]
struct Raw {
    #[serde(default, rename = "schemaVersion")]
    schema_version: u32,
    manifests: Option<Vec<Descriptor>>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: String,
    size: u64,
    platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Platform {
    architecture: String,
    os: String,
    #[serde(default)]
    variant: String,
}

impl Document {
    pub(crate) fn parse(text: &[u8], max_bytes: u64) -> Result<Document, PullError> {
        let invalid = |why: String| {
            PullError::Invalid(format!("the registry's manifest is invalid: {why}; push the image again"))
        };
        let raw: Raw = serde_json::from_slice(text).map_err(|error| invalid(error.to_string()))?;
        if raw.schema_version != 2 {
            let advice = "push the image again with a docker of this decade";
            return Err(PullError::Invalid(format!(
                "the image has a manifest of schema {}: {advice}",
                raw.schema_version
            )));
        }
        match (raw.manifests, raw.config, raw.layers) {
            (Some(manifests), None, None) => chosen(&manifests).map(Document::Index),
            (None, Some(config), Some(layers)) => {
                if layers.is_empty() || layers.len() > LAYERS_MAX {
                    return Err(invalid(format!("it has {} layers and may have 1 to {LAYERS_MAX}", layers.len())));
                }
                let config = part(&config)?;
                let mut all: Vec<Part> = Vec::new();
                for layer in &layers {
                    let layer = part(layer)?;
                    match all.iter().find(|other| other.digest == layer.digest) {
                        Some(other) if *other != layer => return Err(invalid("a layer has two sizes".to_owned())),
                        Some(_) => {}
                        None => all.push(layer),
                    }
                }
                bounded(&config, &all, max_bytes)?;
                Ok(Document::Manifest(Manifest { config, layers: all }))
            }
            _ => Err(invalid("it is neither an index of manifests nor a configuration with layers".to_owned())),
        }
    }
}

fn bounded(config: &Part, layers: &[Part], max_bytes: u64) -> Result<(), PullError> {
    if config.bytes > DOCUMENT_BYTES_MAX {
        return Err(PullError::TooLarge("the image's configuration has more than 4 MiB: use another image".to_owned()));
    }
    let bytes = layers.iter().try_fold(config.bytes, |sum, layer| sum.checked_add(layer.bytes));
    if bytes.is_some_and(|bytes| bytes <= max_bytes) {
        return Ok(());
    }
    let bytes = bytes.map_or("too many".to_owned(), |bytes| bytes.to_string());
    Err(PullError::TooLarge(format!(
        "the image has {bytes} bytes to pull and may have {max_bytes}: use a smaller one, or raise images.max_size"
    )))
}

fn part(descriptor: &Descriptor) -> Result<Part, PullError> {
    let digest = Digest::parse(&descriptor.digest).ok_or_else(|| {
        let digest = crate::error::shown(&descriptor.digest);
        PullError::Invalid(format!(
            "the image names a part \"{digest}\": only SHA-256 digests are taken, push it with those"
        ))
    })?;
    Ok(Part { digest, bytes: descriptor.size })
}

/// The manifest for this machine. One without a variant is for every machine of the architecture and comes first.
fn chosen(manifests: &[Descriptor]) -> Result<Part, PullError> {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let fits = |variants: &[&str]| {
        manifests.iter().find(|descriptor| {
            let here = |platform: &Platform| {
                let is_variant = variants.contains(&platform.variant.as_str());
                platform.os == "linux" && platform.architecture == architecture && is_variant
            };
            descriptor.platform.as_ref().is_some_and(here)
        })
    };
    // Every arm64 processor has what v8 has, every amd64 one what v1 has.
    let found = fits(&["", "v8", "v1"]).or(match manifests {
        [only] if only.platform.is_none() => Some(only),
        _ => None,
    });
    let found = found.ok_or_else(|| {
        let message = format!("the image is not there for linux/{architecture}: push it for that, or name another");
        PullError::Invalid(message)
    })?;
    let found = part(found)?;
    if found.bytes > DOCUMENT_BYTES_MAX {
        return Err(PullError::TooLarge("the image's manifest has more than 4 MiB: use another image".to_owned()));
    }
    Ok(found)
}
