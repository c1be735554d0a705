//! Request decoding: no bytes make it panic, and splits do not change what is read.
//!
//! Input: one byte for the number of cuts, two bytes a cut, then the wire.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vilya_protocol::http::Limits;
use vilya_protocol::http::adversarial::read;
use vilya_protocol::route::route;

/// Small enough for every bound to be reached by inputs of a few hundred bytes.
const SMALL: Limits = Limits {
    head_bytes: 256,
    headers: 6,
    target_bytes: 64,
    body_bytes: 100,
};

fuzz_target!(|data: &[u8]| {
    let Some((&count, rest)) = data.split_first() else {
        return;
    };
    let Some((cuts, wire)) = rest.split_at_checked(usize::from(count % 8) * 2) else {
        return;
    };
    let cuts: Vec<usize> = cuts
        .chunks(2)
        .map(|cut| usize::from(u16::from_le_bytes([cut[0], cut[1]])))
        .collect();
    let every: Vec<usize> = (0..wire.len()).collect();
    for limits in [SMALL, Limits::DEFAULT] {
        let whole = read(wire, limits, &[]);
        assert_eq!(whole, read(wire, limits, &cuts), "split at {cuts:?}");
        assert_eq!(whole, read(wire, limits, &every), "split at every byte");
        for request in &whole.requests {
            if let Some(method) = request.method {
                let _ = route(method, &request.path);
            }
        }
    }
});
