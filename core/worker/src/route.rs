//! Which shards own a function, as one shard knows it.
//!
//! Invariant: every shard holds a copy of its own, changed only by messages from the control thread, so that a lookup
//! takes no lock. It knows no bundles and no limits.

use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;

use vilya_engine::{FunctionId, Owners};
use vilya_protocol::wire;

/// Where invocations of a function go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) function: FunctionId,
    /// At least one.
    pub(crate) owners: Owners,
}

impl Route {
    /// The shard that an invocation which arrived on shard `here` goes to: this one if it is an owner, since no message
    /// is needed then; else one of the owners, all alike for salts that count up.
    pub(crate) fn owner(&self, here: usize, salt: u64) -> usize {
        if self.owners.contains(here as u32) {
            return here;
        }
        self.owners.pick(salt).map_or(here, |owner| owner as usize)
    }

    /// Whether this shard is an owner.
    pub(crate) fn is_here(&self, here: usize) -> bool {
        self.owners.contains(here as u32)
    }

    /// The owners' numbers.
    fn shards(&self) -> Vec<u16> {
        // Shards are at most 256.
        self.owners.iter().map(|shard| shard as u16).collect()
    }
}

/// The route of one name as it is now: a request whose body takes a while keeps this, so that it goes to the version that
/// is deployed when it is whole. None once the name was removed.
pub(crate) type CurrentRoute = Rc<Cell<Option<Route>>>;

/// Function names to routes.
#[derive(Default)]
pub(crate) struct RouteTable {
    routes: HashMap<Box<str>, CurrentRoute>,
    /// Changes so far.
    generation: u64,
}

impl RouteTable {
    pub(crate) fn find(&self, name: &str) -> Option<&CurrentRoute> {
        self.routes.get(name)
    }

    /// Appends the whole table as MAP frames.
    pub(crate) fn write_map(&self, out: &mut Vec<u8>) {
        let owned = self.routes.iter().filter_map(|(name, route)| Some((&**name, route.get()?.shards())));
        let entries: Vec<(&str, Vec<u16>)> = owned.collect();
        let entries = entries.iter().map(|(name, owners)| (*name, &owners[..]));
        wire::map(out, self.generation, true, wire::Limits::DEFAULT.frame_bytes, entries);
    }

    /// Appends one name's owners as they are now as a MAP frame.
    pub(crate) fn write_change(&self, name: &str, out: &mut Vec<u8>) {
        let owners = self.find(name).and_then(|route| route.get()).map(|route| route.shards()).unwrap_or_default();
        wire::map(out, self.generation, false, wire::Limits::DEFAULT.frame_bytes, [(name, &owners[..])]);
    }

    pub(crate) fn set(&mut self, name: &str, route: Option<Route>) {
        self.generation += 1;
        match route {
            Some(_) => match self.routes.get(name) {
                Some(current) => current.set(route),
                None => {
                    self.routes.insert(name.into(), Rc::new(Cell::new(route)));
                }
            },
            None => {
                if let Some(current) = self.routes.remove(name) {
                    current.set(None);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_keeps_what_arrives_and_others_take_turns() {
        let owners = Owners::only(2).with(Owners::only(5));
        let route = Route { function: FunctionId { index: 0, generation: 1 }, owners };
        assert_eq!((route.owner(2, 9), route.owner(5, 9)), (2, 5));
        assert_eq!([0, 1, 2, 3].map(|salt| route.owner(7, salt)), [2, 5, 2, 5]);
    }

    #[test]
    fn a_route_that_is_held_follows_its_name() {
        let owners = Owners::only(1);
        let route = |generation| Some(Route { function: FunctionId { index: 0, generation }, owners });
        let mut table = RouteTable::default();
        table.set("f", route(1));
        let held = Rc::clone(table.find("f").expect("just set"));
        table.set("f", route(2));
        assert_eq!(held.get(), route(2));
        table.set("f", None);
        assert_eq!((held.get(), table.find("f").is_none()), (None, true));
        table.set("f", route(3));
        assert_eq!(held.get(), None, "another function under the name of one that was removed");
    }
}
