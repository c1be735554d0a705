//! Docker Hub, as it is asked: under its own names, over TLS, its tokens from a second host and its blobs from a third.

use std::collections::HashMap;
use std::process::{Command, Output};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::json;
use vilya_distribution::peer::{Fault, Guard, Registry};
use vilya_distribution::{Digest, Puller, Reference, Settings};

use crate::support::settings;

const NAMES: [&str; 3] = ["registry-1.docker.io", "auth.docker.io", "production.cloudflare.docker.com"];
/// Which the test is told that is started again, to have its authority trusted.
const PORTS: &str = "VILYA_TEST_HUB_PORTS";
const CONFIGURATION: &str = "VILYA_TEST_HUB_CONFIGURATION";
const LAYER: &[u8] = b"a layer";

fn pull_here(ports: &str) {
    let ports = ports.split(' ').map(|port| port.parse().expect("a port"));
    let names: HashMap<String, u16> = NAMES.into_iter().map(str::to_owned).zip(ports).collect();
    let docker_config = std::env::var_os(CONFIGURATION).map(Into::into);
    let puller = Puller::with_names(Settings { docker_config, ..settings() }, names);
    let reference = Reference::parse("docker.io/python:3.13-slim").expect("a reference");
    let directory = tempfile::tempdir().expect("a temporary folder");
    let pulled = puller.begin(&reference).and_then(|pull| {
        let digest = pull.digest().clone();
        pull.write(directory.path()).map(|_| digest)
    });
    println!("pulled: {}", pulled.map_or_else(|error| error.to_string(), |digest| reference.pinned(&digest)));
}

fn start_again(ports: &str, authority: &std::path::Path, configuration: Option<&std::path::Path>) -> Output {
    let mut command = Command::new(std::env::current_exe().expect("this test"));
    command.args(["--exact", "hub::an_official_image_is_pulled_as_the_hub_wants_it", "--nocapture"]);
    command.env("SSL_CERT_FILE", authority).env_remove("SSL_CERT_DIR").env(PORTS, ports);
    configuration.map(|configuration| command.env(CONFIGURATION, configuration));
    command.output().expect("it starts")
}

#[test]
fn an_official_image_is_pulled_as_the_hub_wants_it() {
    if let Ok(ports) = std::env::var(PORTS) {
        return pull_here(&ports);
    }
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), authority.pem()).unwrap();
    let [hub, tokens, blobs] = NAMES.map(|name| {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
        Registry::start_tls(certificate.der(), &key.serialize_der())
    });
    let ports = [&hub, &tokens, &blobs].map(|registry| registry.port().to_string()).join(" ");

    let architecture = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
    let mut of_this_machine = hub.image("library/python", "part", &[LAYER.to_vec()], &[]);
    of_this_machine["platform"] = json!({ "os": "linux", "architecture": architecture });
    let mut attestation = hub.image("library/python", "other", &[b"attestation".to_vec()], &[]);
    attestation["platform"] = json!({ "os": "unknown", "architecture": "unknown" });
    let index = json!({ "schemaVersion": 2, "manifests": [attestation, of_this_machine] });
    let index = hub.manifest("library/python", "3.13-slim", &index);
    blobs.blob(LAYER);
    hub.guard(Guard::Elsewhere(format!("https://{}/token", NAMES[1])));
    let digest = Digest::of(LAYER);
    let to = format!("https://{}/v2/library/python/blobs/{digest}", NAMES[2]);
    hub.fault(&digest.to_string(), Fault::Redirect(to), 2);
    let configuration = tempfile::tempdir().unwrap();
    let entry = json!({ "auths": { "https://index.docker.io/v1/": { "username": "ann", "password": "secret-1" } } });
    std::fs::write(configuration.path().join("config.json"), entry.to_string()).unwrap();

    let basic = format!("Basic {}", STANDARD.encode("ann:secret-1"));
    for (guard, configuration, shown) in [
        (Guard::AnonymousToken, None, None),
        (Guard::Token("ann:secret-1".to_owned()), Some(configuration.path()), Some(basic.as_str())),
    ] {
        tokens.guard(guard);
        let output = start_again(&ports, file.path(), configuration);
        let said = String::from_utf8(output.stdout).expect("text");
        let pinned = format!("pulled: docker.io/library/python@{}", index["digest"].as_str().expect("a digest"));
        assert!(said.contains(&pinned), "{said}");
        let seen = tokens.seen();
        assert_eq!(seen.len(), 1, "one token is enough: {seen:?}");
        assert!(seen[0].line.contains("scope=repository%3Alibrary%2Fpython%3Apull"), "{seen:?}");
        assert_eq!(seen[0].authorization.as_deref(), shown, "credentials go where tokens are had");
        let seen = hub.seen();
        assert!(seen.iter().skip(1).all(|seen| seen.authorization.as_deref() == Some("Bearer token-0-of-the-peer")));
        assert_eq!(seen[0].authorization, None, "and nowhere else");
        assert!(seen[0].line.contains("/v2/library/python/manifests/3.13-slim"), "{seen:?}");
        let seen = blobs.seen();
        assert_eq!(seen.len(), 1, "{seen:?}");
        assert_eq!(seen[0].authorization, None, "nor does the token");
    }
}
