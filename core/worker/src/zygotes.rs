//! Which functions have an image that their sandboxes are copied from, and the thread that takes images.
//!
//! Invariant: an image of a function is used for the one version of it that it was taken of; one that serves several has run nobody's code.
//! Images are bounded in bytes: the one not used for longest goes first. The home shard of a function is told of its image and of its end,
//! in turns, and may have it given up. It does not know how an image is taken or copied, or what else the shard weighs it against.

mod taking;

use std::collections::HashMap;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use vilya_engine::FunctionId;
use vilya_engine::policy::balance::BalancePolicy;
use vilya_isolate::{Image, Started};

use crate::imports::{IMPORTS_MAX, Learned};
use crate::manifest::Runtime;
use crate::mesh::{Message, Post};
use crate::process::vital;
use crate::rehearsal::{Part, Request};
use crate::remaking::Remaking;
use crate::storage::FunctionRecord;
use crate::waiting::Layer;
use taking::{Taker, end};

/// A function is hot when it has been started so often: then an image pays.
const HOT_STARTS: i32 = 2;
/// Zygotes that wait for their image to be taken: each is a sandbox that the engine does not count.
const WAITING: usize = 2;
/// How often a function whose image had to go is started before it gets another.
const AFTER_EVICTION: i32 = -64;
/// Functions that are remembered; more are those of removed functions.
const ENTRIES: usize = 16_384;

/// How a sandbox is to be started.
pub(crate) struct Way {
    /// As a copy of this image; none: from the beginning.
    pub(crate) image: Option<Arc<Image>>,
    /// Whether the image is the bare runtime's, which has to be told the function.
    pub(crate) is_runtime: bool,
    /// Whether a zygote of the function is to be started beside it.
    pub(crate) raises_zygote: bool,
    /// What that is to import, since invocations have.
    pub(crate) imports: Vec<String>,
    /// Whether the bare runtime's image is gone, and its zygote to be started again.
    pub(crate) raises_runtime: bool,
}

/// Whose image is taken.
pub(crate) enum Subject {
    Function {
        record: Arc<FunctionRecord>,
        function: FunctionId,
        /// What invocations imported, and the zygote did.
        imports: Vec<String>,
    },
    /// A runtime that knows no function.
    Runtime(Runtime),
}

impl Subject {
    fn name(&self) -> &str {
        match self {
            Subject::Function { record, .. } => &record.name,
            Subject::Runtime(runtime) => runtime.as_str(),
        }
    }
}

/// A zygote that was started.
pub(crate) struct Zygote {
    pub(crate) subject: Subject,
    /// How its copies are started.
    pub(crate) part: Part,
    pub(crate) started: Started,
    /// Where it says that it waits to be copied.
    pub(crate) says: UnixStream,
    pub(crate) patience: Duration,
    pub(crate) working_directory: String,
    /// The most memory that it may have.
    pub(crate) limit_bytes: u64,
}

/// The images of this worker.
pub(crate) struct Zygotes {
    book: Arc<Mutex<Book>>,
    zygotes: Option<Sender<Zygote>>,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

struct Book {
    entries: HashMap<u64, Entry>,
    /// Images of runtimes that know no function. They have run no code but ours, so they serve all.
    runtimes: Vec<(Runtime, Arc<Image>)>,
    /// Of the one runtime that has such an image.
    remaking: Remaking,
    bytes: u64,
    limit_bytes: u64,
    uses: u64,
    /// Who is told of images.
    shards: Vec<Post>,
}

struct Entry {
    name: String,
    state: State,
    /// What invocations imported that loading did not.
    learned: Vec<String>,
    /// How much of that the last zygote was to import.
    told: usize,
    /// An image was replaced by one with more imports. Once, so that a function that always imports something else has peace.
    is_remade: bool,
    /// With what was learned there was no image.
    may_learn: bool,
}

impl Entry {
    fn new(record: &FunctionRecord) -> Entry {
        Entry {
            name: record.name.clone(),
            state: State::Starts(0),
            learned: Vec::new(),
            told: 0,
            is_remade: false,
            may_learn: record.manifest.learns_imports,
        }
    }

