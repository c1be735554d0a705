//! What is laid out, and what is chosen.

use serde_json::{Value, json};
use vilya_distribution::{Digest, PullError};

use crate::support::{blob, pull, pull_with, registry, settings};

#[test]
fn an_image_is_laid_out_whole() {
    let (registry, reference) = registry();
    let (digest, directory) = pull(&reference).unwrap();
    assert_eq!(blob(directory.path(), b"first layer"), b"first layer");
    assert_eq!(blob(directory.path(), b"second layer"), b"second layer");
    let json =
        |name: &str| -> Value { serde_json::from_slice(&std::fs::read(directory.path().join(name)).unwrap()).unwrap() };
    assert_eq!(json("index.json")["manifests"][0]["digest"], digest.to_string());
    let manifest = json(&format!("blobs/sha256/{}", digest.hexadecimal()));
    let config = Digest::parse(manifest["config"]["digest"].as_str().unwrap()).unwrap();
    assert_eq!(json(&format!("blobs/sha256/{}", config.hexadecimal()))["config"]["Env"][0], "A=b");
    assert_eq!(json("oci-layout")["imageLayoutVersion"], "1.0.0");
    // By its digest it is the same, whatever the tag stands for meanwhile.
    registry.image("team/app", "1", &[b"another".to_vec()], &[]);
    let (same, directory) = pull(&format!("{}/team/app@{digest}", registry.host())).unwrap();
    assert_eq!(same, digest);
    assert_eq!(blob(directory.path(), b"first layer"), b"first layer");
}

#[test]
fn the_manifest_for_this_machine_is_chosen_from_an_index() {
    let (registry, _) = registry();
    let architecture = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
    let of = |layer: &[u8], os: &str, architecture: &str, variant: &str| {
        let mut descriptor = registry.image("team/app", "part", &[layer.to_vec()], &[]);
        descriptor["platform"] = json!({ "os": os, "architecture": architecture, "variant": variant });
        descriptor
    };
    let mine = of(b"mine", "linux", architecture, "");
    let others = [
        of(b"windows", "windows", architecture, ""),
        of(b"old", "linux", "s390x", ""),
        of(b"special", "linux", architecture, "v99"),
        of(b"attestation", "unknown", "unknown", ""),
    ];
    let mut all = others.to_vec();
    all.push(mine.clone());
    let index = registry.manifest("team/app", "many", &json!({ "schemaVersion": 2, "manifests": all }));
    let (digest, directory) = pull(&format!("{}/team/app:many", registry.host())).unwrap();
    assert_eq!(digest.to_string(), index["digest"], "the reference stands for the index");
    assert_eq!(blob(directory.path(), b"mine"), b"mine");
    let laid_out = std::fs::read_to_string(directory.path().join("index.json")).unwrap();
    assert!(laid_out.contains(mine["digest"].as_str().unwrap()), "{laid_out}");
    registry.manifest("team/app", "others", &json!({ "schemaVersion": 2, "manifests": others }));
    let refused = pull(&format!("{}/team/app:others", registry.host())).unwrap_err().to_string();
    assert!(refused.contains(&format!("linux/{architecture}")), "{refused}");
    registry.manifest("team/app", "nested", &json!({ "schemaVersion": 2, "manifests": [index] }));
    let refused = pull(&format!("{}/team/app:nested", registry.host())).unwrap_err().to_string();
    assert!(refused.contains("another index"), "{refused}");
}

#[test]
fn a_document_that_could_be_read_two_ways_is_refused() {
    let (registry, _) = registry();
    let blob = registry.blob(b"x");
    let sha512 = json!({ "digest": format!("sha512:{}", "0".repeat(128)), "size": 1 });
    let cases = [
        (json!({ "schemaVersion": 2, "manifests": [blob], "config": blob, "layers": [blob] }), "neither an index"),
        (json!({ "schemaVersion": 2, "config": blob }), "neither an index"),
        (json!({ "schemaVersion": 2, "config": blob, "layers": [] }), "0 layers"),
        (json!({ "schemaVersion": 2, "config": blob, "layers": vec![&blob; 129] }), "129 layers"),
        (
            json!({ "schemaVersion": 2, "config": blob, "layers": [{ "digest": "sha256:../x", "size": 1 }] }),
            "only SHA-256",
        ),
        (json!({ "schemaVersion": 2, "config": blob, "layers": [sha512] }), "only SHA-256"),
        (
            json!({ "schemaVersion": 2, "config": blob, "layers": [{ "digest": blob["digest"], "size": -1 }] }),
            "invalid",
        ),
        (
            json!({ "schemaVersion": 2, "config": blob, "layers": [blob, { "digest": blob["digest"], "size": 2 }] }),
            "two sizes",
        ),
        (json!({ "schemaVersion": 1, "fsLayers": [] }), "schema 1"),
        (json!("text"), "invalid"),
    ];
    for (document, why) in cases {
        registry.manifest("team/app", "bad", &document);
        let refused = pull(&format!("{}/team/app:bad", registry.host())).unwrap_err();
        assert!(matches!(refused, PullError::Invalid(_)), "{document}: {refused}");
        assert!(refused.to_string().contains(why), "{document}: {refused}");
    }
}

#[test]
fn an_image_over_the_limit_is_refused_before_a_blob_is_asked_for() {
    let (registry, reference) = registry();
    let _ = registry.seen();
    let refused = pull_with(vilya_distribution::Settings { max_bytes: 30, ..settings() }, &reference).unwrap_err();
    assert!(matches!(&refused, PullError::TooLarge(why) if why.contains("images.max_size")), "{refused}");
    assert!(registry.seen().iter().all(|seen| !seen.line.contains("blobs")));
    let huge = json!({ "digest": registry.blob(b"x")["digest"], "size": u64::MAX });
    let sum = json!({ "schemaVersion": 2, "config": registry.blob(b"{}"), "layers": [huge, registry.blob(b"y")] });
    registry.manifest("team/app", "sum", &sum);
    let refused = pull(&format!("{}/team/app:sum", registry.host())).unwrap_err();
    assert!(matches!(refused, PullError::TooLarge(_)), "{refused}");
}

#[test]
fn a_layer_that_is_there_twice_is_pulled_once() {
    let (registry, _) = registry();
    registry.image("team/app", "twice", &[b"same".to_vec(), b"same".to_vec()], &[]);
    let _ = registry.seen();
    pull(&format!("{}/team/app:twice", registry.host())).unwrap();
    let blobs = registry.seen().iter().filter(|seen| seen.line.contains("blobs")).count();
    assert_eq!(blobs, 2, "the configuration and the layer");
}
