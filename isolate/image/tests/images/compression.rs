//! Layers compressed in the ways that builders do.

use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use vilya_image::{Image, ImageError, Limits};

use crate::builder::{Flattened, file, flatten_parts, gz, layer, layout, layout_of, write_folder};

const OCI: &str = "application/vnd.oci.image.layer.v1.tar";
const DOCKER: &str = "application/vnd.docker.image.rootfs.diff.tar";

fn zstd(bytes: &[u8]) -> Vec<u8> {
    compress_to_vec(bytes, CompressionLevel::Fastest)
}

/// A frame that decoders pass over; zstd:chunked keeps its table of contents in one.
fn skipped(bytes: &[u8]) -> Vec<u8> {
    [&[0x5a, 0x2a, 0x4d, 0x18], &(bytes.len() as u32).to_le_bytes(), bytes].concat()
}

/// Several frames with others between them, as layers that can be read in parts have.
fn chunked(bytes: &[u8]) -> Vec<u8> {
    let (one, other) = bytes.split_at(bytes.len() / 2);
    [skipped(b"before"), zstd(one), skipped(b""), zstd(other), skipped(b"after")].concat()
}

fn flattened(media_type: &str, compress: impl Fn(&[u8]) -> Vec<u8>) -> Flattened {
    let below = layer(&[file("a", &b"1".repeat(300_000)), file("b", b"1")]);
    let above = layer(&[file("b", b"2"), file("c", b"2")]);
    flatten_parts(&layout_of(&[below, above], media_type, compress), Limits::default())
}

#[test]
fn every_compression_gives_the_same_files() {
    let plain = |bytes: &[u8]| bytes.to_vec();
    let parts = |bytes: &[u8]| [gz(&bytes[..700]), gz(&bytes[700..])].concat();
    for flat in [
        flattened(OCI, plain),
        flattened(&format!("{OCI}+gzip"), gz),
        flattened(&format!("{OCI}+gzip"), parts),
        flattened(&format!("{OCI}+zstd"), zstd),
        flattened(&format!("{OCI}+zstd"), chunked),
        flattened(DOCKER, plain),
        flattened(&format!("{DOCKER}.gzip"), gz),
        flattened(&format!("{DOCKER}.zstd"), zstd),
        // The bytes say what they are, whatever the manifest does.
        flattened(&format!("{OCI}+gzip"), zstd),
    ] {
        assert_eq!(flat.result.as_ref().ok(), Some(&300_003), "{:?}", flat.result);
        assert_eq!((flat.text("a").len(), flat.text("b"), flat.text("c")), (300_000, "2".into(), "2".into()));
    }
}

#[test]
fn what_the_reference_compressor_wrote_is_read() {
    // This layer by `zstd -19 --long=27`, whose matches, tables and checksum are others than our encoder's.
    const BY_ZSTD: &[u8] = include_bytes!("reference.tar.zst");
    let poem: String = (0..200).map(|number| format!("line {number} of a poem\n")).collect();
    let tar = layer(&[file("poem", poem.as_bytes())]);
    let flat = flatten_parts(&layout_of(&[tar], OCI, |_| BY_ZSTD.to_vec()), Limits::default());
    assert!(flat.result.is_ok(), "{:?}", flat.result);
    assert_eq!(flat.text("poem"), poem);
}

