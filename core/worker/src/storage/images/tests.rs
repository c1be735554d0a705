//! Processes that lie about what they unpacked, and trees that no process of ours makes.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, symlink};

use nix::sys::stat::Mode;
use sha2::{Digest, Sha256};
use vilya_image::{Answer, Description, Layer, Place};

use super::*;
use crate::storage::inspection::{Allowed, Fault, take};

const ALLOWED: Allowed = Allowed { entries: LIMITS.entries, bytes: LIMITS.bytes, depth: LIMITS.depth, links: true };
const LIMITS: Limits = Limits { entries: 8, bytes: 1000, depth: 3, ratio: 10 };

fn shelf(state: &Path, work: vilya_isolate::Work) -> Shelf {
    let mut images = Images::open(state, LIMITS.bytes).unwrap();
    images.unpacked_by(Arc::new(Unpacker::start(work).unwrap()));
    images.shelf()
}

fn digest(bytes: &[u8]) -> String {
    crate::storage::hex(&Sha256::digest(bytes))
}

/// What `docker save` writes of one layer with one file.
fn archive(name: &str, mode: u32) -> Vec<u8> {
    let tar = |files: &[(&str, &[u8])]| {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, bytes) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(mode);
            builder.append_data(&mut header, name, *bytes).unwrap();
        }
        builder.into_inner().unwrap()
    };
    let layer = tar(&[(name, b"text")]);
    let config = format!(r#"{{"rootfs":{{"diff_ids":["sha256:{}"]}},"config":{{"Env":["A=b"]}}}}"#, digest(&layer));
    let manifest = br#"[{"Config":"c.json","Layers":["layer.tar"]}]"#;
    tar(&[("c.json", config.as_bytes()), ("manifest.json", manifest), ("layer.tar", &layer)])
}

/// What comes of an archive where `work` is what unpacks.
fn unpacked(work: vilya_isolate::Work, archive: &[u8]) -> (tempfile::TempDir, Result<ImageRecord, UnpackError>) {
    let state = tempfile::tempdir().unwrap();
    let shelf = shelf(state.path(), work);
    let job = state.path().join("job");
    fs::create_dir(&job).unwrap();
    fs::write(job.join("image.tar"), archive).unwrap();
    let outcome = shelf.unpack(&job.join("image.tar"), &job, &job.join("tree"));
    (state, outcome.map(|shelved| shelved.image))
}

#[test]
fn what_an_honest_process_made_is_the_workers() {
    let (state, outcome) = unpacked(vilya_image::work, &archive("bin/tool", 0o6755));
    let image = outcome.unwrap();
    assert_eq!(image.environment, [("A".to_owned(), "b".to_owned())]);
    let own = nix::unistd::geteuid().as_raw();
    for (path, mode) in [("", 0o755), ("bin", 0o755), ("bin/tool", 0o755), ("etc/hosts", 0o644)] {
        let found = fs::symlink_metadata(state.path().join("job/tree").join(path)).unwrap();
        assert_eq!((found.mode() & 0o7777, found.uid()), (mode, own), "{path}");
    }
    let (_, again) = unpacked(vilya_image::work, &archive("bin/tool", 0o6755));
    assert_eq!(again.unwrap().identity, image.identity);
    let (_, other) = unpacked(vilya_image::work, &archive("bin/other", 0o6755));
    assert_ne!(other.unwrap().identity, image.identity);
}

/// It flattens honestly, and leaves something behind.
fn leaves_a_mode(request: &[u8]) -> Vec<u8> {
    let answer = vilya_image::work(request);
    if Path::new("/tree/files/bin").is_dir() {
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true).mode(0o600).open("/tree/files/bin/late").unwrap();
    }
    answer
}

fn says_nothing_of_sense(_: &[u8]) -> Vec<u8> {
    b"\x00\xff".to_vec()
}

/// It calls the layer by a name that it does not have, as if it were another's.
fn names_another(request: &[u8]) -> Vec<u8> {
    let Some(Ok(Answer::Described(mut described))) = Answer::from_bytes(&vilya_image::work(request)) else {
        return Vec::new();
    };
    described.layers[0].digest = Some("a".repeat(64));
    Answer::Described(described).to_bytes()
}

/// It says that the image's layer lies behind the end of the archive.
fn points_elsewhere(_: &[u8]) -> Vec<u8> {
    let place = Place::Blob("a".repeat(64));
    let layer = Layer { place, digest: Some("a".repeat(64)), diff_id: "a".repeat(64) };
    Answer::Described(Description { layers: vec![layer], environment: Vec::new() }).to_bytes()
}

#[test]
fn what_a_liar_says_or_leaves_is_not_taken() {
    for (work, why) in [
        (leaves_a_mode as vilya_isolate::Work, "mode is 0600"),
        (says_nothing_of_sense, "without sense"),
        (names_another, "has digest"),
        (points_elsewhere, "without sense"),
    ] {
        let (state, outcome) = unpacked(work, &archive("bin/tool", 0o755));
        let said = outcome.unwrap_err().to_string();
        assert!(said.contains(why), "{said}");
        assert_eq!(fs::read_dir(state.path().join(IMAGES)).unwrap().count(), 0, "nothing is kept");
    }
}

/// The digest of what was read and the one of the tar are both in the name: neither alone can stand for another image.
#[test]
fn the_name_follows_from_the_bytes_as_the_worker_read_them() {
    fn renamed(request: &[u8]) -> Vec<u8> {
        let Some(Ok(Answer::Described(mut described))) = Answer::from_bytes(&vilya_image::work(request)) else {
            // Of the layer it makes nothing.
            fs::write("/tree/changes", "").unwrap();
            return Answer::Layer(vilya_image::Size::default()).to_bytes();
        };
        described.layers[0].diff_id = "a".repeat(64);
        Answer::Described(described).to_bytes()
    }
    let bytes = archive("bin/tool", 0o755);
    let (_, honest) = unpacked(vilya_image::work, &bytes);
    let (_, lying) = unpacked(renamed, &bytes);
    assert_ne!(honest.unwrap().identity, lying.unwrap().identity);
}

