//! Values with types: each read names a key, a default and what is allowed.
//!
//! Invariant: a key that is read is known; a key that nobody read is a problem, with the nearest known key as a hint.
//! Problems are collected, never returned early. It does not know the settings; `checked` and the manifest name them.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use super::raw::{Entry, Raw, Value};
use super::sources::{Problem, Source};
use super::units;

/// Reads typed values out of a [`Raw`] and collects what is wrong with them.
pub struct Reader {
    raw: Raw,
    known: Vec<&'static str>,
    origins: BTreeMap<&'static str, Source>,
    problems: Vec<Problem>,
}

impl Reader {
    /// Starts with the problems that were found on the way here.
    pub fn new(raw: Raw, problems: Vec<Problem>) -> Self {
        Reader { raw, known: Vec::new(), origins: BTreeMap::new(), problems }
    }

    /// The value of `key` as `convert` understands it; `None` if it was not written or is wrong.
    pub fn read<T>(&mut self, key: &'static str, convert: impl FnOnce(&Value) -> Result<T, String>) -> Option<T> {
        self.known.push(key);
        let Some(Entry { value, source }) = self.raw.entries.remove(key) else {
            self.origins.insert(key, Source::Default);
            return None;
        };
        self.origins.insert(key, source);
        match convert(&value) {
            Ok(value) => Some(value),
            Err(message) => {
                self.problem(key, message);
                None
            }
        }
    }

    /// A size in bytes within `range`.
    pub fn bytes(&mut self, key: &'static str, default: u64, range: RangeInclusive<u64>) -> u64 {
        self.read(key, |value| in_range(bytes(value)?, &range, units::format_bytes)).unwrap_or(default)
    }

    /// A duration in nanoseconds within `range`.
    pub fn duration_ns(&mut self, key: &'static str, default: u64, range: RangeInclusive<u64>) -> u64 {
        self.read(key, |value| in_range(duration_ns(value)?, &range, units::format_duration)).unwrap_or(default)
    }

    /// A whole number within `range`.
    pub fn count(&mut self, key: &'static str, default: u32, range: RangeInclusive<u32>) -> u32 {
        let range = u64::from(*range.start())..=u64::from(*range.end());
        let read = self.read(key, |value| in_range(whole(value)?, &range, |number| number.to_string()));
        // The range is one of u32, so that the conversion cannot fail on a value inside it.
        read.and_then(|number| u32::try_from(number).ok()).unwrap_or(default)
    }

    /// `true` or `false`.
    pub fn boolean(&mut self, key: &'static str, default: bool) -> bool {
        let read = self.read(key, |value| match value {
            Value::Boolean(boolean) => Ok(*boolean),
            Value::Bare(text) if text == "true" => Ok(true),
            Value::Bare(text) if text == "false" => Ok(false),
            other => Err(wrong_type("true or false", other)),
        });
        read.unwrap_or(default)
    }

    /// One of a few words.
    pub fn choice<T: Copy>(&mut self, key: &'static str, default: T, choices: &[(&'static str, T)]) -> T {
        let read = self.read(key, |value| {
            let text = text(value)?;
            if let Some((_, chosen)) = choices.iter().find(|(name, _)| *name == text) {
                return Ok(*chosen);
            }
            let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
            let quoted: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
            let hint = hint(nearest(text, names.iter().copied()));
            Err(format!("\"{text}\" is not one of {}{hint}", quoted.join(", ")))
        });
        read.unwrap_or(default)
    }

    /// A string.
    pub fn text(&mut self, key: &'static str) -> Option<String> {
        self.read(key, |value| text(value).map(str::to_owned))
    }

    /// Every value directly under `table`, taken as strings, with the source of each. Other types are problems.
    pub fn text_table(&mut self, table: &'static str) -> Vec<(String, String, Source)> {
        let prefix = format!("{table}.");
        self.known.push(table);
        if let Some(Entry { value, source }) = self.raw.entries.remove(table) {
            let message = wrong_type(&format!("a table: write [{table}] and its keys below it"), &value);
            self.problems.push(Problem { source, key: table.to_owned(), message });
        }
        let keys: Vec<String> = self.raw.entries.keys().filter(|key| key.starts_with(&prefix)).cloned().collect();
        let mut taken = Vec::with_capacity(keys.len());
        for key in keys {
            let Some(Entry { value, source }) = self.raw.entries.remove(&key) else {
                continue;
            };
            match text(&value) {
                Ok(text) => taken.push((key[prefix.len()..].to_owned(), text.to_owned(), source)),
                Err(message) => self.problems.push(Problem { source, key, message }),
            }
        }
        taken
    }

    /// Notes that the value of a key that was read is wrong.
    pub fn problem(&mut self, key: &'static str, message: String) {
        let source = self.origins.get(key).cloned().unwrap_or(Source::Default);
        self.problems.push(Problem { source, key: key.to_owned(), message });
    }

    /// Notes a problem at a place of its own.
    pub fn problem_at(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    /// The keys read so far.
    pub fn known(&self) -> &[&'static str] {
        &self.known
    }

    /// Whether `key` was written and is still to be read.
    pub fn has(&self, key: &str) -> bool {
        self.raw.entries.contains_key(key)
    }

    /// Where `table` was opened.
    pub fn table_source(&self, table: &str) -> Source {
        self.raw.tables.get(table).cloned().unwrap_or(Source::Default)
    }

    /// Reports the keys nobody read, then gives the sources of the values, or all problems in the order of their places.
    pub fn finish(mut self) -> Result<BTreeMap<&'static str, Source>, Vec<Problem>> {
        self.report_unknown();
        if self.problems.is_empty() {
            return Ok(self.origins);
        }
        self.problems.sort_by(|a, b| a.source.cmp(&b.source));
        Err(self.problems)
    }

    fn report_unknown(&mut self) {
        let known = &self.known;
        for (key, entry) in &self.raw.entries {
            let hint = hint(nearest(key, known.iter().copied()));
            let message = format!("there is no such setting{hint}");
            self.problems.push(Problem { source: entry.source.clone(), key: key.clone(), message });
        }
        // A key read with `text_table` is itself a section.
        let section = |key: &&'static str| key.rsplit_once('.').map_or(*key, |(section, _)| section);
        let sections: Vec<&str> = known.iter().map(section).collect();
        for (table, source) in &self.raw.tables {
            let inside = format!("{table}.");
            let is_section = sections.iter().any(|name| *name == table || name.starts_with(&inside));
            if self.raw.is_empty_table(table) && !is_section {
                let hint = hint(nearest(table, sections.iter().copied()));
                let message = format!("there is no such section{hint}");
                self.problems.push(Problem { source: source.clone(), key: table.clone(), message });
            }
        }
    }
}

