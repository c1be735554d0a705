//! Which files of a control group get which values.
//!
//! Owns: the two dialects. Invariant: pure. Does not know: where groups are.

use std::ffi::CStr;

use super::{Controller, Version};
use crate::spec::ResourceLimits;

/// One file of a group and its value.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) file: &'static CStr,
    pub(super) value: String,
    /// Whether a kernel built without this file will do.
    pub(super) optional: bool,
}

/// Length of the period over which processor time is counted.
const PERIOD_US: u64 = 100_000;

/// The settings of one controller. Their order matters: version 1 wants the memory limit before the one that includes swap.
pub(super) fn settings(version: Version, controller: Controller, limits: &ResourceLimits) -> Vec<Setting> {
    let required = |file, value: String| Setting { file, value, optional: false };
    let optional = |file, value: String| Setting { file, value, optional: true };
    let memory = limits.memory_bytes.to_string();
    let quota_us = limits.cpu_millis.map(|millis| u64::from(millis) * PERIOD_US / 1000);
    match (version, controller) {
        (Version::Two, Controller::Memory) => vec![
            required(c"memory.max", memory),
            optional(c"memory.swap.max", "0".into()),
            // One process killed for memory takes the whole sandbox with it: half a function serves nobody.
            required(c"memory.oom.group", "1".into()),
        ],
        (Version::One, Controller::Memory) => vec![
            required(c"memory.limit_in_bytes", memory.clone()),
            optional(c"memory.memsw.limit_in_bytes", memory.clone()),
            optional(c"memory.swappiness", "0".into()),
            // What sockets buffer counts for itself here, and is not counted at all unless it is limited.
            optional(c"memory.kmem.tcp.limit_in_bytes", memory),
        ],
        (_, Controller::Processes) => vec![required(c"pids.max", limits.processes.to_string())],
        (Version::Two, Controller::Cpu) => {
            quota_us.map(|quota| required(c"cpu.max", format!("{quota} {PERIOD_US}"))).into_iter().collect()
        }
        (Version::One, Controller::Cpu) => quota_us.map_or_else(Vec::new, |quota| {
            vec![
                required(c"cpu.cfs_period_us", PERIOD_US.to_string()),
                required(c"cpu.cfs_quota_us", quota.to_string()),
            ]
        }),
    }
}

/// The file of what is charged.
pub(super) fn memory_usage_file(version: Version) -> &'static CStr {
    match version {
        Version::One => c"memory.usage_in_bytes",
        Version::Two => c"memory.current",
    }
}

/// The file of the memory limit.
pub(super) fn memory_limit_file(version: Version) -> &'static CStr {
    match version {
        Version::One => c"memory.limit_in_bytes",
        Version::Two => c"memory.max",
    }
}

/// Whether a file's value is made from the memory limit.
pub(super) fn depends_on_memory(file: &CStr) -> bool {
    [c"memory.max", c"memory.limit_in_bytes", c"memory.memsw.limit_in_bytes", c"memory.kmem.tcp.limit_in_bytes"]
        .contains(&file)
}

/// The file that counts processes killed for memory.
pub(super) fn kill_count_file(version: Version) -> &'static CStr {
    match version {
        Version::One => c"memory.oom_control",
        Version::Two => c"memory.events",
    }
}

/// The `oom_kill` line of that file.
pub(super) fn kill_count(text: &str) -> u64 {
    text.lines()
        .find_map(|line| line.strip_prefix("oom_kill "))
        .and_then(|count| count.trim().parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::{Controller, Version, kill_count, settings};
    use crate::spec::ResourceLimits;

    fn written(version: Version, controller: Controller, cpu_millis: Option<u32>) -> Vec<String> {
        let limits =
            ResourceLimits { memory_bytes: 128 << 20, cpu_millis, processes: 9, tmp_bytes: 4096, open_files: 64 };
        let settings = settings(version, controller, &limits);
        settings.iter().map(|setting| format!("{}={}", setting.file.to_string_lossy(), setting.value)).collect()
    }

    #[test]
    fn both_dialects_say_the_same() {
        assert_eq!(
            written(Version::Two, Controller::Memory, None),
            ["memory.max=134217728", "memory.swap.max=0", "memory.oom.group=1"]
        );
        assert_eq!(
            written(Version::One, Controller::Memory, None),
            [
                "memory.limit_in_bytes=134217728",
                "memory.memsw.limit_in_bytes=134217728",
                "memory.swappiness=0",
                "memory.kmem.tcp.limit_in_bytes=134217728"
            ]
        );
        assert_eq!(written(Version::Two, Controller::Cpu, Some(1500)), ["cpu.max=150000 100000"]);
        assert_eq!(
            written(Version::One, Controller::Cpu, Some(1500)),
            ["cpu.cfs_period_us=100000", "cpu.cfs_quota_us=150000"]
        );
        assert_eq!(written(Version::Two, Controller::Processes, None), ["pids.max=9"]);
        assert!(written(Version::One, Controller::Cpu, None).is_empty());
    }

    #[test]
    fn the_kill_count_is_not_the_event_count() {
        assert_eq!(kill_count("low 0\nhigh 0\nmax 7\noom 3\noom_kill 2\noom_group_kill 1\n"), 2);
        assert_eq!(kill_count("oom_kill_disable 0\nunder_oom 1\noom_kill 4\n"), 4);
        assert_eq!(kill_count(""), 0);
    }
}
