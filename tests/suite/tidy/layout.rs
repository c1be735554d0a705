//! What stands at the top of the tree: the rooms of the house and the files that belong to the whole of it.

use std::fs;

use super::{Violation, hold, root};

const ROOMS: [&str; 7] = ["core", "ipc", "isolate", "gpu", "frontend", "benches", "tests"];
const FILES: [&str; 8] = [
    "ARCHITECTURE.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "deny.toml",
    "rust-toolchain.toml",
];
const OPTIONAL_FILES: [&str; 3] = ["CHANGELOG.md", "clippy.toml", "rustfmt.toml"];
/// What Cargo writes, where a developer has not moved it.
const BUILT: &str = "target";

#[test]
fn the_top_level_is_the_rooms_and_the_named_files() {
    let entries = fs::read_dir(root()).expect("the root can be read").map(|entry| {
        let entry = entry.expect("the root can be read");
        (entry.file_name().to_string_lossy().into_owned(), entry.path().is_dir())
    });
    hold(&misplaced(&entries.collect::<Vec<_>>()));
}

/// Entries (name, is a folder) that do not belong, and ones that are missing. Names with a dot in front are tools' own.
fn misplaced(entries: &[(String, bool)]) -> Vec<Violation> {
    let stray = entries.iter().filter(|(name, folder)| {
        let name = name.as_str();
        let known = match folder {
            true => ROOMS.contains(&name) || name == BUILT,
            false => FILES.contains(&name) || OPTIONAL_FILES.contains(&name),
        };
        !known && !name.starts_with('.')
    });
    let stray = stray.map(|(name, _)| format!("{name}: does not belong at the top level: give it a room"));
    let has = |wanted: &str, folder: bool| entries.iter().any(|(name, is)| name == wanted && *is == folder);
    let rooms = ROOMS.iter().filter(|room| !has(room, true)).map(|room| format!("{room}/ is missing"));
    let files = FILES.iter().filter(|file| !has(file, false)).map(|file| format!("{file} is missing"));
    stray.chain(rooms).chain(files).collect()
}

#[cfg(test)]
mod can_fail {
    use super::*;

    fn whole() -> Vec<(String, bool)> {
        let rooms = ROOMS.iter().map(|name| ((*name).to_owned(), true));
        let files = FILES.iter().map(|name| ((*name).to_owned(), false));
        rooms.chain(files).chain([(".git".to_owned(), true), ("target".to_owned(), true)]).collect()
    }

    #[test]
    fn a_stray_entry_and_a_missing_one() {
        assert!(misplaced(&whole()).is_empty());
        for stray in [("utils", true), ("notes.txt", false), ("README.md", true), ("core", false)] {
            let mut entries = whole();
            entries.push((stray.0.to_owned(), stray.1));
            assert_eq!(misplaced(&entries).len(), 1, "{stray:?}");
        }
        for missing in 0..ROOMS.len() + FILES.len() {
            let mut entries = whole();
            entries.remove(missing);
            assert_eq!(misplaced(&entries).len(), 1);
        }
    }
}
