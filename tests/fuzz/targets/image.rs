//! An image from anybody: reading it never panics, writes nothing beside its directory, and what it leaves there keeps the promises of
//! the package.
//!
//! Input: a byte that says what the rest is: an archive as it is, a layer as it is, or commands that make layers. Of those each is a
//! kind, the lengths of a name, a target and a content, and then the name and the target.

#![no_main]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use tar::EntryType;
use vilya_image::{Image, Limits};

#[path = "../../../isolate/image/tests/images/entries.rs"]
mod entries;

use entries::{entry, hex};

const LIMITS: Limits = Limits { entries: 64, bytes: 64 << 10, depth: 8, ratio: 64 };

/// Layers from commands; whatever they are, their headers have the right sums.
fn layers(mut input: &[u8]) -> Vec<Vec<u8>> {
    const KINDS: [EntryType; 11] = [
        EntryType::Regular,
        EntryType::Directory,
        EntryType::Symlink,
        EntryType::Link,
        EntryType::Char,
        EntryType::Fifo,
        EntryType::XHeader,
        EntryType::GNULongName,
        EntryType::GNULongLink,
        EntryType::GNUSparse,
        EntryType::XGlobalHeader,
    ];
    let mut layers = vec![Vec::new()];
    while let [kind, name, link, content, rest @ ..] = input {
        let (name, rest) = rest_at(rest, usize::from(*name) % 100);
        let (link, rest) = rest_at(rest, usize::from(*link) % 100);
        let (content, rest) = rest_at(rest, usize::from(*content));
        match KINDS.get(usize::from(*kind)) {
            Some(kind) => {
                if let Some(layer) = layers.last_mut() {
                    layer.extend(entry(*kind, name, link, 0o6755, content));
                }
            }
            None => layers.push(Vec::new()),
        }
        input = rest;
    }
    layers.iter_mut().for_each(|layer| layer.resize(layer.len() + 1024, 0));
    layers.truncate(8);
    layers
}

fn rest_at(bytes: &[u8], at: usize) -> (&[u8], &[u8]) {
    bytes.split_at(at.min(bytes.len()))
}

fn write_layout(layers: &[Vec<u8>], folder: &Path) {
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs).expect("a temporary folder");
    let blob = |bytes: &[u8]| {
        let digest = hex(bytes);
        fs::write(blobs.join(&digest), bytes).expect("a temporary folder");
        serde_json::json!({ "digest": format!("sha256:{digest}") })
    };
    let descriptors: Vec<_> = layers.iter().map(|layer| blob(layer)).collect();
    let diff_ids: Vec<_> = descriptors.iter().map(|layer| layer["digest"].clone()).collect();
    let config = blob(serde_json::json!({ "rootfs": { "diff_ids": diff_ids } }).to_string().as_bytes());
    let manifest = blob(serde_json::json!({ "config": config, "layers": descriptors }).to_string().as_bytes());
    let index = serde_json::json!({ "manifests": [manifest] });
    fs::write(folder.join("index.json"), index.to_string()).expect("a temporary folder");
}

/// What lies below a directory; how many entries, and bytes in them.
fn check(directory: &Path) -> (u64, u64) {
    let (mut entries, mut bytes) = (0, 0);
    for entry in fs::read_dir(directory).expect("just made") {
        let path = entry.expect("an entry").path();
        let found = fs::symlink_metadata(&path).expect("an entry");
        entries += 1;
        if found.is_dir() {
            assert_eq!(found.permissions().mode() & 0o7777, 0o755, "{}", path.display());
            let below = check(&path);
            (entries, bytes) = (entries + below.0, bytes + below.1);
        } else if found.is_file() {
            assert!([0o644, 0o755].contains(&(found.permissions().mode() & 0o7777)), "{}", path.display());
            bytes += found.size() / found.nlink().max(1);
        } else {
            assert!(found.is_symlink(), "{}", path.display());
        }
    }
    (entries, bytes)
}

fuzz_target!(|input: &[u8]| {
    let Some((form, input)) = input.split_first() else { return };
    let place = tempfile::tempdir().expect("a temporary folder");
    let (image, root) = (place.path().join("image"), place.path().join("root"));
    fs::create_dir(&root).expect("a temporary folder");
    match form {
        b'A' => fs::write(&image, input).expect("a temporary folder"),
        b'L' => write_layout(&[input.to_vec()], &image),
        _ => write_layout(&layers(input), &image),
    }
    let flattened = Image::open(&image).and_then(|image| {
        image.flatten(&root, LIMITS, &[("etc/own".to_owned(), "own".to_owned())])
    });
    let mut names: Vec<_> =
        fs::read_dir(place.path()).expect("just made").map(|e| e.expect("an entry").file_name()).collect();
    names.sort();
    assert_eq!(names, ["image", "root"], "nothing is written beside the root");
    if flattened.is_ok() {
        let (entries, bytes) = check(&root);
        assert!(entries <= LIMITS.entries && bytes <= LIMITS.bytes, "{entries} entries, {bytes} bytes");
        assert_eq!(fs::read_to_string(root.join("etc/own")).expect("put there"), "own");
    }
});
