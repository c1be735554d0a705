//! Who is shown which credentials.

use vilya_distribution::peer::{Fault, Guard, Registry};
use vilya_distribution::{PullError, Settings};

use crate::support::{pull, pull_with, registry, settings};

/// A Docker configuration with an entry for a registry.
fn logged_in(host: &str, entry: &str) -> (tempfile::TempDir, Settings) {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("config.json"), format!("{{\"auths\": {{\"{host}\": {{{entry}}}}}}}"))
        .unwrap();
    let settings = Settings { docker_config: Some(directory.path().to_owned()), ..settings() };
    (directory, settings)
}

const PAIR: &str = r#""username": "ann", "password": "secret-1""#;

#[test]
fn a_token_is_had_without_credentials_where_the_registry_gives_one() {
    let (registry, reference) = registry();
    registry.guard(Guard::AnonymousToken);
    pull(&reference).unwrap();
    let tokens = registry.seen().iter().filter(|seen| seen.line.contains("/token")).count();
    assert_eq!(tokens, 1, "one token serves the whole pull");
}

#[test]
fn passwords_and_identity_tokens_are_used_as_the_registry_asks() {
    let (registry, reference) = registry();
    let (_directory, with) = logged_in(&registry.host(), PAIR);
    for guard in [Guard::Basic("ann:secret-1".to_owned()), Guard::Token("ann:secret-1".to_owned())] {
        registry.guard(guard);
        pull_with(with.clone(), &reference).unwrap();
    }
    registry.guard(Guard::Identity("identity-1".to_owned()));
    let (_directory, with) = logged_in(&registry.host(), r#""identitytoken": "identity-1""#);
    pull_with(with, &reference).unwrap();
}

#[test]
fn wrong_or_missing_credentials_are_said_and_not_shown() {
    let (registry, reference) = registry();
    for guard in [Guard::Basic("ann:other".to_owned()), Guard::Token("ann:other".to_owned())] {
        registry.guard(guard);
        let refused = pull(&reference).unwrap_err();
        let login = format!("docker login {}", registry.host());
        assert!(matches!(&refused, PullError::Unauthorized(why) if why.contains(&login)), "{refused}");
        let (_directory, with) = logged_in(&registry.host(), PAIR);
        let refused = pull_with(with, &reference).unwrap_err().to_string();
        assert!(refused.contains("config.json") && refused.contains(&login), "{refused}");
        assert!(!refused.contains("secret-1"), "{refused}");
    }
}

#[test]
fn a_token_that_expires_during_a_pull_is_had_again() {
    let (registry, reference) = registry();
    registry.guard(Guard::AnonymousToken);
    registry.fault(&vilya_distribution::Digest::of(b"second layer").to_string(), Fault::Expire, 1);
    pull(&reference).unwrap();
    let tokens = registry.seen().iter().filter(|seen| seen.line.contains("/token")).count();
    assert_eq!(tokens, 2);
    // One whose tokens never last is not asked for ever.
    registry.fault("blobs", Fault::Expire, 100);
    let refused = pull(&reference).unwrap_err();
    assert!(matches!(refused, PullError::Unauthorized(_)), "{refused}");
}

#[test]
fn credentials_go_to_nobody_else() {
    let (registry, reference) = registry();
    let other = Registry::start();
    other.image("team/app", "1", &[b"first layer".to_vec(), b"second layer".to_vec()], &["A=b"]);
    let layer = vilya_distribution::Digest::of(b"second layer");
    registry.guard(Guard::Basic("ann:secret-1".to_owned()));
    let (_directory, with) = logged_in(&registry.host(), PAIR);
    // As registries do that keep blobs elsewhere.
    registry.fault(
        &layer.to_string(),
        Fault::Redirect(format!("http://{}/v2/team/app/blobs/{layer}", other.host())),
        1,
    );
    pull_with(with.clone(), &reference).unwrap();
    let seen = other.seen();
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert_eq!(seen[0].authorization, None);
    // A redirect to itself keeps them.
    registry.fault(&layer.to_string(), Fault::Redirect(format!("/v2/team/app/blobs/{layer}")), 1);
    pull_with(with.clone(), &reference).unwrap();
    // The other one wants them too, and does not get them.
    other.guard(Guard::Basic("ann:secret-1".to_owned()));
    registry.fault(
        &layer.to_string(),
        Fault::Redirect(format!("http://{}/v2/team/app/blobs/{layer}", other.host())),
        1,
    );
    let refused = pull_with(with.clone(), &reference).unwrap_err().to_string();
    assert!(refused.contains("answered 401"), "{refused}");
    assert!(other.seen().iter().all(|seen| seen.authorization.is_none()));
    // Nor does who is named for tokens, in the clear.
    registry.guard(Guard::Elsewhere("http://token.example/".to_owned()));
    let refused = pull_with(with, &reference).unwrap_err().to_string();
    assert!(refused.contains("not https: nothing was sent"), "{refused}");
}

#[test]
fn redirects_are_bounded_and_stay_out_of_the_clear() {
    let (registry, reference) = registry();
    registry.fault("manifests", Fault::Redirect("http://elsewhere.example/x".to_owned()), 1);
    let refused = pull(&reference).unwrap_err().to_string();
    assert!(refused.contains("images.insecure_registries"), "{refused}");
    for to in ["file:///etc/passwd", "//elsewhere.example/x", "http://ann:x@127.0.0.1/", ""] {
        registry.fault("manifests", Fault::Redirect(to.to_owned()), 1);
        let refused = pull(&reference).unwrap_err();
        assert!(matches!(refused, PullError::Redirect { .. }), "{to}: {refused}");
    }
    let _ = registry.seen();
    registry.fault("manifests", Fault::Redirect("/v2/team/app/manifests/1".to_owned()), 100);
    let refused = pull(&reference).unwrap_err().to_string();
    assert!(refused.contains("sixth"), "{refused}");
    assert_eq!(registry.seen().len(), 6);
}

#[test]
fn a_registry_that_is_not_on_this_machine_is_not_spoken_to_in_the_clear() {
    // Another spelling of loopback, which no certificate can be for: had it been spoken to in the clear, the peer would have answered.
    let (registry, reference) = registry();
    let by_name = reference.replace("127.0.0.1", "127.1");
    let refused = pull(&by_name).unwrap_err().to_string();
    assert!(refused.contains("cannot be reached"), "{refused}");
    assert_eq!(registry.seen(), []);
    let listed = Settings { plain_http: vec![registry.host().replace("127.0.0.1", "127.1")], ..settings() };
    pull_with(listed, &by_name).unwrap();
}
