//! Every source file says what it is, is of a readable length, and is finished.

use super::{SourceFile, Violation, files, hold, lexer};

/// Longer than this is several files.
const LINES_MAX: usize = 700;

#[test]
fn every_file_opens_with_what_it_is() {
    hold(&files(&["rs", "py"]).iter().filter_map(opening).collect::<Vec<_>>());
}

#[test]
fn no_file_is_too_long() {
    hold(&files(&["rs", "py"]).iter().filter_map(length).collect::<Vec<_>>());
}

#[test]
fn nothing_is_left_unfinished() {
    hold(&files(&["rs", "py", "toml", "sh"]).iter().flat_map(unfinished).collect::<Vec<_>>());
}

/// A Rust file starts with `//!`, a Python file with a docstring (after a `#!` line, if it has one).
fn opening(file: &SourceFile) -> Option<Violation> {
    let SourceFile { path, text } = file;
    if path.ends_with(".rs") {
        let opens = text.strip_prefix("//!").is_some_and(|rest| !rest.lines().next().unwrap_or("").trim().is_empty());
        return (!opens).then(|| format!("{path}: opens without `//!`: say what the file owns and does not know"));
    }
    let text = if text.starts_with("#!") { text.split_once('\n').map_or("", |(_, rest)| rest) } else { text };
    let opens = text.starts_with("\"\"\"") || text.starts_with("r\"\"\"");
    (!opens).then(|| format!("{path}: opens without a docstring: say what the module owns"))
}

fn length(file: &SourceFile) -> Option<Violation> {
    let lines = file.text.lines().count();
    (lines > LINES_MAX).then(|| format!("{}: {lines} lines, more than {LINES_MAX}: split it", file.path))
}

/// Words that say "later". Put together here, so that this file does not hold them.
fn unfinished(file: &SourceFile) -> Vec<Violation> {
    let macros = ["to", "unimplemen"].iter().zip(["do!", "ted!"]).map(|(a, b)| format!("{a}{b}"));
    let later = ["TO", "FIX"].iter().zip(["DO", "ME"]).map(|(a, b)| format!("{a}{b}"));
    let attribute = [format!("#[{}", "ignore")];
    let substrings = macros.chain(attribute).filter(|word| file.text.contains(word.as_str()));
    let whole = later.filter(|word| lexer::words(&file.text, word).next().is_some());
    substrings.chain(whole).map(|word| format!("{}: `{word}`: finish it or take it out", file.path)).collect()
}

#[cfg(test)]
mod can_fail {
    use super::*;

    fn file(path: &str, text: &str) -> SourceFile {
        SourceFile { path: path.to_owned(), text: text.to_owned() }
    }

    #[test]
    fn an_opening_that_is_missing() {
        assert!(opening(&file("a.rs", "//! What it owns.\n")).is_none());
        assert!(opening(&file("a.rs", "use std;\n")).is_some());
        assert!(opening(&file("a.rs", "// A comment.\n")).is_some());
        assert!(opening(&file("a.rs", "//!\n")).is_some());
        assert!(opening(&file("a.py", "\"\"\"What it owns.\"\"\"\n")).is_none());
        assert!(opening(&file("a.py", "#!/usr/bin/env python3\n\"\"\"What it owns.\"\"\"\n")).is_none());
        assert!(opening(&file("a.py", "import os\n")).is_some());
        assert!(opening(&file("a.py", "")).is_some());
    }

    #[test]
    fn a_file_that_is_too_long() {
        assert!(length(&file("a.rs", &"x\n".repeat(LINES_MAX))).is_none());
        assert!(length(&file("a.rs", &"x\n".repeat(LINES_MAX + 1))).is_some());
    }

    #[test]
    fn work_that_was_put_off() {
        for word in [["to", "do!()"], ["unimplemen", "ted!()"], ["FIX", "ME"], ["#[ign", "ore]"], ["TO", "DO: x"]] {
            assert_eq!(unfinished(&file("a.rs", &word.concat())).len(), 1, "{word:?}");
        }
        assert_eq!(unfinished(&file("Cargo.toml", "todo = \"deny\"\nTODOS = 1")).len(), 0);
    }
}
