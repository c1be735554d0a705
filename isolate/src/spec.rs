//! What a sandbox is: plain data, and what is refused about it.
//!
//! Owns: [`Spec`] and its check. Invariant: what passed [`Spec::check`] can be planned without an error. Does not know: hosts, processes.

use std::path::PathBuf;

use crate::limits::{
    ARGUMENTS, BINDS, CORES, ENVIRONMENT, IMAGE_ENTRIES, MEMORY_BYTES_LEAST, NAME_BYTES, OPEN_FILES_LEAST,
    TMP_BYTES_LEAST,
};
use crate::reach::Reach;

/// A sandbox to be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Unique among the sandboxes of this worker; `[a-z0-9-]`. It names the control group.
    pub name: String,
    /// The program, as an absolute path inside the sandbox, and its arguments.
    pub command: Vec<String>,
    /// The whole environment: nothing is inherited.
    pub environment: Vec<(String, String)>,
    /// Absolute path inside the sandbox.
    pub working_directory: String,
    /// Where the file system comes from.
    pub root: Root,
    /// Directories or files of the host shown inside.
    pub binds: Vec<Bind>,
    /// What it may use.
    pub limits: ResourceLimits,
    /// Cores that it may run on; empty means those of the worker.
    pub cores: Vec<usize>,
    /// Host name inside.
    pub hostname: String,
    /// What it reaches besides its own loopback.
    pub reach: Reach,
}

/// Where a sandbox's file system comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Root {
    /// The host's `/usr` and the few files of `/etc` that libraries need, read-only, on a root of its own.
    System,
    /// What lies at the root of an image's flattened directory, read-only, on a root of its own.
    Image(ImageRoot),
}

/// The root of an image. Only these entries of it are shown; what a sandbox has of its own is never taken from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRoot {
    /// Absolute path of the directory on the host, which nothing changes any more.
    pub directory: PathBuf,
    /// Names of its directories.
    pub directories: Vec<String>,
    /// Names of its symbolic links and where they point, inside.
    pub links: Vec<(String, String)>,
}

/// A directory or file of the host shown inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    /// Absolute path on the host, no part of which is a symbolic link.
    pub source: PathBuf,
    /// Absolute path inside; made as needed. Neither within the system's directories nor within another bind.
    pub target: String,
    /// Whether writing is refused.
    pub read_only: bool,
}

/// What a sandbox may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceLimits {
    /// Memory of all its processes, private files included, in bytes.
    pub memory_bytes: u64,
    /// Processor time in thousandths of one core; `None` is no limit.
    pub cpu_millis: Option<u32>,
    /// Processes and threads.
    pub processes: u32,
    /// Size of the private `/tmp`, and of `/dev/shm`, in bytes each.
    pub tmp_bytes: u64,
    /// Descriptors a process may have open.
    pub open_files: u32,
}

/// Why a spec was refused. The caller's error: nothing was started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// See [`check_name`].
    #[error("the name {0:?} is not 1 to {NAME_BYTES} of a-z, 0-9 and '-', beginning with a letter or digit")]
    Name(String),
    /// The command is empty or its program is not an absolute path.
    #[error("the command must begin with an absolute path inside the sandbox, not {0:?}")]
    Command(String),
    /// A string that the kernel would read only in part.
    #[error("{what} holds a NUL byte: {value:?}")]
    Nul {
        /// Which string.
        what: &'static str,
        /// Its value.
        value: String,
    },
    /// Not a name that the environment can hold.
    #[error("the environment variable name {0:?} is empty or holds '='")]
    EnvironmentName(String),
    /// Not an absolute path without `.` and `..`.
    #[error("{what} must be an absolute path without '.', '..' and empty parts, not {path:?}")]
    Path {
        /// Which path.
        what: &'static str,
        /// Its value.
        path: String,
    },
    /// A bind would cover a directory of the system or lie within another bind.
    #[error("the bind at {target:?} overlaps {other:?}; choose a target of its own, such as /function")]
    Overlap {
        /// The target of the bind.
        target: String,
        /// What it overlaps.
        other: String,
    },
    /// A port is named twice.
    #[error("port {port} is named twice; name it once")]
    Repeated {
        /// The port.
        port: u16,
    },
    /// A number or a list outside its bounds.
    #[error("{what} is {value}; it must be from {least} to {most}")]
    Bounds {
        /// Which number, with its unit.
        what: &'static str,
        /// Its value.
        value: u64,
        /// The least allowed.
        least: u64,
        /// The most allowed.
        most: u64,
    },
}

