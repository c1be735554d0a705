//! Which shard owns a function, as one shard knows it.
//!
//! Invariant: every shard holds a copy of its own, changed only by messages from the control thread, so that a lookup
//! takes no lock. It knows no bundles and no limits.

use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;

use vilya_engine::FunctionId;

/// Where invocations of a function go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) function: FunctionId,
    pub(crate) owner: usize,
}

/// The route of one name as it is now: a request whose body takes a while keeps this, so that it goes to the version that
/// is deployed when it is whole. None once the name was removed.
pub(crate) type CurrentRoute = Rc<Cell<Option<Route>>>;

/// Function names to routes.
#[derive(Default)]
pub(crate) struct RouteTable {
    routes: HashMap<Box<str>, CurrentRoute>,
}

impl RouteTable {
    pub(crate) fn find(&self, name: &str) -> Option<&CurrentRoute> {
        self.routes.get(name)
    }

    pub(crate) fn set(&mut self, name: &str, route: Option<Route>) {
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
    fn a_route_that_is_held_follows_its_name() {
        let route = |generation| Some(Route { function: FunctionId { index: 0, generation }, owner: 1 });
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
