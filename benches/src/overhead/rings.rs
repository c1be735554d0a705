//! The rings between a shard and a sandbox, and the mesh between two shards, each by itself.

use std::time::Duration;

use vilya_benches::figures::Figures;
use vilya_benches::mesh::MeshPair;
use vilya_benches::peer::RingPeer;
use vilya_benches::{CLIENT_CORE, Failure, SERVER_CORE};

use super::floors::trip_us;
use super::{Pace, Section};

const MESSAGE: &[u8] = b"hello";
/// Longer than any round: the guest never parks.
const FOREVER: Duration = Duration::from_secs(3600);

pub(crate) struct Rings;

impl Section for Rings {
    fn round(&mut self, pace: &Pace, figures: &mut Figures) -> Result<(), Failure> {
        let mut awake = RingPeer::start(FOREVER, Some(SERVER_CORE));
        figures.push("ring.spinning_rtt_us", trip_us(pace, 10, || awake.round_trip_spinning(MESSAGE)));
        // Before the next: its guest spins.
        drop(awake);
        let mut asleep = RingPeer::start(Duration::ZERO, Some(CLIENT_CORE));
        figures.push("ring.parked_rtt_us", trip_us(pace, 1, || asleep.round_trip_parked(MESSAGE)));
        drop(asleep);
        let mut mesh = MeshPair::start(Some(SERVER_CORE));
        figures.push("mesh_hop_us", trip_us(pace, 1, || mesh.round_trip()) / 2.0);
        Ok(())
    }
}
