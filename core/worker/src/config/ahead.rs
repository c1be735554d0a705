//! How much of `limits.memory` belongs to what is made before anybody asks for it.
//!
//! Invariant: follows from the settings alone, so that what shards may promise to functions is the same whatever waits at the moment. It
//! does not know what waits, or what that takes: the worker measures it and says when it is more.

use super::checked::Sandbox;
use super::units::{KIB, MIB};
use crate::mechanisms::MechanismKind;

/// A sandbox that waits: 80 KiB that its group is charged, and namespaces that no group is.
const PREPARED_BYTES: u64 = 512 * KIB;
/// One that has loaded an image: in Python 1.5 MiB.
const LOADED_BYTES: u64 = 2 * MIB;
/// Those of one image, of which one may have loaded a zygote's.
const OF_IMAGE_BYTES: u64 = vilya_isolate::OF_IMAGE as u64 * PREPARED_BYTES;
/// A process of Node that has booted: 6 MiB.
const NODE_BYTES: u64 = 8 * MIB;
/// The image of the Python runtime: 5 to 6 MiB.
const RUNTIME_BYTES: u64 = 8 * MIB;

/// What is kept back. Only the native mechanism makes anything ahead, and without sandboxes that wait there is nothing else either.
pub(super) fn kept_back_bytes(sandbox: &Sandbox, zygotes_bytes: u64) -> u64 {
    if sandbox.mechanism != MechanismKind::Native || sandbox.prepared == 0 {
        return 0;
    }
    let processes = u64::from(sandbox.node_ahead) * NODE_BYTES;
    let copies = u64::from(sandbox.loaded) * LOADED_BYTES + RUNTIME_BYTES;
    let of_images = u64::from(sandbox.prepared_images)
        * if zygotes_bytes > 0 { OF_IMAGE_BYTES + LOADED_BYTES - PREPARED_BYTES } else { OF_IMAGE_BYTES };
    u64::from(sandbox.prepared) * PREPARED_BYTES + of_images + processes + if zygotes_bytes > 0 { copies } else { 0 }
}
