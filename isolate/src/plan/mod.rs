//! From a spec and the facts of the host to the list of steps that make the sandbox.
//!
//! Owns: which steps, and their order. Invariant: a pure function; the same spec and host give the same plan, which can be
//! performed any number of times with different allotments. Does not know: descriptors, ids and groups of one start (see
//! `apply::Allotment`), or how a step is performed.
//!
//! Every other namespace is made first and the sandbox's user namespace is entered last, so that nothing inside can ever change them. As
//! root they belong to the initial user namespace, and sources below directories that only root may enter can be bound; as an ordinary user,
//! which may not mount there, to the keeper's.

pub(crate) mod files;
mod step;

use std::ffi::CString;
use std::fmt;

use crate::host::{Host, Privilege};
use crate::limits::{CORE_BYTES, CORES, LOCKED_BYTES, PENDING_SIGNALS};
use crate::processor::{Cores, Guess, Speculation};
use crate::reach::Reach;
use crate::seccomp::Filter;
use crate::spec::{ResourceLimits, Root, Spec, SpecError};

pub use crate::landlock::Rules;
pub use step::{Milestone, Step, Strings};

/// User and group id inside every sandbox.
pub const INSIDE_ID: u32 = 1000;

/// What sandboxes that never executed a program show as theirs.
const SHOWN_PROGRAM: &str = "/usr/bin/true";

/// How a sandbox is made.
#[derive(Debug)]
pub struct Plan {
    /// `CLONE_NEW*` of the child.
    pub namespaces: u64,
    /// The steps, in order. The last one does not return.
    pub steps: Vec<Step>,
}

/// What the child does when everything is in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Becomes the command of the spec.
    Execute,
    /// Ends with status 0: a trial of the steps before.
    Finish,
}

const ISOLATED: u64 =
    (libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS) as u64;

impl Plan {
    /// Plans a sandbox.
    ///
    /// # Errors
    /// When the spec does not pass its check.
    pub fn new(spec: &Spec, host: &Host, filter: &'static Filter, ending: Ending) -> Result<Plan, SpecError> {
        spec.check()?;
        let mut namespaces = ISOLATED;
        // The version 1 group of the processor takes nobody who runs at a real-time priority.
        let mut steps = vec![Step::PlaceDescriptors, Step::OrdinaryProcess];
        if host.groups.joins {
            steps.push(Step::JoinGroups);
        }
        // After the groups are joined: the namespace shows the group that a process is in when it is made as the root of all.
        steps.extend([Step::Unshare(libc::CLONE_NEWCGROUP), Step::KeepProc]);
        surroundings(&mut steps, spec);
        match &spec.reach {
            Reach::Nothing => steps.push(Step::LoopbackUp),
            Reach::HostLoopback { ports } => steps.extend([Step::LoopbackUp, Step::Listen(ports.clone())]),
            // One that was made before, with a way out.
            Reach::Egress { .. } => {
                namespaces &= !(libc::CLONE_NEWNET as u64);
                steps.push(Step::JoinNetwork);
            }
        }
        steps.push(Step::Reached(Milestone::Placed));
        files::steps(&mut steps, spec, host);
        confinement(&mut steps, spec, host);
        ending_steps(&mut steps, spec, filter, ending);
        Ok(Plan { namespaces, steps })
    }

    /// Plans a maker: a process with the root of this template, whose children are sandboxes that wait to be told what to become.
    ///
    /// # Errors
    /// When the template does not pass its check.
    pub fn maker(
        template: &Spec,
        mount_points: &[&str],
        host: &Host,
        filter: &'static Filter,
    ) -> Result<Plan, SpecError> {
        template.check()?;
        let mut steps = vec![
            Step::PlaceDescriptors,
            Step::OrdinaryProcess,
            Step::KeepProc,
            Step::NewSession,
            Step::DefaultSignals,
            Step::Umask(0o022),
        ];
        // Where a sandbox is another user than the worker, it may not change the worker's program all the same.
        let required = host.privilege != Privilege::Root;
        let show = Step::ShowProgram { path: text(SHOWN_PROGRAM), required };
        match template.root {
            Root::System => {
                files::shared_steps(&mut steps, template, host, mount_points);
                steps.push(show);
            }
            // The host's, while it can be seen: whether an image has one, and what it is, is the image's affair.
            Root::Image(_) => {
                steps.push(show);
                files::shared_steps(&mut steps, template, host, mount_points);
            }
        }
        steps.extend([Step::DieWithParent, Step::MakeOthers(Box::new(Plan::waiting(template, host, filter)))]);
        Ok(Plan { namespaces: libc::CLONE_NEWNS as u64, steps })
    }

    /// Plans a porter: a process with the host's mounts as its own, which attaches them in sandboxes that wait.
    pub(crate) fn porter() -> Plan {
        let mut steps = vec![Step::PlaceDescriptors, Step::OrdinaryProcess];
        steps.extend([Step::NewSession, Step::DefaultSignals, Step::Umask(0o022), Step::DieWithParent, Step::Carry]);
        Plan { namespaces: libc::CLONE_NEWNS as u64, steps }
    }

