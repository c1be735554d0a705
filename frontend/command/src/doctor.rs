//! `doctor`: whether this host can run a worker of a configuration, for a person or (`--json`) for a program.

use std::fmt::Write as _;

use vilya_worker::doctor::{Finding, Report, Status, examine};

use crate::arguments::ConfigSources;
use crate::failure::{Failure, Fault};
use crate::output::Screen;
use crate::settings;

/// Columns that text is broken to fit in.
const WIDTH: usize = 100;
/// Columns of a finding's name.
const NAME: usize = 30;

pub(crate) fn doctor(typed: &ConfigSources, json: bool, screen: &mut Screen) -> Result<(), Failure> {
    let report = examine(&settings::load(typed)?);
    if json {
        let text = serde_json::to_string_pretty(&report).map_err(Failure::local)?;
        screen.line(text)?;
    } else {
        screen.bytes(render(&report).as_bytes())?;
    }
    if report.ready {
        Ok(())
    } else {
        Err(Failure::new(Fault::Unfit, "no worker can serve here: mend what is missing"))
    }
}

fn render(report: &Report) -> String {
    let of = |status| report.findings.iter().filter(move |finding| finding.status == status);
    let (missing, limited) = (of(Status::Missing).count(), of(Status::Limited).count());
    let mut text = match (missing, limited) {
        (0, 0) => "ready\n".to_owned(),
        (0, limited) => format!("ready, with {limited} limits\n"),
        (missing, _) => format!("NOT ready: {missing} missing\n"),
    };
    for (title, status) in [("missing: a worker cannot serve without", Status::Missing), ("limited", Status::Limited)] {
        if of(status).next().is_some() {
            let _ = write!(text, "\n{title}\n");
        }
        for finding in of(status) {
            let detail = match finding.mend.as_str() {
                "" => wrapped(&finding.detail),
                mend => [wrapped(&finding.detail), vec![format!("-> {mend}")]].concat(),
            };
            push(&mut text, &finding.name, &detail);
        }
    }
    text.push_str("\nok\n");
    let mut groups: Vec<(&str, Vec<&Finding>)> = Vec::new();
    for finding in of(Status::Ok) {
        match groups.iter_mut().find(|(group, _)| *group == finding.group) {
            Some((_, findings)) => findings.push(finding),
            None => groups.push((finding.group, vec![finding])),
        }
    }
    for (group, findings) in groups {
        let names: Vec<&str> = findings.iter().map(|finding| finding.name.as_str()).collect();
        push(&mut text, group, &wrapped(&names.join(", ")));
    }
    text
}

/// A name and, beside it, lines; a name that is too long moves its line.
fn push(text: &mut String, name: &str, lines: &[String]) {
    let names = std::iter::once(name).chain(std::iter::repeat(""));
    for (name, line) in names.zip(lines) {
        let width = NAME - 1;
        let _ = writeln!(text, "  {name:<width$} {line}");
    }
}

/// In lines that fit beside a name.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("it begins with one");
        if line.is_empty() {
            line.push_str(word);
        } else if NAME + 2 + line.chars().count() + 1 + word.chars().count() <= WIDTH {
            let _ = write!(line, " {word}");
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(status: Status, name: &str, detail: &str, mend: &str) -> Finding {
        Finding { status, group: "kernel", name: name.into(), detail: detail.into(), mend: mend.into() }
    }

    #[test]
    fn what_is_missing_comes_first_and_what_is_good_takes_one_line() {
        let findings = vec![
            finding(Status::Ok, "one", "", ""),
            finding(Status::Limited, "two", "less of it", "mend two"),
            finding(Status::Missing, "three", "none of it", "mend three"),
            finding(Status::Ok, "four", "", ""),
        ];
        let text = render(&Report { ready: false, findings });
        let squeezed: Vec<String> =
            text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        let expected = [
            "NOT ready: 1 missing",
            "",
            "missing: a worker cannot serve without",
            "three none of it",
            "-> mend three",
            "",
            "limited",
            "two less of it",
            "-> mend two",
            "",
            "ok",
            "kernel one, four",
        ];
        assert_eq!(squeezed, expected);
    }

    #[test]
    fn a_long_name_stands_apart_from_what_is_said_of_it() {
        let mut text = String::new();
        push(&mut text, &"n".repeat(NAME + 5), &["said".into()]);
        assert!(text.ends_with("n said\n"), "{text}");
    }

    #[test]
    fn long_text_is_broken_between_words() {
        let text = "word ".repeat(60);
        let lines = wrapped(&text);
        assert!(lines.len() > 2 && lines.iter().all(|line| line.len() + NAME + 2 <= WIDTH), "{lines:?}");
        assert_eq!(lines.join(" "), text.trim());
    }
}