/// Directories that a bind must not touch: made by the plan, or the system's.
const RESERVED: [&str; 9] = ["/usr", "/bin", "/sbin", "/lib", "/etc", "/dev", "/proc", "/tmp", "/sys"];

/// What a sandbox has of its own, whatever its root.
const OWN: [&str; 4] = ["/dev", "/proc", "/tmp", "/sys"];

/// Whether a name can be a directory among the control groups and nothing else.
///
/// # Errors
/// [`SpecError::Name`].
pub fn check_name(name: &str) -> Result<(), SpecError> {
    let plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = name.as_bytes();
    let fits = (1..=NAME_BYTES).contains(&bytes.len())
        && bytes.first().is_some_and(plain)
        && bytes.iter().all(|byte| plain(byte) || *byte == b'-');
    if fits { Ok(()) } else { Err(SpecError::Name(name.to_owned())) }
}

impl Spec {
    /// Whether this can be planned.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn check(&self) -> Result<(), SpecError> {
        check_name(&self.name)?;
        self.check_command()?;
        self.check_environment()?;
        check_path("the working directory", &self.working_directory)?;
        self.check_binds()?;
        self.check_root()?;
        self.limits.check()?;
        self.reach.check()?;
        bounds("the length of the host name in bytes", self.hostname.len() as u64, 1, 64)?;
        no_nul("the host name", &self.hostname)?;
        for core in &self.cores {
            bounds("a core's index", *core as u64, 0, CORES as u64 - 1)?;
        }
        Ok(())
    }

    fn check_command(&self) -> Result<(), SpecError> {
        let program = self.command.first().map_or("", String::as_str);
        if !program.starts_with('/') {
            return Err(SpecError::Command(program.to_owned()));
        }
        bounds("the number of arguments", self.command.len() as u64, 1, ARGUMENTS as u64)?;
        self.command.iter().try_for_each(|argument| no_nul("the command", argument))
    }

    fn check_environment(&self) -> Result<(), SpecError> {
        bounds("the number of environment variables", self.environment.len() as u64, 0, ENVIRONMENT as u64)?;
        for (name, value) in &self.environment {
            if name.is_empty() || name.contains('=') {
                return Err(SpecError::EnvironmentName(name.clone()));
            }
            no_nul("an environment variable's name", name)?;
            no_nul("an environment variable's value", value)?;
        }
        Ok(())
    }

    fn check_binds(&self) -> Result<(), SpecError> {
        bounds("the number of binds", self.binds.len() as u64, 0, BINDS as u64)?;
        for (index, bind) in self.binds.iter().enumerate() {
            check_path("a bind's target", &bind.target)?;
            let source = bind.source.to_string_lossy();
            if !bind.source.is_absolute() {
                return Err(SpecError::Path { what: "a bind's source", path: source.into_owned() });
            }
            no_nul("a bind's source", &source)?;
            let earlier = self.binds.iter().take(index).map(|earlier| earlier.target.as_str());
            // Any directory named like /lib64 or /libx32 may be the system's.
            let library = bind.target.starts_with("/lib").then_some("/lib*");
            let other = RESERVED.into_iter().chain(earlier).find(|other| overlap(other, &bind.target)).or(library);
            if let Some(other) = other {
                return Err(SpecError::Overlap { target: bind.target.clone(), other: other.to_owned() });
            }
        }
        Ok(())
    }
}

impl Spec {
    fn check_root(&self) -> Result<(), SpecError> {
        let Root::Image(image) = &self.root else { return Ok(()) };
        let directory = image.directory.to_string_lossy();
        check_path("the directory of an image", &directory)?;
        let count = image.directories.len() + image.links.len();
        bounds("the number of entries at an image's root", count as u64, 0, IMAGE_ENTRIES as u64)?;
        image.links.iter().try_for_each(|(_, to)| no_nul("a link of an image", to))?;
        for name in image.directories.iter().chain(image.links.iter().map(|(name, _)| name)) {
            let target = format!("/{name}");
            check_path("an entry of an image's root", &target)?;
            let taken = OWN.into_iter().chain(self.binds.iter().map(|bind| bind.target.as_str()));
            if let Some(other) = taken.into_iter().find(|other| name.contains('/') || overlap(other, &target)) {
                return Err(SpecError::Overlap { target, other: other.to_owned() });
            }
        }
        Ok(())
    }
}

