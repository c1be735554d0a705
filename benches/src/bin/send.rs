//! Whether the kernel should send an answer from shared memory without copying it: `IORING_OP_SEND`, as the reactor does it,
//! against `IORING_OP_SEND_ZC` with and without a registered buffer, over a loopback connection to a thread that reads.
//!
//! One send at a time, from a mapping of a memfd as a lane's is: the memory is another's again only after the kernel's
//! notification, and that is waited for, where a copy is over once it is made. The sender runs on the second core, the reader
//! on the first. Processor time is the threads' own; the sender's has its share of the loopback's delivery in it, unless the
//! kernel accounts for interrupts by themselves (`CONFIG_IRQ_TIME_ACCOUNTING`). What is pinned counts against
//! `RLIMIT_MEMLOCK` unless the process may lock memory.
//!
//! Usage: `send [--json] [--quick] [--csv FILE] [--rounds N]`.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, Read};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use memmap2::MmapMut;
use nix::libc;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::time::{ClockId, clock_gettime};
use serde_json::json;
use vilya_benches::exchange::payload;
use vilya_benches::figures::Figures;
use vilya_benches::options::Options;
use vilya_benches::peer::pin;
use vilya_benches::report;
use vilya_benches::{CLIENT_CORE, Failure, SERVER_CORE, machine};

const SIZES: [(&str, usize); 5] =
    [("kib_16", 16 << 10), ("kib_64", 64 << 10), ("kib_256", 256 << 10), ("mib_1", 1 << 20), ("mib_16", 16 << 20)];
/// Sent in one go of a size and a kind.
const GO_BYTES: usize = 128 << 20;
const READ_BYTES: usize = 256 << 10;
/// A kernel that says nothing for so long never will.
const PATIENCE_S: u64 = 10;
/// The kernel is to say in the notification whether it copied after all (`IORING_SEND_ZC_REPORT_USAGE`), and says so there
/// (`IORING_NOTIF_USAGE_ZC_COPIED`). Linux 6.2.
const REPORT_USAGE: u16 = 1 << 3;
const WAS_COPIED: u32 = 1 << 31;
const HEAD: &str = "round,bytes,kind,wall_us,sender_cpu_us,reader_cpu_us,copied";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Copied,
    Uncopied,
    UncopiedRegistered,
}

impl Kind {
    const ALL: [Kind; 3] = [Kind::Copied, Kind::Uncopied, Kind::UncopiedRegistered];

    fn name(self) -> &'static str {
        match self {
            Kind::Copied => "send",
            Kind::Uncopied => "send_zc",
            Kind::UncopiedRegistered => "send_zc_registered",
        }
    }
}

/// One send, on average over a go.
struct Row {
    bytes: usize,
    size: &'static str,
    kind: Kind,
    wall_us: f64,
    sender_cpu_us: f64,
    reader_cpu_us: f64,
    /// The share of the notifications that say that the kernel copied.
    copied: f64,
}

fn main() -> Result<(), Failure> {
    let options = Options::read(&["--json", "--quick"], &["--csv", "--rounds"])?;
    let quick = options.has("--quick");
    let rounds = options.value("--rounds", if quick { 1 } else { 9 })?;
    // The largest is more than may be pinned by whoever may not lock memory.
    let sizes = if quick { &SIZES[..4] } else { &SIZES };
    let go_bytes = if quick { GO_BYTES / 32 } else { GO_BYTES };
    let largest = sizes.iter().map(|&(_, bytes)| bytes).max().unwrap_or_default();
    let machine = machine::description();
    let mut loopback = Loopback::start(largest)?;
    let (mut figures, mut csv) = (Figures::default(), format!("{HEAD}\n"));
    // One round to warm up is thrown away.
    for round in 0..=rounds {
        for &(size, bytes) in sizes {
            for kind in Kind::ALL {
                let row = loopback.go(size, bytes, kind, (go_bytes / bytes).max(1))?;
                if round > 0 {
                    note(&row, &mut figures);
                    csv += &line(round, &row);
                }
            }
        }
    }
    let path: String = options.value("--csv", String::new())?;
    if !path.is_empty() {
        std::fs::write(&path, csv).map_err(|error| format!("{path}: {error}"))?;
    }
    compare(sizes, &mut figures);
    let facts = json!({ "machine": machine, "rounds": rounds, "bytes_a_round": go_bytes });
    report::print(&report::assemble(&figures, &[], &[], &facts), options.has("--json"));
    Ok(())
}

