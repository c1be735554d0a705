//! What the documents say of the tree is so: paths exist, links lead somewhere.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use super::{SourceFile, Violation, files, hold, root, root_file};

#[test]
fn every_path_the_documents_name_exists() {
    let root = root();
    let missing = ["README.md", "ARCHITECTURE.md"].into_iter().flat_map(|name| {
        missing_paths(&root_file(name), |path| root.join(path).exists())
            .into_iter()
            .map(move |path| format!("{name} names `{path}`, which does not exist"))
    });
    hold(&missing.collect::<Vec<_>>());
}

#[test]
fn every_link_leads_somewhere() {
    let documents = files(&["md"]);
    let root = root();
    hold(&dead_links(&documents, |path| root.join(path).exists()));
}

/// Code spans that look like a path of this tree and are none.
fn missing_paths(document: &str, exists: impl Fn(&str) -> bool) -> Vec<String> {
    code_spans(document).into_iter().filter(|span| looks_like_a_path(span) && !exists(span)).collect()
}

/// Relative, with a slash, and nothing but the characters that our paths have. A media type has a slash too.
fn looks_like_a_path(span: &str) -> bool {
    let ours = span.chars().all(|c| c.is_ascii_alphanumeric() || "_./-".contains(c));
    let media = ["application/", "text/", "image/"].iter().any(|kind| span.starts_with(kind));
    ours && span.contains('/') && !span.starts_with('/') && !span.starts_with('.') && !media
}

/// Links to a file that does not exist, or to a heading that the file does not have. The web is not asked.
fn dead_links(documents: &[SourceFile], exists: impl Fn(&Path) -> bool) -> Vec<Violation> {
    let mut dead = Vec::new();
    for document in documents {
        for target in links(&document.text) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (file, heading) = target.split_once('#').unwrap_or((&target, ""));
            let path = if file.is_empty() { PathBuf::from(&document.path) } else { resolve(&document.path, file) };
            let there = documents.iter().find(|other| Path::new(&other.path) == path);
            let leads = match (heading, there) {
                ("", _) => exists(&path),
                (heading, Some(there)) => headings(&there.text).any(|(_, title)| slug(title) == heading),
                (_, None) => false,
            };
            if !leads {
                dead.push(format!("{} links to {target}, which does not exist", document.path));
            }
        }
    }
    dead
}

/// `link` as seen from the document at `from`, relative to the root.
fn resolve(from: &str, link: &str) -> PathBuf {
    let mut path = PathBuf::from(from);
    path.pop();
    for part in Path::new(link).components() {
        match part {
            Component::ParentDir => drop(path.pop()),
            Component::CurDir => {}
            part => path.push(part),
        }
    }
    path
}

/// The targets of `[text](target)` outside code.
fn links(document: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in prose(document) {
        let outside: String = line.split('`').step_by(2).collect::<Vec<_>>().join(" ");
        for (at, _) in outside.match_indices("](") {
            let rest = &outside[at + 2..];
            if let Some((target, _)) = rest.split_once(')') {
                found.push(target.split_whitespace().next().unwrap_or("").to_owned());
            }
        }
    }
    found
}

/// The inline code of a document, without its fenced blocks.
pub(super) fn code_spans(document: &str) -> BTreeSet<String> {
    let inside = prose(document).flat_map(|line| line.split('`').skip(1).step_by(2));
    inside.map(str::to_owned).collect()
}

/// The text below the first heading that starts with `title`, up to the next heading of the same or a higher level.
pub(super) fn section(document: &str, title: &str) -> Option<String> {
    let (level, start) =
        headings(document).find(|(_, heading)| heading.starts_with(title)).map(|(level, heading)| {
            // Both are parts of `document`, so that their distance is an offset in it.
            let offset = heading.as_ptr() as usize - document.as_ptr() as usize;
            (level, offset + heading.len())
        })?;
    let rest = &document[start..];
    let end = headings(rest)
        .find(|(other, _)| *other <= level)
        .map_or(rest.len(), |(other, heading)| heading.as_ptr() as usize - rest.as_ptr() as usize - other - 1);
    Some(rest[..end].to_owned())
}

/// Levels and titles of a document's headings.
fn headings(document: &str) -> impl Iterator<Item = (usize, &str)> {
    prose(document).filter_map(|line| {
        let level = line.bytes().take_while(|byte| *byte == b'#').count();
        let title = line[level..].strip_prefix(' ')?;
        (level > 0).then_some((level, title.trim_end()))
    })
}

/// A heading as an address: lower case, spaces to dashes, punctuation dropped.
fn slug(title: &str) -> String {
    let kept = title.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

/// The lines that are not inside a fenced block.
fn prose(document: &str) -> impl Iterator<Item = &str> {
    let mut fenced = false;
    document.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    })
}

#[cfg(test)]
mod can_fail {
    use super::*;

    #[test]
    fn a_path_that_does_not_exist() {
        let text =
            "`core/engine`, `gone/away.rs`, `a word`, `/fn/name`, `text/plain`, `x.rs`\n```\n`in/a/fence`\n```\n";
        assert_eq!(missing_paths(text, |path| path == "core/engine"), ["gone/away.rs"]);
    }

    #[test]
    fn a_link_that_leads_nowhere() {
        let document = |path: &str, text: &str| SourceFile { path: path.to_owned(), text: text.to_owned() };
        let documents = [
            document("README.md", "[a](docs/a.md#one-and-two) [b](docs/none.md) [c](https://x.org) [d](#no)"),
            document("docs/a.md", "# One, and two\n[up](../README.md) `[not](a/link)` [e](../README.md#no \"title\")"),
        ];
        let dead = dead_links(&documents, |path| documents.iter().any(|known| Path::new(&known.path) == path));
        let targets: Vec<&str> = dead.iter().map(|line| line.split(' ').nth(3).unwrap()).collect();
        assert_eq!(targets, ["docs/none.md,", "#no,", "../README.md#no,"]);
    }

    #[test]
    fn a_section_ends_at_its_next_equal() {
        let text = "# T\n## Unsafe code\nlist `a.rs`\n### more\n`b.rs`\n## Next\n`c.rs`\n";
        let section = section(text, "Unsafe").unwrap();
        assert_eq!(code_spans(&section).into_iter().collect::<Vec<_>>(), ["a.rs", "b.rs"]);
        assert!(super::section(text, "Absent").is_none());
    }
}
