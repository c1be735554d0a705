//! What a sandbox is shown of the host is what its spec names, whatever links are put in the way meanwhile.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use tempfile::TempDir;
use vilya_isolate::{Bind, ImageRoot, Root, Spec};

use crate::support::{Room, spec};

/// `named/code/word` says "right" and `other/code/word` says "secret"; `link` leads to `other`.
fn places() -> TempDir {
    let places = tempfile::tempdir().expect("a directory");
    fs::set_permissions(places.path(), Permissions::from_mode(0o755)).expect("its mode");
    for (name, word) in [("named", "right"), ("other", "secret")] {
        let code = places.path().join(name).join("code");
        fs::create_dir_all(&code).expect("a directory");
        fs::write(code.join("word"), word).expect("a file");
    }
    symlink("other", places.path().join("link")).expect("a link");
    places
}

fn showing(source: PathBuf) -> Spec {
    let mut spec = spec(&["/usr/bin/cat", "/function/word"]);
    spec.binds = vec![Bind { source, target: "/function".into(), read_only: true }];
    spec
}

/// What a sandbox sees, or why it was not started.
fn seen(room: &mut Room, spec: &Spec) -> Result<String, String> {
    room.start(spec).map(|running| running.finish().stdout).map_err(|error| error.to_string())
}

fn refuses(room: &mut Room, spec: &Spec) {
    let refusal = seen(room, spec).expect_err("it must not start");
    assert!(refusal.contains("symbolic link"), "{refusal}");
}

#[test]
fn no_part_of_a_source_is_a_link() {
    let places = places();
    let at = |path: &str| places.path().join(path);
    symlink("other/code", at("direct")).expect("a link");
    for mut room in [Room::new(), Room::unprepared()] {
        assert_eq!(seen(&mut room, &showing(at("named/code"))).as_deref(), Ok("right"));
        for path in ["link/code", "direct"] {
            refuses(&mut room, &showing(at(path)));
        }
        // One of the links of `/proc`, which lead where no path does.
        refuses(&mut room, &showing(Path::new("/proc/self/cwd").into()));
    }
}

#[test]
fn no_part_of_an_image_is_a_link() {
    let places = places();
    let mut room = Room::new();
    let mut spec = spec(&["/code/none"]);
    let image = |directory: PathBuf, name: &str| {
        Root::Image(ImageRoot { directory, directories: vec![name.into()], links: Vec::new() })
    };
    spec.root = image(places.path().join("link"), "code");
    refuses(&mut room, &spec);
    spec.root = image(places.path().into(), "link");
    refuses(&mut room, &spec);
    spec.root = image(places.path().join("named"), "code");
    let refusal = seen(&mut room, &spec).expect_err("there is no such program");
    assert!(refusal.contains("no such program inside"), "{refusal}");
}

/// A directory above the source and a link to another are exchanged without a pause: each start finds what it names or nothing.
#[test]
fn a_link_that_comes_and_goes_is_never_followed() {
    let places = places();
    let (named, link) = (places.path().join("named"), places.path().join("link"));
    let spec = showing(named.join("code"));
    for mut room in [Room::new(), Room::unprepared()] {
        let over = AtomicBool::new(false);
        let outcomes: Vec<Result<String, String>> = std::thread::scope(|scope| {
            let exchanging = scope.spawn(|| {
                // Relaxed: the end need not be seen at once.
                while !over.load(Ordering::Relaxed) {
                    renameat2(AT_FDCWD, &named, AT_FDCWD, &link, RenameFlags::RENAME_EXCHANGE).expect("both are there");
                }
            });
            let outcomes = (0..60).map(|_| seen(&mut room, &spec)).collect();
            over.store(true, Ordering::Relaxed);
            exchanging.join().expect("it exchanges to the end");
            outcomes
        });
        let found = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        println!("{found} of {} starts found the directory in its place", outcomes.len());
        for outcome in outcomes {
            match outcome {
                Ok(word) => assert_eq!(word, "right"),
                Err(refusal) => assert!(refusal.contains("symbolic link"), "{refusal}"),
            }
        }
        if fs::symlink_metadata(&named).expect("it is there").is_symlink() {
            renameat2(AT_FDCWD, &named, AT_FDCWD, &link, RenameFlags::RENAME_EXCHANGE).expect("both are there");
        }
    }
}
