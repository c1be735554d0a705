//! Plans are pure, and those of root and of an ordinary user are what is written down in `golden/`.

use std::path::PathBuf;

use vilya_isolate::plan::{Ending, Plan, Step};
use vilya_isolate::{
    Bind, Cores, Filter, GroupFacts, HardLimits, Host, Privilege, Processor, Reach, ResourceLimits, Root, Spec,
    Speculation, SystemEntry,
};

fn host(privilege: Privilege, groups: GroupFacts) -> Host {
    let link = |name: &str| SystemEntry::Link { name: name.into(), target: format!("usr/{name}") };
    Host {
        privilege,
        staging: PathBuf::from("/var/lib/vilya/isolate/root"),
        system: vec![link("bin"), link("lib"), SystemEntry::Directory { name: "lib64".into() }],
        etc: vec!["ld.so.cache".into(), "localtime".into(), "ssl/certs".into()],
        masked_files: vec!["kcore".into(), "keys".into()],
        masked_directories: vec!["acpi".into()],
        groups,
        hard_limits: HardLimits {
            open_files: 1 << 20,
            processes: u64::MAX,
            core_bytes: u64::MAX,
            pending_signals: u64::MAX,
            data_bytes: u64::MAX,
            locked_bytes: 8 << 20,
            file_bytes: u64::MAX,
            processor_seconds: u64::MAX,
        },
        last_capability: 40,
        landlock: 7,
        processor: Processor {
            store_bypass: Speculation::Controllable,
            indirect_branch: Speculation::Controllable,
            cores: Cores::Controllable,
        },
        mitigations: true,
        user_limits_writable: true,
    }
}

fn spec() -> Spec {
    Spec {
        name: "hello-1".into(),
        command: vec!["/usr/bin/python3".into(), "-I".into(), "/vilya/python/main.py".into()],
        environment: vec![("HOME".into(), "/tmp".into())],
        working_directory: "/function".into(),
        root: Root::System,
        binds: vec![
            Bind { source: "/srv/functions/hello".into(), target: "/function".into(), read_only: true },
            Bind { source: "/srv/python".into(), target: "/vilya/python".into(), read_only: true },
            Bind { source: "/srv/data".into(), target: "/data".into(), read_only: false },
        ],
        limits: ResourceLimits {
            memory_bytes: 128 << 20,
            cpu_millis: Some(1000),
            processes: 32,
            tmp_bytes: 64 << 20,
            open_files: 1024,
        },
        cores: vec![1, 3],
        hostname: "hello".into(),
        reach: Reach::Nothing,
    }
}

fn planned(host: &Host) -> String {
    let filter = Filter::shared().expect("the filter compiles");
    Plan::new(&spec(), host, filter, Ending::Execute).expect("the spec passes").to_string()
}

#[test]
fn root_enters_its_user_namespace_last() {
    let groups = GroupFacts { memory: true, processes: true, cpu: true, joins: true };
    let plan = planned(&host(Privilege::Root, groups));
    assert_eq!(plan, include_str!("golden/root.txt"), "the plan changed:\n{plan}");
}

#[test]
fn an_ordinary_user_enters_its_user_namespace_last() {
    let plan = planned(&host(Privilege::User { uid: 1001, gid: 1002 }, GroupFacts::default()));
    assert_eq!(plan, include_str!("golden/user.txt"), "the plan changed:\n{plan}");
}

/// Whatever a kernel offers: what it can turn off for a process is turned off, and nothing else is asked of it.
#[test]
fn what_the_kernel_can_turn_off_in_the_processor_is_turned_off_for_each_sandbox() {
    use Speculation::{Controllable, Harmless, Off, On, Unknown};
    const GUESSES: [Speculation; 5] = [Harmless, Off, Controllable, On, Unknown];
    let mut host = host(Privilege::Root, GroupFacts::default());
    for (store_bypass, indirect_branch) in GUESSES.into_iter().flat_map(|one| GUESSES.map(|other| (one, other))) {
        for (cores, mitigations) in
            [Cores::Single, Cores::Controllable, Cores::Shared].map(|cores| [(cores, true), (cores, false)]).concat()
        {
            host.processor = Processor { store_bypass, indirect_branch, cores };
            host.mitigations = mitigations;
            let expected = [
                ("no speculative store bypass", store_bypass == Controllable),
                ("no indirect branch speculation", indirect_branch == Controllable),
                ("share no core at a time", cores == Cores::Controllable),
            ];
            for plan in [planned(&host), waiting(&host)] {
                let lines: Vec<&str> = plan.lines().map(str::trim).collect();
                let place = |step: &str| lines.iter().position(|line| *line == step);
                for (step, can) in expected {
                    assert_eq!(
                        place(step).is_some(),
                        can && mitigations,
                        "{step}: {:?} {mitigations}\n{plan}",
                        host.processor
                    );
                    // It takes the calls that the filter refuses.
                    let filter = lines.iter().position(|line| line.contains("filter")).expect("there is one");
                    assert!(place(step).is_none_or(|place| place < filter), "{plan}");
                }
            }
        }
    }
}

/// What a maker's children do.
fn waiting(host: &Host) -> String {
    let filter = Filter::shared().expect("the filter compiles");
    let plan = Plan::maker(&spec(), &["/function"], host, filter).expect("the spec passes");
    match plan.steps.last() {
        Some(Step::MakeOthers(waiting)) => waiting.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn planning_is_pure() {
    let host = host(Privilege::Root, GroupFacts::default());
    assert_eq!(planned(&host), planned(&host));
}

#[test]
fn a_plan_never_asks_for_more_than_the_worker_has() {
    let mut host = host(Privilege::Root, GroupFacts::default());
    host.hard_limits.open_files = 100;
    assert!(planned(&host).contains("limit open files to 100\n"));
}
