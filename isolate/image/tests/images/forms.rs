//! Images as honest builders and as attackers make them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use tar::EntryType;
use vilya_image::{Image, ImageError, Limits};

use crate::builder::{
    entry, file, flatten, flatten_within, gz, hex, layer, layout, link, refusal, write_folder, write_tar,
};

#[test]
fn folders_archives_and_what_docker_saves_flatten_alike() {
    let layers = [layer(&[file("./etc/a", b"1")]), layer(&[file("etc/b", b"22")])];
    let directory = tempfile::tempdir().unwrap();
    write_folder(&layout(&layers), &directory.path().join("folder"));
    write_tar(&layout(&layers), &directory.path().join("oci.tar"));
    let diff_ids: Vec<String> = layers.iter().map(|layer| format!("sha256:{}", hex(layer))).collect();
    let saved = BTreeMap::from([
        ("c.json".to_owned(), serde_json::json!({ "rootfs": { "diff_ids": diff_ids } }).to_string().into_bytes()),
        ("manifest.json".to_owned(), br#"[{"Config":"c.json","Layers":["1/layer.tar","2/layer.tar"]}]"#.to_vec()),
        ("1/layer.tar".to_owned(), layers[0].clone()),
        ("2/layer.tar".to_owned(), layers[1].clone()),
    ]);
    write_tar(&saved, &directory.path().join("docker.tar"));
    let mut identities = Vec::new();
    for form in ["folder", "oci.tar", "docker.tar"] {
        let image = Image::open(&directory.path().join(form)).unwrap();
        let root = directory.path().join(format!("{form}.root"));
        fs::create_dir(&root).unwrap();
        assert_eq!(
            image.flatten(&root, Limits::default(), &[("etc/c".to_owned(), "own".to_owned())]).unwrap(),
            6,
            "{form}"
        );
        let texts = ["a", "b", "c"].map(|name| fs::read_to_string(root.join("etc").join(name)).unwrap());
        assert_eq!(texts, ["1", "22", "own"]);
        let diff_ids: Vec<_> = image.description().layers.iter().map(|layer| layer.diff_id.clone()).collect();
        identities.push(diff_ids);
    }
    assert!(identities.iter().all(|identity| *identity == identities[0]), "{identities:?}");
    let image = Image::open(&directory.path().join("oci.tar")).unwrap();
    assert_eq!(image.description().environment, [("A".to_owned(), "b=c".to_owned())]);
}

#[test]
fn whiteouts_hide_what_earlier_layers_have_and_nothing_of_their_own() {
    let below = layer(&[file("a/x", b"1"), file("a/y", b"1"), file("o/old", b"1"), file("d/z", b"1"), link("l", "a")]);
    let above = layer(&[
        file("o/new", b"2"),
        file("o/.wh..wh..opq", b""),
        file("a/.wh.x", b""),
        file(".wh.d", b""),
        file(".wh.l", b""),
        file("l/inside", b"2"),
        file(".wh.never", b""),
    ]);
    let flat = flatten(&[below, above]);
    assert!(flat.result.is_ok(), "{:?}", flat.result);
    assert_eq!(flat.text("a/y"), "1");
    assert_eq!(flat.text("o/new"), "2");
    assert_eq!(flat.text("l/inside"), "2", "the link is gone, and a directory is there");
    for gone in ["a/x", "o/old", "d", "o/.wh..wh..opq"] {
        assert!(fs::symlink_metadata(flat.root().join(gone)).is_err(), "{gone}");
    }
}

#[test]
fn later_entries_replace_earlier_ones_of_any_kind() {
    let below = layer(&[file("d/x", b"1"), file("f", b"1"), link("l", "/etc/passwd")]);
    let flat = flatten(&[below, layer(&[file("d", b"2"), file("f/x", b"2")])]);
    assert!(flat.message().contains("below what is no directory"), "a file is no parent until it is removed");
    let below = layer(&[file("d/x", b"1"), link("l", "/etc/passwd")]);
    let flat = flatten(&[below, layer(&[file("d", b"2"), file("l", b"2")])]);
    assert!(flat.result.is_ok(), "{:?}", flat.result);
    assert_eq!((flat.text("d"), flat.text("l")), ("2".into(), "2".into()), "the link was replaced, not followed");
}

#[test]
fn nothing_leaves_the_directory() {
    assert!(refusal(&[file("../evil", b"x")]).contains("upwards"));
    assert!(refusal(&[file("a/../../evil", b"x")]).contains("upwards"));
    assert!(refusal(&[file("/evil", b"x")]).contains("absolute"));
    assert!(refusal(&[link("up", ".."), file("up/evil", b"x")]).contains("below what is no directory"));
    let flat = flatten(&[layer(&[link("up", "..")]), layer(&[file("up/.wh.image.tar", b"")])]);
    assert!(flat.result.is_ok() && flat.directory.path().join("image.tar").exists(), "a whiteout follows no link");
    let hard = |to: &str| entry(EntryType::Link, b"hard", to.as_bytes(), 0o644, b"");
    assert!(refusal(&[hard("../image.tar")]).contains("upwards"));
    assert!(refusal(&[hard("/etc/passwd")]).contains("absolute"));
    assert!(refusal(&[link("l", "/etc/passwd"), hard("l")]).contains("no file of the image"));
    assert!(refusal(&[file("a/.wh...", b"")]).contains("whiteout of nothing"));
}

#[test]
fn devices_and_the_like_are_refused_but_in_dev_which_is_not_taken() {
    for kind in [EntryType::Char, EntryType::Block, EntryType::Fifo, EntryType::GNUSparse, EntryType::new(b's')] {
        assert!(refusal(&[entry(kind, b"etc/odd", b"", 0o644, b"")]).contains("refused"), "{kind:?}");
    }
    let flat = flatten(&[layer(&[entry(EntryType::Char, b"dev/null", b"", 0o666, b""), file("tmp/x", b"1")])]);
    assert_eq!(flat.result.as_ref().unwrap(), &0);
    assert_eq!(fs::read_dir(flat.root()).unwrap().count(), 0);
}

#[test]
fn modes_owners_and_attributes_do_not_matter() {
    let pax = entry(EntryType::XHeader, b"p", b"", 0o644, b"42 SCHILY.xattr.security.capability=AAAAA\n");
    let su = entry(EntryType::Regular, b"su", b"", 0o6755, b"x");
    let hard = entry(EntryType::Link, b"hard", b"su", 0o6777, b"");
    let flat = flatten(&[layer(&[pax, su, hard, entry(EntryType::Directory, b"d/", b"", 0o1777, b"")])]);
    assert!(flat.result.is_ok(), "{:?}", flat.result);
    let mode = |path: &str| fs::metadata(flat.root().join(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("su"), mode("hard"), mode("d")), (0o755, 0o755, 0o755));
    assert_eq!(fs::metadata(flat.root().join("su")).unwrap().nlink(), 2);
}

#[test]
fn bombs_end_at_their_bounds() {
    let zeros = layer(&[file("zeros", &vec![0; 40 << 20])]);
    assert!(flatten(std::slice::from_ref(&zeros)).message().contains("unpacks to more than"), "by the ratio");
    let small = Limits { bytes: 1000, ..Limits::default() };
    let two = layer(&[file("a", &[b'a'; 600]), file("a", &[b'b'; 600])]);
    assert!(flatten_within(&[two], small).message().contains("more than 1000 bytes"), "replaced files count");
    let few = Limits { entries: 10, ..Limits::default() };
    let many = layer(&(0..11).map(|n| file(&format!("f{n}"), b"")).collect::<Vec<_>>());
    assert!(flatten_within(&[many], few).message().contains("more than 10 entries"));
    assert!(flatten_within(&[layer(&[file("1/2/3/4/5/6/7/8/9/10/11", b"")])], few).message().contains("10 entries"));
    let deep = Limits { depth: 8, ..Limits::default() };
    assert!(flatten_within(&[layer(&[file("1/2/3/4/5/6/7/8/9", b"")])], deep).message().contains("too deep"));
    let long = entry(EntryType::GNULongName, b"l", b"", 0o644, &vec![b'a'; 70 << 10]);
    assert!(refusal(&[long]).contains("64 KiB"));
}

#[test]
fn what_was_altered_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let parts = layout(&[layer(&[file("a", b"1")])]);
    let root = directory.path().join("root");
    let outcome = |parts: &BTreeMap<String, Vec<u8>>| {
        let path = directory.path().join("image.tar");
        write_tar(parts, &path);
        let _ = fs::remove_dir_all(&root);
        fs::create_dir(&root).unwrap();
        Image::open(&path).and_then(|image| image.flatten(&root, Limits::default(), &[]))
    };
    outcome(&parts).unwrap();
    for name in parts.keys().filter(|name| name.starts_with("blobs/")) {
        let mut altered = parts.clone();
        let blob = altered.get_mut(name).unwrap();
        let last = blob.len() - 1;
        blob[last] ^= 1;
        assert!(matches!(outcome(&altered), Err(ImageError::Digest { .. })), "{name}");
        let mut cut = parts.clone();
        cut.get_mut(name).unwrap().pop();
        assert!(matches!(outcome(&cut), Err(ImageError::Digest { .. })), "{name}");
        let mut absent = parts.clone();
        absent.remove(name);
        assert!(matches!(outcome(&absent), Err(ImageError::Read { .. })), "{name}");
    }
}

