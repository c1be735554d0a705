//! The thread that writes logs, and the senders in front of it.
//!
//! Invariant: a shard never waits for the disk. What does not fit into the channel, by messages or by bytes, is dropped,
//! counted by function, and the log says how much is missing. Requests of the control thread travel in the same channel,
//! so that a tail shows everything sent before it.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use super::logs::{LogEntry, LogFiles};

const MESSAGES_MAX: usize = 4096;
/// Output waiting in the channel.
const QUEUED_BYTES_MAX: u64 = 16 << 20;
/// Messages handled before what was gathered is written.
const BATCH: usize = 256;
/// Between two warnings that logs cannot be written: the news of a full disk would fill it further.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// Output of a function, as a shard read it.
#[derive(Debug)]
pub struct Output {
    /// The function.
    pub function: Arc<str>,
    /// When it was read, in milliseconds since 1970.
    pub unix_ms: u64,
    /// The invocation that was running, if one was.
    pub request_id: Option<[u8; 16]>,
    /// The sandbox's stream, unique among those alive.
    pub stream: u64,
    /// The bytes.
    pub bytes: Vec<u8>,
}

enum Message {
    Output(Output),
    Dropped { function: Arc<str>, unix_ms: u64, bytes: u64 },
    Ended { function: Arc<str>, stream: u64 },
    Tail { function: String, lines: usize, reply: Sender<io::Result<String>> },
    Remove { function: String, reply: Sender<io::Result<()>> },
    Stop,
}

/// The running thread. Dropping it writes out what was sent before, then ends the thread.
#[derive(Debug)]
pub struct LogWriter {
    channel: Sender<Message>,
    queued_bytes: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl LogWriter {
    /// Starts the thread on these files.
    pub fn start(files: LogFiles) -> io::Result<LogWriter> {
        let (channel, receiver) = bounded(MESSAGES_MAX);
        let queued_bytes = Arc::new(AtomicU64::new(0));
        let mut work = Work { files, queued_bytes: queued_bytes.clone(), warned: None };
        let thread = std::thread::Builder::new().name("vilya-logs".to_owned()).spawn(move || work.run(&receiver))?;
        Ok(LogWriter { channel, queued_bytes, thread: Some(thread) })
    }

    /// A sender for one shard.
    pub fn sender(&self) -> LogSender {
        LogSender {
            channel: self.channel.clone(),
            queued_bytes: self.queued_bytes.clone(),
            dropped: HashMap::new(),
            ended: Vec::new(),
        }
    }

    /// Requests for the control thread.
    pub fn control(&self) -> LogControl {
        LogControl { channel: self.channel.clone() }
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        // Either send fails only if the thread is gone already, and then there is nothing to wait for.
        let _ = self.channel.send(Message::Stop);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the log thread panicked: output may be missing from the logs");
        }
    }
}

/// A shard's end: never waits.
#[derive(Debug)]
pub struct LogSender {
    channel: Sender<Message>,
    queued_bytes: Arc<AtomicU64>,
    /// Bytes that found no room, with the time of the latest; told as soon as there is room.
    dropped: HashMap<Arc<str>, (u64, u64)>,
    /// Ends of streams that found no room. At most one for each sandbox's stream.
    ended: Vec<(Arc<str>, u64)>,
}

impl LogSender {
    /// Sends output, or counts it as dropped if there is no room. Whether it was sent.
    pub fn try_send(&mut self, output: Output) -> bool {
        self.retry();
        let bytes = output.bytes.len() as u64;
        // Relaxed, here and where it falls: a bound on memory that publishes nothing; the channel carries the data.
        let before = self.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        let is_behind = self.dropped.contains_key(&output.function);
        if before + bytes <= QUEUED_BYTES_MAX && !is_behind {
            match self.channel.try_send(Message::Output(output)) {
                Ok(()) => return true,
                Err(
                    TrySendError::Full(Message::Output(output)) | TrySendError::Disconnected(Message::Output(output)),
                ) => {
                    self.drop_output(output);
                }
                Err(_) => unreachable!("a refused message is the one that was sent"),
            }
        } else {
            self.drop_output(output);
        }
        false
    }

    /// Says that a stream gives nothing more, so that its unfinished line is written.
    pub fn end_stream(&mut self, function: Arc<str>, stream: u64) {
        self.ended.push((function, stream));
        self.retry();
    }

