//! Memory that large payloads took is given back, and outlives its host while it is in use.

#![allow(unsafe_code)]

use std::os::fd::OwnedFd;

use vilya_ipc::guest::{Guest, Next};
use vilya_ipc::host::{Host, KEPT_PAYLOAD_BYTES, Payload, ReadOnlyBy, Submission};
use vilya_ipc::layout::RegionSpec;
use vilya_ipc::metadata::{AlignedVec, RequestMetadata};

const LIMIT: u64 = 4 << 20;

struct Pair {
    host: Host,
    guest: Guest,
    down: OwnedFd,
    up: OwnedFd,
}

impl Pair {
    fn new(lanes: u16, read_only_by: ReadOnlyBy) -> Pair {
        let spec = RegionSpec { lanes, payload_limit_bytes: LIMIT };
        let (mut host, fds) = Host::create(&spec, read_only_by).expect("regions can be made");
        let [down, up] = [&fds.down, &fds.up].map(|fd| fd.try_clone().expect("a descriptor"));
        // SAFETY: the descriptors come from `Host::create`, and no other guest uses them.
        let mut guest = unsafe { Guest::from_fds(fds.down, fds.up, fds.doorbell) }.expect("of one ABI");
        guest.ready();
        assert!(host.pop().expect("a true claim").is_some());
        Pair { host, guest, down, up }
    }

    fn submit(&mut self, lane: u16, payload: Payload<'_>) {
        let mut metadata = AlignedVec::new();
        RequestMetadata::default().encode(&mut metadata).expect("it fits");
        let submission = Submission { invocation: 1, lane, deadline_ns: 0, metadata: &metadata, payload };
        self.host.submit(&submission).expect("an idle lane");
    }

    /// Answers the oldest submission with its own payload, and gives what the host then reads.
    fn echo(&mut self) -> Vec<u8> {
        let Some(Next::Invoke(mut invocation)) = self.guest.poll() else { panic!("an invocation was submitted") };
        let (request, mut response) = invocation.parts();
        response.write(request.payload()).expect("it fits");
        self.guest.returned(invocation);
        let claim = self.host.pop().expect("a true claim").expect("an answer");
        let mut answer = Vec::new();
        self.host.copy_payload(&claim, &mut answer);
        answer
    }

    /// What is resident of the down and of the up region, in bytes.
    fn resident(&self) -> [u64; 2] {
        [&self.down, &self.up].map(|fd| nix::sys::stat::fstat(fd).expect("a memory file").st_blocks as u64 * 512)
    }
}

fn large() -> Vec<u8> {
    (0..3 << 20).map(|at: u32| (at % 251) as u8).collect()
}

#[test]
fn what_a_large_payload_took_is_given_back_and_the_lane_goes_on() {
    let large = large();
    let mut pair = Pair::new(2, ReadOnlyBy::Permission);
    pair.submit(1, Payload::Bytes(b"taken before"));
    let untouched = pair.resident();
    for _ in 0..2 {
        pair.submit(0, Payload::Bytes(&large));
        pair.host.trim(0);
        pair.host.trim(1);
        assert_eq!(pair.echo(), b"taken before", "a lane that is busy is left alone");
        assert!(pair.echo() == large);
        for (resident, untouched) in pair.resident().into_iter().zip(untouched) {
            assert!(resident >= untouched + large.len() as u64);
        }
        pair.host.trim(0);
        for (resident, untouched) in pair.resident().into_iter().zip(untouched) {
            assert!(resident <= untouched + KEPT_PAYLOAD_BYTES + 8192, "{resident} bytes are left");
        }
        assert_eq!(pair.host.retained_bytes(), 0);
        pair.submit(1, Payload::Bytes(b"taken before"));
        // What was received without being submitted is given back too; the next payload finds zeros behind it.
        let window = pair.host.request_window(0);
        let address = pair.host.down_mapping().address();
        // SAFETY: the lane is idle, so its payload area is the worker's to write.
        unsafe { address.add(window.start as usize).write_bytes(9, large.len()) };
        pair.host.request_written(0, large.len() as u64);
        pair.host.trim(0);
        assert!(pair.resident()[0] <= untouched[0] + KEPT_PAYLOAD_BYTES + 8192);
    }
    assert_eq!(pair.echo(), b"taken before");
    pair.submit(0, Payload::InLane { bytes: 2 * KEPT_PAYLOAD_BYTES });
    let kept = KEPT_PAYLOAD_BYTES as usize;
    assert!(pair.echo() == [vec![9; kept], vec![0; kept]].concat());
}

#[test]
fn a_sealed_request_area_keeps_its_memory_and_says_so() {
    let large = large();
    let mut pair = Pair::new(2, ReadOnlyBy::Seal);
    let untouched = pair.resident();
    pair.submit(1, Payload::Bytes(&large[..KEPT_PAYLOAD_BYTES as usize]));
    pair.echo();
    assert_eq!(pair.host.retained_bytes(), 0);
    pair.submit(0, Payload::Bytes(&large));
    assert!(pair.echo() == large);
    pair.host.trim(0);
    let [down, up] = pair.resident();
    assert!(down >= untouched[0] + large.len() as u64);
    assert!(up <= untouched[1] + 2 * KEPT_PAYLOAD_BYTES + 16384);
    assert_eq!(pair.host.retained_bytes(), large.len() as u64 - KEPT_PAYLOAD_BYTES);
    pair.submit(0, Payload::Bytes(&large));
    assert!(pair.echo() == large);
}

#[test]
fn mappings_outlive_their_host() {
    let mut pair = Pair::new(1, ReadOnlyBy::Permission);
    let payload = large();
    pair.submit(0, Payload::Bytes(&payload));
    let window = pair.host.request_window(0);
    let (down, up) = (pair.host.down_mapping(), pair.host.up_mapping().clone());
    assert_eq!(down.bytes() as u64, pair.host.geometry().down_bytes());
    assert_eq!(up.bytes() as u64, pair.host.geometry().up_bytes());
    drop(pair);
    let mut copy = vec![0; payload.len()];
    // SAFETY: the range lies in the mapping, which `down` holds; its writer is gone.
    unsafe { std::ptr::copy(down.address().add(window.start as usize), copy.as_mut_ptr(), copy.len()) };
    assert!(copy == payload);
}

/// Resident private memory of this process, in bytes.
fn private_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("the kernel's format");
    let pages: Vec<u64> = statm.split_whitespace().map(|field| field.parse().expect("a number")).collect();
    (pages[1] - pages[2]) * 4096
}

#[test]
fn advice_to_trim_gives_back_what_the_allocator_kept() {
    const BYTES: usize = 64 << 20;
    let mut pair = Pair::new(1, ReadOnlyBy::Permission);
    // Small enough to come from the heap, and the last one keeps the heap's end where it is.
    let mut pieces: Vec<Vec<u8>> = (0..BYTES / 65_536).map(|_| vec![1; 65_536]).collect();
    let last = pieces.pop();
    drop(pieces);
    let before = private_bytes();
    pair.host.advise_trim().expect("an idle sandbox");
    assert!(pair.guest.poll().is_none(), "the runtime is told nothing");
    if cfg!(target_env = "gnu") {
        let given = before.saturating_sub(private_bytes());
        assert!(given > BYTES as u64 / 2, "{given} bytes were given back of what was freed");
    }
    pair.submit(0, Payload::Bytes(b"and on"));
    assert_eq!(pair.echo(), b"and on");
    drop(last);
}
