//! Windows: the kernel receives into and sends from memory of the caller's, which stays as long as the kernel needs it.
#![allow(unsafe_code)]

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use vilya_reactor::{Op, Outcome, Pinned, SendData, Window};

use crate::support::{Rig, connection, errno, pattern, read_all, scene, small};

/// Heap memory that says when it goes.
struct Heap {
    bytes: *mut [u8],
    gone: Arc<AtomicBool>,
}

// SAFETY: the bytes are only touched through raw pointers, by one side at a time.
unsafe impl Send for Heap {}
// SAFETY: as for Send.
unsafe impl Sync for Heap {}
// SAFETY: the bytes were a box's and are freed when the value goes.
unsafe impl Pinned for Heap {
    fn base(&self) -> *mut u8 {
        self.bytes.cast()
    }

    fn bytes(&self) -> usize {
        self.bytes.len()
    }
}

impl Drop for Heap {
    fn drop(&mut self) {
        // SAFETY: made from a box in `heap`, freed once.
        drop(unsafe { Box::from_raw(self.bytes) });
        self.gone.store(true, Ordering::SeqCst);
    }
}

fn heap(bytes: &[u8]) -> (Arc<Heap>, Arc<AtomicBool>) {
    let gone = Arc::new(AtomicBool::new(false));
    (Arc::new(Heap { bytes: Box::into_raw(Box::from(bytes)), gone: Arc::clone(&gone) }), gone)
}

fn contents(heap: &Heap) -> Vec<u8> {
    // SAFETY: nothing is in flight when the tests look.
    unsafe { std::slice::from_raw_parts(heap.base(), heap.bytes()).to_vec() }
}

#[test]
fn bytes_arrive_where_the_window_is_and_nowhere_else() {
    scene(|| {
        let mut rig = Rig::new(&small());
        let (near, mut far) = connection();
        let (memory, _) = heap(&[0xEE; 100]);
        let window = Window::new(memory.clone(), 10, 50);
        far.write_all(&pattern(1, 80)).unwrap();
        rig.submit(1, Op::ReceiveInto { socket: near.as_raw_fd(), window: window.clone() });
        assert!(matches!(rig.next().outcome, Outcome::Filled(50)));
        rig.submit(2, Op::ReceiveInto { socket: near.as_raw_fd(), window: window.skip(20) });
        assert!(matches!(rig.next().outcome, Outcome::Filled(30)));
        let (sent, found) = (pattern(1, 80), contents(&memory));
        assert_eq!(found[..10], [0xEE; 10]);
        assert_eq!(found[10..30], sent[..20]);
        assert_eq!(found[30..60], sent[50..]);
        assert_eq!(found[60..], [0xEE; 40]);
        far.shutdown(Shutdown::Write).unwrap();
        rig.submit(3, Op::ReceiveInto { socket: near.as_raw_fd(), window });
        assert!(matches!(rig.next().outcome, Outcome::Ended));
    });
}

#[test]
fn an_interrupted_receive_ends_and_its_memory_is_free_then() {
    scene(|| {
        let mut rig = Rig::new(&small());
        let (near, _far) = connection();
        let (memory, gone) = heap(&[0; 64]);
        let fill =
            rig.submit(1, Op::ReceiveInto { socket: near.as_raw_fd(), window: Window::new(memory.clone(), 0, 64) });
        assert!(rig.poll().is_none());
        drop(memory);
        assert!(!gone.load(Ordering::SeqCst), "the kernel may still write");
        rig.reactor.interrupt(fill);
        assert_eq!(errno(&rig.next().outcome), Some(libc::ECANCELED));
        assert!(gone.load(Ordering::SeqCst));
    });
}

#[test]
fn an_abandoned_receive_keeps_its_memory_until_the_kernel_is_done() {
    scene(|| {
        let mut rig = Rig::new(&small());
        let (near, _far) = connection();
        let (memory, gone) = heap(&[0; 64]);
        let fill = rig.submit(1, Op::ReceiveInto { socket: near.as_raw_fd(), window: Window::new(memory, 0, 64) });
        assert!(rig.poll().is_none());
        rig.reactor.abandon(fill);
        assert!(!gone.load(Ordering::SeqCst));
        rig.turn_until(|rig| rig.reactor.operations_live() == 0);
        assert!(gone.load(Ordering::SeqCst));
    });
}

#[test]
fn an_interrupted_send_says_how_far_it_got() {
    scene(|| {
        let mut rig = Rig::new(&small());
        let (near, far) = connection();
        let bytes = pattern(9, 64 << 20);
        let (memory, _) = heap(&bytes);
        let window = Window::new(memory, 0, bytes.len());
        let send = rig.submit(1, Op::Send { socket: near.as_raw_fd(), data: SendData::Window(window) });
        assert!(rig.poll().is_none(), "more than the socket holds");
        rig.reactor.interrupt(send);
        let Outcome::Failed { errno: libc::ECANCELED, data: Some(SendData::Window(window)), sent_bytes } =
            rig.next().outcome
        else {
            panic!("a send that was interrupted")
        };
        assert!((1..bytes.len()).contains(&sent_bytes), "{sent_bytes}");
        // What was left can be sent by another operation, and the peer sees no seam.
        let reader = std::thread::spawn(move || read_all(far));
        rig.submit(2, Op::Send { socket: near.as_raw_fd(), data: SendData::Window(window.skip(sent_bytes)) });
        assert!(matches!(rig.next().outcome, Outcome::Sent(SendData::Window(_))));
        near.shutdown(Shutdown::Write).unwrap();
        assert!(reader.join().unwrap() == bytes);
    });
}

#[test]
fn one_piece_is_received_and_the_next_goes_where_the_caller_says() {
    scene(|| {
        let mut rig = Rig::new(&small());
        let (near, mut far) = connection();
        far.write_all(&pattern(2, 1500)).unwrap();
        rig.submit(1, Op::ReceiveOnce { socket: near.as_raw_fd() });
        let completion = rig.next();
        let Outcome::Received(chunk) = completion.outcome else { panic!("{completion:?}") };
        assert!(!completion.more);
        assert_eq!(rig.reactor.chunk(&chunk), &pattern(2, 1500)[..1024]);
        rig.reactor.recycle(chunk);
        assert!(rig.poll().is_none(), "nothing more is received unasked");
        let (memory, _) = heap(&[0; 1000]);
        rig.submit(2, Op::ReceiveInto { socket: near.as_raw_fd(), window: Window::new(memory.clone(), 0, 1000) });
        assert!(matches!(rig.next().outcome, Outcome::Filled(476)));
        assert_eq!(contents(&memory)[..476], pattern(2, 1500)[1024..]);
    });
}

#[test]
fn a_window_is_sent_from_where_it_lies() {
    scene(|| {
        let mut rig = Rig::new(&small());
        let (near, mut far) = connection();
        let (memory, _) = heap(&pattern(4, 100));
        let data = SendData::Window(Window::new(memory, 40, 20));
        rig.submit(1, Op::Send { socket: near.as_raw_fd(), data });
        assert!(matches!(rig.next().outcome, Outcome::Sent(_)));
        let mut back = [0; 20];
        far.read_exact(&mut back).unwrap();
        assert_eq!(back, pattern(4, 100)[40..60]);
    });
}

#[test]
#[should_panic(expected = "a window lies in its memory")]
fn a_window_beyond_its_memory_is_none() {
    let (memory, _) = heap(&[0; 10]);
    let _ = Window::new(memory, 5, 6);
}
