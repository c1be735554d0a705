//! One CSV row a counted request, written by a thread of its own.
//!
//! Invariant: a sending thread never waits for the disk while it measures. What may be in memory is bounded; rows beyond
//! that are dropped and counted.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};

use super::tally::{Ending, Sample};
use crate::failure::Failure;

/// Rows handed over at once, and how many such batches may wait: some 256 thousand rows.
const BATCH_ROWS: usize = 1_024;
const BATCHES: usize = 256;

pub(super) const HEADER: &str =
    "due_us,sent_us,done_us,function,status,start,queue_us,run_us,bytes_in,bytes_out,shard\n";

/// The file and the thread that writes it.
pub(super) struct Rows {
    sender: SyncSender<Vec<Sample>>,
    writer: JoinHandle<io::Result<u64>>,
}

impl Rows {
    /// `names` are the functions', by number.
    pub(super) fn create(path: &Path, names: Vec<String>) -> Result<Rows, Failure> {
        let file = File::create(path).map_err(|error| Failure::file("write", path, &error))?;
        Ok(Rows::start(BufWriter::new(file), names, BATCHES))
    }

    fn start(out: impl Write + Send + 'static, names: Vec<String>, batches: usize) -> Rows {
        let (sender, receiver) = sync_channel(batches);
        let writer = thread::spawn(move || write_all(&receiver, out, &names));
        Rows { sender, writer }
    }

    /// A sending thread's end. Times are told since `origin_ns`.
    pub(super) fn feeder(&self, origin_ns: u64) -> Feeder {
        Feeder { sender: self.sender.clone(), batch: Vec::new(), origin_ns, dropped: 0 }
    }

    /// Waits for the last row to be written, once every feeder is closed; how many rows there are.
    pub(super) fn finish(self) -> io::Result<u64> {
        drop(self.sender);
        self.writer.join().unwrap_or_else(|_| Err(io::Error::other("the thread that writes rows panicked")))
    }
}

pub(super) struct Feeder {
    sender: SyncSender<Vec<Sample>>,
    batch: Vec<Sample>,
    origin_ns: u64,
    dropped: u64,
}

impl Feeder {
    pub(super) fn push(&mut self, sample: Sample) {
        if self.batch.capacity() == 0 {
            self.batch.reserve_exact(BATCH_ROWS);
        }
        let since = |ns: u64| ns.saturating_sub(self.origin_ns);
        self.batch.push(Sample {
            due_ns: since(sample.due_ns),
            sent_ns: sample.sent_ns.map(since),
            done_ns: since(sample.done_ns),
            ..sample
        });
        if self.batch.len() == BATCH_ROWS {
            let batch = std::mem::take(&mut self.batch);
            if let Err(TrySendError::Full(batch) | TrySendError::Disconnected(batch)) = self.sender.try_send(batch) {
                self.dropped += batch.len() as u64;
            }
        }
    }

    /// Hands over the rest, waiting for room now that nothing is measured; how many rows were dropped.
    pub(super) fn close(mut self) -> u64 {
        if let Err(unsent) = self.sender.send(self.batch) {
            self.dropped += unsent.0.len() as u64;
        }
        self.dropped
    }
}

fn write_all(batches: &Receiver<Vec<Sample>>, mut out: impl Write, names: &[String]) -> io::Result<u64> {
    out.write_all(HEADER.as_bytes())?;
    let mut rows = 0;
    for sample in batches.iter().flatten() {
        write_row(&mut out, &sample, &names[sample.choice.function])?;
        rows += 1;
    }
    out.flush()?;
    Ok(rows)
}

fn write_row(out: &mut impl Write, sample: &Sample, function: &str) -> io::Result<()> {
    let us = |ns: u64| (ns / 1_000, ns % 1_000);
    let (due, due_rest) = us(sample.due_ns);
    write!(out, "{due}.{due_rest:03},")?;
    if let Some((sent, rest)) = sample.sent_ns.map(us) {
        write!(out, "{sent}.{rest:03}")?;
    }
    let (done, done_rest) = us(sample.done_ns);
    write!(out, ",{done}.{done_rest:03},{function},")?;
    match sample.ending {
        Ending::Answered(status) => write!(out, "{status},")?,
        Ending::Broke(broke) => write!(out, "{},", broke.word())?,
    }
    out.write_all(sample.cold.map_or("", |cold| if cold { "cold" } else { "warm" }).as_bytes())?;
    for us in [sample.phases.queue_us, sample.phases.run_us] {
        out.write_all(b",")?;
        if let Some(us) = us {
            write!(out, "{us}")?;
        }
    }
    write!(out, ",{},{},", sample.bytes_in, sample.bytes_out)?;
    if let Some(shard) = sample.shard {
        write!(out, "{shard}")?;
    }
    out.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::super::tally::tests::GOOD;
    use super::super::tally::{Broke, Phases};
    use super::*;

    fn row(sample: Sample) -> String {
        let mut out = Vec::new();
        write_row(&mut out, &sample, "hello").unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_row_has_a_cell_for_every_column() {
        assert_eq!(row(GOOD), "1000.000,1200.000,2000.000,hello,200,warm,3,600,120,80,1\n");
        let lost = Sample {
            sent_ns: None,
            done_ns: 2_000_005,
            ending: Ending::Broke(Broke::Timeout),
            cold: None,
            phases: Phases::default(),
            shard: None,
            ..GOOD
        };
        assert_eq!(row(lost), "1000.000,,2000.005,hello,timeout,,,,120,80,\n");
        assert_eq!(row(lost).matches(',').count(), HEADER.matches(',').count());
    }

    /// Takes its bytes only when let.
    struct Gate(Arc<Mutex<Vec<u8>>>);
    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn rows_that_do_not_fit_are_dropped_and_counted_and_the_others_written() {
        let written = Arc::new(Mutex::new(Vec::new()));
        let held = written.lock().unwrap();
        let rows = Rows::start(Gate(Arc::clone(&written)), vec!["f".to_owned()], 1);
        let mut feeder = rows.feeder(1_000_000);
        // The writer holds at most nothing (it is stuck at the header) and the channel one batch.
        let pushed = 5 * BATCH_ROWS as u64 + 7;
        (0..pushed).for_each(|_| feeder.push(GOOD));
        drop(held);
        let dropped = feeder.close();
        assert_eq!(dropped, 4 * BATCH_ROWS as u64);
        assert_eq!(rows.finish().unwrap(), pushed - dropped);
        let text = String::from_utf8(written.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count() as u64, pushed - dropped + 1);
        assert!(text.starts_with(HEADER));
        assert!(text.lines().nth(1).unwrap().starts_with("0.000,200.000,1000.000,"));
    }

    #[test]
    fn a_disk_that_fails_is_an_error_and_no_wait() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let rows = Rows::start(Full, vec!["f".to_owned()], 1);
        let mut feeder = rows.feeder(0);
        (0..3 * BATCH_ROWS).for_each(|_| feeder.push(GOOD));
        // However soon the writer gave up, what it did not take is told.
        assert!(feeder.close() <= 3 * BATCH_ROWS as u64);
        assert_eq!(rows.finish().unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
}