impl ResourceLimits {
    fn check(&self) -> Result<(), SpecError> {
        bounds("memory_bytes", self.memory_bytes, MEMORY_BYTES_LEAST, 1 << 50)?;
        bounds("processes", self.processes.into(), 1, 1 << 22)?;
        bounds("tmp_bytes", self.tmp_bytes, TMP_BYTES_LEAST, 1 << 50)?;
        bounds("open_files", self.open_files.into(), OPEN_FILES_LEAST.into(), 1 << 20)?;
        // The kernel refuses quotas of less than a millisecond in its period of 100.
        bounds("cpu_millis", self.cpu_millis.unwrap_or(1000).into(), 10, 1_000_000)
    }
}

/// Whether one of two paths is, or lies within, the other.
fn overlap(one: &str, other: &str) -> bool {
    let within = |inner: &str, outer: &str| {
        outer == "/" || inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    within(one, other) || within(other, one)
}

fn check_path(what: &'static str, path: &str) -> Result<(), SpecError> {
    no_nul(what, path)?;
    let proper = path == "/"
        || path.strip_prefix('/').is_some_and(|rest| rest.split('/').all(|part| !matches!(part, "" | "." | "..")));
    if proper { Ok(()) } else { Err(SpecError::Path { what, path: path.to_owned() }) }
}

fn no_nul(what: &'static str, value: &str) -> Result<(), SpecError> {
    if value.contains('\0') { Err(SpecError::Nul { what, value: value.to_owned() }) } else { Ok(()) }
}

fn bounds(what: &'static str, value: u64, least: u64, most: u64) -> Result<(), SpecError> {
    if (least..=most).contains(&value) { Ok(()) } else { Err(SpecError::Bounds { what, value, least, most }) }
}

#[cfg(test)]
mod tests {
    use super::{Bind, Reach, ResourceLimits, Root, Spec, SpecError};

    fn spec() -> Spec {
        Spec {
            name: "hello-1".into(),
            command: vec!["/function/hello".into()],
            environment: vec![("A".into(), "1".into())],
            working_directory: "/function".into(),
            root: Root::System,
            binds: vec![Bind { source: "/srv/hello".into(), target: "/function".into(), read_only: true }],
            limits: ResourceLimits {
                memory_bytes: 64 << 20,
                cpu_millis: Some(500),
                processes: 32,
                tmp_bytes: 1 << 20,
                open_files: 64,
            },
            cores: vec![0],
            hostname: "hello".into(),
            reach: Reach::Nothing,
        }
    }

    fn refused(change: impl FnOnce(&mut Spec)) -> SpecError {
        let mut spec = spec();
        change(&mut spec);
        spec.check().expect_err("this spec must be refused")
    }

    #[test]
    fn an_ordinary_spec_passes() {
        assert_eq!(spec().check(), Ok(()));
    }

    #[test]
    fn names_cannot_leave_their_directory() {
        for name in ["", "..", "a/b", "-a", "A", "a.b", &"a".repeat(65)] {
            assert_eq!(refused(|spec| spec.name = name.into()), SpecError::Name(name.into()));
        }
    }

    #[test]
    fn binds_cannot_cover_the_system_or_each_other() {
        for target in ["/", "/usr/local/x", "/etc", "/lib64", "/proc/self", "/tmp/x", "/dev"] {
            assert!(
                matches!(refused(|spec| spec.binds[0].target = target.into()), SpecError::Overlap { .. }),
                "{target}"
            );
        }
        let nested = Bind { source: "/srv".into(), target: "/function/inner".into(), read_only: true };
        assert!(matches!(refused(|spec| spec.binds.push(nested)), SpecError::Overlap { .. }));
        for target in ["function", "/a/../b", "/a//b", "/a/./b", "/a/"] {
            assert!(matches!(refused(|spec| spec.binds[0].target = target.into()), SpecError::Path { .. }), "{target}");
        }
    }

    #[test]
    fn what_means_no_limit_to_the_kernel_is_refused() {
        assert!(matches!(refused(|spec| spec.limits.tmp_bytes = 0), SpecError::Bounds { .. }));
        assert!(matches!(refused(|spec| spec.limits.processes = 0), SpecError::Bounds { .. }));
        assert!(matches!(refused(|spec| spec.limits.cpu_millis = Some(0)), SpecError::Bounds { .. }));
    }

    #[test]
    fn strings_are_whole() {
        assert!(matches!(refused(|spec| spec.command.push("a\0b".into())), SpecError::Nul { .. }));
        assert!(matches!(refused(|spec| spec.environment[0].0 = "A=B".into()), SpecError::EnvironmentName(_)));
        assert!(matches!(refused(|spec| spec.command[0] = "python3".into()), SpecError::Command(_)));
    }
}
