//! What the children can do that work on hostile bytes, and what becomes of them.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::Write;
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use tempfile::TempDir;
use vilya_isolate::{Bounds, Finished, Job, JobError, Unpacker};

const PATIENCE: Duration = Duration::from_secs(120);
const BOUNDS: Bounds =
    Bounds { memory_bytes: 64 << 20, file_bytes: 1 << 20, processor: Duration::from_secs(60), patience: PATIENCE };

/// What a child of these tests does, by the first word of its request.
fn work(request: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(request).into_owned();
    match text.split_once(' ').unwrap_or((&text, "")) {
        ("echo", rest) => rest.as_bytes().to_vec(),
        ("read", _) => std::io::read_to_string(std::io::stdin()).unwrap_or_else(|error| error.to_string()).into(),
        ("attempts", _) => attempts(Path::new(Unpacker::TREE)).into(),
        ("see", _) => see().into(),
        ("make", _) => make().map_or_else(|error| error.to_string(), |()| "made".to_owned()).into(),
        ("grow", _) => fs::write("/tree/large", vec![0; 2 << 20])
            .map_or_else(|error| error.to_string(), |()| "grown".to_owned())
            .into(),
        ("hoard", _) => vec![1; 1 << 30],
        ("overflow", _) => vec![1; 2 << 20],
        ("panic", _) => panic!("of its own"),
        ("spin", _) => spin(),
        _ => b"?".to_vec(),
    }
}

fn spin() -> ! {
    fs::write("/tree/begun", "").expect("it may write there");
    loop {
        std::hint::spin_loop();
    }
}

/// Each by its name, and whether it came to something.
fn attempts(base: &Path) -> String {
    let file = base.join("file");
    let _ = fs::write(&file, "text");
    let of = |name: &str, done: bool| format!("{name} {}\n", if done { "done" } else { "refused" });
    let set_user =
        |options: &mut OpenOptions| options.write(true).create_new(true).mode(0o4755).open(base.join("set")).is_ok();
    let own = fs::metadata(&file).map(|found| (found.uid(), found.gid()));
    [
        of("a socket", TcpListener::bind("127.0.0.1:0").is_ok()),
        of("a pair of sockets", UnixStream::pair().is_ok()),
        of("a file of the system", fs::read("/etc/passwd").is_ok()),
        of("its own process", fs::read("/proc/self/status").is_ok()),
        of("a program", Command::new("/bin/true").status().is_ok()),
        of("a thread", std::thread::Builder::new().spawn(|| ()).is_ok()),
        of("a pipe", std::io::pipe().is_ok()),
        of("a FIFO", mkfifo(&base.join("fifo"), Mode::S_IRWXU).is_ok()),
        of("a mode with set-user-id", fs::set_permissions(&file, Permissions::from_mode(0o4755)).is_ok()),
        of("a file made with set-user-id", set_user(&mut OpenOptions::new())),
        of("an owner", own.is_ok_and(|(user, group)| chown(&file, Some(user), Some(group)).is_ok())),
        of("a mode without rights", fs::set_permissions(&file, Permissions::from_mode(0o000)).is_ok()),
        of("a directory without rights", DirBuilder::new().mode(0o077).create(base.join("closed")).is_ok()),
        of("a rename", fs::rename(&file, base.join("renamed")).is_ok()),
    ]
    .concat()
}

/// What is there, whether it can be changed, what is in the folder, and which descriptors are free.
fn see() -> String {
    let names = ["bin", "dev", "etc", "folder", "proc", "sys", "tmp", "tree", "usr"];
    let there: Vec<_> = names.iter().filter(|name| fs::symlink_metadata(Path::new("/").join(name)).is_ok()).collect();
    let root_written = fs::write("/x", "").is_ok() || fs::create_dir("/d").is_ok();
    let folder_written = fs::write("/folder/x", "").is_ok() || fs::remove_file("/folder/given").is_ok();
    let given = fs::read_to_string("/folder/given").unwrap_or_default();
    let opened: Vec<File> = std::iter::from_fn(|| File::open("/folder/given").ok()).collect();
    let numbers: Vec<i32> = opened.iter().map(AsRawFd::as_raw_fd).collect();
    let are_all_free = numbers.iter().zip(3..).all(|(number, next)| *number == next);
    format!("{there:?} {root_written} {folder_written} {given} {are_all_free} {}", numbers.len())
}

