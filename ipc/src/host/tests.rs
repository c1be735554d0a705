//! A host and a guest in one process, over real regions.

use super::*;
use crate::guest::{Guest, Invocation, Next};
use crate::hostile::HostileUp;
use crate::layout::{DESCRIPTOR_BYTES, INLINE_BYTES, RegionSpec, completion_kind};
use crate::metadata::RequestMetadata;
use crate::ring::IndexError;
use rkyv::util::AlignedVec;
use std::os::fd::AsRawFd;
use std::time::Duration;

const LIMIT: u64 = 100_000;

fn pair_at(lanes: u16, start: u32) -> (Host, Guest) {
    let (host, fds) =
        Host::create_at(&RegionSpec { lanes, payload_limit_bytes: LIMIT }, ReadOnlyBy::Seal, start).unwrap();
    let guest = Guest::join(fds.down, fds.up, fds.doorbell, start).unwrap();
    (host, guest)
}

/// A pair past its handshake.
pub(super) fn ready_pair(lanes: u16) -> (Host, Guest) {
    let (mut host, mut guest) = pair_at(lanes, 0);
    guest.ready();
    assert_eq!(host.pop().unwrap().unwrap().kind, ClaimKind::Ready);
    (host, guest)
}

fn metadata() -> AlignedVec {
    let mut out = AlignedVec::new();
    let metadata = RequestMetadata {
        request_id: *b"0123456789abcdef",
        received_unix_ms: 1_700_000_000_123,
        content_type: b"text/plain",
        trace_parent: b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    };
    metadata.encode(&mut out).unwrap();
    out
}

pub(super) fn submit(host: &mut Host, invocation: u64, lane: u16, payload: Payload<'_>) -> Result<(), SubmitError> {
    let metadata = metadata();
    host.submit(&Submission { invocation, lane, deadline_ns: 5, metadata: &metadata, payload })
}

fn take(guest: &mut Guest) -> Invocation {
    match guest.poll() {
        Some(Next::Invoke(invocation)) => invocation,
        _ => panic!("an invocation was submitted"),
    }
}

fn echo(guest: &mut Guest, mut invocation: Invocation) {
    let (request, mut response) = invocation.parts();
    response.write(request.payload()).unwrap();
    response.set_content_type("application/octet-stream").unwrap();
    guest.returned(invocation);
}

pub(super) fn payload_of(host: &Host, claim: &Claim) -> Vec<u8> {
    let mut out = Vec::new();
    host.copy_payload(claim, &mut out);
    out
}

#[test]
fn payloads_of_every_size_come_back_whole_with_their_metadata() {
    let (mut host, mut guest) = ready_pair(1);
    let inline = INLINE_BYTES as usize;
    let sizes = [0, 1, 15, 500, 900, 1024, inline - 200, inline - 128, inline, inline + 1, 4096, LIMIT as usize];
    for (invocation, size) in sizes.into_iter().chain(1000..1217).enumerate() {
        let payload: Vec<u8> = (0..size).map(|at| (at * 7 + size) as u8).collect();
        submit(&mut host, invocation as u64, 0, Payload::Bytes(&payload)).unwrap();
        let mut taken = take(&mut guest);
        let (request, _) = taken.parts();
        assert_eq!((request.payload(), request.deadline_ns()), (payload.as_slice(), 5));
        assert_eq!(request.metadata().request_id, *b"0123456789abcdef");
        assert_eq!(request.metadata().received_unix_ms.to_native(), 1_700_000_000_123);
        assert_eq!(request.metadata().content_type.as_slice(), b"text/plain");
        assert_eq!(request.metadata().trace_parent.as_slice()[..3], *b"00-");
        echo(&mut guest, taken);
        let claim = host.pop().unwrap().unwrap();
        assert_eq!((claim.kind, claim.invocation, claim.lane), (ClaimKind::Returned, invocation as u64, 0));
        assert_eq!(*claim.metadata.content_type, *b"application/octet-stream");
        assert_eq!(claim.payload_bytes(), size);
        assert!(payload_of(&host, &claim) == payload, "{size} bytes");
        assert_eq!(host.pop().unwrap(), None);
    }
}

