//! Configurations as docker and its helpers write them, and as they should not be.

use std::os::unix::fs::PermissionsExt;

use std::time::Duration;

use super::*;

const WAIT: Wait<'static> = Wait { patience: helper::PATIENCE, is_given_up: &|| false };

fn found(text: &str, image: &str) -> Result<Option<Credential>, PullError> {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("config.json"), text).unwrap();
    find(directory.path(), &Reference::parse(image).unwrap(), WAIT)
}

fn password(user: &str, password: &str) -> Credential {
    Credential::Password { user: user.to_owned(), password: password.to_owned() }
}

#[test]
fn an_entry_is_for_its_registry_alone() {
    // user:pa:ss
    let text = r#"{"auths": {"r.example:5000": {"auth": "dXNlcjpwYTpzcw=="}, "https://s.example/v1/": {"username": "a", "password": "b"},
        "https://index.docker.io/v1/": {"identitytoken": "t"}}, "HttpHeaders": {"User-Agent": "x"}}"#;
    assert_eq!(found(text, "r.example:5000/a:b").unwrap(), Some(password("user", "pa:ss")));
    assert_eq!(found(text, "s.example/a:b").unwrap(), Some(password("a", "b")));
    assert_eq!(found(text, "docker.io/a:b").unwrap(), Some(Credential::Identity("t".to_owned())));
    for other in ["r.example/a:b", "r.example:5001/a:b", "x.r.example:5000/a:b"] {
        assert_eq!(found(text, other).unwrap(), None, "{other}");
    }
}

#[test]
fn no_configuration_is_no_credentials_and_a_broken_one_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let reference = Reference::parse("r.example/a:b").unwrap();
    assert_eq!(find(directory.path(), &reference, WAIT).unwrap(), None);
    let message = found(r#"{"auths": {"r.example": {"auth": "secret"#, "r.example/a:b").unwrap_err().to_string();
    assert!(message.contains("line 1") && !message.contains("secret"), "{message}");
    let message = found(r#"{"auths": {"r.example": {"auth": "!!!"}}}"#, "r.example/a:b").unwrap_err().to_string();
    assert!(message.contains("docker login r.example"), "{message}");
    assert!(
        found(r#"{"auths": {"s.example": {"auth": "!!!"}}}"#, "r.example/a:b").unwrap().is_none(),
        "of another registry"
    );
}

#[test]
fn a_helper_is_named_and_not_a_path() {
    for name in ["", "../evil", "a b", "/bin/sh"] {
        let text = format!(r#"{{"credHelpers": {{"r.example": "{name}"}}}}"#);
        let message = found(&text, "r.example/a:b").unwrap_err().to_string();
        assert!(message.contains("names a helper"), "{message}");
    }
}

#[test]
fn helpers_are_asked_and_ended() {
    let directory = tempfile::tempdir().unwrap();
    let helper = |name: &str, script: &str| {
        let path = directory.path().join(format!("docker-credential-{name}"));
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    };
    helper("good", r#"read key; printf '{"ServerURL":"%s","Username":"u-%s","Secret":"p"}' "$key" "$1""#);
    helper("token", r#"echo '{"Username":"<token>","Secret":"t"}'"#);
    helper("none", "echo 'credentials not found in native keychain'; exit 1");
    helper("locked", "echo 'the keychain is locked' >&2; exit 1");
    helper("chatty", "echo secret");
    let mark = directory.path().join("sleeper");
    helper("slow", &format!("sleep 1000 & echo $! > {0}.part; mv {0}.part {0}; wait", mark.display()));
    let asked = |name: &str| {
        let program = directory.path().join(format!("docker-credential-{name}"));
        // The slow one is given up once it has started what it waits for.
        let has_started = || std::fs::metadata(&mark).is_ok_and(|mark| mark.len() > 0);
        let wait = Wait { patience: Duration::from_secs(60), is_given_up: &has_started };
        helper::run(program.to_str().unwrap(), "r.example", wait)
    };
    assert_eq!(asked("good").unwrap(), Some(password("u-get", "p")));
    assert_eq!(asked("token").unwrap(), Some(Credential::Identity("t".to_owned())));
    assert_eq!(asked("none").unwrap(), None);
    assert!(asked("locked").unwrap_err().to_string().contains("the keychain is locked"));
    let message = asked("chatty").unwrap_err().to_string();
    assert!(message.contains("did not print") && !message.contains("secret"), "{message}");
    assert!(asked("slow").unwrap_err().to_string().contains("in time"));
    let message = found(r#"{"credHelpers": {"r.example": "not-installed"}}"#, "r.example/a:b").unwrap_err().to_string();
    assert!(message.contains("docker-credential-not-installed cannot be run"), "{message}");
    let sleeper: i32 = std::fs::read_to_string(&mark).unwrap().trim().parse().unwrap();
    let since = std::time::Instant::now();
    let is_gone =
        || std::fs::read_to_string(format!("/proc/{sleeper}/stat")).map_or(true, |stat| stat.contains(") Z "));
    while !is_gone() {
        assert!(since.elapsed() < Duration::from_secs(60), "what the helper started is still there");
        std::thread::sleep(Duration::from_millis(10));
    }
}
