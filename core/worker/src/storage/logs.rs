//! The output of functions as bounded text files, one line an output line.
//!
//! ```text
//! 2026-11-23T08:00:00.123Z 00f1e2... text of the line
//! 2026-11-23T08:00:00.456Z - text outside of any invocation
//! ```
//!
//! Invariant: a function's two files together never exceed the limit, and a line of a file is one line of output or part
//! of one: control characters are escaped and invalid UTF-8 replaced, so that output cannot forge a line or drive a
//! terminal. Output that could not be written is counted, and the log says how much is missing as soon as writing works
//! again. It does not know threads; `log_writer` puts one in front.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::timestamp;
use crate::config::units::{KIB, MIB};
use crate::manifest::check_name;

/// Longer lines of output are split.
pub const LINE_BYTES_MAX: usize = 16 << 10;
/// Least size of a function's log: room for two files that each hold any line.
pub const LOG_BYTES_MIN: u64 = 256 * KIB;
/// Most that [`LogFiles::tail`] gives.
pub const TAIL_BYTES_MAX: u64 = MIB;

/// An escaped byte is at most four characters, and the time and the id are before it.
const WRITTEN_LINE_BYTES_MAX: u64 = 4 * LINE_BYTES_MAX as u64 + 64;
/// Lines gathered before they are written.
const PENDING_BYTES_MAX: usize = 64 << 10;
const OPEN_FILES_MAX: usize = 64;
/// Streams with an unfinished line. One more is written at once, as if its line had ended.
const PARTIAL_LINES_MAX: usize = 1024;

// Rotation makes room for any line.
const _: () = assert!(WRITTEN_LINE_BYTES_MAX <= LOG_BYTES_MIN / 2);

/// Output as it came from a function.
#[derive(Clone, Copy, Debug)]
pub struct LogEntry<'a> {
    /// When it was read, in milliseconds since 1970.
    pub unix_ms: u64,
    /// The invocation that was running, if one was.
    pub request_id: Option<[u8; 16]>,
    /// Where it came from, so that unfinished lines of two sandboxes, or of standard output and error, do not mix.
    pub stream: u64,
    /// The bytes, ending anywhere.
    pub bytes: &'a [u8],
}

/// The log files of all functions.
#[derive(Debug)]
pub struct LogFiles {
    directory: PathBuf,
    limit_bytes: u64,
    open: HashMap<String, Log>,
    partial: HashMap<(String, u64), Line>,
    /// Bytes that are missing from each log, and of which no line tells yet.
    lost_bytes: HashMap<String, u64>,
}

/// The start of a line whose end has not come yet.
#[derive(Debug)]
struct Line {
    unix_ms: u64,
    request_id: Option<[u8; 16]>,
    bytes: Vec<u8>,
}

/// One function's open file.
#[derive(Debug)]
struct Log {
    file: File,
    written_bytes: u64,
    /// Lines to be written.
    pending: Vec<u8>,
    /// The sum of what the pending lines say is missing.
    pending_lost_bytes: u64,
}

impl LogFiles {
    /// Log files in `directory`, made if it is missing; the two of a function hold at most `limit_bytes`, or
    /// [`LOG_BYTES_MIN`] if that is more.
    pub fn open(directory: &Path, limit_bytes: u64) -> io::Result<LogFiles> {
        super::ensure_directory(directory, 0o700)?;
        let limit_bytes = limit_bytes.max(LOG_BYTES_MIN);
        Ok(LogFiles {
            directory: directory.to_owned(),
            limit_bytes,
            open: HashMap::new(),
            partial: HashMap::new(),
            lost_bytes: HashMap::new(),
        })
    }

