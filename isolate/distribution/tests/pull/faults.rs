//! Registries that lie, stall, break and never end.

use std::time::Duration;

use vilya_distribution::peer::Fault;
use vilya_distribution::{Digest, PullError, Puller, Reference, Settings};

use crate::support::{pull, pull_with, registry, settings};

fn layer() -> String {
    Digest::of(b"first layer").to_string()
}

#[test]
fn an_altered_blob_or_manifest_is_refused_and_asked_for_once() {
    let (registry, reference) = registry();
    registry.fault(&layer(), Fault::Instead(b"First layer".to_vec()), 1);
    let refused = pull(&reference).unwrap_err();
    assert!(matches!(&refused, PullError::Digest { what, .. } if what == "layer 1 of 2"), "{refused}");
    let asked = registry.seen().iter().filter(|seen| seen.line.contains(&layer())).count();
    assert_eq!(asked, 1, "a lie does not pass");
    let (digest, _directory) = pull(&reference).unwrap();
    let pinned = format!("{}/team/app@{digest}", registry.host());
    for reference in [reference, pinned] {
        registry.fault("manifests", Fault::Instead(b"{\"schemaVersion\": 2}".to_vec()), 1);
        let refused = pull(&reference).unwrap_err();
        assert!(matches!(&refused, PullError::Digest { what, .. } if what == "the manifest"), "{refused}");
    }
}

#[test]
fn lies_about_the_length_are_found() {
    let (registry, reference) = registry();
    for said in [0, 10, 12, 1 << 40] {
        registry.fault(&layer(), Fault::Length(said), 1);
        let refused = pull(&reference).unwrap_err();
        assert!(matches!(refused, PullError::Length { wanted: 11, .. }), "{said}: {refused}");
    }
    for unsaid in [&b"first"[..], b"first layer and more", b""] {
        registry.fault(&layer(), Fault::Unsaid(unsaid.to_vec()), 1);
        let refused = pull(&reference).unwrap_err();
        assert!(matches!(refused, PullError::Length { wanted: 11, .. }), "{refused}");
    }
}

#[test]
fn what_does_not_end_is_read_no_further_than_it_may() {
    let (registry, reference) = registry();
    registry.fault("manifests", Fault::Endless, 1);
    let refused = pull(&reference).unwrap_err();
    assert!(matches!(refused, PullError::TooLarge(_)), "{refused}");
    registry.fault(&layer(), Fault::Endless, 1);
    let refused = pull(&reference).unwrap_err();
    assert!(matches!(refused, PullError::Length { .. }), "{refused}");
    registry.guard(vilya_distribution::peer::Guard::AnonymousToken);
    registry.fault("/token", Fault::Endless, 1);
    let refused = pull(&reference).unwrap_err();
    assert!(matches!(refused, PullError::Unauthorized(_) | PullError::TooLarge(_)), "{refused}");
}

#[test]
fn what_may_pass_is_tried_three_times() {
    let (registry, reference) = registry();
    for fault in [Fault::Status(503), Fault::Status(429), Fault::Cut(5)] {
        registry.fault(&layer(), fault.clone(), 2);
        pull(&reference).unwrap_or_else(|error| panic!("{fault:?}: {error}"));
        let _ = registry.seen();
        registry.fault(&layer(), fault, 3);
        let refused = pull(&reference).unwrap_err();
        assert!(matches!(refused, PullError::Refused { .. } | PullError::Unreachable { .. }), "{refused}");
        assert_eq!(registry.seen().iter().filter(|seen| seen.line.contains(&layer())).count(), 3);
    }
    registry.fault(&layer(), Fault::Status(418), 1);
    let refused = pull(&reference).unwrap_err().to_string();
    assert!(refused.contains("answered 418") && registry.seen().len() == 3, "{refused}");
}

#[test]
fn what_is_not_there_is_said() {
    let (registry, reference) = registry();
    let missing = reference.replace("app:1", "app:2");
    let refused = pull(&missing).unwrap_err();
    assert!(matches!(&refused, PullError::NotFound(what) if *what == missing), "{refused}");
    drop(registry);
    let refused = pull(&reference).unwrap_err();
    assert!(matches!(refused, PullError::Unreachable { .. }), "{refused}");
}

#[test]
fn silence_ends_a_pull() {
    let (registry, reference) = registry();
    registry.fault("manifests", Fault::Stall, 3);
    let short = Settings { silence: Duration::from_millis(100), ..settings() };
    let refused = pull_with(short, &reference).unwrap_err();
    assert!(matches!(&refused, PullError::Unreachable { reason, .. } if reason.contains("in time")), "{refused}");
    registry.fault(&layer(), Fault::Stall, 3);
    let short = Settings { timeout: Duration::from_secs(2), ..settings() };
    let refused = pull_with(short, &reference).unwrap_err();
    assert!(matches!(&refused, PullError::TooSlow(why) if why.contains("images.pull_timeout")), "{refused}");
}

#[test]
fn a_pull_under_way_ends_when_it_is_told_to() {
    let (registry, reference) = registry();
    registry.fault(&layer(), Fault::Stall, 1);
    let puller = Puller::new(settings());
    let reference = Reference::parse(&reference).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let refused = std::thread::scope(|scope| {
        let pulling = scope.spawn(|| puller.begin(&reference).unwrap().write(directory.path()));
        registry.await_requests(&layer(), 1);
        puller.stop();
        pulling.join().unwrap().unwrap_err()
    });
    assert!(matches!(refused, PullError::Stopped), "{refused}");
    assert!(matches!(puller.begin(&reference).err(), Some(PullError::Stopped)));
}
