//! Images and layers, entry by entry, honest or not.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use tar::EntryType;
use vilya_image::{Image, ImageError, Limits};

pub(crate) use crate::entries::{entry, hex};

pub(crate) fn file(name: &str, content: &[u8]) -> Vec<u8> {
    entry(EntryType::Regular, name.as_bytes(), b"", 0o644, content)
}

pub(crate) fn link(name: &str, to: &str) -> Vec<u8> {
    entry(EntryType::Symlink, name.as_bytes(), to.as_bytes(), 0o777, b"")
}

pub(crate) fn layer(entries: &[Vec<u8>]) -> Vec<u8> {
    let mut out = entries.concat();
    out.resize(out.len() + 1024, 0);
    out
}

pub(crate) fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// The files of an OCI layout with these layers, given as plain tars.
pub(crate) fn layout(layers: &[Vec<u8>]) -> BTreeMap<String, Vec<u8>> {
    layout_of(layers, "application/vnd.oci.image.layer.v1.tar+gzip", gz)
}

/// The same, with layers of this media type, compressed by this.
pub(crate) fn layout_of(
    layers: &[Vec<u8>],
    media_type: &str,
    compress: impl Fn(&[u8]) -> Vec<u8>,
) -> BTreeMap<String, Vec<u8>> {
    let mut parts = BTreeMap::new();
    let mut blob = |bytes: Vec<u8>| {
        let digest = hex(&bytes);
        let digest_text = format!("sha256:{digest}");
        let text = serde_json::json!({ "digest": digest_text, "size": bytes.len(), "mediaType": media_type });
        parts.insert(format!("blobs/sha256/{digest}"), bytes);
        text
    };
    let diff_ids: Vec<String> = layers.iter().map(|layer| format!("sha256:{}", hex(layer))).collect();
    let descriptors: Vec<_> = layers.iter().map(|layer| blob(compress(layer))).collect();
    let configuration = serde_json::json!({ "rootfs": { "diff_ids": diff_ids }, "config": { "Env": ["A=b=c"] } });
    let config = blob(configuration.to_string().into_bytes());
    let manifest = blob(serde_json::json!({ "config": config, "layers": descriptors }).to_string().into_bytes());
    parts.insert("index.json".into(), serde_json::json!({ "manifests": [manifest] }).to_string().into_bytes());
    parts.insert("oci-layout".into(), b"{}".to_vec());
    parts
}

pub(crate) fn write_folder(parts: &BTreeMap<String, Vec<u8>>, folder: &Path) {
    fs::create_dir_all(folder.join("blobs/sha256")).unwrap();
    parts.iter().for_each(|(name, bytes)| fs::write(folder.join(name), bytes).unwrap());
}

pub(crate) fn write_tar(parts: &BTreeMap<String, Vec<u8>>, path: &Path) {
    fs::write(path, layer(&parts.iter().map(|(name, bytes)| file(name, bytes)).collect::<Vec<_>>())).unwrap();
}

pub(crate) struct Flattened {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) result: Result<u64, ImageError>,
}

impl Flattened {
    pub(crate) fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    pub(crate) fn text(&self, path: &str) -> String {
        fs::read_to_string(self.root().join(path)).unwrap()
    }

    pub(crate) fn message(self) -> String {
        // Nothing may have been written beside the root, refused or not.
        let mut names: Vec<_> = fs::read_dir(self.directory.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["image.tar", "root"]);
        self.result.unwrap_err().to_string()
    }
}

pub(crate) fn flatten_within(layers: &[Vec<u8>], limits: Limits) -> Flattened {
    flatten_parts(&layout(layers), limits)
}

pub(crate) fn flatten_parts(parts: &BTreeMap<String, Vec<u8>>, limits: Limits) -> Flattened {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image.tar");
    write_tar(parts, &path);
    let root = directory.path().join("root");
    fs::create_dir(&root).unwrap();
    let result = Image::open(&path).and_then(|image| image.flatten(&root, limits, &[]));
    Flattened { directory, result }
}

pub(crate) fn flatten(layers: &[Vec<u8>]) -> Flattened {
    flatten_within(layers, Limits::default())
}

pub(crate) fn refusal(entries: &[Vec<u8>]) -> String {
    flatten(&[layer(entries)]).message()
}