    /// Appends output. Whole lines are gathered until [`LogFiles::flush`] or until there are many; an unfinished line
    /// is kept until its end comes. On an error the log goes on, less what could not be written.
    pub fn append(&mut self, name: &str, entries: &[LogEntry<'_>]) -> io::Result<()> {
        let mut result = Ok(());
        for entry in entries {
            result = self.append_one(name, entry).and(result);
        }
        result
    }

    /// Writes out what was gathered, for all functions. Gives the last error, if there was one.
    pub fn flush(&mut self) -> io::Result<()> {
        let names: Vec<String> = self.open.keys().cloned().collect();
        let mut result = Ok(());
        for name in names {
            result = self.flush_one(&name).and(result);
        }
        result
    }

    /// Writes out everything, unfinished lines too.
    pub fn finish(&mut self) -> io::Result<()> {
        let mut result = Ok(());
        for ((name, _), line) in std::mem::take(&mut self.partial) {
            result = self.write_line(&name, &line).and(result);
        }
        self.flush().and(result)
    }

    /// Writes out the unfinished line of a stream that gives nothing more.
    pub fn end_stream(&mut self, name: &str, stream: u64) -> io::Result<()> {
        match self.partial.remove(&(name.to_owned(), stream)) {
            Some(line) => self.write_line(name, &line),
            None => Ok(()),
        }
    }

    /// Notes that output is missing. The log says so in a line of its own.
    pub fn note_dropped(&mut self, name: &str, unix_ms: u64, dropped_bytes: u64) -> io::Result<()> {
        *self.lost_bytes.entry(name.to_owned()).or_default() += dropped_bytes;
        self.tell_lost(name, unix_ms)
    }

    /// The last `lines` lines, oldest first, up to [`TAIL_BYTES_MAX`]. Empty if there is no log.
    pub fn tail(&mut self, name: &str, lines: usize) -> io::Result<String> {
        self.flush_one(name)?;
        let [current, previous] = self.paths(name)?;
        let newest = read_end(&current, TAIL_BYTES_MAX)?;
        let older = read_end(&previous, TAIL_BYTES_MAX - newest.len() as u64)?;
        let text = older + &newest;
        let start =
            text.trim_end_matches('\n').rmatch_indices('\n').nth(lines.saturating_sub(1)).map_or(0, |(at, _)| at + 1);
        Ok(if lines == 0 { String::new() } else { text[start..].to_owned() })
    }

    /// Deletes a function's log.
    pub fn remove(&mut self, name: &str) -> io::Result<()> {
        self.open.remove(name);
        self.lost_bytes.remove(name);
        self.partial.retain(|(function, _), _| function != name);
        for path in self.paths(name)? {
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    fn append_one(&mut self, name: &str, entry: &LogEntry<'_>) -> io::Result<()> {
        let key = (name.to_owned(), entry.stream);
        let mut result = Ok(());
        let mut line = match self.partial.remove(&key) {
            Some(line) if line.request_id == entry.request_id => line,
            Some(line) => {
                // The next invocation writes on a line that the one before left open: each keeps its own.
                result = self.write_line(name, &line);
                Line::start(entry)
            }
            None => Line::start(entry),
        };
        let mut rest = entry.bytes;
        while !rest.is_empty() {
            let end = rest.iter().position(|byte| *byte == b'\n');
            let room = LINE_BYTES_MAX - line.bytes.len();
            let taken = end.unwrap_or(rest.len()).min(room);
            line.bytes.extend_from_slice(&rest[..taken]);
            rest = &rest[taken..];
            if rest.first() == Some(&b'\n') {
                result = self.write_line(name, &line).and(result);
                rest = &rest[1..];
                line = Line::start(entry);
            } else if line.bytes.len() == LINE_BYTES_MAX {
                let left = line.bytes.split_off(character_end(&line.bytes));
                result = self.write_line(name, &line).and(result);
                line = Line { bytes: left, ..Line::start(entry) };
            }
        }
        if line.bytes.is_empty() {
            return result;
        }
        if self.partial.len() >= PARTIAL_LINES_MAX {
            return self.write_line(name, &line).and(result);
        }
        self.partial.insert(key, line);
        result
    }

    fn write_line(&mut self, name: &str, line: &Line) -> io::Result<()> {
        let text = line.to_text();
        let told = self.tell_lost(name, line.unix_ms);
        told.and_then(|()| self.gather(name, &text)).inspect_err(|_| self.lose(name, text.len() as u64))
    }

    /// Gathers a line that tells how much is missing, if something is.
    fn tell_lost(&mut self, name: &str, unix_ms: u64) -> io::Result<()> {
        let Some(bytes) = self.lost_bytes.get(name).copied() else {
            return Ok(());
        };
        let text = format!("[vilya] {bytes} bytes of output dropped").into_bytes();
        let text = Line { unix_ms, request_id: None, bytes: text }.to_text();
        self.gather(name, &text)?;
        self.lost_bytes.remove(name);
        self.log(name)?.pending_lost_bytes += bytes;
        Ok(())
    }

    /// Adds a line to those to be written, with room in the file made for it. On an error the line is not among them.
    fn gather(&mut self, name: &str, text: &str) -> io::Result<()> {
        let bound = self.limit_bytes / 2;
        let log = self.log(name)?;
        let is_full = log.written_bytes + (log.pending.len() + text.len()) as u64 > bound;
        if is_full || log.pending.len() + text.len() > PENDING_BYTES_MAX {
            self.flush_one(name)?;
        }
        if is_full {
            self.rotate(name)?;
        }
        self.log(name)?.pending.extend_from_slice(text.as_bytes());
        Ok(())
    }

    fn flush_one(&mut self, name: &str) -> io::Result<()> {
        let Some(log) = self.open.get_mut(name) else {
            return Ok(());
        };
        let result = log.write_pending();
        if result.is_err()
            && let Some(log) = self.open.remove(name)
        {
            // Closed, so that the file's true length is read when it is opened again.
            self.lose(name, log.pending.len() as u64 + log.pending_lost_bytes);
        }
        result
    }

    fn lose(&mut self, name: &str, bytes: u64) {
        *self.lost_bytes.entry(name.to_owned()).or_default() += bytes;
    }

    fn log(&mut self, name: &str) -> io::Result<&mut Log> {
        if !self.open.contains_key(name) {
            if self.open.len() >= OPEN_FILES_MAX {
                self.flush()?;
                self.open.clear();
            }
            let [current, _] = self.paths(name)?;
            let file = OpenOptions::new().append(true).create(true).mode(0o600).open(current)?;
            let written_bytes = file.metadata()?.len();
            let log = Log { file, written_bytes, pending: Vec::new(), pending_lost_bytes: 0 };
            self.open.insert(name.to_owned(), log);
        }
        Ok(self.open.get_mut(name).expect("it was there or has just been inserted"))
    }

    fn rotate(&mut self, name: &str) -> io::Result<()> {
        self.open.remove(name);
        let [current, previous] = self.paths(name)?;
        std::fs::rename(current, previous)
    }

    /// The current file and its predecessor.
    fn paths(&self, name: &str) -> io::Result<[PathBuf; 2]> {
        check_name(name).map_err(|message| io::Error::new(io::ErrorKind::InvalidInput, message))?;
        Ok([self.directory.join(format!("{name}.log")), self.directory.join(format!("{name}.log.1"))])
    }
}

impl Log {
    fn write_pending(&mut self) -> io::Result<()> {
        self.file.write_all(&self.pending)?;
        self.written_bytes += self.pending.len() as u64;
        self.pending.clear();
        self.pending_lost_bytes = 0;
        Ok(())
    }
}

impl Line {
    fn start(entry: &LogEntry<'_>) -> Line {
        Line { unix_ms: entry.unix_ms, request_id: entry.request_id, bytes: Vec::new() }
    }

    fn to_text(&self) -> String {
        let id = self.request_id.map_or_else(|| "-".to_owned(), |id| super::hex(&id));
        let mut out = format!("{} {id} ", timestamp(self.unix_ms));
        let bytes = self.bytes.strip_suffix(b"\r").unwrap_or(&self.bytes);
        for c in String::from_utf8_lossy(bytes).chars() {
            match c {
                '\t' => out.push(c),
                c if c.is_control() => {
                    // Control characters are all below 0x100. Writing to a string cannot fail.
                    let _ = write!(out, "\\x{:02x}", u32::from(c));
                }
                c => out.push(c),
            }
        }
        out.push('\n');
        out
    }
}

/// Where to cut bytes so that no UTF-8 character is split: at the end, or before a last character that is not whole.
fn character_end(bytes: &[u8]) -> usize {
    for at in (bytes.len().saturating_sub(3)..bytes.len()).rev() {
        let needed = match bytes[at] {
            0x80..=0xbf => continue,
            0xc0..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf7 => 4,
            _ => 1,
        };
        return if at + needed > bytes.len() { at } else { bytes.len() };
    }
    bytes.len()
}

/// The whole lines among the last `bytes` bytes of a file; nothing if there is no file.
fn read_end(path: &Path, bytes: u64) -> io::Result<String> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        Err(error) => return Err(error),
    };
    let length = file.metadata()?.len();
    let start = length.saturating_sub(bytes);
    file.seek(SeekFrom::Start(start))?;
    let mut data = Vec::new();
    file.take(bytes).read_to_end(&mut data)?;
    let text = String::from_utf8_lossy(&data);
    if start == 0 {
        return Ok(text.into_owned());
    }
    Ok(text.split_once('\n').map_or_else(String::new, |(_, whole)| whole.to_owned()))
}

#[cfg(test)]
mod tests;
