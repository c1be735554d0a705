//! The warm path through the rings allocates nothing: counted by an allocator of this binary's own, which is why it is a
//! binary.

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use vilya_ipc::guest::{Guest, Next};
use vilya_ipc::host::{Host, Payload, ReadOnlyBy, Submission};
use vilya_ipc::layout::RegionSpec;
use vilya_ipc::metadata::{AlignedVec, RequestMetadata};

thread_local! {
    /// Per thread, because the test harness allocates on others.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call is passed on unchanged to the system's allocator; counting touches a thread-local cell that is
// initialised at compile time, so it neither allocates nor runs a destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises about `layout` are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises about `at` and `layout` are passed on.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations() -> u64 {
    ALLOCATIONS.with(Cell::get)
}

/// One invocation from the encoding of its metadata to the copy of its answer.
fn round_trip(host: &mut Host, guest: &mut Guest, metadata: &mut AlignedVec, request: &[u8], answer: &mut Vec<u8>) {
    let described = RequestMetadata {
        content_type: b"application/json; charset=utf-8",
        trace_parent: b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ..RequestMetadata::default()
    };
    described.encode(metadata).expect("it fits");
    let payload = Payload::Bytes(request);
    host.submit(&Submission { invocation: 1, lane: 0, deadline_ns: 0, metadata, payload }).expect("an idle lane");
    host.wake_if_parked();
    let Next::Invoke(mut invocation) = guest.next() else { panic!("an invocation was submitted") };
    let (request, mut response) = invocation.parts();
    response.set_content_type("text/plain").expect("a sound content type");
    response.write(request.payload()).expect("it fits");
    guest.returned(invocation);
    let claim = host.pop().expect("a true claim").expect("an answer");
    assert_eq!(*claim.metadata.content_type, *b"text/plain");
    answer.clear();
    host.copy_payload(&claim, answer);
}

#[test]
fn a_warm_round_trip_allocates_nothing_on_either_side() {
    let spec = RegionSpec { lanes: 1, payload_limit_bytes: 64 << 10 };
    let (mut host, fds) = Host::create(&spec, ReadOnlyBy::Seal).expect("regions can be made");
    // SAFETY: the descriptors come from `Host::create`, and no other guest has them.
    let mut guest = unsafe { Guest::from_fds(fds.down, fds.up, fds.doorbell) }.expect("of one ABI");
    guest.ready();
    assert!(host.pop().expect("a true claim").is_some());
    let (mut metadata, mut answer) = (AlignedVec::new(), Vec::new());
    for bytes in [20_000, 0, 100, 1000] {
        let request = vec![7; bytes];
        for _ in 0..3 {
            round_trip(&mut host, &mut guest, &mut metadata, &request, &mut answer);
        }
        let before = allocations();
        for _ in 0..100 {
            round_trip(&mut host, &mut guest, &mut metadata, &request, &mut answer);
        }
        assert_eq!(allocations() - before, 0, "{bytes} bytes");
        assert_eq!(answer, request);
    }
}
