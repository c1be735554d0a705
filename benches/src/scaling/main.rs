//! Throughput and latency by the number of shards, each with a function of its own, clients of its own and cores of its
//! own: what a shard does alone, it should do among others.
//!
//! Shards and their sandboxes are on the last cores of the machine, one each; the clients of a shard are one thread on a
//! core of the first. Where there are too few cores for both, they share, and the rows say so. Where cores are threads of
//! one another, name those to use: `--server-cores`, `--client-cores`.
//!
//! It needs nothing but its own file: copy it to the machine and run it.
//!
//! Usage: `scaling [--json] [--quick] [--csv FILE] [--rounds N] [--clients N] [--shards N,N,...] [--server-cores N,N,...]
//! [--client-cores N,N,...]`.

mod cores;
mod fleet;

use std::time::Duration;

use serde_json::json;
use vilya_benches::figures::Figures;
use vilya_benches::options::Options;
use vilya_benches::report::{self, Goal};
use vilya_benches::role;
use vilya_benches::{Failure, machine};

use cores::{Layout, numbers};
use fleet::{Fleet, Row};

const HEAD: &str =
    "protocol,shards,cores_shared,round,shard,server_core,client_core,per_second,p50_us,p99_us,forwarded";

fn main() -> Result<(), Failure> {
    if role::play()? {
        return Ok(());
    }
    let valued = ["--csv", "--rounds", "--clients", "--shards", "--server-cores", "--client-cores"];
    let options = Options::read(&["--json", "--quick"], &valued)?;
    let quick = options.has("--quick");
    let rounds = options.value("--rounds", if quick { 1 } else { 7 })?;
    let clients = options.value("--clients", if quick { 2 } else { 16_usize })?;
    let window = Duration::from_millis(if quick { 20 } else { 500 });
    let mut servers = numbers(&options.value("--server-cores", String::new())?)?;
    // A worker looks at its cores in this order.
    servers.sort_unstable();
    let layout = Layout {
        servers,
        clients: numbers(&options.value("--client-cores", String::new())?)?,
        available: machine::available_cores()?,
    };
    let asked = numbers(&options.value("--shards", "1,2,4,8".to_owned())?)?;
    let counts: Vec<usize> = asked.into_iter().filter(|&shards| shards <= layout.most()).collect();
    let machine = machine::description();
    let mut fleets = Vec::new();
    for &shards in &counts {
        fleets.extend(Fleet::start(layout.places(shards), clients)?);
    }
    let mut rows = Vec::new();
    // One round to warm up is thrown away.
    for round in 0..=rounds {
        for fleet in &mut fleets {
            let measured = fleet.run(window)?;
            if round > 0 {
                rows.extend(measured.into_iter().map(|row| (round, row)));
            }
        }
    }
    let path: String = options.value("--csv", String::new())?;
    if !path.is_empty() {
        std::fs::write(&path, csv(&rows)).map_err(|error| format!("{path}: {error}"))?;
    }
    let (figures, goals) = summary(&rows);
    let facts = json!({ "machine": machine, "rounds": rounds, "clients_a_shard": clients, "shards": counts });
    report::print(&report::assemble(&figures, &[], &goals, &facts), options.has("--json"));
    Ok(())
}

fn csv(rows: &[(usize, Row)]) -> String {
    let mut text = format!("{HEAD}\n");
    for (round, row) in rows {
        let Row { protocol, shards, shared, shard, server_core, client_core, per_second, p50_us, p99_us, forwarded } =
            row;
        text += &format!(
            "{protocol},{shards},{shared},{round},{shard},{server_core},{client_core},{per_second:.0},{p50_us:.1},{p99_us:.1},{forwarded}\n"
        );
    }
    text
}

/// A shard's mean by the number of shards, over what one shard does alone in the same round.
fn summary(rows: &[(usize, Row)]) -> (Figures, Vec<(String, Goal)>) {
    let (mut figures, mut goals) = (Figures::default(), Vec::new());
    let mut groups: Vec<(&str, usize, bool, usize)> = rows.iter().map(|(round, row)| row.group(*round)).collect();
    groups.dedup();
    for (protocol, shards, shared, round) in groups {
        let of_group: Vec<&Row> = rows
            .iter()
            .filter(|(number, row)| row.group(*number) == (protocol, shards, shared, round))
            .map(|(_, row)| row)
            .collect();
        let mean = |of: fn(&Row) -> f64| of_group.iter().map(|row| of(row)).sum::<f64>() / of_group.len() as f64;
        let name = format!("{protocol}_{shards}_shards{}", if shared { "_shared" } else { "" });
        figures.push(&format!("{name}.per_second_a_shard"), mean(|row| row.per_second));
        figures.push(&format!("{name}.p50_us"), mean(|row| row.p50_us));
        figures.push(&format!("{name}.p99_us"), mean(|row| row.p99_us));
    }
    let names: Vec<String> = figures.iter().map(|(name, _)| name.to_owned()).collect();
    for name in &names {
        let Some((group, figure)) = name.split_once('.') else { continue };
        let Some((protocol, rest)) = group.split_once('_') else { continue };
        let alone = figures.get(&format!("{protocol}_1_shards.{figure}"));
        let ratio = figures.get(name).zip(alone).map(|(figure, alone)| figure.over(alone));
        let Some(ratio) = ratio.filter(|_| rest != "1_shards") else { continue };
        let ratio_name = format!("ratio.{group}_{figure}");
        figures.insert(&ratio_name, ratio);
        // Of cores that are shared nothing is asked.
        if figure == "per_second_a_shard" && !rest.ends_with("_shared") {
            goals.push((ratio_name, Goal::AtLeast(0.85)));
        }
    }
    (figures, goals)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(shards: usize, shard: usize, per_second: f64) -> Row {
        Row {
            protocol: "http",
            shards,
            shared: false,
            shard,
            server_core: shard,
            client_core: shard + 8,
            per_second,
            p50_us: 1.0,
            p99_us: 2.0,
            forwarded: 0.0,
        }
    }

    #[test]
    fn a_shard_among_others_is_held_to_one_alone() {
        let rows = [(1, row(1, 0, 100.0)), (1, row(2, 0, 80.0)), (1, row(2, 1, 100.0))];
        let (figures, goals) = summary(&rows);
        assert_eq!(figures.get("ratio.http_2_shards_per_second_a_shard").unwrap().median(), 0.9);
        assert_eq!(goals, [("ratio.http_2_shards_per_second_a_shard".to_owned(), Goal::AtLeast(0.85))]);
        assert_eq!(csv(&rows).lines().count(), 4);
        assert!(csv(&rows).lines().all(|line| line.split(',').count() == HEAD.split(',').count()));
    }
}
