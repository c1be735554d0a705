//! A plan as container runtimes take it: not steps to perform, but what shall be there in the end.
//!
//! Owns: the reading of a plan's steps. Invariant: every step either has its counterpart here or is named as one that a runtime performs by
//! itself, so that a new step cannot be left out unnoticed. Does not know: any runtime's format.

use std::ffi::{CStr, CString};
use std::fs::Metadata;
use std::io;

use super::StartError;
use crate::plan::{Plan, Step};
use crate::resolve;

/// What a sandbox's file system holds, and the limits of its processes. Paths are inside, without the leading `/`.
#[derive(Debug, Default)]
pub(crate) struct Layout {
    pub(crate) directories: Vec<String>,
    pub(crate) links: Vec<Link>,
    pub(crate) files: Vec<(String, Vec<u8>)>,
    pub(crate) binds: Vec<Shown>,
    pub(crate) private: Vec<Private>,
    /// Files and directories to be hidden.
    pub(crate) masked: Vec<String>,
    /// Name without `RLIMIT_`, and value, soft and hard.
    pub(crate) limits: Vec<(&'static str, u64)>,
    pub(crate) umask: u32,
}

#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) path: String,
    pub(crate) to: String,
}

/// A file or directory of the host.
#[derive(Debug)]
pub(crate) struct Shown {
    pub(crate) source: String,
    pub(crate) path: String,
    pub(crate) read_only: bool,
    pub(crate) directory: bool,
}

/// A tmpfs.
#[derive(Debug)]
pub(crate) struct Private {
    pub(crate) path: String,
    /// Size, inodes and mode, joined by commas.
    pub(crate) options: String,
    pub(crate) executable: bool,
}

impl Layout {
    /// Reads a plan. `mechanism` is for the error.
    pub(crate) fn of(plan: &Plan, mechanism: &'static str) -> Result<Layout, StartError> {
        let mut layout = Layout::default();
        for step in &plan.steps {
            layout.take(step).map_err(|reason| StartError::Container { mechanism, reason })?;
        }
        Ok(layout)
    }

    fn take(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Directory(path) => self.directories.push(text(path)?),
            Step::Link { to, path } => self.link(text(path)?, text(to)?),
            Step::File { path, text: content } => self.files.push((text(path)?, content.clone())),
            Step::Bind { source, target, attributes, follow } => {
                let read_only = attributes & libc::MOUNT_ATTR_RDONLY != 0;
                self.bind(text(source)?, text(target)?, read_only, *follow)?;
            }
            Step::Tmpfs { target, flags, options } => self.tmpfs(text(target)?, *flags, text(options)?),
            Step::Proc { target } => self.directories.push(text(target)?),
            Step::Mask(path) => self.masked.push(text(path)?),
            Step::Limit { resource, value, .. } => self.limits.push((resource_name(*resource)?, *value)),
            Step::Umask(mask) => self.umask = *mask,
            // Said by the spec itself, in the words of the runtime: what runs, where, on which cores, with which name.
            Step::Hostname(_) | Step::Cores(_) | Step::Enter(_) | Step::Execute { .. } | Step::Finish => {}
            // Said once for every sandbox: namespaces, ids, capabilities, the filter.
            Step::Unshare(_)
            | Step::MapIds
            | Step::BecomeUser
            | Step::DropCapabilities { .. }
            | Step::NoNewPrivileges
            | Step::Filter(_)
            | Step::OfferToOomKiller
            | Step::SealRoot => {}
            // What a runtime does by itself, or what serves the steps of the native mechanism alone.
            Step::PlaceDescriptors
            | Step::JoinGroups
            | Step::KeepProc
            | Step::NewSession
            | Step::DefaultSignals
            | Step::PrivateMounts
            | Step::EnterRoot
            | Step::EmptyInput
            | Step::LoopbackUp
            | Step::Dumpable
            | Step::CloseOnExec
            | Step::UnblockSignals
            | Step::Reached(_) => {}
            Step::Listen(_) | Step::JoinNetwork | Step::Replacement { .. } => {
                return Err("its sandboxes reach nothing; use the native mechanism".to_owned());
            }
            // Steps of sandboxes that are made ahead, which plans of whole sandboxes do not have.
            Step::AwaitOrder
            | Step::MakeOthers(_)
            | Step::Carry
            | Step::ShowProgram { .. }
            | Step::ReplaceProc { .. } => {}
            // What no runtime can be told; the protections of a mechanism say so, and the filter still forbids the first.
            Step::ForbidUserNamespaces
            | Step::DieWithParent
            | Step::OrdinaryProcess
            | Step::Rules(_)
            | Step::EnforceRules(_)
            | Step::Forbid(_)
            | Step::OwnCores => {}
        }
        Ok(())
    }

    /// Runtimes make the links of `/dev` themselves.
    fn link(&mut self, path: String, to: String) {
        if !path.starts_with("dev/") {
            self.links.push(Link { path, to });
        }
    }

    /// And the devices, the same five and `/dev/tty`.
    fn bind(&mut self, source: String, path: String, read_only: bool, follow: bool) -> Result<(), String> {
        if path.starts_with("dev/") {
            return Ok(());
        }
        let kind = if follow { std::fs::metadata(&source) } else { metadata_without_links(&source) };
        let kind = kind.map_err(|error| match error.raw_os_error() {
            Some(libc::ELOOP) => {
                format!("the bind of {source}: no part of it may be a symbolic link; give the path that it leads to")
            }
            _ => format!("the bind of {source}: {error}"),
        })?;
        self.binds.push(Shown { source, path, read_only, directory: kind.is_dir() });
        Ok(())
    }

    fn tmpfs(&mut self, path: String, flags: libc::c_ulong, options: String) {
        if path.starts_with("proc/") {
            self.masked.push(path);
        } else if !path.starts_with('/') {
            let executable = flags & libc::MS_NOEXEC == 0;
            self.private.push(Private { path, options, executable });
        }
        // An absolute target is the host's staging directory, on which the native mechanism builds its root.
    }
}

/// A runtime finds the path once more by itself, so what lies above it must be the worker's to change, and nobody else's.
fn metadata_without_links(source: &str) -> io::Result<Metadata> {
    resolve::file_without_links(&CString::new(source)?)?.metadata()
}

/// The formats of runtimes are JSON.
fn text(text: &CStr) -> Result<String, String> {
    text.to_str().map(str::to_owned).map_err(|_| format!("{} is not UTF-8, which this needs", text.to_string_lossy()))
}

fn resource_name(resource: u32) -> Result<&'static str, String> {
    Ok(match resource {
        libc::RLIMIT_CORE => "CORE",
        libc::RLIMIT_NOFILE => "NOFILE",
        libc::RLIMIT_MEMLOCK => "MEMLOCK",
        libc::RLIMIT_MSGQUEUE => "MSGQUEUE",
        libc::RLIMIT_SIGPENDING => "SIGPENDING",
        libc::RLIMIT_NICE => "NICE",
        libc::RLIMIT_RTPRIO => "RTPRIO",
        libc::RLIMIT_NPROC => "NPROC",
        libc::RLIMIT_DATA => "DATA",
        other => return Err(format!("the resource limit {other} has no name here, which is a bug of Vilya")),
    })
}

#[cfg(test)]
mod tests {
    use super::resource_name;

    #[test]
    fn resources_have_the_names_of_the_kernel() {
        assert_eq!(resource_name(libc::RLIMIT_NOFILE), Ok("NOFILE"));
        assert!(resource_name(99).is_err());
    }
}
