//! Figures by name.
//!
//! Invariant: a name is `section.figure`, or one word for a figure without a section; a figure that was not measured is
//! null in the report and never a number.

use serde_json::{Map, Value, json};

use crate::sample::Rounds;

/// Figures in the order in which they were first seen.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    rows: Vec<(String, Rounds)>,
}

impl Figures {
    /// Adds a round's figure.
    pub fn push(&mut self, name: &str, value: f64) {
        match self.rows.iter_mut().find(|(known, _)| known == name) {
            Some((_, rounds)) => rounds.push(value),
            None => {
                let mut rounds = Rounds::default();
                rounds.push(value);
                self.rows.push((name.to_owned(), rounds));
            }
        }
    }

    /// Adds all rounds of a figure that was made of others.
    pub fn insert(&mut self, name: &str, rounds: Rounds) {
        self.rows.push((name.to_owned(), rounds));
    }

    /// A figure, if it was measured.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Rounds> {
        self.rows.iter().find(|(known, _)| known == name).map(|(_, rounds)| rounds)
    }

    /// Names and figures.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Rounds)> {
        self.rows.iter().map(|(name, rounds)| (name.as_str(), rounds))
    }

    /// One object a section; every name of `contract` is there, null where nothing was measured.
    #[must_use]
    pub fn to_json(&self, contract: &[&str]) -> Map<String, Value> {
        let mut report = Map::new();
        for name in contract.iter().copied().chain(self.iter().map(|(name, _)| name)) {
            let value = self.get(name).map_or(Value::Null, figure);
            match name.split_once('.') {
                None => report.insert(name.to_owned(), value),
                Some((section, name)) => {
                    let section = report.entry(section).or_insert_with(|| json!({}));
                    section.as_object_mut().expect("a section is no figure").insert(name.to_owned(), value)
                }
            };
        }
        report
    }
}

/// The median and the spread, to six decimals: a share of a system call is small.
#[must_use]
pub fn figure(rounds: &Rounds) -> Value {
    let (least, most) = rounds.spread();
    json!({ "median": rounded(rounds.median()), "least": rounded(least), "most": rounded(most) })
}

fn rounded(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_measured_is_null_and_what_was_is_in_its_section() {
        let mut figures = Figures::default();
        figures.push("http.p50_us", 2.0);
        figures.push("http.p50_us", 4.0);
        figures.push("alone", 1.0);
        let report = figures.to_json(&["http.p50_us", "http.p99_us", "alone"]);
        assert_eq!(report["http"]["p50_us"], json!({ "median": 3.0, "least": 2.0, "most": 4.0 }));
        assert_eq!(report["http"]["p99_us"], Value::Null);
        assert_eq!(report["alone"]["median"], json!(1.0));
    }
}