fn make() -> std::io::Result<()> {
    fs::create_dir_all("/tree/a/b")?;
    fs::write("/tree/a/b/file", "text")?;
    fs::set_permissions("/tree/a/b/file", Permissions::from_mode(0o755))?;
    symlink("../..", "/tree/a/b/link")?;
    fs::hard_link("/tree/a/b/file", "/tree/other")?;
    fs::create_dir_all("/tree/gone/with/all")?;
    fs::remove_dir_all("/tree/gone")
}

/// A place for jobs.
struct Bench {
    unpacker: Unpacker,
    place: TempDir,
}

impl Bench {
    fn new() -> Bench {
        let place = tempfile::tempdir().expect("a temporary directory");
        for name in ["staging", "folder", "tree"] {
            fs::create_dir(place.path().join(name)).expect("a fresh directory");
        }
        fs::write(place.path().join("folder/given"), "given").expect("a fresh directory");
        Bench { unpacker: Unpacker::start(work).expect("it starts"), place }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    fn run_within(&self, request: &str, bounds: Bounds) -> Result<Finished, JobError> {
        let [staging, folder, tree] = ["staging", "folder", "tree"].map(|name| self.path(name));
        let job = Job {
            request: request.as_bytes(),
            staging: &staging,
            folder: Some(&folder),
            input: None,
            tree: Some(&tree),
            bounds,
        };
        self.unpacker.run(&job)
    }

    fn run(&self, request: &str) -> Result<Finished, JobError> {
        self.run_within(request, BOUNDS)
    }

    fn answer(&self, request: &str) -> String {
        let finished = self.run(request).unwrap_or_else(|error| panic!("{request}: {error}"));
        String::from_utf8(finished.answer).expect("text")
    }

    /// The process that makes the children.
    fn service(&self) -> i32 {
        self.unpacker.process().expect("it is there")
    }
}

fn children(pid: i32) -> Vec<i32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = tasks.map(|task| fs::read_to_string(task.path().join("children")).unwrap_or_default());
    lists.flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect()
}

fn kill(pid: i32) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).expect("it is there");
}

