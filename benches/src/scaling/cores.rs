//! Which cores serve and which ask.

use vilya_benches::Failure;

/// What there is to choose from; an empty list is no wish.
pub(crate) struct Layout {
    pub(crate) servers: Vec<usize>,
    pub(crate) clients: Vec<usize>,
    pub(crate) available: Vec<usize>,
}

/// The cores of each shard and of its clients.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Places {
    pub(crate) servers: Vec<usize>,
    pub(crate) clients: Vec<usize>,
}

impl Layout {
    /// The most shards that have a core each.
    pub(crate) fn most(&self) -> usize {
        if self.servers.is_empty() { self.available.len() } else { self.servers.len() }
    }

    /// The places of so many shards, at most [`Layout::most`].
    pub(crate) fn places(&self, shards: usize) -> Places {
        let Layout { servers, clients, available } = self;
        let servers = match servers.is_empty() {
            true => available[available.len() - shards..].to_vec(),
            false => servers[..shards].to_vec(),
        };
        let clients = if clients.is_empty() { available } else { clients };
        Places { servers, clients: clients.iter().copied().cycle().take(shards).collect() }
    }
}

impl Places {
    /// Whether some core both serves and asks, or asks twice.
    pub(crate) fn shared(&self) -> bool {
        let repeated = self.clients.iter().enumerate().any(|(at, core)| self.clients[..at].contains(core));
        repeated || self.clients.iter().any(|core| self.servers.contains(core))
    }
}

/// A list as it is typed: `1,2,4`.
pub(crate) fn numbers(text: &str) -> Result<Vec<usize>, Failure> {
    let number = |word: &str| word.trim().parse().map_err(|_| format!("{text}: write numbers, as in 1,2,4").into());
    text.split(',').filter(|word| !word.is_empty()).map(number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_keep_off_the_servers_cores_while_there_are_enough() {
        let layout = Layout { servers: vec![], clients: vec![], available: (0..8).collect() };
        assert_eq!(layout.places(2), Places { servers: vec![6, 7], clients: vec![0, 1] });
        assert!(!layout.places(4).shared());
        assert!(layout.places(8).shared());
        let wished = Layout { servers: vec![3, 5], clients: vec![1], available: (0..8).collect() };
        assert_eq!((wished.most(), wished.places(2).clients), (2, vec![1, 1]));
        assert!(wished.places(2).shared() && !wished.places(1).shared());
    }

    #[test]
    fn a_list_is_numbers() {
        assert_eq!(numbers("1,2, 4").unwrap(), [1, 2, 4]);
        assert_eq!(numbers("").unwrap(), [0_usize; 0]);
        assert!(numbers("1-3").is_err());
    }
}