fn line(round: usize, row: &Row) -> String {
    let Row { bytes, kind, wall_us, sender_cpu_us, reader_cpu_us, copied, .. } = row;
    let kind = kind.name();
    format!("{round},{bytes},{kind},{wall_us:.2},{sender_cpu_us:.2},{reader_cpu_us:.2},{copied:.3}\n")
}

fn note(row: &Row, figures: &mut Figures) {
    let (kind, size) = (row.kind.name(), row.size);
    figures.push(&format!("{kind}.{size}_us"), row.wall_us);
    figures.push(&format!("{kind}.{size}_cpu_us"), row.sender_cpu_us);
    if row.kind != Kind::Copied {
        figures.push(&format!("{kind}.{size}_copied"), row.copied);
    }
}

/// What leaving the copy out costs or spares the sender, in the same round.
fn compare(sizes: &[(&str, usize)], figures: &mut Figures) {
    for kind in [Kind::Uncopied, Kind::UncopiedRegistered].map(Kind::name) {
        for (size, _) in sizes {
            for unit in ["us", "cpu_us"] {
                let pair =
                    figures.get(&format!("{kind}.{size}_{unit}")).zip(figures.get(&format!("send.{size}_{unit}")));
                let Some(ratio) = pair.map(|(without, with)| without.over(with)) else { continue };
                figures.insert(&format!("ratio.{kind}_{size}_{unit}"), ratio);
            }
        }
    }
}

/// A connection, a ring that sends on it, and what it sends.
struct Loopback {
    // Before the memory, so that it is dropped first.
    ring: IoUring,
    memory: MmapMut,
    socket: TcpStream,
    to_read: Sender<usize>,
    /// What reading it took the reader, in nanoseconds of its core.
    was_read: Receiver<u64>,
}

impl Loopback {
    fn start(bytes: usize) -> Result<Loopback, Failure> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let socket = TcpStream::connect(listener.local_addr()?)?;
        socket.set_nodelay(true)?;
        let (stream, _) = listener.accept()?;
        let (to_read, told) = channel();
        let (tell, was_read) = channel();
        std::thread::spawn(move || {
            pin(Some(CLIENT_CORE));
            // What ends it ends the channel, and that is reported there.
            let _ = read_all(stream, &told, &tell);
        });
        pin(Some(SERVER_CORE));
        let file = File::from(memfd_create(c"answer", MFdFlags::MFD_CLOEXEC)?);
        file.set_len(bytes as u64)?;
        // SAFETY: nobody else has the memfd, so that it neither shrinks nor changes.
        let mut memory = unsafe { MmapMut::map_mut(&file)? };
        memory.copy_from_slice(&payload(bytes));
        // As the reactor's.
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_coop_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .build(8)?;
        let buffer = libc::iovec { iov_base: memory.as_mut_ptr().cast(), iov_len: bytes };
        // SAFETY: the memory is mapped until after the ring has been dropped.
        unsafe { ring.submitter().register_buffers(&[buffer]) }
            .map_err(|error| format!("{bytes} bytes cannot be registered: {error}"))?;
        Ok(Loopback { ring, memory, socket, to_read, was_read })
    }

    /// Sends the first `bytes` of the memory so many times, until the last of it has been read.
    fn go(&mut self, size: &'static str, bytes: usize, kind: Kind, sends: usize) -> Result<Row, Failure> {
        self.to_read.send(sends * bytes)?;
        let (since, since_cpu_ns) = (Instant::now(), thread_cpu_ns()?);
        let (mut notices, mut copies) = (0_u32, 0_u32);
        for _ in 0..sends {
            let mut at = 0;
            while at < bytes {
                let settled = self.send(kind, at, bytes)?;
                at += settled.bytes;
                notices += u32::from(settled.copied.is_some());
                copies += u32::from(settled.copied == Some(true));
            }
        }
        let sender_cpu_ns = thread_cpu_ns()? - since_cpu_ns;
        let reader_cpu_ns = self.was_read.recv().map_err(|_| "the reader has ended")?;
        let wall = since.elapsed();
        let us = |ns: u64| ns as f64 / 1000.0 / sends as f64;
        Ok(Row {
            bytes,
            size,
            kind,
            wall_us: us(wall.as_nanos() as u64),
            sender_cpu_us: us(sender_cpu_ns),
            reader_cpu_us: us(reader_cpu_ns),
            copied: f64::from(copies) / f64::from(notices.max(1)),
        })
    }

    /// Sends what lies between two offsets, or the beginning of it.
    fn send(&mut self, kind: Kind, at: usize, end: usize) -> Result<Settled, Failure> {
        let entry = entry(kind, self.socket.as_raw_fd(), &self.memory[at..end]);
        // SAFETY: the memory is mapped until after the ring has been dropped, and nobody writes to it.
        unsafe { self.ring.submission().push(&entry) }?;
        // One system call for both completions, which is the best that a worker could do.
        let wanted = if kind == Kind::Copied { 1 } else { 2 };
        let patience = Timespec::new().sec(PATIENCE_S);
        let mut settling = Settling::default();
        loop {
            let entered = self.ring.submitter().submit_with_args(wanted, &SubmitArgs::new().timespec(&patience));
            for completion in self.ring.completion() {
                settling.take(&completion);
            }
            if let Some(settled) = settling.settled()? {
                return Ok(settled);
            }
            match entered {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error.into()),
                _ => {}
            }
        }
    }
}

