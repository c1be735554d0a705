//! The request path on glommio: a task a connection, one that waits for the doorbell, one that wakes the process.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::mpsc;
use std::task::{Poll, Waker};

use futures_lite::{AsyncReadExt, AsyncWriteExt};
use glommio::io::BufferedFile;
use glommio::net::{TcpListener, TcpStream};
use glommio::{GlommioError, LocalExecutorBuilder, Placement, spawn_local};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use vilya_protocol::http::{Decoder, Limits};

use super::Server;
use super::desk::{self, Desk};
use crate::SERVER_CORE;

const INPUT_BYTES: usize = 16 * 1024;
/// A doorbell that was rung more often than it was heard is read empty.
const RINGS_BYTES: usize = 512;

/// What the tasks of the executor share.
struct Shared {
    desk: Desk,
    /// By connection: an answer that has not been taken yet.
    answers: HashMap<usize, Vec<u8>>,
    /// By connection: who waits for its answer.
    expecting: HashMap<usize, Waker>,
    /// The task that wakes the process, when it has nothing to do.
    ringer: Option<Waker>,
}

type Desks = Rc<RefCell<Shared>>;

/// A named pipe: the path for glommio, which opens what it reads by itself, and an end to write to.
struct Doorbell {
    path: PathBuf,
    writer: OwnedFd,
}

impl Doorbell {
    fn create() -> io::Result<Doorbell> {
        let path = std::env::temp_dir().join(format!("vilya-doorbell-{}", std::process::id()));
        mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR)?;
        // Opened for both, so that neither end waits for the other to be opened.
        let writer = std::fs::File::options().read(true).write(true).open(&path)?.into();
        Ok(Doorbell { path, writer })
    }
}

pub(super) fn start() -> io::Result<Server> {
    let (tell, started) = mpsc::channel();
    // The calling thread may be bound already, so the machine is asked and not the thread.
    let present = std::path::Path::new(&format!("/sys/devices/system/cpu/cpu{SERVER_CORE}")).exists();
    let placement = if present { Placement::Fixed(SERVER_CORE) } else { Placement::Unbound };
    let executor = LocalExecutorBuilder::new(placement).name("compare-glommio").spawn(move || async move {
        if let Err(error) = serve(&tell).await {
            // Started before: its clients find their connections closed, and report that.
            let _ = tell.send(Err(error));
        }
    });
    let executor = executor.map_err(io::Error::from)?;
    let address = started.recv().map_err(io::Error::other)??;
    // It serves until the program ends.
    drop(executor);
    Ok(Server { address })
}

async fn serve(tell: &mpsc::Sender<io::Result<std::net::SocketAddr>>) -> io::Result<()> {
    let Doorbell { path, writer } = Doorbell::create()?;
    let doorbell = BufferedFile::open(&path).await?;
    std::fs::remove_file(&path)?;
    let shared =
        Shared { desk: Desk::start(Some(writer))?, answers: HashMap::new(), expecting: HashMap::new(), ringer: None };
    let shared = Rc::new(RefCell::new(shared));
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let _ = tell.send(Ok(listener.local_addr()?));
    spawn_local(ring(Rc::clone(&shared))).detach();
    spawn_local(hear(doorbell, Rc::clone(&shared))).detach();
    for number in 0.. {
        let stream = listener.accept().await?;
        stream.set_nodelay(true)?;
        spawn_local(converse(stream, number, Rc::clone(&shared))).detach();
    }
    Ok(())
}

/// Serves one connection until it ends.
async fn converse(mut stream: TcpStream, number: usize, shared: Desks) -> io::Result<()> {
    let mut decoder = Decoder::new(Limits::default());
    let (mut input, mut body, mut output) = (vec![0; INPUT_BYTES], Vec::new(), Vec::new());
    loop {
        let read = stream.read(&mut input).await?;
        if read == 0 {
            return Ok(());
        }
        if !desk::read(&mut decoder, &input[..read], &mut body)? {
            continue;
        }
        shared.borrow_mut().submit(number, &body)?;
        let answer = poll_fn(|context| {
            let mut shared = shared.borrow_mut();
            match shared.answers.remove(&number) {
                Some(answer) => Poll::Ready(answer),
                None => {
                    shared.expecting.insert(number, context.waker().clone());
                    Poll::Pending
                }
            }
        });
        let answer = answer.await;
        output.clear();
        desk::write(&answer, &mut output);
        stream.write_all(&output).await?;
    }
}

impl Shared {
    fn submit(&mut self, connection: usize, body: &[u8]) -> io::Result<()> {
        self.desk.submit(connection, body)?;
        if let Some(ringer) = self.ringer.take() {
            ringer.wake();
        }
        Ok(())
    }
}

/// Wakes the process behind the requests that were taken in the same round of tasks.
async fn ring(shared: Desks) {
    loop {
        poll_fn(|context| {
            let mut shared = shared.borrow_mut();
            shared.desk.wake();
            shared.ringer = Some(context.waker().clone());
            Poll::<()>::Pending
        })
        .await;
    }
}

/// Takes answers out of the rings, and reads the doorbell when there are none.
async fn hear(doorbell: BufferedFile, shared: Desks) -> Result<(), GlommioError<()>> {
    loop {
        let sleep = {
            let shared = &mut *shared.borrow_mut();
            shared.desk.announce_unpark();
            let Shared { desk, answers, expecting, .. } = shared;
            desk.answers(|connection, body| {
                answers.insert(connection, body.to_vec());
                if let Some(waker) = expecting.remove(&connection) {
                    waker.wake();
                }
            })?;
            desk.wake();
            desk.announce_park()
        };
        if sleep {
            doorbell.read_at(0, RINGS_BYTES).await?;
        }
    }
}