#[test]
fn a_layer_that_is_not_its_diff_id_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let saved = BTreeMap::from([
        ("c.json".to_owned(), format!(r#"{{"rootfs":{{"diff_ids":["sha256:{}"]}}}}"#, "0".repeat(64)).into_bytes()),
        ("manifest.json".to_owned(), br#"[{"Config":"c.json","Layers":["layer.tar"]}]"#.to_vec()),
        ("layer.tar".to_owned(), layer(&[file("a", b"1")])),
    ]);
    let path = directory.path().join("image.tar");
    write_tar(&saved, &path);
    let image = Image::open(&path).unwrap();
    let error = image.flatten(&directory.path().join("root"), Limits::default(), &[]).unwrap_err();
    assert!(matches!(error, ImageError::Disk { .. }), "the directory is the caller's to make: {error}");
    fs::create_dir(directory.path().join("root")).unwrap();
    let error = image.flatten(&directory.path().join("root"), Limits::default(), &[]).unwrap_err();
    assert!(matches!(error, ImageError::Digest { .. }), "{error}");
}

/// Its names are whatever it says, and would be looked for in the folder and above it.
#[test]
fn what_docker_saves_is_read_from_an_archive_only() {
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().join("folder");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("manifest.json"), br#"[{"Config":"../c.json","Layers":["../layer.tar"]}]"#).unwrap();
    let tar = layer(&[file("a", b"1")]);
    fs::write(directory.path().join("layer.tar"), &tar).unwrap();
    let config = format!(r#"{{"rootfs":{{"diff_ids":["sha256:{}"]}}}}"#, hex(&tar));
    fs::write(directory.path().join("c.json"), config).unwrap();
    assert!(matches!(Image::open(&folder), Err(ImageError::Unknown)));
}

#[test]
fn what_is_no_image_says_what_to_give() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image.tar");
    for bytes in [b"".to_vec(), b"not a tar".repeat(200), layer(&[file("x", b"1")]), gz(b"x")] {
        fs::write(&path, bytes).unwrap();
        let message = Image::open(&path).unwrap_err().to_string();
        assert!(message.contains("docker save") || message.contains("cannot read"), "{message}");
    }
}
