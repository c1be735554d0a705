//! Other machines: a pair of interfaces for each sandbox that reaches them, and one table of rules for all.
//!
//! Owns: the links of this worker's sandboxes from before they start until they are dead, and the table that they are watched by.
//! Invariant: no link is up before the table is in force; a namespace that had a link is used by no other sandbox, and an address by none before
//! what the kernel remembers of it is forgotten. What a killed worker leaves stays shut. Does not know: who is let out, or why.

mod addresses;
mod connections;
mod expressions;
mod host;
mod inside;
mod links;
mod netlink;
mod rules;

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnet::Ipv4Net;
use nix::sys::socket::SockProtocol;

use crate::sys;
use addresses::{Addresses, Pair};
pub use host::{is_never_reached, nameservers};
use inside::Inside;
use links::Groups;
use netlink::{Message, Socket};
use rules::Rules;

/// How sandboxes reach other machines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EgressOptions {
    /// The addresses of their links, of use to nobody else on this host.
    pub range: Ipv4Net,
    /// Addresses that they do not reach, besides those that none ever does.
    pub denied: Vec<Ipv4Net>,
    /// Nameservers that they may ask, even if their addresses are denied.
    pub nameservers: Vec<Ipv4Addr>,
    /// Connections of one sandbox at once.
    pub connections: u32,
}

