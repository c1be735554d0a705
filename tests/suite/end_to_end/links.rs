//! The state directory may lie behind a link of the operator's; nothing below it is found through one.

use std::os::unix::fs::symlink;

use super::worker::Worker;

#[test]
fn links_lead_to_the_state_directory_and_nowhere_below_it() {
    let state = tempfile::Builder::new().prefix("vilya-test-").tempdir().expect("a temporary directory");
    let elsewhere = tempfile::tempdir().expect("a temporary directory");
    let link = elsewhere.path().join("state");
    symlink(state.path(), &link).expect("a link");
    let worker = Worker::start_on(state, &[&format!("server.state_directory={}", link.display())]);
    worker.deploy_echo("before", "memory = \"64MiB\"");
    worker.deploy_python("python", "def handler(event, context): return event", "");
    worker.deploy_echo("after", "memory = \"64MiB\"");
    let mut client = worker.client();
    assert_eq!(client.invoke("before", b"hello").expect(200).body, b"hello");
    assert_eq!(client.invoke("python", b"1").expect(200).body, b"1");

    let bundles = worker.state().join("bundles");
    let aside = worker.state().join("aside");
    std::fs::rename(&bundles, &aside).expect("renamed");
    symlink(&aside, &bundles).expect("a link");
    let refusal = client.invoke("after", b"hello").expect(502);
    assert!(refusal.text().contains("symbolic link"), "{}", refusal.text());
    std::fs::remove_file(&bundles).and_then(|()| std::fs::rename(&aside, &bundles)).expect("as it was");
    assert_eq!(client.invoke("before", b"hello").expect(200).body, b"hello");
}
