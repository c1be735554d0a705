//! A sandbox that writes anything into its half of the shared memory: the worker's side must return claims or poison, and
//! never panic or read out of bounds. What the bytes mean is the ipc package's to say.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| vilya_ipc::fuzz_claims(data));