/// A send without a copy takes the memory by its address, or as a part of the registered buffer.
fn entry(kind: Kind, socket: i32, bytes: &[u8]) -> squeue::Entry {
    let flags = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;
    let (address, length) = (bytes.as_ptr(), bytes.len() as u32);
    match kind {
        Kind::Copied => opcode::Send::new(Fd(socket), address, length).flags(flags).build(),
        Kind::Uncopied | Kind::UncopiedRegistered => {
            let send = opcode::SendZc::new(Fd(socket), address, length).flags(flags).zc_flags(REPORT_USAGE);
            send.buf_index((kind == Kind::UncopiedRegistered).then_some(0)).build()
        }
    }
}

/// A send that is over, and its memory free.
struct Settled {
    bytes: usize,
    /// Whether the kernel copied after all, where it was asked not to.
    copied: Option<bool>,
}

/// What is known of a send under way.
#[derive(Default)]
struct Settling {
    result: Option<i32>,
    notice_follows: bool,
    copied: Option<bool>,
}

impl Settling {
    fn take(&mut self, completion: &cqueue::Entry) {
        if cqueue::notif(completion.flags()) {
            self.copied = Some(completion.result() as u32 & WAS_COPIED != 0);
        } else {
            self.result = Some(completion.result());
            self.notice_follows = cqueue::more(completion.flags());
        }
    }

    fn settled(&self) -> io::Result<Option<Settled>> {
        match self.result {
            Some(errno) if errno < 0 => Err(io::Error::from_raw_os_error(-errno)),
            Some(0) => Err(io::ErrorKind::WriteZero.into()),
            Some(bytes) if !self.notice_follows || self.copied.is_some() => {
                Ok(Some(Settled { bytes: bytes as usize, copied: self.copied }))
            }
            _ => Ok(None),
        }
    }
}

/// Reads as much as it is told to and says what that took, until it is told no more.
fn read_all(mut stream: TcpStream, told: &Receiver<usize>, tell: &Sender<u64>) -> Result<(), Failure> {
    let mut buffer = vec![0; READ_BYTES];
    for mut left in told {
        let since_cpu_ns = thread_cpu_ns()?;
        while left > 0 {
            match stream.read(&mut buffer)? {
                0 => return Ok(()),
                read => left -= read,
            }
        }
        tell.send(thread_cpu_ns()? - since_cpu_ns)?;
    }
    Ok(())
}

/// Processor time of the calling thread so far.
fn thread_cpu_ns() -> nix::Result<u64> {
    Ok(Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?).as_nanos() as u64)
}
