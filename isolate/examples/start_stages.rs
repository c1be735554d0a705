//! Where the time of a start goes on this host: medians of each stage, for `/usr/bin/true`.
//!
//! `cargo run --release -p vilya-isolate --example start_stages -- 500`; with `prepared` behind it, for sandboxes made ahead, and
//! with a number behind that, with so many milliseconds between two starts. With `egress` instead, for sandboxes that reach other machines, on a
//! host of its own: `unshare --net sh -c "echo 1 >/proc/sys/net/ipv4/ip_forward && exec target/release/examples/start_stages 200 egress"`.

use std::error::Error;
use std::fs::File;
use std::time::{Duration, Instant};

use vilya_isolate::{
    CgroupPreference, Descriptors, EgressOptions, Mechanism, Native, NativeOptions, PoolOptions, Reach, ResourceLimits,
    Root, Spec, Stages,
};

fn main() -> Result<(), Box<dyn Error>> {
    let starts: usize = std::env::args().nth(1).map_or(Ok(200), |count| count.parse())?;
    let state = tempfile::tempdir()?;
    let options = NativeOptions {
        state_directory: state.path().into(),
        worker_id: "stages".into(),
        cgroup: CgroupPreference::Auto,
        mitigations: true,
    };
    let pause = Duration::from_millis(std::env::args().nth(3).map_or(Ok(0), |pause| pause.parse())?);
    let mut native = Native::new(options)?;
    print!("{}", native.protections());
    if std::env::args().nth(2).is_some_and(|word| word == "prepared") {
        let options = PoolOptions {
            template: spec(0),
            mount_points: vec!["/function"],
            size: 16,
            loaded: 0,
            threads: 1,
            images: 1,
            image_binds: Vec::new(),
        };
        println!("prepared ahead: {}", native.prepare(options)?);
        native.wait_until_prepared(Duration::from_secs(10));
    }
    let reach = if std::env::args().nth(2).is_some_and(|word| word == "egress") {
        let range = "10.213.0.0/16".parse()?;
        native.allow_egress(EgressOptions { range, denied: vec![], nameservers: vec![], connections: 64 });
        Reach::Egress { nameservers: Vec::new() }
    } else {
        Reach::Nothing
    };
    let mut prepared = 0;
    let (mut stages, mut reaps) = (Vec::with_capacity(starts), Vec::with_capacity(starts));
    for index in 0..starts {
        let null = || File::open("/dev/null").map(Into::into);
        let descriptors = Descriptors { ring: [null()?, null()?, null()?], stdout: null()?, stderr: null()? };
        let started = native.start(&Spec { reach: reach.clone(), ..spec(index) }, descriptors)?;
        prepared += usize::from(started.stages.prepared);
        stages.push(started.stages);
        let begun = Instant::now();
        let _ = started.remains.reap();
        reaps.push(begun.elapsed().as_nanos() as u64);
        std::thread::sleep(pause);
    }
    type Stage = (&'static str, fn(&Stages) -> u64);
    let table: [Stage; 9] = [
        ("plan, prepare", |stages| stages.planned_ns),
        ("control groups", |stages| stages.grouped_ns),
        ("clone3, or taken", |stages| stages.cloned_ns),
        ("join, surroundings", |stages| stages.placed_ns),
        ("mounts", |stages| stages.mounted_ns),
        ("credentials, limits", |stages| stages.confined_ns),
        ("seccomp", |stages| stages.filtered_ns),
        ("exec", |stages| stages.executed_ns),
        ("start in all", |stages| stages.total_ns),
    ];
    for (name, stage) in table {
        println!("{name:<20} {:>9.1} us", median(stages.iter().map(stage).collect()));
    }
    println!("{:<20} {:>9.1} us", "run and reap", median(reaps));
    println!("{:<20} {prepared:>9}", "found prepared");
    Ok(())
}

fn median(mut values_ns: Vec<u64>) -> f64 {
    values_ns.sort_unstable();
    values_ns.get(values_ns.len() / 2).map_or(0.0, |value| *value as f64 / 1000.0)
}

fn spec(index: usize) -> Spec {
    Spec {
        name: format!("stages-{index}"),
        command: vec!["/usr/bin/true".into()],
        environment: Vec::new(),
        working_directory: "/tmp".into(),
        root: Root::System,
        binds: Vec::new(),
        limits: ResourceLimits {
            memory_bytes: 64 << 20,
            cpu_millis: Some(1000),
            processes: 16,
            tmp_bytes: 1 << 20,
            open_files: 64,
        },
        cores: Vec::new(),
        hostname: "stages".into(),
        reach: Reach::Nothing,
    }
}