    /// A child of a maker: everything that [`Plan::new`] does, but for what the maker has done and for becoming a program.
    fn waiting(template: &Spec, host: &Host, filter: &'static Filter) -> Plan {
        let mut steps = vec![Step::PlaceDescriptors];
        if host.groups.joins {
            steps.push(Step::JoinGroups);
        }
        steps.push(Step::Unshare(libc::CLONE_NEWCGROUP));
        surroundings(&mut steps, template);
        // One that was made ahead belongs to the initial user namespace, which only root may enter.
        let mut namespaces = ISOLATED;
        match host.privilege {
            Privilege::Root => {
                steps.push(Step::JoinNetwork);
                namespaces &= !(libc::CLONE_NEWNET as u64);
            }
            Privilege::User { .. } => steps.push(Step::LoopbackUp),
        }
        steps.push(Step::Reached(Milestone::Placed));
        files::own_steps(&mut steps, template, host);
        // No more than a start will lower it to: what was lowered is not raised again.
        let limits = ResourceLimits { memory_bytes: u64::MAX, ..template.limits.clone() };
        confinement(&mut steps, &Spec { limits, ..template.clone() }, host);
        steps.extend([Step::Filter(filter), Step::Reached(Milestone::Filtered), Step::UnblockSignals]);
        steps.push(Step::AwaitOrder);
        Plan { namespaces, steps }
    }
}

fn surroundings(steps: &mut Vec<Step>, spec: &Spec) {
    steps.extend([
        Step::OfferToOomKiller,
        Step::NewSession,
        Step::DefaultSignals,
        Step::Umask(0o022),
        Step::Hostname(text(&spec.hostname)),
    ]);
}

fn confinement(steps: &mut Vec<Step>, spec: &Spec, host: &Host) {
    // While descriptors are not limited yet: it opens some.
    let rules = Rules::new(host.landlock, files::writable(spec));
    let enforce = rules.as_ref().map(|rules| Step::EnforceRules(rules.flags()));
    steps.extend(rules.map(Step::Rules));
    if host.privilege == Privilege::Root {
        steps.push(Step::BecomeUser);
    }
    steps.extend([Step::Dumpable, Step::Unshare(libc::CLONE_NEWUSER), Step::MapIds]);
    if host.user_limits_writable {
        steps.push(Step::ForbidUserNamespaces);
    }
    // After the last file was opened: the descriptors of the worker still take the low numbers, so the next number may be above the limit.
    limits(steps, &spec.limits, host);
    if !spec.cores.is_empty() {
        let mut mask = [0_u64; CORES / 64];
        for core in &spec.cores {
            mask[core / 64] |= 1 << (core % 64);
        }
        steps.push(Step::Cores(mask));
    }
    steps.extend([
        Step::DropCapabilities { last: host.last_capability },
        // As the final user, so that a directory that it may not enter is refused here.
        Step::Enter(text(&spec.working_directory)),
        // After the last change of credentials, which would clear it.
        Step::DieWithParent,
        Step::NoNewPrivileges,
    ]);
    steps.extend(enforce);
    steps.extend(mitigations(host));
    steps.extend([Step::CloseOnExec, Step::Reached(Milestone::Confined)]);
}

fn mitigations(host: &Host) -> impl Iterator<Item = Step> {
    let forbidden = [Guess::StoreBypass, Guess::IndirectBranch]
        .into_iter()
        .filter(|guess| host.processor.speculation(*guess) == Speculation::Controllable)
        .map(Step::Forbid);
    let cores = (host.processor.cores == Cores::Controllable).then_some(Step::OwnCores);
    forbidden.chain(cores).filter(|_| host.mitigations)
}

fn limits(steps: &mut Vec<Step>, limits: &ResourceLimits, host: &Host) {
    let hard = &host.hard_limits;
    let mut limit = |name, resource: u32, value: u64| {
        steps.push(Step::Limit { name, resource, value });
    };
    // Not 0: a host that pipes dumps to a program, as most do, runs it as root at 0 too, and only at 1 neither dumps nor runs anything.
    limit("core", libc::RLIMIT_CORE, CORE_BYTES.min(hard.core_bytes));
    limit("open files", libc::RLIMIT_NOFILE, u64::from(limits.open_files).min(hard.open_files));
    limit("locked memory", libc::RLIMIT_MEMLOCK, LOCKED_BYTES.min(hard.locked_bytes));
    limit("message queues", libc::RLIMIT_MSGQUEUE, 0);
    limit("pending signals", libc::RLIMIT_SIGPENDING, PENDING_SIGNALS.min(hard.pending_signals));
    limit("niceness", libc::RLIMIT_NICE, 0);
    limit("real-time priority", libc::RLIMIT_RTPRIO, 0);
    // Counted per user, and every sandbox is a user of its own (or has a user namespace, which counts for itself).
    limit("processes", libc::RLIMIT_NPROC, u64::from(limits.processes).min(hard.processes));
    if !host.groups.memory {
        // A process at a time, but all that there is. Not the address space: V8, Go and the JVM reserve far more than they use.
        limit("data", libc::RLIMIT_DATA, limits.memory_bytes.min(hard.data_bytes));
    }
}

fn ending_steps(steps: &mut Vec<Step>, spec: &Spec, filter: &'static Filter, ending: Ending) {
    steps.extend([Step::Filter(filter), Step::Reached(Milestone::Filtered), Step::UnblockSignals]);
    steps.push(match ending {
        Ending::Finish => Step::Finish,
        Ending::Execute => Step::Execute {
            program: text(spec.command.first().map_or("", String::as_str)),
            arguments: Strings::new(spec.command.iter().map(text).collect()),
            environment: Strings::new(
                spec.environment.iter().map(|(name, value)| text(format!("{name}={value}"))).collect(),
            ),
        },
    });
}

/// A checked string as the kernel wants it.
fn text(string: impl AsRef<[u8]>) -> CString {
    CString::new(string.as_ref()).expect("the spec's check refuses NUL bytes, and paths of the host cannot hold any")
}

impl fmt::Display for Plan {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "clone into new {}", step::Namespaces(self.namespaces))?;
        self.steps.iter().try_for_each(|step| writeln!(out, "{step}"))
    }
}
