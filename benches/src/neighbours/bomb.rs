//! A function that harms its neighbours as well as it can, for as long as it is held.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use vilya_benches::testbed::Testbed;
use vilya_benches::{Failure, http};

const FUNCTION: &str = "bomb";
/// How long one invocation goes on; the next follows at once.
const SECONDS: f64 = 0.5;

/// What is taken.
pub(crate) const KINDS: [&str; 6] = ["fork", "memory", "cpu", "disk", "log", "doorbell"];

/// Deploys the function.
pub(crate) fn deploy(worker: &Testbed) -> Result<(), Failure> {
    worker.deploy_python_with(FUNCTION, include_str!("bombs.py"), "memory = \"128MiB\"\ntimeout = \"1m\"\n")
}

/// A bomb that goes off again and again until it is dropped.
pub(crate) struct Bomb {
    done: Arc<AtomicBool>,
    thread: Option<JoinHandle<u32>>,
}

impl Bomb {
    /// Lights it, and waits until it runs.
    pub(crate) fn light(worker: &Testbed, kind: &str) -> Result<Bomb, Failure> {
        let done = Arc::new(AtomicBool::new(false));
        let body = format!("{{\"kind\": \"{kind}\", \"seconds\": {SECONDS}}}");
        let request = http::request("POST", &format!("/fn/{FUNCTION}"), body.as_bytes());
        let (told, address) = (Arc::clone(&done), worker.address());
        let thread = std::thread::spawn(move || burn(address, &request, &told));
        let bomb = Bomb { done, thread: Some(thread) };
        worker.await_metric("vilya_invocations_open", |open| open >= 1.0)?;
        Ok(bomb)
    }

    /// Puts it out; how often it went off.
    pub(crate) fn put_out(mut self) -> u32 {
        self.end()
    }

    fn end(&mut self) -> u32 {
        // Relaxed: a flag that stands alone.
        self.done.store(true, Ordering::Relaxed);
        self.thread.take().map_or(0, |thread| thread.join().unwrap_or(0))
    }
}

impl Drop for Bomb {
    fn drop(&mut self) {
        self.end();
    }
}

/// One whose sandbox is killed for it is answered with an error: it went off all the same.
fn burn(address: SocketAddr, request: &[u8], done: &AtomicBool) -> u32 {
    let mut times = 0;
    // Relaxed: a flag that stands alone.
    while !done.load(Ordering::Relaxed) {
        match http::ask(address, request) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::Other => {}
            Err(_) => return times,
        }
        times += 1;
    }
    times
}
