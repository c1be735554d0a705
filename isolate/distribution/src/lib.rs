//! Images from registries: authorised, bounded, verified, and laid out as an OCI image layout.
//!
//! Owns: the pulling half of the OCI distribution specification. Invariant: a registry is hostile: what it sends is bounded before it is
//! kept, a blob is on disk only if it was what its digest says, and credentials leave for nobody else. Does not know: what is in a layer,
//! where images are kept, or who asks.

mod credentials;
mod digest;
mod error;
mod helper;
mod manifest;
#[cfg(feature = "peer")]
pub mod peer;
mod reference;
mod session;
mod transport;

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;
use sha2::{Digest as _, Sha256};

pub use digest::Digest;
pub use error::PullError;
use helper::Wait;
use manifest::{ACCEPT, DOCUMENT_BYTES_MAX, Document, Manifest, Part};
pub use reference::{Reference, is_host};
use session::Session;
use transport::{Answer, Transport};

/// Longest that a registry may send nothing.
pub const SILENCE: Duration = Duration::from_secs(30);
const CHUNK_BYTES: usize = 64 << 10;
/// How much of a layer comes between two lines of the log.
const PROGRESS_BYTES: u64 = 64 << 20;

/// What a [`Puller`] may do.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Sum of what one image may have to pull.
    pub max_bytes: u64,
    /// From the first question to the last blob.
    pub timeout: Duration,
    /// Longest that a registry may send nothing.
    pub silence: Duration,
    /// Registries, with their ports, that are spoken to in the clear besides those on this machine.
    pub plain_http: Vec<String>,
    /// The directory of Docker's `config.json`; none has no credentials.
    pub docker_config: Option<PathBuf>,
}

/// Pulls images, any number at once, until it is told to stop.
#[derive(Debug)]
pub struct Puller {
    transport: Transport,
    settings: Settings,
}

/// An image whose tag or digest is resolved.
pub struct Pull<'a> {
    session: Session<'a>,
    max_bytes: u64,
    digest: Digest,
    document: Vec<u8>,
}

impl Puller {
    /// One that has asked nobody anything yet.
    #[must_use]
    pub fn new(settings: Settings) -> Puller {
        let plain_http = settings.plain_http.iter().map(|host| host.to_ascii_lowercase()).collect();
        Puller { transport: Transport::new(plain_http, settings.silence), settings }
    }

    /// One for whom every name is of this machine, whatever port the name has: a peer with a certificate can then be asked.
    #[cfg(feature = "peer")]
    #[must_use]
    pub fn with_every_name_local(settings: Settings) -> Puller {
        let transport = Transport::resolving(settings.plain_http.clone(), settings.silence, peer::Local);
        Puller { transport, settings }
    }

    /// One for whom these names are of this machine, each at a port of its own, and no others are anybody's.
    #[cfg(feature = "peer")]
    #[must_use]
    pub fn with_names(settings: Settings, names: std::collections::HashMap<String, u16>) -> Puller {
        let transport = Transport::resolving(settings.plain_http.clone(), settings.silence, peer::Named(names));
        Puller { settings, transport }
    }

    /// Ends every pull under way with [`PullError::Stopped`], and every later one.
    pub fn stop(&self) {
        self.transport.stop();
    }

    /// Asks the registry what a reference stands for.
    ///
    /// # Errors
    /// Whatever keeps it from being known.
    pub fn begin<'a>(&'a self, reference: &'a Reference) -> Result<Pull<'a>, PullError> {
        let by = Instant::now() + self.settings.timeout;
        let credential = match &self.settings.docker_config {
            Some(directory) => {
                let wait = Wait { patience: helper::PATIENCE, is_given_up: &|| self.transport.is_stopped() };
                credentials::find(directory, reference, wait)?
            }
            None => None,
        };
        let configuration = match &self.settings.docker_config {
            Some(directory) => directory.join("config.json").display().to_string(),
            None => "the worker, which knows no Docker configuration (images.docker_config),".to_owned(),
        };
        let mut session = Session::new(&self.transport, reference, credential, configuration, by);
        let (document, digest) = document(&mut session, &reference.version(), reference.digest())?;
        Ok(Pull { session, max_bytes: self.settings.max_bytes, digest, document })
    }
}

