//! Frames from a server: no bytes make the decoder panic, and splits do not change what is read.
//!
//! Input: one byte for the number of cuts and whether a WELCOME goes before, two bytes a cut, then the wire.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vilya_protocol::wire::adversarial::read_client;
use vilya_protocol::wire::{self, FRAME_BYTES_MIN, Welcome};

fn welcome() -> Vec<u8> {
    let mut out = Vec::new();
    let welcome = Welcome {
        version: 1,
        shard: 1,
        frame_bytes: FRAME_BYTES_MIN,
        in_flight: 1,
        payload_bytes: 1 << 30,
        request_credit_bytes: 0,
    };
    wire::welcome(&mut out, &welcome, &[7880, 7881]);
    out
}

fuzz_target!(|data: &[u8]| {
    let Some((&shape, rest)) = data.split_first() else {
        return;
    };
    let Some((cuts, wire)) = rest.split_at_checked(usize::from(shape % 8) * 2) else {
        return;
    };
    let cuts: Vec<usize> = cuts
        .chunks(2)
        .map(|cut| usize::from(u16::from_le_bytes([cut[0], cut[1]])))
        .collect();
    let wire = if shape & 0x80 == 0 {
        [&welcome()[..], wire].concat()
    } else {
        wire.to_vec()
    };
    let every: Vec<usize> = (0..wire.len()).collect();
    let whole = read_client(&wire, &[]);
    assert_eq!(whole, read_client(&wire, &cuts), "split at {cuts:?}");
    assert_eq!(whole, read_client(&wire, &every), "split at every byte");
});
