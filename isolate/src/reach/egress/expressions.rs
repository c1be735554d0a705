//! What rules are made of: the expressions of nf_tables, one after the other, and the verdict at the end.
//!
//! Owns: how a rule is written. Invariant: a rule reads from left to right as the methods that made it; an expression that does not hold ends
//! it, and the next rule is looked at. Does not know: which rules there are.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::netlink::Message;

// linux/netfilter/nf_tables.h, as far as libc has none of it.
const LIST_ELEMENT: u16 = 1;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;
const IMMEDIATE: [u16; 2] = [1, 2];
const META: [u16; 2] = [1, 2];
const CMP: [u16; 3] = [1, 2, 3];
const BITWISE: [u16; 5] = [1, 2, 3, 4, 5];
const PAYLOAD: [u16; 4] = [1, 2, 3, 4];
const CT: [u16; 2] = [1, 2];
const FIB: [u16; 3] = [1, 2, 3];
const REJECT: [u16; 2] = [1, 2];
const DYNSET_NAME: u16 = 1;
const DYNSET_OPERATION: u16 = 3;
const DYNSET_KEY: u16 = 4;
const DYNSET_EXPRESSION: u16 = 7;
const CONNLIMIT_COUNT: u16 = 1;

const FIB_RESULT_INDEX: u32 = 1;
const FIB_RESULT_TYPE: u32 = 3;
const FIB_SOURCE: u32 = 1;
const FIB_DESTINATION: u32 = 2;
const FIB_INCOMING: u32 = 8;
const UNREACHABLE_BY_ICMP: u32 = 0;
const PROHIBITED: u8 = 13;

/// The register that every rule works in.
const REGISTER: u32 = libc::NFT_REG_1 as u32;

/// Where the destination's address is, in a header of version 4.
const DESTINATION_OFFSET: u32 = 16;
/// Where the destination's port is, in headers of TCP and UDP.
const PORT_OFFSET: u32 = 2;

/// States of connections, as bits.
#[derive(Clone, Copy, Debug)]
pub(super) struct States(u32);

impl States {
    pub(super) const UNTRACEABLE: States = States(1 | 64);
    pub(super) const CARRIED_ON: States = States(2 | 4);
    pub(super) const NEW: States = States(8);
}

/// What comes of a packet that a rule matches.
#[derive(Clone, Copy, Debug)]
pub(super) enum Verdict {
    Accept,
    Drop,
    /// Back to the chain that jumped.
    Return,
    /// To a chain of the same table, and back.
    Jump(&'static str),
}

/// A rule as far as it is written.
#[derive(Debug, Default)]
pub(super) struct Rule(Message);

impl Rule {
    pub(super) fn new() -> Rule {
        Rule::default()
    }

    fn with(self, name: &str, data: Message) -> Rule {
        Rule(self.0.nested(LIST_ELEMENT, expression(name, data)))
    }

    fn compared(self, operation: i32, value: &[u8]) -> Rule {
        let [register, how, data] = CMP;
        let compared = nothing().big_endian(register, REGISTER).big_endian(how, operation as u32);
        self.with("cmp", compared.nested(data, nothing().attribute(DATA_VALUE, value)))
    }

    fn equals(self, value: &[u8]) -> Rule {
        self.compared(libc::NFT_CMP_EQ, value)
    }

    fn differs(self, value: &[u8]) -> Rule {
        self.compared(libc::NFT_CMP_NEQ, value)
    }

    fn meta(self, of: i32) -> Rule {
        let [register, key] = META;
        self.with("meta", nothing().big_endian(register, REGISTER).big_endian(key, of as u32))
    }

    fn payload(self, base: i32, offset: u32, length: u32) -> Rule {
        let [register, from, at, bytes] = PAYLOAD;
        let loaded = nothing().big_endian(register, REGISTER).big_endian(from, base as u32);
        self.with("payload", loaded.big_endian(at, offset).big_endian(bytes, length))
    }

    fn masked(self, mask: [u8; 4]) -> Rule {
        let [from, to, length, with, or] = BITWISE;
        let value = |bytes: [u8; 4]| nothing().attribute(DATA_VALUE, &bytes);
        let masked = nothing().big_endian(from, REGISTER).big_endian(to, REGISTER).big_endian(length, 4);
        self.with("bitwise", masked.nested(with, value(mask)).nested(or, value([0; 4])))
    }

    fn fib(self, what: u32, flags: u32) -> Rule {
        let [register, result, of] = FIB;
        let looked = nothing().big_endian(register, REGISTER).big_endian(result, what);
        self.with("fib", looked.big_endian(of, flags))
    }

    /// It came from an interface of this group.
    pub(super) fn from(self, group: u32) -> Rule {
        self.meta(libc::NFT_META_IIFGROUP).equals(&group.to_ne_bytes())
    }

    /// It came from an interface of another group.
    pub(super) fn not_from(self, group: u32) -> Rule {
        self.meta(libc::NFT_META_IIFGROUP).differs(&group.to_ne_bytes())
    }

