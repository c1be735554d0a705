//! Keys and untyped values that remember where they were written.
//!
//! Invariant: every value carries its source, so that a problem with it can name file and line, variable or flag.
//! It does not know which keys exist or what they mean.

use std::collections::BTreeMap;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::sources::{Problem, Source};

/// A value as it was written.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A TOML string.
    Text(String),
    /// A TOML integer.
    Integer(i64),
    /// A TOML float.
    Float(f64),
    /// A TOML boolean.
    Boolean(bool),
    /// A TOML array.
    List(Vec<Value>),
    /// A value of an environment variable or a flag: text whose type is decided by the key.
    Bare(String),
    /// A TOML value that no setting takes; the word says what it is.
    Other(&'static str),
}

impl Value {
    /// What the value is, for a message.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Text(_) => "a string",
            Value::Integer(_) => "a number",
            Value::Float(_) => "a number with a fraction",
            Value::Boolean(_) => "true or false",
            Value::List(_) => "a list",
            Value::Bare(_) => "text",
            Value::Other(kind) => kind,
        }
    }
}

/// A value and where it was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The value.
    pub value: Value,
    /// Where it was written.
    pub source: Source,
}

/// Values by dotted key (`server.address`), and the tables that were opened.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Raw {
    /// The values.
    pub entries: BTreeMap<String, Entry>,
    /// Every table by its dotted name, so that an empty table with a mistyped name is noticed too.
    pub tables: BTreeMap<String, Source>,
}

impl Raw {
    /// Reads a TOML text; `path` is how messages name it. Returns what could be read and every syntax error.
    pub fn parse(path: &str, text: &str) -> (Raw, Vec<Problem>) {
        let lines = Lines::new(path, text);
        let (document, errors) = DeTable::parse_recoverable(text);
        let problems = errors
            .iter()
            .map(|error| Problem {
                source: lines.source(error.span().map_or(0, |span| span.start)),
                key: String::new(),
                message: format!("not valid TOML: {}", error.message().trim_end()),
            })
            .collect();
        let mut raw = Raw::default();
        raw.flatten("", document.get_ref(), &lines);
        (raw, problems)
    }

    /// Sets a value given as text, over what was there before.
    pub fn set_bare(&mut self, key: String, text: String, source: Source) {
        self.entries.insert(key, Entry { value: Value::Bare(text), source });
    }

    /// Whether `table` holds nothing: neither a value nor another table.
    pub fn is_empty_table(&self, table: &str) -> bool {
        let inside = format!("{table}.");
        !self.entries.keys().chain(self.tables.keys()).any(|key| key.starts_with(&inside))
    }

    fn flatten(&mut self, prefix: &str, table: &DeTable<'_>, lines: &Lines<'_>) {
        for (name, value) in table {
            let key = match prefix {
                "" => name.get_ref().to_string(),
                prefix => format!("{prefix}.{}", name.get_ref()),
            };
            let source = lines.source(name.span().start);
            match value.get_ref() {
                DeValue::Table(inner) => {
                    self.flatten(&key, inner, lines);
                    self.tables.insert(key, source);
                }
                _ => {
                    self.entries.insert(key, Entry { value: convert(value), source });
                }
            }
        }
    }
}

fn convert(value: &Spanned<DeValue<'_>>) -> Value {
    match value.get_ref() {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(integer) => match i64::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(integer) => Value::Integer(integer),
            Err(_) => Value::Other("a number too large for 64 bits"),
        },
        DeValue::Float(float) => match float.as_str().parse() {
            Ok(float) => Value::Float(float),
            Err(_) => Value::Other("a number that does not fit"),
        },
        DeValue::Boolean(boolean) => Value::Boolean(*boolean),
        DeValue::Datetime(_) => Value::Other("a date"),
        DeValue::Array(items) => Value::List(items.iter().map(convert).collect()),
        DeValue::Table(_) => Value::Other("a table"),
    }
}

/// Byte offsets to line numbers.
struct Lines<'a> {
    path: Arc<str>,
    text: &'a str,
}

impl<'a> Lines<'a> {
    fn new(path: &str, text: &'a str) -> Self {
        Lines { path: path.into(), text }
    }

    fn source(&self, offset: usize) -> Source {
        let before = &self.text.as_bytes()[..offset.min(self.text.len())];
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        Source::File { path: self.path.clone(), line }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(raw: &Raw, key: &str) -> usize {
        match &raw.entries[key].source {
            Source::File { line, .. } => *line,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn keys_remember_their_lines() {
        let text = "[a]\nb = 1\n\n[a.c]\nd = \"x\"\ne = [1, \"y\"]\n[empty]\n";
        let (raw, problems) = Raw::parse("f.toml", text);
        assert_eq!(problems, []);
        assert_eq!(raw.entries["a.b"].value, Value::Integer(1));
        assert_eq!(line(&raw, "a.b"), 2);
        assert_eq!(line(&raw, "a.c.d"), 5);
        assert_eq!(raw.entries["a.c.e"].value, Value::List(vec![Value::Integer(1), Value::Text("y".into())]));
        assert!(raw.is_empty_table("empty"));
        assert!(!raw.is_empty_table("a"));
    }

    #[test]
    fn every_syntax_error_is_reported_with_its_line() {
        let (_, problems) = Raw::parse("f.toml", "a = \nb = 1\nc = @\na = 3\n");
        let places: Vec<String> = problems.iter().map(|problem| problem.source.to_string()).collect();
        assert!(places.contains(&"f.toml:1".to_owned()), "{places:?}");
        assert!(places.contains(&"f.toml:3".to_owned()), "{places:?}");
    }

    #[test]
    fn numbers_too_large_are_kept_as_such() {
        let (raw, problems) = Raw::parse("f.toml", "a = 0x10\nb = 99999999999999999999\n");
        assert_eq!(problems, []);
        assert_eq!(raw.entries["a"].value, Value::Integer(16));
        assert_eq!(raw.entries["b"].value, Value::Other("a number too large for 64 bits"));
    }
}
