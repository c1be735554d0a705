//! Frames from a client: no bytes make the decoder panic, and splits do not change what is read.
//!
//! Input: one byte for the number of cuts and whether a HELLO goes before, two bytes a cut, then the wire.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vilya_protocol::wire::adversarial::{hello, read_server};
use vilya_protocol::wire::{FRAME_BYTES_MIN, Header, Limits};

/// Small enough for the bound to be reached by inputs of a few thousand bytes.
const SMALL: Limits = Limits {
    frame_bytes: FRAME_BYTES_MIN,
};

fuzz_target!(|data: &[u8]| {
    let Some((&shape, rest)) = data.split_first() else {
        return;
    };
    let Some((cuts, wire)) = rest.split_at_checked(usize::from(shape % 8) * 2) else {
        return;
    };
    if let Some(first) = wire.first_chunk()
        && let Ok(header) = Header::decode(first, &SMALL)
    {
        assert_eq!(header.encode(), *first);
    }
    let cuts: Vec<usize> = cuts
        .chunks(2)
        .map(|cut| usize::from(u16::from_le_bytes([cut[0], cut[1]])))
        .collect();
    let wire = if shape & 0x80 == 0 {
        [&hello()[..], wire].concat()
    } else {
        wire.to_vec()
    };
    let every: Vec<usize> = (0..wire.len()).collect();
    let whole = read_server(&wire, SMALL, &[]);
    assert_eq!(whole, read_server(&wire, SMALL, &cuts), "split at {cuts:?}");
    assert_eq!(
        whole,
        read_server(&wire, SMALL, &every),
        "split at every byte"
    );
});
