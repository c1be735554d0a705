//! Sandboxes that have loaded an image before a start asks for a copy of it.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vilya_isolate::{Begun, Bind, CopyOf, Image, Mechanism, Spec};

use crate::prepared::{BECOME_COPY, CONFINEMENT, image_of};
use crate::support::{Room, Running, python, running};

const PATIENCE: Duration = Duration::from_secs(20);

fn whole() -> Spec {
    python("raise SystemExit('this must not run')")
}

fn load(room: &mut Room, spec: &Spec, image: &Arc<Image>, tells_environment: bool) {
    let until = Instant::now() + PATIENCE;
    while !room.native.load(spec, CopyOf { image, tells_environment }).expect("it can be loaded") {
        assert!(Instant::now() < until, "no sandbox was to spare");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn begin(room: &mut Room, spec: &Spec, image: &Arc<Image>, tells_environment: bool) -> Running {
    let copy = CopyOf { image, tells_environment };
    running(|descriptors| room.native.begin(spec, descriptors, Some(copy)).and_then(Begun::finish)).expect("a copy")
}

#[test]
fn a_copy_that_was_loaded_ahead_is_as_confined_as_any_other() {
    let mut room = Room::new();
    let mut expected = Room::unprepared().python(CONFINEMENT).answers();
    let program = format!("{BECOME_COPY}import resource, socket\nbecome_copy()\n{CONFINEMENT}");
    let image = image_of(&mut room, &program).expect("it can be copied");
    load(&mut room, &whole(), &image, false);
    let copy = begin(&mut room, &whole(), &image, false);
    assert!(copy.started.stages.loaded && copy.started.stages.prepared && copy.started.stages.copied);
    let mut answers = copy.finish().answers();
    for answers in [&mut expected, &mut answers] {
        answers.retain(|name, _| name != "CapInh");
    }
    assert_eq!(answers, expected);
}

#[test]
fn what_is_loaded_serves_only_what_it_was_loaded_for() {
    let mut room = Room::new();
    let folders: Vec<_> = ["one", "two"]
        .map(|word| {
            let folder = tempfile::tempdir().expect("a folder");
            fs::write(folder.path().join("word"), word).expect("a file");
            folder
        })
        .into();
    let of = |folder: usize| {
        let source = folders[folder].path().to_owned();
        let bind = Bind { source, target: "/function".into(), read_only: true };
        Spec { binds: vec![bind], ..whole() }
    };
    let program = format!("{BECOME_COPY}become_copy()\nprint('word', open('/function/word').read())\n");
    let [one, other] = [0, 1].map(|_| image_of(&mut room, &program).expect("it can be copied"));

    load(&mut room, &of(0), &one, false);
    let elsewhere = begin(&mut room, &of(1), &one, false);
    assert!(!elsewhere.started.stages.loaded, "it has the other folder");
    assert_eq!(elsewhere.finish().answers()["word"], "two");
    let another = begin(&mut room, &of(0), &other, false);
    assert!(!another.started.stages.loaded, "it has loaded another image");
    assert_eq!(another.finish().answers()["word"], "one");
    let mut larger = of(0);
    larger.limits.memory_bytes *= 2;
    assert!(!begin(&mut room, &larger, &one, false).started.stages.loaded, "it has another limit");
    let copy = begin(&mut room, &of(0), &one, false);
    assert!(copy.started.stages.loaded);
    assert_eq!(copy.finish().answers()["word"], "one");

    // The image of a bare runtime is any function's.
    load(&mut room, &of(0), &one, true);
    let copy = begin(&mut room, &of(1), &one, true);
    assert!(copy.started.stages.loaded);
    assert_eq!(copy.finish().answers()["word"], "two");
}

#[test]
fn what_is_not_wanted_any_more_ends() {
    let mut room = Room::new();
    let program = format!("{BECOME_COPY}become_copy()\n");
    let [kept, dropped] = [0, 1].map(|_| image_of(&mut room, &program).expect("it can be copied"));
    load(&mut room, &whole(), &dropped, false);
    for _ in 0..2 {
        load(&mut room, &whole(), &kept, false);
        assert_eq!(room.native.keep_loaded(&mut |_| true), 2, "one for each image");
    }
    let weak = Arc::downgrade(&dropped);
    drop(dropped);
    assert!(weak.upgrade().is_some(), "it is loaded");
    assert_eq!(room.native.keep_loaded(&mut |image| Arc::ptr_eq(image, &kept)), 1);
    assert!(weak.upgrade().is_none());
    // Only two may have loaded one: the first ends.
    let [second, third] = [0, 1].map(|_| image_of(&mut room, &program).expect("it can be copied"));
    load(&mut room, &whole(), &second, false);
    load(&mut room, &whole(), &third, false);
    assert!(!begin(&mut room, &whole(), &kept, false).started.stages.loaded);
    assert!(begin(&mut room, &whole(), &third, false).started.stages.loaded);
}

#[test]
fn pages_that_a_copy_touched_are_there_in_the_next() {
    let mut room = Room::new();
    let program = format!(
        "{BECOME_COPY}
import mmap, resource, time
pages = mmap.mmap(-1, 400 << 12, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
pages[:] = b'x' * len(pages)
become_copy()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for page in range(0, 300): pages[page << 12] = 1
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before, flush=True)
time.sleep(60)
"
    );
    let image = image_of(&mut room, &program).expect("it can be copied");
    let faults = |copy: &mut Running| copy.line().parse::<u64>().expect("a number");
    let mut first = begin(&mut room, &whole(), &image, false);
    let unprovided = faults(&mut first);
    assert!(unprovided >= 300, "each page is copied when it is written to: {unprovided}");
    image.learn_from(&first.started).expect("it can be looked at");
    first.started.remains.kill();
    first.finish();
    for loads in [false, true] {
        if loads {
            load(&mut room, &whole(), &image, false);
        }
        let mut next = begin(&mut room, &whole(), &image, false);
        let provided = faults(&mut next);
        assert!(provided < 100, "{provided} of {unprovided} pages had still to be copied");
        next.started.remains.kill();
        next.finish();
    }
}
