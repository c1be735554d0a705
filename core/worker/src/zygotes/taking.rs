//! The thread that takes images of zygotes.
//!
//! Invariant: each zygote that it is given is ended, and the book told what came of it. It does not know which functions get one, or how
//! an image is taken.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, never};
use vilya_isolate::{CaptureError, Image, Started, capture};

use super::{Book, HOT_STARTS, State, Subject, Zygote, lock};
use crate::imports::Learned;
use crate::manifest::Runtime;
use crate::rehearsal::{Request, rehearse};

/// How long a wait for a zygote goes on before it is asked whether the worker stops.
const LOOK: Duration = Duration::from_millis(100);

/// What the thread that takes images works with.
pub(super) struct Taker {
    pub(super) book: Arc<Mutex<Book>>,
    pub(super) stopping: Arc<AtomicBool>,
    pub(super) rehearsals: Sender<Request>,
}

impl Taker {
    pub(super) fn run(&self, inbox: &Receiver<Zygote>, learned: &Receiver<Learned>) {
        let mut learned = learned.clone();
        loop {
            let mut zygote = crossbeam_channel::select! {
                recv(inbox) -> zygote => match zygote {
                    Ok(zygote) => zygote,
                    Err(_) => return,
                },
                recv(learned) -> report => {
                    match report {
                        Ok(report) => lock(&self.book).learn(report),
                        // The shards have ended, and the starter is about to.
                        Err(_) => learned = never(),
                    }
                    continue;
                }
            };
            let begun = Instant::now();
            let subject = std::mem::replace(&mut zygote.subject, Subject::Runtime(Runtime::Python));
            let taken = self.take(zygote);
            let milliseconds = begun.elapsed().as_millis();
            self.keep(subject, taken, milliseconds);
        }
    }

    /// Takes the image of a zygote and makes sure of it.
    fn take(&self, zygote: Zygote) -> Result<Arc<Image>, NoImage> {
        let (part, patience) = (zygote.part.clone(), zygote.patience);
        let image = take_image(zygote, &self.stopping).map(Arc::new)?;
        rehearse(&image, part, &self.rehearsals, patience, &self.stopping).map_err(NoImage::Because)?;
        Ok(image)
    }

    fn keep(&self, subject: Subject, taken: Result<Arc<Image>, NoImage>, milliseconds: u128) {
        let mut book = lock(&self.book);
        let name = subject.name();
        match (taken, &subject) {
            (Ok(image), subject) => {
                tracing::debug!(name, bytes = image.bytes(), milliseconds, "took the image of a zygote");
                match subject {
                    Subject::Function { record, function, .. } => book.keep(record.version, *function, image),
                    Subject::Runtime(runtime) => book.runtimes.push((*runtime, image)),
                }
            }
            (Err(why), subject) => {
                let is_chance = matches!(why, NoImage::Misplaced);
                let told = why.told();
                if let Subject::Function { record, imports, .. } = subject {
                    if imports.is_empty() || is_chance {
                        tracing::info!(name, "no zygote: {told}");
                    } else {
                        tracing::info!(name, ?imports, "no zygote that has imported what the function does: {told}");
                        book.entry(record).unlearn();
                    }
                    // The next start raises another: by chance it is better, or it imports less.
                    let again = is_chance || !imports.is_empty();
                    book.not_made(record.version, if again { State::Starts(HOT_STARTS - 1) } else { State::Refused });
                } else {
                    tracing::info!(name, "no zygote: {told}");
                    book.remaking.lost(Instant::now());
                }
            }
        }
    }
}

/// Why no image was taken.
enum NoImage {
    /// Another zygote may have one.
    Misplaced,
    Because(String),
}

impl NoImage {
    fn told(&self) -> String {
        match self {
            NoImage::Misplaced => CaptureError::Misplaced.to_string(),
            NoImage::Because(why) => why.clone(),
        }
    }
}

impl From<CaptureError> for NoImage {
    fn from(error: CaptureError) -> NoImage {
        if let CaptureError::Misplaced = error { NoImage::Misplaced } else { NoImage::Because(error.to_string()) }
    }
}

fn take_image(zygote: Zygote, stopping: &AtomicBool) -> Result<Image, NoImage> {
    let Zygote { started, mut says, patience, working_directory, limit_bytes, .. } = zygote;
    let image = await_word(&mut says, patience, stopping)
        .map_err(NoImage::Because)
        .and_then(|()| capture(started.pid, &working_directory, limit_bytes).map_err(NoImage::from));
    end(started);
    image
}

/// Waits until a zygote says that it waits.
fn await_word(says: &mut UnixStream, patience: Duration, stopping: &AtomicBool) -> Result<(), String> {
    let deadline = Instant::now() + patience;
    says.set_read_timeout(Some(LOOK)).map_err(|error| error.to_string())?;
    let mut word = [0];
    loop {
        match says.read(&mut word) {
            Ok(1) => return Ok(()),
            Ok(_) => return Err("it ended before it waited to be copied; its sandboxes are started whole".into()),
            Err(error) if !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                return Err(error.to_string());
            }
            // Relaxed: it is only asked whether to go on.
            Err(_) if stopping.load(Ordering::Relaxed) => return Err("the worker stops".into()),
            Err(_) if Instant::now() >= deadline => {
                return Err(format!("it did not load its function in {patience:?}"));
            }
            Err(_) => {}
        }
    }
}

/// Ends a zygote.
pub(super) fn end(started: Started) {
    started.remains.kill();
    let _ = started.remains.reap();
}
