//! What may pass between sandboxes and other machines: one table of nf_tables a worker.
//!
//! Owns: the rules. Invariant: from an interface of the worker's group nothing gets to the host, to another sandbox, to an address that is
//! denied, or anywhere from a source that is not its own, whatever other tables make of its destination; the table is made, replaced and
//! removed as a whole. It outlives a killed worker: nothing opens by a death. Does not know: which interfaces there are.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::expressions::{Rule, States, Verdict};
use super::links::Groups;
use super::netlink::Message;

// linux/netfilter/nf_tables.h
const TABLE_NAME: u16 = 1;
const CHAIN: [u16; 2] = [1, 3];
const CHAIN_HOOK: u16 = 4;
const CHAIN_TYPE: u16 = 7;
const HOOK: [u16; 2] = [1, 2];
const RULE: [u16; 2] = [1, 2];
const RULE_EXPRESSIONS: u16 = 4;
const SET: [u16; 2] = [1, 2];
const SET_FLAGS: u16 = 3;
const SET_KEY: [u16; 2] = [4, 5];
const SET_DESCRIPTION: u16 = 9;
const SET_DESCRIPTION_SIZE: u16 = 1;
const SET_ID: u16 = 10;

/// What is counted by interface; libnftables' number for such keys, which it shows them by.
const KEY_OF_INTERFACES: u32 = 20;
/// Where connections are counted.
const CONNECTIONS: &str = "connections";
/// Interfaces that may have connections: as many as there are pairs in the largest range.
const COUNTED: u32 = 1 << 15;
/// The chain that says where packets may go.
const DESTINATIONS: &str = "destinations";
/// Before the kernel knows of connections, and long before any table translates a destination.
const FIRST: i32 = -300;
const FILTERS: i32 = 0;
const TRANSLATES_SOURCES: i32 = 100;
const DNS: u16 = 53;

/// Never reached, whatever the operator says: this network, loopback, link-local addresses with those of metadata, multicast and what is reserved.
pub(super) const NEVER: [Ipv4Net; 4] = [
    Ipv4Net::new_assert(Ipv4Addr::new(0, 0, 0, 0), 8),
    Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8),
    Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16),
    Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 3),
];

/// What a table is made from.
#[derive(Debug)]
pub(super) struct Rules<'a> {
    pub(super) table: &'a str,
    pub(super) groups: Groups,
    pub(super) range: Ipv4Net,
    pub(super) denied: &'a [Ipv4Net],
    /// Asked for names at their port, even where their addresses are denied.
    pub(super) nameservers: &'a [Ipv4Addr],
    pub(super) connections: u32,
}

impl Rules<'_> {
    /// Replaces the table, if it is there.
    pub(super) fn made(&self) -> Vec<Message> {
        let Rules { table, groups, .. } = *self;
        let hooked = |name, kind, hook, priority| chain(table, name).hooked(kind, hook, priority);
        let mut list = removed(table);
        list.extend([
            named(libc::NFT_MSG_NEWTABLE, libc::NLM_F_CREATE, table),
            counters(table),
            chain(table, DESTINATIONS).0,
            hooked("arriving", "filter", libc::NF_INET_PRE_ROUTING, FIRST),
            hooked("passing", "filter", libc::NF_INET_FORWARD, FILTERS),
            hooked("entering", "filter", libc::NF_INET_LOCAL_IN, FILTERS),
            hooked("leaving", "filter", libc::NF_INET_LOCAL_OUT, FILTERS),
            hooked("translating", "nat", libc::NF_INET_POST_ROUTING, TRANSLATES_SOURCES),
        ]);
        let chains = [
            (DESTINATIONS, self.destinations()),
            ("arriving", arriving(groups)),
            ("passing", self.passing()),
            ("entering", vec![Rule::new().from(groups.open).then(Verdict::Drop)]),
            ("leaving", leaving(groups)),
            ("translating", vec![Rule::new().from(groups.open).masqueraded()]),
        ];
        for (chain, rules) in chains {
            list.extend(rules.into_iter().map(|expressions| rule(table, chain, expressions)));
        }
        batch(list)
    }

    fn destinations(&self) -> Vec<Message> {
        let into = |block: &Ipv4Net| Rule::new().aimed_in(*block).refused();
        let mut rules: Vec<Message> = NEVER.iter().chain([&self.range]).map(into).collect();
        rules.push(Rule::new().aimed_at_no_other_machine().refused());
        for address in self.nameservers {
            let asked = |protocol| Rule::new().aimed_at_service(*address, protocol, DNS).then(Verdict::Return);
            rules.extend([libc::IPPROTO_UDP, libc::IPPROTO_TCP].map(asked));
        }
        rules.extend(self.denied.iter().map(into));
        rules
    }

    /// Once more by destination: another table may have translated it since.
    fn passing(&self) -> Vec<Message> {
        let Groups { open: group, shut } = self.groups;
        vec![
            Rule::new().to(shut).then(Verdict::Drop),
            Rule::new().to(group).in_state(States::CARRIED_ON).then(Verdict::Accept),
            Rule::new().to(group).then(Verdict::Drop),
            Rule::new().not_from(group).then(Verdict::Accept),
            Rule::new().not_version_4().then(Verdict::Drop),
            Rule::new().in_state(States::UNTRACEABLE).then(Verdict::Drop),
            Rule::new().then(Verdict::Jump(DESTINATIONS)),
            Rule::new().in_state(States::CARRIED_ON).then(Verdict::Accept),
            // Where nothing can be counted any more, nothing begins.
            Rule::new().in_state(States::NEW).within(self.connections, CONNECTIONS).then(Verdict::Accept),
            Rule::new().refused(),
        ]
    }
}