#[test]
fn bombs_of_zstd_end_at_their_bounds_too() {
    let zeros = layer(&[file("zeros", &vec![0; 20 << 20])]);
    let of = |compress: &dyn Fn(&[u8]) -> Vec<u8>| layout_of(std::slice::from_ref(&zeros), OCI, compress);
    assert!(flatten_parts(&of(&zstd), Limits::default()).message().contains("unpacks to more than"), "by the ratio");
    let many = |bytes: &[u8]| {
        let (first, rest) = bytes.split_at(1 << 20);
        [zstd(first), zstd(&rest[..1 << 20]).repeat(rest.len() >> 20), zstd(&rest[rest.len() >> 20 << 20..])].concat()
    };
    assert!(flatten_parts(&of(&many), Limits::default()).message().contains("unpacks to more than"), "over all frames");
    let small = Limits { bytes: 1000, ratio: u64::MAX, ..Limits::default() };
    assert!(flatten_parts(&of(&zstd), small).message().contains("more than"), "by the bytes");
    // A window of a gigabyte: descriptor 0xa0 is 2^30.
    let window = |_: &[u8]| vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa0, 0x01, 0x00, 0x00];
    assert!(flatten_parts(&of(&window), Limits::default()).message().contains("cannot read"), "by the window");
    // A frame to be skipped that is longer than the layer.
    let beyond = |_: &[u8]| [&[0x50, 0x2a, 0x4d, 0x18], &[0xff; 4][..], b"short"].concat();
    assert!(flatten_parts(&of(&beyond), Limits::default()).message().contains("cannot read"));
}

#[test]
fn a_layer_cut_short_or_with_more_behind_it_is_refused() {
    let whole = layer(&[file("a", &(0..200_000_u32).flat_map(u32::to_le_bytes).collect::<Vec<_>>())]);
    let message = |compress: &dyn Fn(&[u8]) -> Vec<u8>| {
        flatten_parts(&layout_of(std::slice::from_ref(&whole), OCI, compress), Limits::default()).message()
    };
    for compress in [zstd, gz] {
        message(&|bytes| compress(bytes)[..5000].to_vec());
        message(&|bytes| [compress(bytes), b"garbage".to_vec()].concat());
        // The tar is the image's to the end, so what follows it is not.
        assert!(message(&|bytes| compress(&[bytes, &[0; 512]].concat())).contains("has digest"));
    }
}

#[test]
fn encrypted_layers_say_that_they_are() {
    let flat = flattened(&format!("{OCI}+gzip+encrypted"), gz);
    assert!(flat.message().contains("encrypted"));
}

/// The names of an image's layers are public; who gives them alone gets nothing.
#[test]
fn to_name_a_layer_is_not_to_have_it() {
    let folder = tempfile::tempdir().unwrap();
    let secret = layer(&[file("secret", b"of somebody else")]);
    let honest = layout(std::slice::from_ref(&secret));
    write_folder(&honest, &folder.path().join("honest"));
    let image = Image::open(&folder.path().join("honest")).unwrap();
    // The configuration is the honest one's, the layer is not.
    let mut liar = layout(&[layer(&[file("anything", b"else")])]);
    let index = serde_json::from_slice::<serde_json::Value>(&liar["index.json"]).unwrap();
    let blob = |digest: &serde_json::Value| format!("blobs/sha256/{}", &digest.as_str().unwrap()["sha256:".len()..]);
    let manifest = blob(&index["manifests"][0]["digest"]);
    let mut manifest: serde_json::Value = serde_json::from_slice(&liar[&manifest]).unwrap();
    let (name, config) = honest.iter().find(|(_, bytes)| bytes.starts_with(b"{\"config\":{\"Env\"")).unwrap();
    manifest["config"]["digest"] = format!("sha256:{}", name.rsplit('/').next().unwrap()).into();
    liar.insert(name.clone(), config.clone());
    let manifest = manifest.to_string().into_bytes();
    let digest = crate::builder::hex(&manifest);
    liar.insert(format!("blobs/sha256/{digest}"), manifest);
    let index = serde_json::json!({ "manifests": [{ "digest": format!("sha256:{digest}") }] });
    liar.insert("index.json".into(), index.to_string().into_bytes());
    write_folder(&liar, &folder.path().join("liar"));
    let lying = Image::open(&folder.path().join("liar")).unwrap();
    let diff_ids =
        |image: &Image| image.description().layers.iter().map(|layer| layer.diff_id.clone()).collect::<Vec<_>>();
    assert_eq!(diff_ids(&lying), diff_ids(&image), "it claims to be the other");
    let root = folder.path().join("root");
    std::fs::create_dir(&root).unwrap();
    assert!(matches!(lying.flatten(&root, Limits::default(), &[]), Err(ImageError::Digest { .. })));
}