#[test]
fn a_payload_received_into_its_lane_is_not_copied() {
    let (mut host, mut guest) = ready_pair(2);
    host.fill_request(1, 0, &[1; 10]).unwrap();
    host.fill_request(1, 10, &[2; 10]).unwrap();
    submit(&mut host, 9, 1, Payload::InLane { bytes: 20 }).unwrap();
    let mut taken = take(&mut guest);
    let (request, mut response) = taken.parts();
    assert_eq!(request.payload(), [[1; 10], [2; 10]].concat());
    response.reserve(5000).unwrap().fill(3);
    guest.returned(taken);
    let claim = host.pop().unwrap().unwrap();
    assert!(!claim.payload_in_slot());
    assert_eq!(payload_of(&host, &claim), [3; 5000]);
}

#[test]
fn completions_come_in_any_order_and_each_frees_its_lane() {
    let (mut host, mut guest) = ready_pair(3);
    for lane in 0..3 {
        submit(&mut host, 100 + u64::from(lane), lane, Payload::Bytes(&[lane as u8])).unwrap();
    }
    assert_eq!(submit(&mut host, 1, 1, Payload::Bytes(b"")), Err(SubmitError::LaneBusy(1)));
    let mut taken: Vec<_> = (0..3).map(|_| take(&mut guest)).collect();
    for lane in [2u16, 0, 1] {
        let at = taken.iter().position(|invocation| invocation.lane() == u32::from(lane)).unwrap();
        echo(&mut guest, taken.remove(at));
        let claim = host.pop().unwrap().unwrap();
        assert_eq!((claim.lane, claim.invocation), (lane, 100 + u64::from(lane)));
        assert_eq!(payload_of(&host, &claim), [lane as u8]);
        submit(&mut host, 200 + u64::from(lane), lane, Payload::Bytes(b"")).unwrap();
    }
}

#[test]
fn advice_and_stop_find_room_whatever_the_runtime_left_unread() {
    let (mut host, mut guest) = ready_pair(2);
    for round in 0..20u64 {
        for lane in 0..2u16 {
            let invocation = round * 2 + u64::from(lane);
            submit(&mut host, invocation, lane, Payload::Bytes(b"")).unwrap();
        }
        // The runtime reads just up to the invocations, never the advice behind them.
        let mut taken = Vec::new();
        while taken.len() < 2 {
            if let Some(Next::Invoke(invocation)) = guest.poll() {
                taken.push(invocation);
            }
        }
        for lane in 0..2u16 {
            let invocation = round * 2 + u64::from(lane);
            host.cancel(invocation, lane).unwrap();
            host.cancel(invocation, lane).unwrap();
        }
        for invocation in taken {
            guest.returned(invocation);
            assert!(host.pop().unwrap().is_some());
        }
    }
    let gone = host.cancel(39, 1);
    assert_eq!(gone, Err(SubmitError::NotRunning { invocation: 39, lane: 1 }));
    host.stop().unwrap();
    assert_eq!(submit(&mut host, 1, 0, Payload::Bytes(b"")), Err(SubmitError::Stopping));
    let rest: Vec<_> = std::iter::from_fn(|| guest.poll()).collect();
    assert!(matches!(rest[..], [Next::Cancel { invocation: 38, lane: 0 }, Next::Cancel { .. }, Next::Stop]));
}

#[test]
fn what_does_not_fit_is_refused_and_publishes_nothing() {
    let (mut host, mut guest) = ready_pair(1);
    let large = vec![0; LIMIT as usize + 1];
    let refused = SubmitError::PayloadTooLarge { bytes: LIMIT + 1, limit: LIMIT };
    assert_eq!(submit(&mut host, 1, 0, Payload::Bytes(&large)), Err(refused));
    assert_eq!(submit(&mut host, 1, 0, Payload::InLane { bytes: LIMIT + 1 }), Err(refused));
    assert_eq!(host.fill_request(0, LIMIT, b"x"), Err(refused));
    assert_eq!(submit(&mut host, 1, 1, Payload::Bytes(b"")), Err(SubmitError::NoSuchLane { lane: 1, lanes: 1 }));
    let long = vec![0; METADATA_BYTES as usize + 1];
    let submission =
        Submission { invocation: 1, lane: 0, deadline_ns: 0, metadata: &long, payload: Payload::Bytes(b"") };
    assert_eq!(host.submit(&submission), Err(SubmitError::MetadataTooLong(long.len())));
    assert!(guest.poll().is_none());

    submit(&mut host, 1, 0, Payload::Bytes(b"")).unwrap();
    let mut taken = take(&mut guest);
    let (_, mut response) = taken.parts();
    assert!(response.reserve(LIMIT as usize + 1).is_err());
    response.write(&large[..LIMIT as usize]).unwrap();
    assert!(response.write(b"x").is_err());
    assert!(response.set_content_type("text/plain\r\nset-cookie: a").is_err());
    assert_eq!(response.len(), LIMIT as usize);
    guest.raised(taken, b"{}");
    let claim = host.pop().unwrap().unwrap();
    assert_eq!((claim.kind, payload_of(&host, &claim)), (ClaimKind::Raised, b"{}".to_vec()));
}