/// Waits for something of another process.
fn await_that(what: &str, mut holds: impl FnMut() -> bool) {
    let since = Instant::now();
    while !holds() {
        assert!(since.elapsed() < PATIENCE, "{what} does not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_child_answers_and_makes_files_and_is_another_user() {
    let bench = Bench::new();
    assert_eq!(bench.answer("echo back"), "back");
    assert_eq!(bench.answer("make"), "made");
    let file = fs::metadata(bench.path("tree/a/b/file")).expect("it was made");
    let own = fs::metadata(bench.path("folder")).expect("of this test").uid();
    let owner = bench.run("echo").expect("an answer").owner;
    assert_eq!((file.uid(), file.nlink()), (owner.0, 2));
    assert_eq!(file.uid() != own, own == 0, "as root it is somebody else's");
    assert!(!bench.path("tree/gone").exists() && bench.path("tree/a/b/link").is_symlink());
    let mut input = tempfile::tempfile().expect("a file");
    input.write_all(b"from outside").expect("a file");
    let input = File::open(format!("/proc/self/fd/{}", input.as_raw_fd())).expect("once more");
    let staging = bench.path("staging");
    let job = Job {
        request: b"read",
        staging: &staging,
        folder: None,
        input: Some(input.as_fd()),
        tree: None,
        bounds: BOUNDS,
    };
    assert_eq!(bench.unpacker.run(&job).expect("an answer").answer, b"from outside");
}

#[test]
fn a_child_sees_its_two_directories_and_nothing_else() {
    let bench = Bench::new();
    assert_eq!(bench.answer("see"), r#"["folder", "tree"] false false given true 125"#);
    assert_eq!(fs::read_to_string(bench.path("folder/given")).expect("still there"), "given");
    assert_eq!(fs::read_dir(bench.path("staging")).expect("it is there").count(), 0, "its root is its own");
}

#[test]
fn a_child_can_do_nothing_but_unpack() {
    let outside = tempfile::tempdir().expect("a temporary directory");
    let possible = attempts(outside.path());
    assert!(!possible.contains("refused"), "each comes to something here:\n{possible}");
    let bench = Bench::new();
    let inside = bench.answer("attempts");
    assert_eq!(inside.lines().count(), possible.lines().count());
    assert!(inside.lines().all(|line| line.ends_with(" refused")), "{inside}");
}

#[test]
fn a_child_that_takes_too_much_is_ended_and_the_next_is_not() {
    let bench = Bench::new();
    let memory = bench.run("hoard").expect_err("a gigabyte").to_string();
    assert!(memory.contains("signal") && memory.contains("memory allocation of"), "{memory}");
    let file = bench.answer("grow");
    assert!(file.contains("too large"), "{file}");
    let answer = bench.run("overflow").expect_err("two megabytes");
    assert!(matches!(answer, JobError::Senseless), "{answer}");
    let bounds = Bounds { processor: Duration::from_secs(1), ..BOUNDS };
    let processor = bench.run_within("spin", bounds).expect_err("no end").to_string();
    assert!(processor.contains("processor time"), "{processor}");
    fs::remove_file(bench.path("tree/begun")).expect("it began");
    let bounds = Bounds { patience: Duration::from_secs(1), ..BOUNDS };
    let late = bench.run_within("spin", bounds).expect_err("no end");
    assert!(matches!(late, JobError::Late(_)), "{late}");
    assert_eq!(children(bench.service()), Vec::<i32>::new(), "it is gone when that is said");
    let panicked = bench.run("panic").expect_err("no answer").to_string();
    assert!(panicked.contains("status 101") && panicked.contains("of its own"), "{panicked}");
    assert_eq!(bench.answer("echo back"), "back");
}

#[test]
fn a_child_that_is_killed_is_said_to_be_and_dies_with_its_maker() {
    let bench = Bench::new();
    let service = bench.service();
    std::thread::scope(|scope| {
        let job = scope.spawn(|| bench.run("spin"));
        await_that("the job", || bench.path("tree/begun").exists());
        let [child] = children(service)[..] else { panic!("one child") };
        kill(child);
        let error = job.join().expect("no panic").expect_err("it was killed").to_string();
        assert!(error.contains("was killed"), "{error}");
        fs::remove_file(bench.path("tree/begun")).expect("it began");
        let job = scope.spawn(|| bench.run("spin"));
        await_that("the job", || bench.path("tree/begun").exists());
        let [child] = children(service)[..] else { panic!("one child") };
        kill(service);
        let error = job.join().expect("no panic").expect_err("nobody is left");
        assert!(matches!(error, JobError::Gone), "{error}");
        await_that("its end", || !is_running(child));
        assert!(matches!(bench.run("echo"), Err(JobError::Gone)));
    });
}

#[test]
fn a_job_ends_when_its_worker_stops_also_where_its_process_hangs() {
    let bench = Bench::new();
    std::thread::scope(|scope| {
        let job = scope.spawn(|| bench.run("spin"));
        await_that("the job", || bench.path("tree/begun").exists());
        let [child] = children(bench.service())[..] else { panic!("one child") };
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(child), nix::sys::signal::Signal::SIGSTOP)
            .expect("it is there");
        bench.unpacker.stop();
        let error = job.join().expect("no panic").expect_err("it was stopped");
        assert!(matches!(error, JobError::Stopped), "{error}");
        assert!(!is_running(child));
    });
    assert!(matches!(bench.run("echo"), Err(JobError::Stopped)), "nor is anything begun");
}

/// Neither gone nor dead and not waited for.
fn is_running(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

#[test]
fn what_cannot_be_confined_is_not_begun_and_nothing_is_left_open() {
    let bench = Bench::new();
    let service = bench.service();
    let open = || fs::read_dir(format!("/proc/{service}/fd")).expect("of our own").count();
    let there = open();
    let gone = bench.path("gone");
    let job = Job { request: b"echo", staging: &gone, folder: None, input: None, tree: None, bounds: BOUNDS };
    let error = bench.unpacker.run(&job).expect_err("no place for its root").to_string();
    assert!(error.contains("cannot be confined") && error.contains("tmpfs"), "{error}");
    for _ in 0..3 {
        assert_eq!(bench.answer("echo back"), "back");
    }
    await_that("the closing of what it was given", || open() == there);
    drop(bench);
    assert!(!is_running(service), "it ends with the worker's end of it");
}
