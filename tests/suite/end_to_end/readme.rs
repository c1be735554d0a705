//! The examples of the README, as they stand in it.

use super::worker::{Worker, archive};

/// The first fenced block of a language that holds a text.
pub(super) fn block(language: &str, holding: &str) -> String {
    let readme = include_str!("../../../README.md");
    let fence = format!("```{language}\n");
    let blocks = readme.split(&fence).skip(1).filter_map(|rest| rest.split("```").next());
    let found = blocks.into_iter().find(|block| block.contains(holding));
    found.unwrap_or_else(|| panic!("the README has no {language} block with {holding:?}")).to_owned()
}

#[test]
fn its_first_function_answers_as_it_says() {
    let worker = Worker::start();
    let manifest = block("toml", "name = \"hello\"");
    let code = block("python", "GREETING");
    let bundle = archive(&[("function.toml", manifest.as_bytes(), 0o644), ("main.py", code.as_bytes(), 0o644)]);
    worker.deploy("hello", &bundle).expect(201);
    let mut client = worker.client();
    let answer = client.invoke("hello", br#"{"name": "world"}"#).expect(200);
    assert_eq!(answer.json(), serde_json::json!({ "hello": "world" }));
    client.invoke("hello", b"{}").expect(200);
}

#[test]
fn its_raw_function_gives_bytes_back() {
    let worker = Worker::start();
    worker.deploy_python("raw", &block("python", "@vilya.raw"), "");
    assert_eq!(worker.client().invoke("raw", b"\x00bytes\xff").expect(200).body, b"\x00bytes\xff");
}

#[test]
fn its_function_in_javascript_answers_as_on_lambda() {
    let Some(setting) = super::node::settings() else { return };
    let worker = Worker::start_with(&[&setting]);
    let code = block("js", "awsRequestId");
    let manifest = b"name = \"greets\"\nruntime = \"node\"\n";
    let bundle = archive(&[("function.toml", manifest, 0o644), ("index.mjs", code.as_bytes(), 0o644)]);
    worker.deploy("greets", &bundle).expect(201);
    let answer = worker.client().invoke("greets", br#"{"name": "world"}"#).expect(200);
    assert_eq!(answer.json(), serde_json::json!({ "hello": "world" }));
}