#[test]
fn a_response_grows_from_private_memory_into_its_lane_without_losing_a_byte() {
    let (mut host, mut guest) = ready_pair(1);
    submit(&mut host, 1, 0, Payload::Bytes(b"")).unwrap();
    let mut taken = take(&mut guest);
    let (_, mut response) = taken.parts();
    let mut expected = Vec::new();
    for piece in 0..40u8 {
        response.write(&[piece; 77]).unwrap();
        expected.extend_from_slice(&[piece; 77]);
    }
    response.truncate(3000);
    guest.returned(taken);
    let claim = host.pop().unwrap().unwrap();
    assert!(payload_of(&host, &claim) == expected[..3000]);
}

#[test]
fn the_start_is_told_once_and_before_any_answer() {
    let (mut host, mut guest) = pair_at(1, 0);
    guest.init_failed(b"{\"errorType\":\"ImportError\"}");
    let claim = host.pop().unwrap().unwrap();
    assert_eq!(claim.kind, ClaimKind::InitFailed);
    assert!(payload_of(&host, &claim).starts_with(b"{\"errorType\""));
    guest.ready();
    assert_eq!(host.pop(), Err(Poison::StartedTwice));
    assert_eq!(host.pop(), Err(Poison::StartedTwice));
    assert!(!host.pending());
    assert_eq!(submit(&mut host, 1, 0, Payload::Bytes(b"")), Err(SubmitError::Poisoned(Poison::StartedTwice)));

    let (mut host, mut guest) = ready_pair(1);
    guest.ready();
    assert_eq!(host.pop(), Err(Poison::StartedTwice));

    let (mut host, mut guest) = pair_at(1, 0);
    submit(&mut host, 1, 0, Payload::Bytes(b"")).unwrap();
    let taken = take(&mut guest);
    guest.returned(taken);
    assert_eq!(host.pop(), Err(Poison::NotReady));
}

#[test]
fn a_sandbox_that_takes_nothing_fills_only_its_own_ring() {
    let (mut host, mut guest) = ready_pair(1);
    for invocation in 0..4 {
        submit(&mut host, invocation, 0, Payload::Bytes(b"")).unwrap();
        // As if it had answered without taking, which only a runtime that lies does.
        host.lanes[0] = Lane::default();
    }
    assert_eq!(submit(&mut host, 4, 0, Payload::Bytes(b"")), Err(SubmitError::Full));
    drop(take(&mut guest));
    submit(&mut host, 4, 0, Payload::Bytes(b"")).unwrap();
}

#[test]
#[should_panic(expected = "copy a payload in its slot before the next pop")]
fn a_payload_in_a_slot_is_not_read_after_the_next_pop() {
    let (mut host, mut guest) = ready_pair(2);
    for lane in 0..2 {
        submit(&mut host, u64::from(lane), lane, Payload::Bytes(b"abc")).unwrap();
        let taken = take(&mut guest);
        echo(&mut guest, taken);
    }
    let first = host.pop().unwrap().unwrap();
    let _second = host.pop().unwrap().unwrap();
    host.copy_payload(&first, &mut Vec::new());
}

/// A host is made on one thread and used on another.
#[test]
fn a_host_moves_between_threads() {
    fn is_send<T: Send>() {}
    is_send::<Host>();
    is_send::<GuestFds>();
    is_send::<Guest>();
}

#[test]
fn memory_that_the_sandbox_gives_away_reads_as_zeros() {
    let spec = RegionSpec { lanes: 1, payload_limit_bytes: LIMIT };
    let (mut host, fds) = Host::create(&spec, ReadOnlyBy::Seal).unwrap();
    let up = fds.up.try_clone().unwrap();
    let mut guest = Guest::join(fds.down, fds.up, fds.doorbell, 0).unwrap();
    guest.ready();
    host.pop().unwrap().unwrap();
    submit(&mut host, 1, 0, Payload::Bytes(&[5; 50_000])).unwrap();
    let taken = take(&mut guest);
    echo(&mut guest, taken);
    let claim = host.pop().unwrap().unwrap();
    // The seals fix the size, but its owner may punch holes.
    let whole = host.geometry().up_bytes() as libc::off_t;
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    // SAFETY: a system call on a descriptor that this test owns.
    assert_eq!(unsafe { libc::fallocate(up.as_raw_fd(), mode, 0, whole) }, 0);
    assert_eq!(payload_of(&host, &claim), [0; 50_000]);
    // And what is left of its ring is not believed.
    assert!(!host.announce_park() && host.pop().is_err());
}