    /// What a zygote that is raised now is to import.
    fn tell_imports(&mut self) -> Vec<String> {
        self.told = self.learned.len();
        self.learned.clone()
    }

    /// Nothing that was learned is imported ahead any more.
    fn unlearn(&mut self) {
        self.may_learn = false;
        self.learned.clear();
        self.told = 0;
    }
}

enum State {
    Starts(i32),
    Making,
    Ready {
        function: FunctionId,
        image: Arc<Image>,
        used: u64,
    },
    /// It cannot be copied.
    Refused,
}

impl Zygotes {
    pub(crate) fn start(
        limit_bytes: u64,
        shards: Vec<Post>,
        rehearsals: Sender<Request>,
        learned: Receiver<Learned>,
    ) -> io::Result<Zygotes> {
        let book = Book {
            entries: HashMap::new(),
            runtimes: Vec::new(),
            remaking: Remaking::new(),
            bytes: 0,
            limit_bytes,
            uses: 0,
            shards,
        };
        let book = Arc::new(Mutex::new(book));
        let stopping = Arc::new(AtomicBool::new(false));
        let (zygotes, inbox) = bounded(WAITING);
        let taker = Taker { book: Arc::clone(&book), stopping: Arc::clone(&stopping), rehearsals };
        let thread = std::thread::Builder::new()
            .name("vilya-zygotes".into())
            .spawn(move || vital("the taker of images", || taker.run(&inbox, &learned)))?;
        Ok(Zygotes { book, zygotes: Some(zygotes), stopping, thread: Some(thread) })
    }

    /// How the next sandbox of this function is to be started, for this shard.
    pub(crate) fn way(&self, record: &FunctionRecord, shard: usize) -> Way {
        let mut book = lock(&self.book);
        let (own, raised) = book.own_image(record);
        if own.is_some() {
            book.tell_of_use(record, shard);
        }
        let is_runtime = own.is_none();
        // The runtime's has the host's interpreter in it, which a container image has its own of.
        let has_runtime = record.image.is_none();
        let image = own.or_else(|| book.runtime_image(record.manifest.runtime).filter(|_| has_runtime));
        let raises_runtime =
            has_runtime && record.manifest.runtime == Runtime::Python && book.remaking.begins(Instant::now());
        let raises_zygote = raised.is_some();
        Way { image, is_runtime, raises_zygote, raises_runtime, imports: raised.unwrap_or_default() }
    }

    /// Takes a zygote over: its image is taken when it waits, and it is ended. While others wait for that already, it is ended now, and
    /// its function has to be started as often again.
    pub(crate) fn raise(&self, zygote: Zygote) {
        let Some(zygotes) = &self.zygotes else { return end(zygote.started) };
        if let Err(returned) = zygotes.try_send(zygote) {
            let Zygote { subject, started, .. } = returned.into_inner();
            match subject {
                Subject::Function { record, .. } => lock(&self.book).not_made(record.version, State::Starts(0)),
                Subject::Runtime(_) => self.runtime_not_made(),
            }
            end(started);
        }
    }

    /// This function gets no image.
    pub(crate) fn refuse(&self, record: &FunctionRecord) {
        let mut book = lock(&self.book);
        book.entry(record);
        book.not_made(record.version, State::Refused);
    }

    /// The zygote of the bare runtime came to nothing.
    pub(crate) fn runtime_not_made(&self) {
        lock(&self.book).remaking.lost(Instant::now());
    }

    /// Whether starts may still ask for this image.
    pub(crate) fn has(&self, wanted: &Arc<Image>) -> bool {
        let book = lock(&self.book);
        let of_functions = book.entries.values().filter_map(|entry| match &entry.state {
            State::Ready { image, .. } => Some(image),
            _ => None,
        });
        book.runtimes.iter().map(|(_, image)| image).chain(of_functions).any(|image| Arc::ptr_eq(image, wanted))
    }