/// A process that was taken over by one layer cannot change what another has become, nor leave it in another's place.
#[test]
fn a_layer_is_kept_by_what_the_worker_read_and_made_once() {
    let state = tempfile::tempdir().unwrap();
    let shelf = shelf(state.path(), vilya_image::work);
    let of = |name: &str, bytes: &[u8]| {
        let job = state.path().join(name);
        fs::create_dir(&job).unwrap();
        fs::write(job.join("image.tar"), bytes).unwrap();
        shelf.unpack(&job.join("image.tar"), &job, &job.join("tree")).unwrap()
    };
    let bytes = archive("bin/tool", 0o755);
    let first = of("first", &bytes);
    let again = of("again", &bytes);
    assert_eq!(first.image.layers, again.image.layers);
    assert_eq!(fs::read_dir(state.path().join("layers")).unwrap().count(), 1);
    let inode = |place: PathBuf| fs::metadata(place).unwrap().ino();
    let places = ["first/tree/bin/tool", "again/tree/bin/tool"].map(|path| inode(state.path().join(path)));
    assert_eq!(places, [inode(first.pins[0].path().join("files/bin/tool")); 2], "one file with three names");
}

/// What it says of its changes may be anything.
fn changes_senselessly(request: &[u8]) -> Vec<u8> {
    let answer = vilya_image::work(request);
    if Path::new("/tree/changes").is_file() {
        fs::write("/tree/changes", b"w../../../etc\0l/bin/tool\0../../first\0x").unwrap();
    }
    answer
}

/// It says that a file of its layer is another name for one of the worker's.
fn links_upwards(request: &[u8]) -> Vec<u8> {
    let answer = vilya_image::work(request);
    if Path::new("/tree/changes").is_file() {
        fs::write("/tree/changes", b"lbin/tool\0../../../registry.redb\0").unwrap();
    }
    answer
}

#[test]
fn what_a_layer_says_of_its_changes_leads_nowhere() {
    for (work, why) in
        [(changes_senselessly as vilya_isolate::Work, "not to be understood"), (links_upwards, "no file of the image")]
    {
        let (_, outcome) = unpacked(work, &archive("bin/tool", 0o755));
        let said = outcome.unwrap_err().to_string();
        assert!(said.contains(why), "{said}");
    }
}

fn refused(tree: &Path) -> String {
    match take(tree, nix::unistd::geteuid().as_raw(), ALLOWED) {
        Err(Fault::Untrue(why)) => why,
        outcome => panic!("it was taken: {outcome:?}"),
    }
}

#[test]
fn a_tree_is_what_it_may_be_and_nothing_else() {
    let place = tempfile::tempdir().unwrap();
    let outside = place.path().join("outside");
    fs::write(&outside, "secret").unwrap();
    let tree = place.path().join("tree");
    let fresh = || {
        let _ = fs::remove_dir_all(&tree);
        fs::create_dir_all(tree.join("a/b")).unwrap();
        fs::write(tree.join("a/file"), "text").unwrap();
        for path in ["a", "a/b"] {
            fs::set_permissions(tree.join(path), Permissions::from_mode(0o755)).unwrap();
        }
        fs::set_permissions(tree.join("a/file"), Permissions::from_mode(0o644)).unwrap();
        symlink("../../../../etc", tree.join("a/link")).unwrap();
        fs::hard_link(tree.join("a/file"), tree.join("a/b/same")).unwrap();
    };
    fresh();
    take(&tree, nix::unistd::geteuid().as_raw(), ALLOWED).unwrap();
    let mode = |path: &str, mode| fs::set_permissions(tree.join(path), Permissions::from_mode(mode)).unwrap();
    let faults: [(&dyn Fn(), &str); 8] = [
        (&|| mode("a/file", 0o4755), "mode is 4755"),
        (&|| mode("a", 0o1777), "mode is 1777"),
        (&|| nix::unistd::mkfifo(&tree.join("a/fifo"), Mode::S_IRWXU).unwrap(), "of a kind"),
        (&|| fs::hard_link(&outside, tree.join("a/out")).unwrap(), "more names"),
        (&|| fs::create_dir_all(tree.join("a/b/c/d")).unwrap(), "levels"),
        (&|| (0..8).for_each(|number| symlink("x", tree.join(number.to_string())).unwrap()), "8 entries"),
        (&|| fs::write(tree.join("a/file"), vec![0; 1001]).unwrap(), "1000 bytes"),
        (&|| drop(std::os::unix::net::UnixListener::bind(tree.join("s")).unwrap()), "of a kind"),
    ];
    for (spoil, why) in faults {
        fresh();
        spoil();
        for path in ["a/b/c", "a/b/c/d", "a/out"] {
            if tree.join(path).exists() {
                mode(path, if path == "a/out" { 0o644 } else { 0o755 });
            }
        }
        let said = refused(&tree);
        assert!(said.contains(why), "{said}");
    }
    fresh();
    let stranger = nix::unistd::geteuid().as_raw() + 1;
    assert!(matches!(take(&tree, stranger, ALLOWED), Err(Fault::Untrue(why)) if why.contains("belongs to user")));
    assert_eq!(fs::metadata(&outside).unwrap().mode() & 0o777, 0o644, "nothing behind a link was touched");
}