/// Waits on the doorbell as a shard does: announce, look, poll the eventfd. The count is drained here, where a shard's
/// multishot poll counts rings instead.
fn pop_parking(host: &mut Host) -> Claim {
    loop {
        if let Some(claim) = host.pop().unwrap() {
            return claim;
        }
        if host.announce_park() {
            let fd = host.doorbell().as_raw_fd();
            let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
            // SAFETY: one pollfd, for a descriptor that the host keeps open.
            let ready = unsafe { libc::poll(&mut poll, 1, 60_000) };
            assert_eq!(ready, 1, "a completion was published and nobody rang");
            nix::unistd::read(host.doorbell(), &mut [0; 8]).unwrap();
            host.announce_unpark();
        }
    }
}

/// Ping-pong with both sides parking, across the wrap of all four indices.
fn ping_pong(lanes: u16, messages: u64, spin_cap: Duration) {
    let (mut host, mut guest) = pair_at(lanes, u32::MAX - 1000);
    guest.set_spin_cap(spin_cap);
    let runtime = std::thread::spawn(move || {
        guest.ready();
        loop {
            match guest.next() {
                Next::Invoke(invocation) => echo(&mut guest, invocation),
                Next::Cancel { .. } => {}
                Next::Stop => return,
            }
        }
    });
    assert_eq!(pop_parking(&mut host).kind, ClaimKind::Ready);
    let metadata = metadata();
    let mut free: Vec<u16> = (0..lanes).collect();
    let (mut sent, mut answered) = (0u64, 0u64);
    let mut out = Vec::new();
    while answered < messages {
        while sent < messages
            && let Some(lane) = free.pop()
        {
            let bytes = sent.to_le_bytes();
            let payload = Payload::Bytes(&bytes);
            host.submit(&Submission { invocation: sent, lane, deadline_ns: 0, metadata: &metadata, payload }).unwrap();
            sent += 1;
        }
        host.wake_if_parked();
        let claim = pop_parking(&mut host);
        out.clear();
        host.copy_payload(&claim, &mut out);
        assert_eq!(out, claim.invocation.to_le_bytes());
        free.push(claim.lane);
        answered += 1;
    }
    host.stop().unwrap();
    host.wake_if_parked();
    runtime.join().unwrap();
}

#[test]
fn a_hundred_thousand_messages_with_both_sides_parking_lose_no_wake() {
    ping_pong(1, 100_000, Duration::ZERO);
}

#[test]
fn a_sleep_is_rung_once_and_another_begins_when_everything_was_looked_at() {
    let (mut host, mut guest) = ready_pair(4);
    let rings = |host: &Host| nix::unistd::read(host.doorbell(), &mut [0; 8]).is_ok();
    for lane in 0..4 {
        submit(&mut host, u64::from(lane), lane, Payload::Bytes(b"")).unwrap();
    }
    assert!(host.announce_park() && !rings(&host));
    let mut answer = |rung: bool, host: &Host| {
        let taken = take(&mut guest);
        echo(&mut guest, taken);
        assert_eq!(rings(host), rung);
    };
    answer(true, &host);
    answer(false, &host);
    // Still asleep by its word, the worker takes both and then everything that comes is rung for again.
    assert!(host.pop().unwrap().is_some() && host.pop().unwrap().is_some());
    assert_eq!(host.pop().unwrap(), None);
    answer(true, &host);
    host.announce_unpark();
    answer(false, &host);
    assert!(host.pop().unwrap().is_some() && host.pop().unwrap().is_some());
    assert_eq!(host.pop().unwrap(), None);
    assert!(host.announce_park() && !rings(&host));
}

#[test]
fn many_lanes_and_a_spinning_runtime_lose_no_wake() {
    ping_pong(7, 50_000, Duration::from_micros(20));
}