fn arriving(Groups { open: group, shut }: Groups) -> Vec<Message> {
    vec![
        Rule::new().from(shut).then(Verdict::Drop),
        Rule::new().not_from(group).then(Verdict::Accept),
        Rule::new().not_version_4().then(Verdict::Drop),
        Rule::new().foreign_source().then(Verdict::Drop),
        Rule::new().then(Verdict::Jump(DESTINATIONS)),
    ]
}

/// The host begins nothing with a sandbox; it only says what it could not pass on.
fn leaving(Groups { open: group, shut }: Groups) -> Vec<Message> {
    vec![
        Rule::new().to(shut).then(Verdict::Drop),
        Rule::new().not_to(group).then(Verdict::Accept),
        Rule::new().not_version_4().then(Verdict::Drop),
        Rule::new().says_unreachable().then(Verdict::Accept),
        Rule::new().in_state(States::CARRIED_ON).then(Verdict::Accept),
        Rule::new().then(Verdict::Drop),
    ]
}

/// Takes a table away.
pub(super) fn removal(table: &str) -> Vec<Message> {
    batch(vec![named(libc::NFT_MSG_DELTABLE, 0, table)])
}

/// The same within a batch, whether or not it is there.
fn removed(table: &str) -> Vec<Message> {
    vec![named(libc::NFT_MSG_NEWTABLE, libc::NLM_F_CREATE, table), named(libc::NFT_MSG_DELTABLE, 0, table)]
}

/// Whether there is a table.
pub(super) fn question(table: &str) -> Message {
    named(libc::NFT_MSG_GETTABLE, 0, table)
}

/// What the kernel does as a whole or not at all. It is the last but one that is acknowledged.
fn batch(list: Vec<Message>) -> Vec<Message> {
    const NFTABLES: u16 = libc::NFNL_SUBSYS_NFTABLES as u16;
    let [high, low] = NFTABLES.to_be_bytes();
    let edge = |kind: i32| Message::new(kind as u16, 0, &[libc::AF_UNSPEC as u8, 0, high, low]);
    let mut batch = vec![edge(libc::NFNL_MSG_BATCH_BEGIN)];
    batch.extend(list);
    batch.push(edge(libc::NFNL_MSG_BATCH_END));
    batch
}

fn message(kind: i32, flags: i32) -> Message {
    let family = libc::NFPROTO_INET as u8;
    Message::new((libc::NFNL_SUBSYS_NFTABLES << 8 | kind) as u16, flags, &[family, 0, 0, 0])
}

fn named(kind: i32, flags: i32, table: &str) -> Message {
    message(kind, flags).text(TABLE_NAME, table)
}

/// A chain that is jumped to.
struct Chain(Message);

fn chain(table: &str, name: &str) -> Chain {
    let [of, called] = CHAIN;
    Chain(message(libc::NFT_MSG_NEWCHAIN, libc::NLM_F_CREATE).text(of, table).text(called, name))
}

impl Chain {
    /// One that packets come to by themselves.
    fn hooked(self, kind: &str, hook: i32, priority: i32) -> Message {
        let [number, at] = HOOK;
        let place = Message::inside(&[]).big_endian(number, hook as u32).big_endian(at, priority.cast_unsigned());
        self.0.nested(CHAIN_HOOK, place).text(CHAIN_TYPE, kind)
    }
}

fn rule(table: &str, chain: &str, expressions: Message) -> Message {
    let [of, within] = RULE;
    let rule = message(libc::NFT_MSG_NEWRULE, libc::NLM_F_CREATE | libc::NLM_F_APPEND);
    rule.text(of, table).text(within, chain).nested(RULE_EXPRESSIONS, expressions)
}

/// The set that rules count in, by the index of an interface, which the kernel does not give to another soon.
fn counters(table: &str) -> Message {
    let [of, called] = SET;
    let [kind, length] = SET_KEY;
    message(libc::NFT_MSG_NEWSET, libc::NLM_F_CREATE)
        .text(of, table)
        .text(called, CONNECTIONS)
        .big_endian(SET_FLAGS, libc::NFT_SET_EVAL as u32)
        .big_endian(kind, KEY_OF_INTERFACES)
        .big_endian(length, size_of::<u32>() as u32)
        .big_endian(SET_ID, 1)
        .nested(SET_DESCRIPTION, Message::inside(&[]).big_endian(SET_DESCRIPTION_SIZE, COUNTED))
}
