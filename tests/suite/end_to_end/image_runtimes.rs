//! One image that has the interpreters of several runtimes.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use vilya_distribution::peer::Registry;

use super::images::{images, text_entry};
use super::node;
use super::worker::{Worker, archive};

/// This machine's Node with the libraries that it is linked with, at the places where it looks for them; and a file where a Python is looked
/// for, which no test runs.
fn layer() -> Vec<u8> {
    let node = Path::new("/usr/bin/node").canonicalize().expect("this machine has Node");
    let needed = Command::new("ldd").arg(&node).output().expect("ldd is there");
    let needed = String::from_utf8(needed.stdout).expect("text");
    let libraries = needed.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from);
    let files: BTreeSet<PathBuf> = libraries.chain([node.clone()]).collect();
    let mut builder = tar::Builder::new(Vec::new());
    for path in files {
        let name = path.strip_prefix("/").expect("an absolute path");
        builder.append_path_with_name(path.canonicalize().expect("a file"), name).expect("a file of this machine");
    }
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    builder.append_link(&mut header, "opt/bin/node", &node).expect("into memory");
    text_entry(&mut builder, "opt/bin/python3", "");
    builder.into_inner().expect("into memory")
}

fn deploy(worker: &Worker, name: &str, runtime: &str, image: &str, module: (&str, &str)) {
    let manifest = format!("name = \"{name}\"\nruntime = \"{runtime}\"\nimage = \"{image}\"\ntimeout = \"60s\"\n");
    let (path, code) = module;
    let files = [("function.toml", manifest.as_bytes(), 0o644), (path, code.as_bytes(), 0o644)];
    let answer = worker.deploy(name, &archive(&files));
    assert_eq!(answer.status, 201, "{}", answer.text());
}

#[test]
fn node_runs_in_an_image_that_a_python_function_had_before() {
    let Some(addon) = node::settings() else { return };
    let registry = Registry::start();
    registry.image("team/both", "1", &[layer()], &["PATH=/usr/local/bin:/opt/bin", "FROM_IMAGE=yes"]);
    let image = format!("{}/team/both:1", registry.host());
    let worker = Worker::start_with(&[&addon]);
    deploy(&worker, "first", "python", &image, ("main.py", "def handler(event, context): return 1"));
    let pulled = registry.seen().len();
    let code = "const fs = require('fs');
        exports.handler = async (event) => ({
            event, from: process.env.FROM_IMAGE, program: process.execPath,
            host: fs.existsSync('/etc/os-release') || fs.existsSync('/usr/bin/env'),
            writes: (() => { try { fs.writeFileSync('/opt/x', ''); return true } catch { return false } })(),
        })";
    deploy(&worker, "second", "node", &image, ("index.js", code));
    assert!(registry.seen().len() < pulled, "the image is there already");
    assert_eq!(images(&worker), 1);
    let answer = worker.client().invoke("second", b"[1]").expect(200).json();
    assert_eq!((&answer["event"], &answer["from"]), (&serde_json::json!([1]), &"yes".into()), "{answer}");
    let program = Path::new("/usr/bin/node").canonicalize().expect("this machine has Node");
    assert_eq!(answer["program"], program.to_str().expect("a name in UTF-8"), "{answer}");
    assert_eq!((&answer["host"], &answer["writes"]), (&false.into(), &false.into()), "{answer}");
    assert_eq!(worker.client().invoke("second", b"2").expect(200).json()["event"], 2);
}