#[test]
fn a_head_that_nothing_was_published_for_poisons_the_host() {
    let (mut host, hostile) = HostileUp::busy_pair(&RegionSpec { lanes: 1, payload_limit_bytes: LIMIT });
    hostile.store_word(SUBMISSION_HEAD_OFFSET, 1 << 20);
    let mut last = Ok(());
    for invocation in 0..10 {
        host.lanes[0] = Lane::default();
        last = submit(&mut host, invocation, 0, Payload::Bytes(b""));
        if last.is_err() {
            break;
        }
    }
    let poison = Poison::SubmissionHead(IndexError::AheadOfTail { head: 1 << 20, tail: 4 });
    assert_eq!(last, Err(SubmitError::Poisoned(poison)));
    assert_eq!(host.pop(), Err(poison));
}

#[test]
fn a_runtime_of_another_abi_is_poisoned_at_ready() {
    let (mut host, mut hostile) = HostileUp::pair(&RegionSpec { lanes: 1, payload_limit_bytes: LIMIT });
    hostile.write_header();
    hostile.write(8, &99u32.to_le_bytes());
    hostile.complete(&host, &CompletionDescriptor { kind: completion_kind::READY, ..Default::default() });
    assert_eq!(host.pop(), Err(Poison::UpHeader { magic: UP_MAGIC, abi: 99 }));
}

#[test]
fn advice_to_trim_is_followed_in_silence_and_never_fills_the_ring() {
    for start in [0, u32::MAX - 5] {
        let (mut host, mut guest) = pair_at(1, start);
        guest.ready();
        host.pop().unwrap().unwrap();
        for invocation in 1..20 {
            host.advise_trim().unwrap();
            assert!(matches!(host.advise_trim(), Err(SubmitError::Full)), "once, until it is taken");
            submit(&mut host, invocation, 0, Payload::Bytes(b"x")).unwrap();
            host.cancel(invocation, 0).unwrap();
            if invocation == 19 {
                host.stop().expect("a correct runtime leaves room for everything");
            }
            let taken = take(&mut guest);
            assert!(matches!(guest.poll(), Some(Next::Cancel { .. })));
            echo(&mut guest, taken);
            assert_eq!(host.pop().unwrap().unwrap().invocation, invocation);
        }
        assert!(matches!(guest.poll(), Some(Next::Stop)) && matches!(host.advise_trim(), Err(SubmitError::Stopping)));
    }
}

#[test]
fn a_head_that_cannot_be_is_seen_when_advice_is_given() {
    let (mut host, hostile) = HostileUp::busy_pair(&RegionSpec { lanes: 1, payload_limit_bytes: LIMIT });
    hostile.store_word(SUBMISSION_HEAD_OFFSET, 7);
    assert!(matches!(host.advise_trim(), Err(SubmitError::Poisoned(Poison::SubmissionHead(_)))));
    assert!(matches!(host.advise_trim(), Err(SubmitError::Poisoned(_))));
}

#[test]
fn what_was_imported_is_said_once_by_one_that_is_ready_and_beside_its_answers() {
    let spec = RegionSpec { lanes: 2, payload_limit_bytes: LIMIT };
    let imported = |host: &Host, slot: u32| CompletionDescriptor {
        kind: completion_kind::IMPORTED,
        payload_offset: host.geometry().completion_slot(slot) + DESCRIPTOR_BYTES,
        payload_bytes: 4,
        ..Default::default()
    };
    let (mut host, mut hostile) = HostileUp::busy_pair(&spec);
    hostile.write(host.geometry().completion_slot(1) + DESCRIPTOR_BYTES, b"json");
    hostile.complete(&host, &imported(&host, 1));
    let claim = host.pop().unwrap().unwrap();
    assert_eq!((claim.kind, payload_of(&host, &claim)), (ClaimKind::Imported, b"json".to_vec()));
    // Both lanes go on.
    for lane in 0..2 {
        let returned = CompletionDescriptor {
            kind: completion_kind::RETURNED,
            lane,
            invocation: u64::from(lane),
            ..Default::default()
        };
        hostile.complete(&host, &returned);
        assert_eq!(u32::from(host.pop().unwrap().unwrap().lane), lane);
    }
    hostile.complete(&host, &imported(&host, 0));
    assert_eq!(host.pop(), Err(Poison::ImportedTwice));

    let (mut host, mut hostile) = HostileUp::pair(&spec);
    hostile.write_header();
    hostile.complete(&host, &imported(&host, 0));
    assert_eq!(host.pop(), Err(Poison::NotReady));
}
