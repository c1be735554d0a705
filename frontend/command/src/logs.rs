//! `logs`: the end of a function's log, and with `--follow` what is added to it.
//!
//! The worker hands out the last lines of a bounded log and knows no readers, so following is asking again and printing
//! what comes after the part already shown.

use std::thread;
use std::time::Duration;

use crate::client::Client;
use crate::failure::Failure;
use crate::output::{Screen, note};

/// How often a followed log is asked for.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(500);
/// Lines asked for while following. More than this between two looks are not all shown, and that is said.
const FOLLOW_LINES: u32 = 2_000;

pub(crate) fn logs(client: &Client, name: &str, tail: u32, follow: bool, screen: &mut Screen) -> Result<(), Failure> {
    // A log is whatever the function wrote: bytes that are no text are shown as such.
    let text = |lines| client.logs(name, lines).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    if !follow {
        return screen.bytes(text(tail)?.as_bytes());
    }
    let mut seen = text(FOLLOW_LINES.max(tail))?;
    screen.bytes(last_lines(&seen, tail).as_bytes())?;
    loop {
        thread::sleep(FOLLOW_INTERVAL);
        let now = text(FOLLOW_LINES)?;
        let added = added_since(&seen, &now);
        if added.gap {
            note("(lines were written faster than they could be shown; some are missing here)");
        }
        screen.bytes(added.text.as_bytes())?;
        seen = now;
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Added<'a> {
    text: &'a str,
    /// Nothing of what was seen is left: there may be lines between.
    gap: bool,
}

/// What `now`, the end of a log, holds beyond `seen`, an earlier end of it: `now` starts with some end of `seen`, and the
/// longest such is taken.
fn added_since<'a>(seen: &str, now: &'a str) -> Added<'a> {
    let starts = std::iter::once(0).chain(seen.match_indices('\n').map(|(at, _)| at + 1));
    for start in starts {
        if let Some(text) = now.strip_prefix(&seen[start..]) {
            let gap = start == seen.len() && !seen.is_empty() && !now.is_empty();
            return Added { text, gap };
        }
    }
    Added { text: now, gap: true }
}

fn last_lines(text: &str, lines: u32) -> &str {
    if lines == 0 {
        return "";
    }
    let body = text.strip_suffix('\n').unwrap_or(text);
    let before = body.rmatch_indices('\n').nth(lines as usize - 1);
    before.map_or(text, |(at, _)| &text[at + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_added_is_new() {
        let added = |seen, now| added_since(seen, now);
        assert_eq!(added("a\nb\n", "a\nb\n"), Added { text: "", gap: false });
        assert_eq!(added("a\nb\n", "a\nb\nc\n"), Added { text: "c\n", gap: false });
        assert_eq!(added("", "a\n"), Added { text: "a\n", gap: false });
        // The window moved on by one line.
        assert_eq!(added("a\nb\n", "b\nc\n"), Added { text: "c\n", gap: false });
        // A line that was not finished when it was seen.
        assert_eq!(added("a\nb", "a\nbc\nd\n"), Added { text: "c\nd\n", gap: false });
        // Nothing is left of what was seen.
        assert_eq!(added("a\nb\n", "x\ny\n"), Added { text: "x\ny\n", gap: true });
    }

    #[test]
    fn the_last_lines_are_counted_from_the_end() {
        assert_eq!(last_lines("a\nb\nc\n", 2), "b\nc\n");
        assert_eq!(last_lines("a\nb\nc", 1), "c");
        assert_eq!(last_lines("a\n", 5), "a\n");
        assert_eq!(last_lines("a\n", 0), "");
        assert_eq!(last_lines("", 3), "");
    }
}