    /// Sends what found no room before. Worth calling when a shard is about to park with [`LogSender::is_behind`].
    pub fn retry(&mut self) {
        let is_sent = |result: Result<(), TrySendError<Message>>| !matches!(result, Err(TrySendError::Full(_)));
        self.dropped.retain(|function, (unix_ms, bytes)| {
            let message = Message::Dropped { function: function.clone(), unix_ms: *unix_ms, bytes: *bytes };
            !is_sent(self.channel.try_send(message))
        });
        self.ended.retain(|(function, stream)| {
            let message = Message::Ended { function: function.clone(), stream: *stream };
            !is_sent(self.channel.try_send(message))
        });
    }

    /// Whether something is still to be told.
    pub fn is_behind(&self) -> bool {
        !self.dropped.is_empty() || !self.ended.is_empty()
    }

    fn drop_output(&mut self, output: Output) {
        let bytes = output.bytes.len() as u64;
        self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
        let (unix_ms, dropped) = self.dropped.entry(output.function).or_default();
        *unix_ms = output.unix_ms;
        *dropped += bytes;
    }
}

/// The control thread's end: waits for the answer.
#[derive(Clone, Debug)]
pub struct LogControl {
    channel: Sender<Message>,
}

impl LogControl {
    /// The last lines of a function's log, with everything that was sent before. May wait for the disk.
    pub fn tail(&self, function: &str, lines: usize) -> io::Result<String> {
        self.ask(|reply| Message::Tail { function: function.to_owned(), lines, reply })
    }

    /// Deletes a function's log. May wait for the disk.
    pub fn remove(&self, function: &str) -> io::Result<()> {
        self.ask(|reply| Message::Remove { function: function.to_owned(), reply })
    }

    fn ask<T>(&self, message: impl FnOnce(Sender<io::Result<T>>) -> Message) -> io::Result<T> {
        let (reply, answer) = bounded(1);
        let stopped = || io::Error::new(io::ErrorKind::BrokenPipe, "the log thread has stopped");
        self.channel.send(message(reply)).map_err(|_| stopped())?;
        answer.recv().map_err(|_| stopped())?
    }
}

/// The thread's own state.
struct Work {
    files: LogFiles,
    queued_bytes: Arc<AtomicU64>,
    /// When the last warning was given.
    warned: Option<Instant>,
}

impl Work {
    fn run(&mut self, channel: &Receiver<Message>) {
        let mut is_stopping = false;
        while !is_stopping {
            // The writer's own sender lives until the thread is joined, so that this fails only after a stop.
            let Ok(first) = channel.recv() else { break };
            is_stopping = self.handle(first);
            for message in channel.try_iter().take(BATCH) {
                is_stopping |= self.handle(message);
            }
            let result = self.files.flush();
            self.warn(result);
        }
        let result = self.files.finish();
        self.warn(result);
    }

    /// Whether the thread is to end.
    fn handle(&mut self, message: Message) -> bool {
        match message {
            Message::Output(output) => self.append(&output),
            Message::Dropped { function, unix_ms, bytes } => {
                let result = self.files.note_dropped(&function, unix_ms, bytes);
                self.warn(result);
            }
            Message::Ended { function, stream } => {
                let result = self.files.end_stream(&function, stream);
                self.warn(result);
            }
            Message::Tail { function, lines, reply } => {
                // Who asked may have given up.
                let _ = reply.send(self.files.tail(&function, lines));
            }
            Message::Remove { function, reply } => {
                let _ = reply.send(self.files.remove(&function));
            }
            Message::Stop => return true,
        }
        false
    }

    fn append(&mut self, output: &Output) {
        let entry = LogEntry {
            unix_ms: output.unix_ms,
            request_id: output.request_id,
            stream: output.stream,
            bytes: &output.bytes,
        };
        let result = self.files.append(&output.function, &[entry]);
        self.queued_bytes.fetch_sub(output.bytes.len() as u64, Ordering::Relaxed);
        self.warn(result);
    }

