//! A puller of the tests' own, and images of a few bytes.

use std::path::Path;
use std::time::Duration;

use vilya_distribution::peer::Registry;
use vilya_distribution::{Digest, PullError, Puller, Reference, Settings};

/// No test depends on anything being faster.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn settings() -> Settings {
    Settings { max_bytes: 1 << 20, timeout: PATIENCE, silence: PATIENCE, plain_http: Vec::new(), docker_config: None }
}

/// What came of a pull: the digest that the reference stood for, and the directory.
pub(crate) fn pull_with(settings: Settings, reference: &str) -> Result<(Digest, tempfile::TempDir), PullError> {
    let puller = Puller::new(settings);
    let reference = Reference::parse(reference).expect("a reference");
    let directory = tempfile::tempdir().expect("a temporary folder");
    let pull = puller.begin(&reference)?;
    let digest = pull.digest().clone();
    pull.write(directory.path())?;
    Ok((digest, directory))
}

pub(crate) fn pull(reference: &str) -> Result<(Digest, tempfile::TempDir), PullError> {
    pull_with(settings(), reference)
}

/// A registry with `app:1` of two layers.
pub(crate) fn registry() -> (Registry, String) {
    let registry = Registry::start();
    registry.image("team/app", "1", &[b"first layer".to_vec(), b"second layer".to_vec()], &["A=b"]);
    let reference = format!("{}/team/app:1", registry.host());
    (registry, reference)
}

pub(crate) fn blob(directory: &Path, bytes: &[u8]) -> Vec<u8> {
    std::fs::read(directory.join("blobs/sha256").join(Digest::of(bytes).hexadecimal())).expect("the blob")
}
