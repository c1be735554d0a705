//! The home of a function is computed twice, by the worker and by clients that have no map: they must agree.

use vilya_engine::BalancePolicy;
use vilya_protocol::wire::home_shard;

#[test]
fn worker_and_clients_agree_on_every_home() {
    for shards in [0, 1, 2, 3, 4, 7, 64, u16::MAX] {
        for number in 0..1000 {
            let name = format!("function-{number}");
            let worker = BalancePolicy::Home.shard(name.as_bytes(), u32::from(shards));
            assert_eq!(u32::from(home_shard(&name, shards)), worker, "{name} among {shards}");
        }
    }
}
