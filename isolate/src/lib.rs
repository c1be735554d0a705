//! Sandboxes: what one is ([`Spec`]), the list of steps that makes it ([`plan`]), the interpreter that performs the list in a fresh child,
//! and what is cleaned after its death ([`Remains`]).
//!
//! Owns: isolation. Invariant: a sandboxed program sees and changes nothing but its own files, processes and loopback, within its limits,
//! as far as [`Protections`] says that the host allows; it does not outlive the worker. Does not know: invocations, rings, or what runs in a
//! sandbox; it passes three descriptors on without looking at them.
//!
//! A process sandbox shares the host's kernel: a hole in the kernel is a hole in the sandbox. It keeps apart functions of people who
//! largely trust each other; for hostile tenants, put the worker into a virtual machine a tenant.

mod apply;
mod attach;
mod calls;
mod cgroup;
mod freezer;
mod heap;
mod host;
mod keeper;
mod landlock;
mod leader;
pub mod limits;
mod maker;
mod mechanism;
mod memory;
mod native;
mod network;
mod offers;
mod order;
pub mod plan;
mod pool;
mod porter;
mod prepared;
mod prepared_images;
mod processor;
mod program;
mod protections;
mod reach;
mod remains;
mod resolve;
pub mod runtimes;
mod seccomp;
mod service;
mod slice;
mod spawn;
mod spec;
mod state;
mod stub;
mod sweep;
mod sys;
mod unpacker;
mod users;
mod warden;
mod zygote;

pub use cgroup::{CgroupPreference, GroupError, MemoryUsage, Precedence, container_freezer};
pub use freezer::Freezer;
pub use host::{GroupFacts, HardLimits, Host, Privilege, ProbeError, SystemEntry};
pub use limits::UNPACKING;
pub use mechanism::docker::{Docker, DockerOptions, available as docker_available};
pub use mechanism::oci::{Oci, OciOptions, OciRuntime, available as oci_available};
pub use mechanism::{Begun, CopyOf, Descriptors, Mechanism, Stages, StartError, Started, WaitingSandbox};
pub use native::{Native, NativeOptions, SetupError};
pub use offers::{Hierarchy, Offer, hierarchies, landlock_interface, offers};
pub use pool::PoolOptions;
pub use prepared::Unfinished;
pub use prepared_images::OF_IMAGE;
pub use processor::{Cores, Guess, Processor, Speculation};
pub use protections::{Protection, Protections};
pub use reach::Reach;
pub use reach::egress::{EgressError, EgressOptions, is_never_reached, nameservers};
pub use remains::{Ended, Exit, Remains};
pub use seccomp::{AllowedCall, Filter, FilterError, allowed_calls};
pub use slice::ask_for_short_turns;
pub use spec::{Bind, ImageRoot, ResourceLimits, Root, Spec, SpecError, check_name};
pub use sweep::{SweepError, Swept, sweep};
pub use unpacker::{Bounds, Finished, Job, JobError, Unpacker, Work};
pub use zygote::{CaptureError, Image, capture};
