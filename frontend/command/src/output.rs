//! What a person reads: lines, tables and quantities. A reader that went away ends the command quietly, and colour is
//! used only on a terminal that did not ask for none (`NO_COLOR`).

use std::fmt::{Display, Write as _};
use std::io::{self, IsTerminal, Write};

use crate::failure::Failure;

/// Standard output, written line by line.
pub(crate) struct Screen {
    out: Box<dyn Write>,
    terminal: bool,
    colour: bool,
}

impl Screen {
    pub(crate) fn stdout() -> Screen {
        let out = io::stdout();
        Screen { terminal: out.is_terminal(), colour: colours(&out), out: Box::new(out) }
    }

    /// Anything that can be written to, without colour.
    #[cfg(test)]
    pub(crate) fn plain(out: Box<dyn Write>) -> Screen {
        Screen { out, terminal: false, colour: false }
    }

    pub(crate) fn line(&mut self, line: impl Display) -> Result<(), Failure> {
        writeln!(self.out, "{line}").and_then(|()| self.out.flush()).map_err(|error| Failure::output(&error))
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.out.write_all(bytes).and_then(|()| self.out.flush()).map_err(|error| Failure::output(&error))
    }

    /// Ends somebody else's bytes, of which this was the last: on a terminal, where the prompt follows, they are on lines of
    /// their own.
    pub(crate) fn end_foreign(&mut self, last: Option<u8>) -> Result<(), Failure> {
        if self.terminal && last.is_some_and(|last| last != b'\n') { self.line("") } else { Ok(()) }
    }

    pub(crate) fn table(&mut self, table: &Table) -> Result<(), Failure> {
        let text = table.render();
        let (head, rows) = text.split_once('\n').unwrap_or((&text, ""));
        if self.colour {
            self.line(format_args!("\x1b[1m{head}\x1b[0m"))?;
        } else {
            self.line(head)?;
        }
        self.bytes(rows.as_bytes())
    }
}

/// Whether to colour what goes there.
pub(crate) fn colours(stream: &impl IsTerminal) -> bool {
    may_colour(std::env::var_os("NO_COLOR").as_deref(), stream.is_terminal())
}

/// `NO_COLOR` counts when it is present and not empty (no-color.org).
fn may_colour(no_color: Option<&std::ffi::OsStr>, terminal: bool) -> bool {
    terminal && no_color.is_none_or(std::ffi::OsStr::is_empty)
}

/// One line on standard error. If that is closed too there is nobody left to tell.
pub(crate) fn complain(line: impl Display) {
    let mut stderr = io::stderr();
    let (start, end) = if colours(&stderr) { ("\x1b[1;31m", "\x1b[0m") } else { ("", "") };
    let _ = writeln!(stderr, "{start}vilya:{end} {line}");
}

/// One line of progress on standard error, beside the output proper.
pub(crate) fn note(line: impl Display) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Columns as wide as their widest cell; numbers to the right.
pub(crate) struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Align {
    Left,
    Right,
}

impl Table {
    pub(crate) fn new(columns: &[(&'static str, Align)]) -> Table {
        Table { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row of as many cells as there are columns.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        assert_eq!(N, self.columns.len(), "a table's rows have one cell a column");
        self.rows.push(cells.into());
    }

    pub(crate) fn render(&self) -> String {
        let width = |column: usize| {
            let cells = self.rows.iter().map(|row| row[column].chars().count());
            cells.chain([self.columns[column].0.chars().count()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let mut text = String::new();
        let heads = self.columns.iter().map(|(head, _)| (*head).to_owned()).collect();
        for row in std::iter::once(&heads).chain(&self.rows) {
            let mut line = String::new();
            for ((cell, (_, align)), width) in row.iter().zip(&self.columns).zip(&widths) {
                match align {
                    Align::Left => write!(line, "{cell:<width$}  "),
                    Align::Right => write!(line, "{cell:>width$}  "),
                }
                .expect("a String takes what is written to it");
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// A size in the largest binary unit that keeps it at one or more: `512 B`, `1.5 KiB`, `128 MiB`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let decimals = usize::from(value < 10.0 && value.fract() > 0.05);
    format!("{value:.decimals$} {}", UNITS[unit])
}

/// A time span in milliseconds as a person says it: `250 ms`, `30 s`, `5 min`.
pub(crate) fn span_ms(span_ms: u64) -> String {
    match span_ms {
        0..1_000 => format!("{span_ms} ms"),
        1_000..120_000 => format!("{} s", span_ms / 1_000),
        120_000..7_200_000 => format!("{} min", span_ms / 60_000),
        7_200_000..172_800_000 => format!("{} h", span_ms / 3_600_000),
        _ => format!("{} days", span_ms / 86_400_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn tables_align_and_leave_no_trailing_blanks() {
        let mut table = Table::new(&[("name", Align::Left), ("ms", Align::Right), ("note", Align::Left)]);
        table.row(["hello".into(), "7".into(), "x".into()]);
        table.row(["é".into(), "1234".into(), String::new()]);
        assert_eq!(table.render(), "name     ms  note\nhello     7  x\né      1234\n");
    }

    #[test]
    fn sizes_and_spans() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(128 << 20), "128 MiB");
        assert_eq!(size(u64::MAX), "16777216 TiB");
        assert_eq!(span_ms(999), "999 ms");
        assert_eq!(span_ms(30_000), "30 s");
        assert_eq!(span_ms(3_600_000), "60 min");
        assert_eq!(span_ms(86_400_000), "24 h");
        assert_eq!(span_ms(864_000_000), "10 days");
    }

    #[test]
    fn colour_needs_a_terminal_and_no_objection() {
        assert!(may_colour(None, true));
        assert!(may_colour(Some("".as_ref()), true));
        assert!(!may_colour(Some("1".as_ref()), true));
        assert!(!may_colour(None, false));
    }

    #[test]
    fn a_reader_that_went_away_ends_quietly() {
        let failure = Screen::plain(Box::new(Closed)).line("x").unwrap_err();
        assert_eq!(failure.fault().code(), 0);
    }
}