fn hint(near: Option<&str>) -> String {
    near.map_or_else(String::new, |near| format!("; did you mean \"{near}\"?"))
}

/// The candidate most like `word`, if one is near enough to be what was meant.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word: Vec<char> = word.chars().take(64).collect();
    let allowed = (word.len() / 3).clamp(1, 4);
    let scored = candidates.into_iter().map(|candidate| (edit_distance(&word, candidate), candidate));
    scored.filter(|(distance, _)| *distance <= allowed).min_by_key(|(distance, _)| *distance).map(|(_, name)| name)
}

/// Levenshtein distance, one row at a time.
fn edit_distance(a: &[char], b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, right) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(left != right);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// The text of a string or of a bare value.
pub(super) fn text(value: &Value) -> Result<&str, String> {
    match value {
        Value::Text(text) | Value::Bare(text) => Ok(text),
        other => Err(wrong_type("a string in quotes", other)),
    }
}

fn bytes(value: &Value) -> Result<u64, String> {
    match value {
        Value::Text(text) | Value::Bare(text) => units::parse_bytes(text).map_err(|error| error.to_string()),
        Value::Integer(integer) => {
            u64::try_from(*integer).map_err(|_| format!("{integer} is negative: write a size such as \"64MiB\""))
        }
        other => Err(wrong_type("a size such as \"64MiB\"", other)),
    }
}

pub(super) fn duration_ns(value: &Value) -> Result<u64, String> {
    match value {
        Value::Text(text) | Value::Bare(text) => units::parse_duration(text).map_err(|error| error.to_string()),
        other => Err(wrong_type("a duration with its unit in quotes, such as \"250ms\"", other)),
    }
}

fn whole(value: &Value) -> Result<u64, String> {
    match value {
        Value::Integer(integer) => u64::try_from(*integer).map_err(|_| format!("{integer} is negative")),
        Value::Bare(text) => text.parse().map_err(|_| format!("\"{text}\" is not a whole number")),
        other => Err(wrong_type("a whole number", other)),
    }
}

pub(super) fn in_range(value: u64, range: &RangeInclusive<u64>, print: impl Fn(u64) -> String) -> Result<u64, String> {
    if range.contains(&value) {
        return Ok(value);
    }
    Err(format!("{} is out of range: write {} to {}", print(value), print(*range.start()), print(*range.end())))
}

pub(super) fn wrong_type(expected: &str, found: &Value) -> String {
    format!("expected {expected}, found {}", found.kind())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_offered_only_when_it_is_near() {
        let known = ["server.address", "limits.memory", "limits.sandboxes"];
        assert_eq!(nearest("server.adress", known), Some("server.address"));
        assert_eq!(nearest("limit.memory", known), Some("limits.memory"));
        assert_eq!(nearest("completely.else", known), None);
        assert_eq!(nearest("", known), None);
    }

    #[test]
    fn unread_keys_and_empty_unknown_tables_are_problems() {
        let (raw, problems) = Raw::parse("f.toml", "[server]\nadress = 1\n[serverr]\n");
        let mut reader = Reader::new(raw, problems);
        reader.text("server.address");
        let problems = reader.finish().unwrap_err();
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(
            lines,
            [
                "f.toml:2: server.adress: there is no such setting; did you mean \"server.address\"?",
                "f.toml:3: serverr: there is no such section; did you mean \"server\"?",
            ]
        );
    }
}
