//! Registries that speak TLS, under a name of which every host is this one.
//!
//! Which authorities are trusted is read from the environment, so that what pulls is this test's own executable, started again.

use std::process::{Command, Output};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use vilya_distribution::peer::Registry;
use vilya_distribution::{Puller, Reference};

use crate::support::settings;

const REFERENCE: &str = "VILYA_TEST_REFERENCE";

/// A certificate authority, and a registry with a certificate of it for `registry.example`.
fn registry() -> (tempfile::NamedTempFile, Registry) {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let names = vec!["registry.example".to_owned()];
    let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &authority).unwrap();
    let registry = Registry::start_tls(certificate.der(), &key.serialize_der());
    registry.image("app", "1", &[b"layer".to_vec()], &[]);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), authority.pem()).unwrap();
    (file, registry)
}

/// Pulls `app:1` under a name, where this file's authority is trusted.
fn pull(host: &str, registry: &Registry, authority: &std::path::Path) -> Output {
    let port = registry.host().rsplit(':').next().map(str::to_owned).expect("a port");
    let mut command = Command::new(std::env::current_exe().expect("this test"));
    command.args(["--exact", "tls::only_a_trusted_certificate_of_that_name_is_spoken_to", "--nocapture"]);
    command.env("SSL_CERT_FILE", authority).env_remove("SSL_CERT_DIR");
    command.env(REFERENCE, format!("{host}:{port}/app:1")).output().expect("it starts")
}

/// What the test does that was started again.
fn pull_here(reference: &str) {
    let reference = Reference::parse(reference).unwrap();
    let puller = Puller::with_every_name_local(settings());
    let directory = tempfile::tempdir().unwrap();
    let pulled = puller.begin(&reference).and_then(|pull| pull.write(directory.path()));
    println!("pulled: {}", pulled.map_or_else(|error| error.to_string(), |bytes| bytes.to_string()));
}

#[test]
fn only_a_trusted_certificate_of_that_name_is_spoken_to() {
    if let Ok(reference) = std::env::var(REFERENCE) {
        return pull_here(&reference);
    }
    let (authority, registry) = registry();
    let (other, _registry) = self::registry();
    let said = |output: Output| String::from_utf8(output.stdout).expect("text");
    let pulled = said(pull("registry.example", &registry, authority.path()));
    assert!(pulled.contains("pulled: 1"), "a number of bytes: {pulled}");
    assert!(!registry.seen().is_empty());
    for (host, trusted) in [("registry.example", &other), ("other.example", &authority)] {
        let refused = said(pull(host, &registry, trusted.path()));
        assert!(refused.contains("TLS failed (invalid peer certificate"), "{host}: {refused}");
        assert_eq!(registry.seen(), [], "{host}");
    }
}