/// Why a sandbox cannot reach other machines. The message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum EgressError {
    /// The host does not allow it.
    #[error("{0}")]
    Host(String),
    /// Every address is in use.
    #[error("every address of {range} is in use: set sandbox.egress_range to a larger one, or keep fewer sandboxes")]
    Full {
        /// The range.
        range: Ipv4Net,
    },
    /// The kernel refused something.
    #[error(
        "cannot {action}: {source}; the kernel must have veth, nf_tables (inet, fib, ct, connlimit, masquerade, reject) and conntrack"
    )]
    Kernel {
        /// What.
        action: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl EgressOptions {
    /// Whether this host lets sandboxes of this process reach other machines, as far as can be told without making anything.
    ///
    /// # Errors
    /// What is missing, and what to do.
    pub fn check(&self) -> Result<(), EgressError> {
        host::check(self.range)
    }

    /// Besides, makes a table and a link in a network of their own: whether the kernel can.
    ///
    /// # Errors
    /// What is missing, and what to do.
    pub fn trial(&self) -> Result<(), EgressError> {
        self.check()?;
        let tried = inside::away(|| {
            sys::unshare(libc::CLONE_NEWNET)?;
            Ok(Arc::new(Egress::new(self.clone(), "trial")).link_unchecked().map(drop))
        });
        tried.map_err(kernel("make a network namespace"))?
    }
}

/// The way out of one worker's sandboxes. Its table goes when it and every link are dropped.
#[derive(Debug)]
pub(crate) struct Egress {
    options: EgressOptions,
    table: String,
    groups: Groups,
    desk: Mutex<Desk>,
}

#[derive(Debug)]
struct Desk {
    addresses: Addresses,
    /// Whether the table was made.
    guarded: bool,
    /// Whether a link could not be shut, which the table must outlive.
    left: bool,
}

/// A sandbox's way out; dropping it takes it away.
#[derive(Debug)]
pub(crate) struct Link {
    egress: Arc<Egress>,
    pair: Pair,
    /// The namespace that its inner end is in.
    namespace: OwnedFd,
}

impl Egress {
    pub(crate) fn new(options: EgressOptions, worker_id: &str) -> Egress {
        let desk = Desk { addresses: Addresses::of(options.range), guarded: false, left: false };
        Egress { options, table: table(worker_id), groups: groups(worker_id), desk: Mutex::new(desk) }
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        // Nothing that holds it leaves it half changed.
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new network namespace with an address, a way out, and nobody in it.
    pub(crate) fn link(self: &Arc<Egress>) -> Result<Link, EgressError> {
        if !self.desk().guarded {
            self.options.check()?;
        }
        self.link_unchecked()
    }

    fn link_unchecked(self: &Arc<Egress>) -> Result<Link, EgressError> {
        self.guard()?;
        let inside = Inside::make().map_err(kernel("make a network namespace"))?;
        let route = Socket::open(SockProtocol::NetlinkRoute).map_err(kernel("speak to the kernel's routing"))?;
        let pair = self.join(&route, &inside.namespace)?;
        // From here on, what fails takes the pair along.
        let link = Link { egress: Arc::clone(self), pair, namespace: inside.namespace };
        link.set_up(&route, &inside.socket).map_err(kernel("set a link up"))?;
        Ok(link)
    }

    /// Makes the table, if it is not there: others may take it away together with rules of their own.
    fn guard(&self) -> Result<(), EgressError> {
        let mut desk = self.desk();
        let filter = || Socket::open(SockProtocol::NetlinkNetFilter).map_err(kernel("speak to the kernel's filter"));
        if desk.guarded && filter()?.ask(rules::question(&self.table)).is_ok() {
            return Ok(());
        }
        let EgressOptions { range, denied, nameservers, connections } = &self.options;
        let rules = Rules {
            table: &self.table,
            groups: self.groups,
            range: *range,
            denied,
            nameservers,
            connections: *connections,
        };
        commit(&filter()?, &rules.made()).map_err(kernel("make the table of rules"))?;
        desk.guarded = true;
        Ok(())
    }

    /// A pair at addresses that no other worker uses either.
    fn join(&self, route: &Socket, namespace: &OwnedFd) -> Result<Pair, EgressError> {
        let mut desk = self.desk();
        let mut elsewhere = Vec::new();
        let joined = loop {
            let Some(pair) = desk.addresses.take() else {
                break Err(EgressError::Full { range: self.options.range });
            };
            let message = [links::pair(&links::name(pair.sandbox), self.groups.open, namespace)];
            let joined = match route.perform(&message, 0) {
                Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {
                    self.clear(route, pair).and_then(|()| route.perform(&message, 0))
                }
                joined => joined,
            };
            match joined {
                Ok(()) => break Ok(pair),
                Err(error) if error.raw_os_error() == Some(libc::EEXIST) => elsewhere.push(pair),
                Err(error) => {
                    elsewhere.push(pair);
                    break Err(kernel("make a pair of interfaces")(error));
                }
            }
        };
        elsewhere.into_iter().for_each(|pair| desk.addresses.give_back(pair));
        joined
    }

    /// Takes away what the last sandbox at these addresses left, if the kernel has not yet. What is another worker's stays.
    fn clear(&self, route: &Socket, pair: Pair) -> io::Result<()> {
        let name = links::name(pair.sandbox);
        match links::is_in_group(route, &name, self.groups) {
            Ok(true) => remove(route, &name),
            Ok(false) => Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl Link {
    /// Both ends have their addresses before either carries anything.
    fn set_up(&self, route: &Socket, inside: &Socket) -> io::Result<()> {
        let name = links::name(self.pair.sandbox);
        let index = links::index(route, &name)?;
        let outer = [links::forwarding(&name), links::address(index, self.pair.host), links::up(&name)];
        let inner = links::index(inside, links::INSIDE)?;
        let inner = [
            links::up("lo"),
            links::address(inner, self.pair.sandbox),
            links::up(links::INSIDE),
            links::default_route(inner, self.pair.host),
        ];
        if host::has_version_6() {
            route.perform(&[links::without_version_6(&name)], 0)?;
            inside.perform(&[links::without_version_6(links::INSIDE)], 0)?;
        }
        route.perform(&outer, outer.len() - 1)?;
        inside.perform(&inner, inner.len() - 1)
    }

    /// The namespace for the sandbox to be born in.
    pub(crate) fn namespace(&self) -> &OwnedFd {
        &self.namespace
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // Where that cannot be written they end in the kernel's own time.
        let _ = inside::end_connections(&self.namespace);
        let name = links::name(self.pair.sandbox);
        // To remove it, or take it down, is to wait until no processor looks at it; the kernel does so by itself, with the namespace.
        let shut = Socket::open(SockProtocol::NetlinkRoute)
            .and_then(|route| gone(route.perform(&[links::regroup(&name, self.egress.groups.shut)], 0)));
        let forgotten = shut.and_then(|()| connections::forget(self.pair.sandbox));
        let mut desk = self.egress.desk();
        match forgotten {
            Ok(()) => desk.addresses.give_back(self.pair),
            // The address is not used again, and the rules stay as long as the link may be up.
            Err(_) => desk.left = true,
        }
    }
}

impl Drop for Egress {
    fn drop(&mut self) {
        let desk = self.desk();
        if desk.guarded && !desk.left {
            // A table that stays shuts what there still is; the next start of this worker removes both.
            let _ = remove_all(self.groups).and_then(|_| {
                let filter = Socket::open(SockProtocol::NetlinkNetFilter)?;
                commit(&filter, &rules::removal(&self.table))
            });
        }
    }
}

/// Removes what a killed worker with this id left, and says how much: its links first, so that none is there without the table.
pub(crate) fn sweep(worker_id: &str) -> io::Result<usize> {
    let mut swept = 0;
    if !sys::is_root() {
        return Ok(swept);
    }
    let Some(filter) = there(Socket::open(SockProtocol::NetlinkNetFilter))? else { return Ok(swept) };
    swept += remove_all(groups(worker_id))?;
    let table = table(worker_id);
    if there(filter.ask(rules::question(&table)))?.is_some() {
        commit(&Socket::open(SockProtocol::NetlinkNetFilter)?, &rules::removal(&table))?;
        swept += 1;
    }
    Ok(swept)
}

/// None where the kernel has no such thing, or where this process may not ask and so cannot have made any.
fn there<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    const ABSENT: [i32; 6] =
        [libc::ENOENT, libc::EPERM, libc::EINVAL, libc::EOPNOTSUPP, libc::EPROTONOSUPPORT, libc::EAFNOSUPPORT];
    match result {
        Err(error) if error.raw_os_error().is_some_and(|errno| ABSENT.contains(&errno)) => Ok(None),
        result => result.map(Some),
    }
}

/// Takes every link of a worker away, and says how many there were.
fn remove_all(groups: Groups) -> io::Result<usize> {
    let found = links::in_groups(&Socket::open(SockProtocol::NetlinkRoute)?, groups)?.len();
    if found > 0 {
        for group in [groups.open, groups.shut] {
            // A socket that was refused something is left.
            let route = Socket::open(SockProtocol::NetlinkRoute)?;
            gone(route.perform(&[links::removal_of(group)], 0))?;
        }
    }
    Ok(found)
}

fn remove(route: &Socket, name: &str) -> io::Result<()> {
    gone(route.perform(&[links::removal(name)], 0))
}

/// A link may have gone with its namespace.
fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(()),
        result => result,
    }
}

/// The last message of a batch is its end, which is not acknowledged.
fn commit(filter: &Socket, batch: &[Message]) -> io::Result<()> {
    filter.perform(batch, batch.len() - 2)
}

fn kernel(action: &'static str) -> impl FnOnce(io::Error) -> EgressError {
    move |source| EgressError::Kernel { action, source }
}

fn table(worker_id: &str) -> String {
    format!("vilya-{worker_id}")
}

/// The marks of a worker's interfaces: FNV-1a of its id, in a part of the numbers that people do not use.
fn groups(worker_id: &str) -> Groups {
    let hash = worker_id.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let open = 0x4000_0000 | hash & 0x3fff_fffe;
    Groups { open, shut: open | 1 }
}
