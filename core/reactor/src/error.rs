//! What a reactor refuses, and why one cannot be made. Every message says what to do.

use std::fmt;
use std::io;

use thiserror::Error;

use crate::config::ConfigError;
use crate::ops::Op;

/// An operation that was not taken. It is given back whole.
#[derive(Debug, Error)]
#[error("{reason}")]
pub struct Refused {
    /// The operation, with its buffer or descriptor.
    pub op: Op,
    /// Why.
    pub reason: RefusedReason,
}

/// Why an operation was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusedReason {
    /// As many operations are in flight as the config allows.
    Operations,
    /// The submission queue is full and the kernel takes nothing from it for now.
    Submissions,
    /// As many messages were posted since the last turn as the config has entries.
    Messages,
}

impl fmt::Display for RefusedReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RefusedReason::Operations => {
                "all operations of the reactor are in flight; finish some or raise `operations`"
            }
            RefusedReason::Submissions => "the kernel takes no submissions for now; run a turn and try again",
            RefusedReason::Messages => "too many messages since the last turn; run a turn and try again",
        })
    }
}

/// Why a reactor could not be made.
#[derive(Debug, Error)]
pub enum SetupError {
    /// The config is out of bounds.
    #[error("reactor config: {0}")]
    Config(#[from] ConfigError),
    /// The administrator switched io_uring off.
    #[error(
        "io_uring is disabled on this host (kernel.io_uring_disabled = {setting}); \
         run `sysctl kernel.io_uring_disabled=0`, or with 1, add this user to the group in kernel.io_uring_group"
    )]
    Disabled {
        /// The value of `kernel.io_uring_disabled`.
        setting: u32,
    },
    /// The kernel lacks io_uring or a feature of it.
    #[error("kernel {release} lacks {missing}; Linux 6.1 or newer is needed")]
    KernelTooOld {
        /// The running kernel.
        release: String,
        /// What it lacks.
        missing: &'static str,
    },
    /// A seccomp filter or security module forbids io_uring.
    #[error(
        "{call} is forbidden here although the kernel has it ({source}); allow io_uring_setup, io_uring_enter and \
         io_uring_register in the seccomp profile of the container or service (or in the security module's policy)"
    )]
    Forbidden {
        /// The system call.
        call: &'static str,
        /// What it said.
        source: io::Error,
    },
    /// The memory for the rings or the buffers was refused.
    #[error(
        "not enough memory for the rings and buffers ({source}); raise the locked-memory limit (`ulimit -l`, \
         LimitMEMLOCK=) or the memory limit of the cgroup, or lower entries, completion_entries and buffer_count"
    )]
    Memory {
        /// What the kernel said.
        source: io::Error,
    },
    /// No descriptor is left.
    #[error("no file descriptor left for the ring ({source}); raise the open-files limit (`ulimit -n`, LimitNOFILE=)")]
    Descriptors {
        /// What the kernel said.
        source: io::Error,
    },
    /// Anything else.
    #[error("{call} failed: {source}; see its manual page for this error")]
    Other {
        /// The system call.
        call: &'static str,
        /// What it said.
        source: io::Error,
    },
}

/// The host, as far as it explains a failed set-up.
pub(crate) struct Host {
    pub(crate) io_uring_disabled: Option<u32>,
    pub(crate) release: String,
}

impl Host {
    pub(crate) fn read() -> Host {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        Host {
            io_uring_disabled: read("/proc/sys/kernel/io_uring_disabled").parse().ok(),
            release: read("/proc/sys/kernel/osrelease"),
        }
    }

    /// Major and minor version; `None` if the release does not begin with them.
    fn version(&self) -> Option<(u32, u32)> {
        let mut parts = self.release.split(|c: char| !c.is_ascii_digit());
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    }

    fn too_old(&self) -> bool {
        self.version().is_some_and(|version| version < (6, 1))
    }
}

impl SetupError {
    /// Explains a failed `call` with what is known of the host.
    pub(crate) fn explain(call: &'static str, source: io::Error, host: Host) -> SetupError {
        match source.raw_os_error() {
            Some(libc::EPERM) if host.io_uring_disabled.is_some_and(|setting| setting != 0) => {
                SetupError::Disabled { setting: host.io_uring_disabled.unwrap_or(0) }
            }
            Some(libc::ENOSYS | libc::EINVAL) if host.too_old() => SetupError::KernelTooOld {
                release: host.release,
                missing: "io_uring with SINGLE_ISSUER and DEFER_TASKRUN",
            },
            Some(libc::EPERM | libc::EACCES | libc::ENOSYS) => SetupError::Forbidden { call, source },
            Some(libc::ENOMEM | libc::EAGAIN) => SetupError::Memory { source },
            Some(libc::EMFILE | libc::ENFILE) => SetupError::Descriptors { source },
            _ => SetupError::Other { call, source },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explain(errno: i32, disabled: Option<u32>, release: &str) -> SetupError {
        let host = Host { io_uring_disabled: disabled, release: release.to_owned() };
        SetupError::explain("io_uring_setup", io::Error::from_raw_os_error(errno), host)
    }

    #[test]
    fn each_cause_is_told_apart() {
        assert!(matches!(explain(libc::EPERM, Some(2), "6.6.0"), SetupError::Disabled { setting: 2 }));
        assert!(matches!(explain(libc::EPERM, Some(0), "6.6.0"), SetupError::Forbidden { .. }));
        assert!(matches!(explain(libc::EPERM, None, "6.1.0-13-amd64"), SetupError::Forbidden { .. }));
        assert!(matches!(explain(libc::ENOSYS, None, "6.1.0"), SetupError::Forbidden { .. }));
        assert!(matches!(explain(libc::EINVAL, None, "5.15.0-91-generic"), SetupError::KernelTooOld { .. }));
        assert!(matches!(explain(libc::ENOSYS, None, "4.18.0"), SetupError::KernelTooOld { .. }));
        assert!(matches!(explain(libc::ENOMEM, Some(0), "6.18.44"), SetupError::Memory { .. }));
        assert!(matches!(explain(libc::EMFILE, Some(0), "6.18.44"), SetupError::Descriptors { .. }));
        assert!(matches!(explain(libc::EINVAL, Some(0), "6.18.44"), SetupError::Other { .. }));
    }

    #[test]
    fn messages_say_what_to_do() {
        assert!(explain(libc::EPERM, Some(2), "6.6.0").to_string().contains("sysctl"));
        assert!(explain(libc::ENOMEM, None, "6.6.0").to_string().contains("ulimit -l"));
        assert!(explain(libc::EPERM, Some(0), "6.6.0").to_string().contains("seccomp"));
    }
}
