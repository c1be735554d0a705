//! Parts of answers, of a host and a guest in one process.

use super::tests::{payload_of, ready_pair, submit};
use super::*;
use crate::claim::ClaimKind;
use crate::guest::{Guest, Next, NotTaken};
use crate::hostile::HostileUp;
use crate::layout::{PART_BYTES, RegionSpec, completion_kind};
use std::sync::Mutex;

const LIMIT: u64 = 100_000;

fn pop(host: &mut Host) -> Claim {
    loop {
        if let Some(claim) = host.pop().unwrap() {
            return claim;
        }
        std::thread::yield_now();
    }
}

#[test]
fn an_answer_comes_in_parts_each_when_the_one_before_was_taken() {
    let (mut host, guest) = ready_pair(2);
    submit(&mut host, 70, 1, Payload::Bytes(b"x")).unwrap();
    let (mut receiver, sender) = Guest::split(guest);
    let sender = Mutex::new(sender);
    let large: Vec<u8> = (0..LIMIT).map(|at| (at % 251) as u8).collect();
    let mut got = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let Some(Next::Invoke(mut invocation)) = receiver.poll() else { panic!("it was submitted") };
            let (_, mut response) = invocation.parts_with(&sender);
            response.set_content_type("text/csv").unwrap();
            response.send_part().expect("nothing is sent for nothing");
            for piece in [&b"small"[..], &large] {
                response.write(piece).unwrap();
                response.send_part().unwrap();
                assert!(response.is_empty());
            }
            response.write(b"end").unwrap();
            sender.lock().unwrap().returned(invocation);
        });
        // What is larger than a part comes in several; the next waits for the one before.
        for bytes in [5, PART_BYTES as usize, (LIMIT - PART_BYTES) as usize] {
            let claim = pop(&mut host);
            assert_eq!((claim.kind, claim.invocation, claim.lane), (ClaimKind::Part, 70, 1));
            assert_eq!((claim.payload_bytes(), &*claim.metadata.content_type), (bytes, &b"text/csv"[..]));
            got.extend(payload_of(&host, &claim));
            assert!(host.pop().unwrap().is_none(), "the next part waits");
            host.part_taken(1, true);
        }
        let claim = pop(&mut host);
        assert_eq!((claim.kind, payload_of(&host, &claim)), (ClaimKind::Returned, b"end".to_vec()));
    });
    assert_eq!(got, [b"small", &large[..]].concat());
    // The lane serves the next.
    submit(&mut host, 71, 1, Payload::Bytes(b"x")).unwrap();
}

#[test]
fn who_sends_parts_is_told_that_nobody_takes_them_and_may_still_answer() {
    let (mut host, guest) = ready_pair(1);
    let (mut receiver, sender) = Guest::split(guest);
    let sender = Mutex::new(sender);
    for invocation in 1..4 {
        submit(&mut host, invocation, 0, Payload::Bytes(b"x")).unwrap();
        let Some(Next::Invoke(mut taken)) = receiver.poll() else { panic!("it was submitted") };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (_, mut response) = taken.parts_with(&sender);
                response.write(b"part").unwrap();
                assert_eq!(response.send_part(), Err(NotTaken::Over));
                response.write(b"again").unwrap();
                assert_eq!(response.send_part(), Err(NotTaken::Over));
                sender.lock().unwrap().raised(taken, b"{}");
            });
            for _ in 0..2 {
                assert_eq!(pop(&mut host).kind, ClaimKind::Part);
                host.part_taken(0, false);
            }
            assert_eq!(pop(&mut host).kind, ClaimKind::Raised);
        });
        // Taken twice, or after the end, is taken once.
        host.part_taken(0, true);
    }
}

#[test]
fn a_runtime_without_an_outlet_sends_answers_whole() {
    let (mut host, mut guest) = ready_pair(1);
    submit(&mut host, 1, 0, Payload::Bytes(b"x")).unwrap();
    let Some(Next::Invoke(mut taken)) = guest.poll() else { panic!("it was submitted") };
    let (_, mut response) = taken.parts();
    response.write(b"part").unwrap();
    assert_eq!(response.send_part(), Err(NotTaken::Whole));
    assert_eq!(response.len(), 4, "and keeps what it has");
}

#[test]
fn parts_that_cannot_be_are_poison() {
    let spec = RegionSpec { lanes: 2, payload_limit_bytes: LIMIT };
    let claim = |kind, invocation| CompletionDescriptor { kind, lane: 0, invocation, ..Default::default() };
    let part = claim(completion_kind::PART, 0);
    // Another before the first was taken, and the end before that.
    for next in [part, claim(completion_kind::RETURNED, 0), claim(completion_kind::RAISED, 0)] {
        let (mut host, mut hostile) = HostileUp::busy_pair(&spec);
        hostile.complete(&host, &part);
        assert_eq!(host.pop().unwrap().unwrap().kind, ClaimKind::Part);
        hostile.complete(&host, &next);
        assert_eq!(host.pop(), Err(Poison::PartNotTaken(0)));
    }
    let (mut host, mut hostile) = HostileUp::busy_pair(&spec);
    hostile.complete(&host, &claim(completion_kind::PART, 9));
    assert_eq!(host.pop(), Err(Poison::WrongInvocation { lane: 0, claimed: 9, running: 0 }));
    // Of one that has ended.
    let (mut host, mut hostile) = HostileUp::busy_pair(&spec);
    hostile.complete(&host, &claim(completion_kind::RETURNED, 0));
    host.pop().unwrap().unwrap();
    hostile.complete(&host, &part);
    assert_eq!(host.pop(), Err(Poison::LaneIdle(0)));
}