    /// Every image that starts may ask for: how much of a function it has, whose it is.
    pub(crate) fn images(&self) -> Vec<(Layer, String, Arc<Image>)> {
        let book = lock(&self.book);
        let of_runtimes =
            book.runtimes.iter().map(|(of, image)| (Layer::Runtime, of.as_str().to_owned(), Arc::clone(image)));
        let of_functions = book.entries.values().filter_map(|entry| match &entry.state {
            State::Ready { image, .. } => Some((Layer::Function, entry.name.clone(), Arc::clone(image))),
            _ => None,
        });
        of_runtimes.chain(of_functions).collect()
    }

    /// The image of a function, if it has one.
    pub(crate) fn image_of(&self, function: FunctionId) -> Option<Arc<Image>> {
        lock(&self.book).version_of(function).map(|(_, image)| image)
    }

    /// Gives up the image of a function; it gets another when it has been started often again.
    pub(crate) fn give_up(&self, function: FunctionId) {
        let mut book = lock(&self.book);
        if let Some((version, _)) = book.version_of(function) {
            book.set(version, State::Starts(AFTER_EVICTION));
        }
    }

    /// A copy of this image failed, which is then not used again.
    pub(crate) fn failed(&self, record: &FunctionRecord, failed: &Arc<Image>) {
        let mut book = lock(&self.book);
        let entry = book.entry(record);
        if matches!(&entry.state, State::Ready { image, .. } if Arc::ptr_eq(image, failed)) {
            let has_learned = entry.told > 0;
            entry.unlearn();
            book.set(record.version, if has_learned { State::Starts(HOT_STARTS - 1) } else { State::Refused });
        }
        book.keep_runtimes(|image| !Arc::ptr_eq(image, failed));
    }
}

impl Drop for Zygotes {
    fn drop(&mut self) {
        // Relaxed: the end of the channel orders everything.
        self.stopping.store(true, Ordering::Relaxed);
        self.zygotes = None;
        if let Some(thread) = self.thread.take() {
            // What it panicked with has been told by `vital`.
            let _ = thread.join();
        }
    }
}

fn lock(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Book {
    /// A function's own image, and if one is to be taken now, what it is to import.
    fn own_image(&mut self, record: &FunctionRecord) -> (Option<Arc<Image>>, Option<Vec<String>>) {
        self.uses += 1;
        let now = self.uses;
        let entry = self.entry(record);
        match &mut entry.state {
            State::Ready { image, .. } if !image.is_current() => {
                self.set(record.version, State::Starts(HOT_STARTS - 1));
                (None, None)
            }
            State::Ready { image, used, .. } => {
                *used = now;
                let image = Arc::clone(image);
                let is_behind = entry.learned.len() > entry.told && !entry.is_remade;
                let raised = is_behind.then(|| {
                    entry.is_remade = true;
                    entry.tell_imports()
                });
                (Some(image), raised)
            }
            State::Starts(starts) => {
                *starts += 1;
                let is_hot = *starts >= HOT_STARTS;
                let raised = is_hot.then(|| {
                    entry.state = State::Making;
                    entry.tell_imports()
                });
                (None, raised)
            }
            State::Making | State::Refused => (None, None),
        }
    }

    fn runtime_image(&mut self, of: Runtime) -> Option<Arc<Image>> {
        self.keep_runtimes(|image| image.is_current());
        self.runtimes.iter().find(|(runtime, _)| *runtime == of).map(|(_, image)| Arc::clone(image))
    }

    fn keep_runtimes(&mut self, is_kept: impl Fn(&Arc<Image>) -> bool) {
        let before = self.runtimes.len();
        self.runtimes.retain(|(_, image)| is_kept(image));
        if self.runtimes.len() < before {
            tracing::info!("the image of the Python runtime does not fit the host any more: another is made");
            self.remaking.lost(Instant::now());
        }
    }

    fn entry(&mut self, record: &FunctionRecord) -> &mut Entry {
        if !self.entries.contains_key(&record.version) {
            // Other versions of the name are not started any more, or are about to end.
            let older: Vec<u64> =
                self.entries.iter().filter(|(_, entry)| entry.name == record.name).map(|(at, _)| *at).collect();
            older.into_iter().filter(|version| *version < record.version).for_each(|version| self.remove(version));
        }
        if self.entries.len() >= ENTRIES {
            self.entries.retain(|_, entry| matches!(entry.state, State::Ready { .. } | State::Making));
        }
        self.entries.entry(record.version).or_insert_with(|| Entry::new(record))
    }

    /// An image was not taken. One that is there stays.
    fn not_made(&mut self, version: u64, state: State) {
        if self.entries.get(&version).is_some_and(|entry| !matches!(entry.state, State::Ready { .. })) {
            self.set(version, state);
        }
    }

    fn learn(&mut self, Learned { record, names }: Learned) {
        let entry = self.entry(&record);
        if !entry.may_learn {
            return;
        }
        for name in names {
            if entry.learned.len() < IMPORTS_MAX && !entry.learned.contains(&name) {
                entry.learned.push(name);
            }
        }
    }

    /// The version whose image this function's starts are copies of.
    fn version_of(&self, wanted: FunctionId) -> Option<(u64, Arc<Image>)> {
        self.entries.iter().find_map(|(version, entry)| match &entry.state {
            State::Ready { function, image, .. } if *function == wanted => Some((*version, Arc::clone(image))),
            _ => None,
        })
    }

    /// A shard knows of its own starts.
    fn tell_of_use(&self, record: &FunctionRecord, shard: usize) {
        let home = self.home_of(&record.manifest.name);
        if home != shard
            && let Some(State::Ready { function, .. }) = self.entries.get(&record.version).map(|entry| &entry.state)
        {
            self.tell(home, Message::LayerUsed { function: *function });
        }
    }

    fn home_of(&self, name: &str) -> usize {
        BalancePolicy::Home.shard(name.as_bytes(), self.shards.len() as u32) as usize
    }

    fn tell(&self, home: usize, message: Message) {
        // A shard that takes no more messages has no use for them.
        if let Some(home) = self.shards.get(home) {
            home.send(message);
        }
    }

    /// The one place where an image comes or goes.
    fn set(&mut self, version: u64, state: State) {
        let Some(entry) = self.entries.get_mut(&version) else { return };
        let facts = |state: &State| match state {
            State::Ready { function, image, .. } => Some((*function, image.bytes())),
            _ => None,
        };
        let after = facts(&state);
        let before = facts(&std::mem::replace(&mut entry.state, state));
        if before.is_none() && after.is_none() {
            return;
        }
        let name = entry.name.clone();
        let home = self.home_of(&name);
        if let Some((function, bytes)) = before {
            self.bytes -= bytes;
            self.tell(home, Message::LayerGone { function });
        }
        if let Some((function, bytes)) = after {
            self.bytes += bytes;
            self.tell(home, Message::LayerMade { function, bytes });
        }
    }

    fn remove(&mut self, version: u64) {
        self.set(version, State::Refused);
        self.entries.remove(&version);
    }

    /// Keeps an image if there is room, or if those not used for longest make some.
    fn keep(&mut self, version: u64, function: FunctionId, image: Arc<Image>) {
        if image.bytes() > self.limit_bytes {
            return self.set(version, State::Refused);
        }
        while self.bytes + image.bytes() > self.limit_bytes {
            let ready = self.entries.iter().filter_map(|(version, entry)| match entry.state {
                State::Ready { used, .. } => Some((used, *version)),
                _ => None,
            });
            let Some((_, oldest)) = ready.min() else { return };
            self.set(oldest, State::Starts(AFTER_EVICTION));
        }
        let used = self.uses;
        self.set(version, State::Ready { function, image, used });
    }
}