impl Pull<'_> {
    /// What the reference stands for: of an index, or of a manifest.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Writes the image for this machine into an empty directory, as an image layout that anyone may read who can reach it. Returns the bytes
    /// pulled. What was written before an error stays there.
    ///
    /// # Errors
    /// Whatever keeps it from being whole and true.
    pub fn write(mut self, directory: &Path) -> Result<u64, PullError> {
        let blobs = directory.join("blobs/sha256");
        fs::create_dir_all(&blobs).map_err(disk(&blobs))?;
        let manifest = self.manifest(&blobs)?;
        let image = self.session.reference.to_string();
        tracing::info!(image, digest = %self.digest, layers = manifest.layers.len(), "pulling");
        let mut bytes = manifest.config.bytes;
        self.blob("the configuration", &manifest.config, &blobs)?;
        for (at, layer) in manifest.layers.iter().enumerate() {
            let what = format!("layer {} of {}", at + 1, manifest.layers.len());
            self.blob(&what, layer, &blobs)?;
            bytes += layer.bytes;
            tracing::info!(image, bytes = layer.bytes, "pulled {what}");
        }
        open_to_readers(directory).map_err(disk(directory))?;
        Ok(bytes)
    }

    /// The manifest for this machine, on disk with an index that names it alone.
    fn manifest(&mut self, blobs: &Path) -> Result<Manifest, PullError> {
        let mut text = std::mem::take(&mut self.document);
        let mut digest = self.digest.clone();
        if let Document::Index(part) = Document::parse(&text, self.max_bytes)? {
            (text, digest) = document(&mut self.session, &part.digest.to_string(), Some(&part.digest))?;
        }
        let Document::Manifest(manifest) = Document::parse(&text, self.max_bytes)? else {
            let message = "the registry's index names another index: push the image again, for one platform";
            return Err(PullError::Invalid(message.to_owned()));
        };
        let place = blobs.join(digest.hexadecimal());
        fs::write(&place, &text).map_err(disk(&place))?;
        let descriptor = json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": digest.to_string(),
            "size": text.len(),
        });
        let index = json!({ "schemaVersion": 2, "manifests": [descriptor] });
        let layout = blobs.ancestors().nth(2).unwrap_or(blobs);
        for (name, value) in [("index.json", index), ("oci-layout", json!({ "imageLayoutVersion": "1.0.0" }))] {
            let place = layout.join(name);
            fs::write(&place, value.to_string()).map_err(disk(&place))?;
        }
        Ok(manifest)
    }

    fn blob(&mut self, what: &str, part: &Part, blobs: &Path) -> Result<(), PullError> {
        let path = blobs.join(part.digest.hexadecimal());
        self.session.persist(|session| {
            let answer = session.get(&format!("blobs/{}", part.digest), "application/octet-stream, */*")?;
            let said = answer.response.body().content_length();
            if let Some(said) = said.filter(|said| *said != part.bytes) {
                let (what, wanted) = (what.to_owned(), part.bytes);
                return Err(PullError::Length { what, found: said.to_string(), wanted });
            }
            let mut file = File::create(&path).map_err(disk(&path))?;
            let found = receive(session, answer, part, &mut Sink { what, file: &mut file, path: &path })?;
            if found == part.digest {
                return Ok(());
            }
            let (found, wanted) = (found.hexadecimal().to_owned(), part.digest.hexadecimal().to_owned());
            Err(PullError::Digest { what: what.to_owned(), found, wanted })
        })
    }
}

/// Whoever unpacks it may be another user, whatever mask this process has.
fn open_to_readers(directory: &Path) -> io::Result<()> {
    fs::set_permissions(directory, Permissions::from_mode(0o755))?;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_to_readers(&entry.path())?;
        } else {
            fs::set_permissions(entry.path(), Permissions::from_mode(0o644))?;
        }
    }
    Ok(())
}

/// Where a blob goes.
struct Sink<'a> {
    what: &'a str,
    file: &'a mut File,
    path: &'a Path,
}

/// Copies a blob to disk, never more than it should have, and gives its digest.
fn receive(session: &Session<'_>, answer: Answer, part: &Part, sink: &mut Sink<'_>) -> Result<Digest, PullError> {
    let (host, what) = (answer.host, sink.what);
    let wrong_length = |found: String| PullError::Length { what: what.to_owned(), found, wanted: part.bytes };
    let mut body = answer.response.into_body().into_reader();
    let mut buffer = vec![0; CHUNK_BYTES];
    let (mut hash, mut bytes, mut told) = (Sha256::new(), 0u64, 0u64);
    loop {
        let count = body.read(&mut buffer).map_err(|error| session.transport.broken(&host, error, session.by))?;
        if count == 0 {
            break;
        }
        bytes += count as u64;
        if bytes > part.bytes {
            return Err(wrong_length("more".to_owned()));
        }
        hash.update(&buffer[..count]);
        sink.file.write_all(&buffer[..count]).map_err(disk(sink.path))?;
        if bytes - told >= PROGRESS_BYTES {
            told = bytes;
            tracing::info!(image = %session.reference, bytes, of = part.bytes, "pulling {what}");
        }
    }
    if bytes < part.bytes { Err(wrong_length(bytes.to_string())) } else { Ok(Digest::finish(hash)) }
}

/// A manifest or an index, and its digest, which must be the one wanted if one is.
fn document(session: &mut Session<'_>, version: &str, wanted: Option<&Digest>) -> Result<(Vec<u8>, Digest), PullError> {
    session.persist(|session| {
        let answer = session.get(&format!("manifests/{version}"), ACCEPT)?;
        let said = answer.response.headers().get("docker-content-digest").and_then(|value| value.to_str().ok());
        let said = said.and_then(Digest::parse);
        let text = session.transport.short(answer, DOCUMENT_BYTES_MAX, session.by)?;
        let found = Digest::of(&text);
        match wanted.or(said.as_ref()) {
            Some(wanted) if *wanted != found => {
                let (found, wanted) = (found.hexadecimal().to_owned(), wanted.hexadecimal().to_owned());
                Err(PullError::Digest { what: "the manifest".to_owned(), found, wanted })
            }
            _ => Ok((text, found)),
        }
    })
}

fn disk(path: &Path) -> impl FnOnce(std::io::Error) -> PullError {
    let path = path.to_owned();
    move |source| PullError::Disk { path, source }
}
