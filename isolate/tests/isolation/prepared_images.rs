//! Sandboxes that were made before they were needed, in an image of a function: no less confined, and of that image alone.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use vilya_isolate::{Begun, Bind, CopyOf, ImageRoot, Mechanism, Root, Spec};

use crate::prepared::{BECOME_COPY, CONFINEMENT, image_of_spec};
use crate::support::{Room, Running, python, running, spec};

const PATIENCE: Duration = Duration::from_secs(20);

/// This host's programs, as an image has its own.
fn in_image(mut spec: Spec) -> Spec {
    let link = |name: &str| Some((name.to_owned(), fs::read_link(format!("/{name}")).ok()?.to_str()?.to_owned()));
    let names = ["bin", "lib", "lib32", "lib64", "libx32", "sbin"];
    let plain = |name: &&str| fs::symlink_metadata(format!("/{name}")).is_ok_and(|found| found.is_dir());
    let directories = ["usr"].into_iter().chain(names.into_iter().filter(plain)).map(str::to_owned).collect();
    let links = names.into_iter().filter_map(link).collect();
    spec.root = Root::Image(ImageRoot { directory: "/".into(), directories, links });
    spec
}

/// Starts until one that was made ahead serves.
fn prepared(room: &mut Room, spec: &Spec) -> Running {
    let since = Instant::now();
    loop {
        let running = room.start(spec).expect("it starts");
        if running.started.stages.prepared {
            return running;
        }
        assert!(since.elapsed() < PATIENCE, "none is made ahead");
        running.finish();
        room.native.wait_until_prepared(PATIENCE);
    }
}

#[test]
fn one_in_an_image_and_a_copy_there_are_as_confined_as_any_other() {
    let program = in_image(python(CONFINEMENT));
    let mut whole = Room::unprepared().run(&program).answers();
    whole.retain(|name, _| name != "CapInh");
    assert!(whole["root"].contains("usr") && !whole["root"].contains("etc"), "{whole:?}");
    let mut room = Room::new();
    let mut seen = prepared(&mut room, &program).finish().answers();
    seen.retain(|name, _| name != "CapInh");
    assert_eq!(seen, whole);

    let program = format!("{BECOME_COPY}import resource, socket\nbecome_copy()\n{CONFINEMENT}\nshow('exe', os.readlink('/proc/self/exe'))\n
try: show('opened', open('/proc/self/exe', 'rb').read(4))
except OSError as error: show('opened', error.errno)");
    let image = image_of_spec(&mut room, &in_image(python(&program))).expect("it can be copied");
    let whole_program = in_image(python("raise SystemExit('this must not run')"));
    let mut copied = running(|descriptors| {
        let copy = CopyOf { image: &image, tells_environment: false };
        room.native.begin(&whole_program, descriptors, Some(copy)).and_then(Begun::finish)
    })
    .expect("a copy")
    .finish()
    .answers();
    assert!(copied.remove("exe").is_some_and(|exe| !exe.contains("isolation")), "not the worker's program");
    let opened = copied.remove("opened");
    assert!(!room.enforces("landlock") || opened == Some(libc::EACCES.to_string()), "{opened:?}");
    copied.retain(|name, _| name != "CapInh");
    assert_eq!(copied, whole);
}

/// Prints a file of an image that has no program: the loader and the program come with the function.
fn shows(image: &Path, path: &str) -> Spec {
    let loader = fs::canonicalize("/lib64/ld-linux-x86-64.so.2").expect("this machine's loader");
    let within = |path: &Path| format!("/function/{}", path.strip_prefix("/usr").expect("below /usr").display());
    let libraries = within(loader.parent().expect("a directory"));
    let cat = fs::canonicalize("/usr/bin/cat").expect("this machine's cat");
    let mut spec = spec(&[&within(&loader), "--library-path", &libraries, &within(&cat), path]);
    spec.root = Root::Image(ImageRoot { directory: image.into(), directories: vec!["data".into()], links: Vec::new() });
    spec.binds = vec![Bind { source: "/usr".into(), target: "/function".into(), read_only: true }];
    spec
}

fn write_image(place: &Path, mark: &str) -> PathBuf {
    let image = place.join("image");
    fs::create_dir_all(image.join("data")).expect("a folder");
    fs::write(image.join("data/mark"), mark).expect("a file");
    image
}

#[test]
fn an_image_that_was_replaced_is_not_shown_by_those_made_before() {
    if !cfg!(target_arch = "x86_64") {
        return;
    }
    let place = tempfile::tempdir().expect("a folder");
    let mut room = Room::new();
    if room.is_root() {
        // Sandboxes of root are other users, to whom the folder is closed otherwise.
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).expect("our own");
    }
    let image = write_image(place.path(), "mark one");
    let shown = shows(&image, "/data/mark");
    assert_eq!(prepared(&mut room, &shown).finish().stdout.trim(), "mark one");
    assert!(room.native.wait_until_prepared(PATIENCE), "others wait, of the same");
    fs::rename(&image, place.path().join("gone")).expect("our own");
    write_image(place.path(), "mark two");
    assert_eq!(room.run(&shown).stdout.trim(), "mark two");
    assert_eq!(prepared(&mut room, &shown).finish().stdout.trim(), "mark two");
    // The room has place for the sandboxes of one image: another's take it.
    let other = in_image(spec(&["/usr/bin/echo", "mark three"]));
    assert_eq!(prepared(&mut room, &other).finish().stdout.trim(), "mark three");
    assert_eq!(room.run(&shown).stdout.trim(), "mark two");
}
