//! The house rules, as tests: which package may know which, what each file opens with, that the documents tell the truth
//! about the tree, and where unsafe code may be.
//!
//! Each rule is a function from texts to a list of violations, so that beside the test that holds the tree to it stands
//! one that shows the rule can fail. Nothing here runs any code of the packages.

mod decoders;
mod documents;
mod edges;
mod layout;
mod lexer;
mod sources;
mod unsafety;

use std::fs;
use std::path::{Path, PathBuf};

/// One broken rule: where, and what to do.
type Violation = String;

/// The folder with the workspace's manifest.
fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("the package `tests` is a folder of the workspace").to_owned()
}

/// A file of the tree that people wrote.
struct SourceFile {
    /// Relative to the root, with `/`.
    path: String,
    text: String,
}

/// What builds and tools leave behind.
const LEFT_BEHIND: [&str; 5] = ["target", "artifacts", "corpus", "__pycache__", "node_modules"];

/// Every file with one of these extensions, below every folder whose name does not start with a dot.
fn files(extensions: &[&str]) -> Vec<SourceFile> {
    let root = root();
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("the tree can be read") {
            let entry = entry.expect("the tree can be read");
            let name = entry.file_name().to_string_lossy().into_owned();
            let kind = entry.file_type().expect("the tree can be read");
            if kind.is_dir() && !name.starts_with('.') && !LEFT_BEHIND.contains(&name.as_str()) {
                folders.push(entry.path());
            }
            let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
            if kind.is_file() && extensions.contains(&extension) {
                let path = entry.path();
                let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                let relative = path.strip_prefix(&root).expect("found below the root");
                found.push(SourceFile { path: relative.to_string_lossy().into_owned(), text });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(!found.is_empty(), "no {extensions:?} files below {}", root.display());
    found
}

/// A file at the root that must be there.
fn root_file(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Fails with every violation at once.
fn hold(violations: &[Violation]) {
    assert!(violations.is_empty(), "{} broken rules:\n  {}", violations.len(), violations.join("\n  "));
}
