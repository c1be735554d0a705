//! Where unsafe code is: in exactly the files that `ARCHITECTURE.md` lists under "Unsafe", each use with its reason.

use std::collections::BTreeSet;

use super::{SourceFile, Violation, documents, files, hold, lexer, root_file};

/// The document and the heading in it.
const DOCUMENT: &str = "ARCHITECTURE.md";
const HEADING: &str = "Unsafe";

#[test]
fn unsafe_code_is_where_the_architecture_says() {
    let listed = documents::section(&root_file(DOCUMENT), HEADING)
        .unwrap_or_else(|| panic!("{DOCUMENT} has no section \"{HEADING}\" that lists the files with unsafe code"));
    let listed = documents::code_spans(&listed).into_iter().filter(|span| span.ends_with(".rs")).collect();
    hold(&differences(&files(&["rs"]), &listed));
}

#[test]
fn every_use_says_why_it_is_sound() {
    hold(&files(&["rs"]).iter().flat_map(without_reason).collect::<Vec<_>>());
}

/// Files with unsafe code that are not listed, and listed files without.
fn differences(files: &[SourceFile], listed: &BTreeSet<String>) -> Vec<Violation> {
    let is_unsafe = |file: &&SourceFile| lexer::words(&lexer::code_only(&file.text), "unsafe").next().is_some();
    let found: BTreeSet<String> = files.iter().filter(is_unsafe).map(|file| file.path.clone()).collect();
    let unlisted = found
        .difference(listed)
        .map(|path| format!("{path}: holds unsafe code, and {DOCUMENT} does not list it under \"{HEADING}\""));
    let unused = listed
        .difference(&found)
        .map(|path| format!("{DOCUMENT} lists {path} under \"{HEADING}\", and it holds no unsafe code"));
    unlisted.chain(unused).collect()
}

/// Blocks and impls without a `SAFETY:` comment right above, or above the statement that they are in.
fn without_reason(file: &SourceFile) -> Vec<Violation> {
    let code = lexer::code_only(&file.text);
    let raw: Vec<&str> = file.text.lines().collect();
    let bare: Vec<&str> = code.lines().collect();
    let needs_reason = |at: &usize| {
        let after = code[at + "unsafe".len()..].trim_start();
        after.starts_with('{') || after.starts_with("impl")
    };
    let uses = lexer::words(&code, "unsafe").filter(needs_reason);
    let lines: BTreeSet<usize> = uses.map(|at| code[..at].matches('\n').count()).collect();
    let unexplained = lines.into_iter().filter(|&line| !has_reason(&raw, &bare, line));
    unexplained.map(|line| format!("{}:{}: unsafe without a `// SAFETY:` comment", file.path, line + 1)).collect()
}

fn has_reason(raw: &[&str], bare: &[&str], line: usize) -> bool {
    if raw[line].contains("SAFETY:") {
        return true;
    }
    for above in (0..line).rev() {
        let (text, code) = (raw[above].trim(), bare[above].trim());
        if text.starts_with("//") {
            if text.contains("SAFETY:") {
                return true;
            }
        } else if !code.starts_with("#[") && !continues(code) {
            return false;
        }
    }
    false
}

/// Whether the statement on this line goes on below it.
fn continues(code: &str) -> bool {
    !(code.is_empty() || code.ends_with([';', '{', '}']) || (code.ends_with(',') && code.contains("=>")))
}

#[cfg(test)]
mod can_fail {
    use super::*;

    fn file(text: &str) -> SourceFile {
        SourceFile { path: "a.rs".to_owned(), text: text.to_owned() }
    }

    #[test]
    fn a_file_that_is_not_listed_and_a_listed_one_without() {
        let listed = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect::<BTreeSet<_>>();
        let with = [file("fn f() { unsafe { g() } }")];
        assert!(differences(&with, &listed(&["a.rs"])).is_empty());
        assert_eq!(differences(&with, &listed(&[])).len(), 1);
        assert_eq!(differences(&with, &listed(&["a.rs", "b.rs"])).len(), 1);
        let without = [file("#![forbid(unsafe_code)] // unsafe is a word\nconst A: &str = \"unsafe {\";")];
        assert!(differences(&without, &listed(&[])).is_empty());
    }

    #[test]
    fn a_use_without_its_reason() {
        for sound in [
            "// SAFETY: why.\nunsafe { f() }",
            "// SAFETY: why,\n// at length.\nlet x = unsafe { f() };",
            "// SAFETY: why.\n#[allow(x)]\nunsafe impl Send for X {}",
            "// SAFETY: why.\nlet x =\n    f(unsafe { g() });",
            "// SAFETY: why.\nlet x = f(\n    1,\n    unsafe { g() },\n);",
            "let x = unsafe { f() }; // SAFETY: why.",
            "unsafe fn f() {}\nunsafe extern \"C\" {}",
        ] {
            assert_eq!(without_reason(&file(sound)), Vec::<String>::new(), "{sound}");
        }
        for unsound in [
            "unsafe { f() }",
            "// Fast.\nunsafe { f() }",
            "// SAFETY: of another.\nunsafe { f() }\nunsafe { g() }",
            "// SAFETY: of another.\nf();\n\nunsafe impl Send for X {}",
            "// SAFETY: of another.\nA => unsafe { f() },\nB => unsafe { g() },",
        ] {
            assert_eq!(without_reason(&file(unsound)).len(), 1, "{unsound}");
        }
    }
}