    fn warn(&mut self, result: io::Result<()>) {
        let Err(error) = result else { return };
        if self.warned.is_none_or(|last| last.elapsed() >= WARNING_INTERVAL) {
            tracing::warn!(%error, "cannot write logs: output is dropped, and the logs will say how much, until this works again");
            self.warned = Some(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writer() -> (tempfile::TempDir, LogWriter) {
        let directory = tempfile::tempdir().unwrap();
        let files = LogFiles::open(directory.path(), 0).unwrap();
        let writer = LogWriter::start(files).unwrap();
        (directory, writer)
    }

    fn output(text: &str) -> Output {
        Output { function: "f".into(), unix_ms: 0, request_id: None, stream: 1, bytes: text.as_bytes().to_vec() }
    }

    /// A sender whose channel nobody reads, of this many messages.
    fn stuck(messages: usize) -> (LogSender, Receiver<Message>) {
        let (channel, receiver) = bounded(messages);
        let sender = LogSender { channel, queued_bytes: Arc::default(), dropped: HashMap::new(), ended: Vec::new() };
        (sender, receiver)
    }

    #[test]
    fn a_tail_shows_what_was_sent_before() {
        let (_directory, writer) = writer();
        let mut sender = writer.sender();
        for i in 0..500 {
            assert!(sender.try_send(output(&format!("line {i}\n"))));
        }
        sender.try_send(output("unfinished"));
        sender.end_stream("f".into(), 1);
        let tail = writer.control().tail("f", 2).unwrap();
        assert_eq!(tail, "1970-01-01T00:00:00.000Z - line 499\n1970-01-01T00:00:00.000Z - unfinished\n");
        writer.control().remove("f").unwrap();
        assert_eq!(writer.control().tail("f", 2).unwrap(), "");
        assert_eq!(writer.queued_bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn stopping_writes_out_what_was_sent() {
        let (directory, writer) = writer();
        let mut sender = writer.sender();
        let control = writer.control();
        sender.try_send(output("last words\n"));
        drop(writer);
        assert!(std::fs::read_to_string(directory.path().join("f.log")).unwrap().ends_with("last words\n"));
        assert!(control.tail("f", 1).is_err());
        assert!(!sender.try_send(output("nobody listens\n")));
    }

    #[test]
    fn a_full_channel_drops_counts_and_tells_in_order() {
        let (mut sender, receiver) = stuck(2);
        assert!(sender.try_send(output("one\n")));
        assert!(sender.try_send(output("two\n")));
        assert!(!sender.try_send(output("three\n")));
        assert!(!sender.try_send(output("four\n")));
        assert!(sender.is_behind());
        sender.end_stream("f".into(), 1);
        assert!(matches!(receiver.try_recv(), Ok(Message::Output(_))));
        assert!(matches!(receiver.try_recv(), Ok(Message::Output(_))));
        assert!(sender.try_send(output("")) || sender.is_behind());
        let told = receiver.try_recv();
        assert!(matches!(told, Ok(Message::Dropped { bytes: 11, .. })), "what is missing is told before what follows");
        assert!(matches!(receiver.try_recv(), Ok(Message::Ended { stream: 1, .. })));
        sender.retry();
        assert!(receiver.try_iter().all(|message| matches!(message, Message::Output(_) | Message::Dropped { .. })));
    }

    #[test]
    fn waiting_bytes_are_bounded() {
        let (mut sender, _receiver) = stuck(1000);
        let large = "x".repeat(1 << 20);
        let sent = (0..20).filter(|_| sender.try_send(output(&large))).count();
        assert!(sent < 20);
        assert!(sender.queued_bytes.load(Ordering::Relaxed) <= QUEUED_BYTES_MAX);
    }

    #[test]
    fn a_disk_that_fails_for_a_while_is_survived() {
        let directory = tempfile::tempdir().unwrap();
        let files = LogFiles::open(directory.path(), 0).unwrap();
        let obstacle = directory.path().join("f.log");
        std::fs::create_dir(&obstacle).unwrap();
        let writer = LogWriter::start(files).unwrap();
        let mut sender = writer.sender();
        sender.try_send(output("lost\n"));
        assert!(writer.control().tail("f", 10).is_err());
        std::fs::remove_dir(&obstacle).unwrap();
        sender.try_send(output("kept\n"));
        let tail = writer.control().tail("f", 10).unwrap();
        assert!(tail.contains("bytes of output dropped\n") && tail.ends_with("kept\n"), "{tail}");
    }
}