    /// It goes to an interface of this group.
    pub(super) fn to(self, group: u32) -> Rule {
        self.meta(libc::NFT_META_OIFGROUP).equals(&group.to_ne_bytes())
    }

    /// It goes to an interface of another group.
    pub(super) fn not_to(self, group: u32) -> Rule {
        self.meta(libc::NFT_META_OIFGROUP).differs(&group.to_ne_bytes())
    }

    /// It is of another version of the protocol than 4.
    pub(super) fn not_version_4(self) -> Rule {
        self.meta(libc::NFT_META_NFPROTO).differs(&[libc::NFPROTO_IPV4 as u8])
    }

    /// Its source is not behind the interface that it came from.
    pub(super) fn foreign_source(self) -> Rule {
        self.fib(FIB_RESULT_INDEX, FIB_SOURCE | FIB_INCOMING).equals(&[0; 4])
    }

    /// Its destination is an address of the host, or of no single machine.
    pub(super) fn aimed_at_no_other_machine(self) -> Rule {
        self.fib(FIB_RESULT_TYPE, FIB_DESTINATION).differs(&u32::from(libc::RTN_UNICAST).to_ne_bytes())
    }

    /// Its destination is among these addresses.
    pub(super) fn aimed_in(self, block: Ipv4Net) -> Rule {
        let loaded = self.payload(libc::NFT_PAYLOAD_NETWORK_HEADER, DESTINATION_OFFSET, 4);
        loaded.masked(block.netmask().octets()).equals(&block.network().octets())
    }

    /// Its destination is this port of this address.
    pub(super) fn aimed_at_service(self, address: Ipv4Addr, protocol: i32, port: u16) -> Rule {
        let of_protocol = self.meta(libc::NFT_META_L4PROTO).equals(&[protocol as u8]);
        let at_port =
            of_protocol.payload(libc::NFT_PAYLOAD_TRANSPORT_HEADER, PORT_OFFSET, 2).equals(&port.to_be_bytes());
        at_port.payload(libc::NFT_PAYLOAD_NETWORK_HEADER, DESTINATION_OFFSET, 4).equals(&address.octets())
    }

    /// It says that something cannot be reached.
    pub(super) fn says_unreachable(self) -> Rule {
        const KIND: u8 = 3;
        let of_protocol = self.meta(libc::NFT_META_L4PROTO).equals(&[libc::IPPROTO_ICMP as u8]);
        of_protocol.payload(libc::NFT_PAYLOAD_TRANSPORT_HEADER, 0, 1).equals(&[KIND])
    }

    /// Its connection is in one of these states.
    pub(super) fn in_state(self, States(bits): States) -> Rule {
        let [register, key] = CT;
        let loaded = nothing().big_endian(register, REGISTER).big_endian(key, libc::NFT_CT_STATE as u32);
        self.with("ct", loaded).masked(bits.to_ne_bytes()).differs(&[0; 4])
    }

    /// The interface that it came from has at most so many connections, this one included; they are counted in this set.
    pub(super) fn within(self, connections: u32, set: &str) -> Rule {
        let limit = nothing().big_endian(CONNLIMIT_COUNT, connections);
        let counted = nothing()
            .text(DYNSET_NAME, set)
            .big_endian(DYNSET_OPERATION, libc::NFT_DYNSET_OP_ADD as u32)
            .big_endian(DYNSET_KEY, REGISTER)
            .nested(DYNSET_EXPRESSION, expression("connlimit", limit));
        self.meta(libc::NFT_META_IIF).with("dynset", counted)
    }

    /// Ends it: the packet gets the address of the interface that it leaves by.
    pub(super) fn masqueraded(self) -> Message {
        self.with("masq", nothing()).0
    }

    /// Ends it: the sender is told that it may not.
    pub(super) fn refused(self) -> Message {
        let [kind, code] = REJECT;
        let refusal = nothing().big_endian(kind, UNREACHABLE_BY_ICMP).attribute(code, &[PROHIBITED]);
        self.with("reject", refusal).0
    }

    /// Ends it.
    pub(super) fn then(self, verdict: Verdict) -> Message {
        let [register, data] = IMMEDIATE;
        let (code, chain) = match verdict {
            Verdict::Accept => (libc::NF_ACCEPT, None),
            Verdict::Drop => (libc::NF_DROP, None),
            Verdict::Return => (libc::NFT_RETURN, None),
            Verdict::Jump(chain) => (libc::NFT_JUMP, Some(chain)),
        };
        let coded = nothing().big_endian(VERDICT_CODE, code as u32);
        let said = chain.into_iter().fold(coded, |coded, chain| coded.text(VERDICT_CHAIN, chain));
        let value = nothing().nested(DATA_VERDICT, said);
        self.with("immediate", nothing().big_endian(register, libc::NFT_REG_VERDICT as u32).nested(data, value)).0
    }
}

fn nothing() -> Message {
    Message::inside(&[])
}

fn expression(name: &str, data: Message) -> Message {
    nothing().text(EXPRESSION_NAME, name).nested(EXPRESSION_DATA, data)
}
