//! A report: figures and the goals that some are held to, as JSON for programs and as a table for people.
//!
//! Invariant: `goal` names figures of the same report; a goal whose figure was not measured is neither met nor missed.

use serde_json::{Map, Value, json};

use crate::figures::Figures;
use crate::sample::Rounds;

/// What a figure should come to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Goal {
    /// No more than this.
    AtMost(f64),
    /// No less than this.
    AtLeast(f64),
}

impl Goal {
    /// Whether a figure comes to it.
    #[must_use]
    pub fn met(self, figure: f64) -> bool {
        match self {
            Goal::AtMost(most) => figure <= most,
            Goal::AtLeast(least) => figure >= least,
        }
    }

    fn judge(self, rounds: Option<&Rounds>) -> Value {
        let met = rounds.map(|rounds| self.met(rounds.median()));
        match self {
            Goal::AtMost(most) => json!({ "at_most": most, "met": met }),
            Goal::AtLeast(least) => json!({ "at_least": least, "met": met }),
        }
    }
}

/// One object: every figure by its section, `goal`, and what else there is to say of the run.
///
/// # Panics
/// If `facts` is no object.
#[must_use]
pub fn assemble(figures: &Figures, contract: &[&str], goals: &[(String, Goal)], facts: &Value) -> Value {
    let mut report = figures.to_json(contract);
    let judged = goals.iter().map(|(name, goal)| (name.clone(), goal.judge(figures.get(name))));
    report.insert("goal".into(), Value::Object(judged.collect::<Map<_, _>>()));
    report.extend(facts.as_object().expect("facts have names").clone());
    Value::Object(report)
}

/// In a section, `a.b` becomes an object in an object.
///
/// # Panics
/// If a name is a figure and a section at once.
#[must_use]
pub fn nest(flat: Map<String, Value>) -> Map<String, Value> {
    let mut nested = Map::new();
    for (name, value) in flat {
        let mut parts: Vec<&str> = name.split('.').collect();
        let last = parts.pop().unwrap_or_default().to_owned();
        let place = parts.into_iter().fold(&mut nested, |place, part| {
            let inner = place.entry(part).or_insert_with(|| Value::Object(Map::new()));
            inner.as_object_mut().expect("a section is no figure")
        });
        place.insert(last, value);
    }
    nested
}

/// Prints a report as asked for.
pub fn print(report: &Value, json: bool) {
    if json {
        println!("{report:#}");
    } else {
        print_table(report);
    }
}

/// A row a figure, its goal beside it.
fn print_table(report: &Value) {
    println!("{}", report["machine"]);
    println!("{:<40}{:>12}{:>12}{:>12}  goal", "", "median", "least", "most");
    for (section, figures) in report.as_object().into_iter().flatten() {
        if figures.get("median").is_some() {
            print_row(section, figures, &report["goal"][section]);
            continue;
        }
        let rows = figures.as_object().into_iter().flatten().filter(|(_, figure)| figure.get("median").is_some());
        for (name, figure) in rows {
            let name = format!("{section}.{name}");
            print_row(&name, figure, &report["goal"][&name]);
        }
    }
}

fn print_row(name: &str, figure: &Value, goal: &Value) {
    let column = |of: &str| figure[of].as_f64().unwrap_or_default();
    let bound = |sign: &str, of: &str| goal[of].as_f64().map(|bound| format!("{sign} {bound:.3}"));
    let bound = bound("≤", "at_most").or_else(|| bound("≥", "at_least")).unwrap_or_default();
    let verdict = match goal["met"].as_bool() {
        Some(true) => "met",
        Some(false) => "NOT MET",
        None => "",
    };
    println!(
        "{name:<40}{:>12.3}{:>12.3}{:>12.3}  {bound} {verdict}",
        column("median"),
        column("least"),
        column("most")
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_is_a_bound_that_counts_as_met_and_says_nothing_of_what_was_not_measured() {
        assert!(Goal::AtMost(1.0).met(1.0) && !Goal::AtMost(1.0).met(1.1));
        assert!(Goal::AtLeast(1.0).met(1.0) && !Goal::AtLeast(1.0).met(0.9));
        let mut figures = Figures::default();
        figures.push("a.b", 2.0);
        let goals = [("a.b".to_owned(), Goal::AtMost(1.0)), ("a.c".to_owned(), Goal::AtLeast(1.0))];
        let report = assemble(&figures, &["a.c"], &goals, &json!({ "rounds": 1 }));
        assert_eq!(report["goal"]["a.b"], json!({ "at_most": 1.0, "met": false }));
        assert_eq!(report["goal"]["a.c"], json!({ "at_least": 1.0, "met": null }));
        assert_eq!(report["rounds"], 1);
    }
}
