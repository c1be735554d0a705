//! Ways out over a network: changes of its own, and what is near what a sandbox may reach.

use super::attempt::Outside::{Done, NotTried, Reached};
use super::attempt::{Attempt, FORBIDDEN, Refusal, UNWRITABLE, attempt};

/// Told so, or answered by nobody: what is told is bounded.
const NOWHERE: &[Refusal] =
    &[Refusal::Errno(libc::EHOSTUNREACH), Refusal::Errno(libc::ENETUNREACH), Refusal::Errno(libc::ENODATA)];
/// Its own loopback, where nobody listens.
const NOT_THERE: &[Refusal] = &[Refusal::Errno(libc::ECONNREFUSED)];
const NOT_ITS_OWN: &[Refusal] =
    &[Refusal::Errno(libc::EINVAL), Refusal::Errno(libc::EADDRNOTAVAIL), Refusal::Errno(libc::ENETUNREACH)];
/// The link has no address of version 6.
const NO_SIXTH: &[Refusal] = &[
    Refusal::Errno(libc::EADDRNOTAVAIL),
    Refusal::Errno(libc::ENETUNREACH),
    Refusal::Errno(libc::EAFNOSUPPORT),
    Refusal::Errno(libc::EACCES),
];
const NO_MORE: &[Refusal] = &[Refusal::Errno(libc::ENODATA)];

/// Changes of its own network.
#[rustfmt::skip]
pub(super) const LINKS: &[Attempt] = &[
    attempt("answer for another machine's link", "own_network(); netlink(28, struct.pack('BxHiHBB', 2, 0, 1, 0x80, 0, 1) + struct.pack('HH4s', 8, 1, bytes([10, 9, 8, 7])) + struct.pack('HH6sxx', 10, 2, bytes(6)))", FORBIDDEN, Reached),
    attempt("answer for another machine by the older call", "own_network(); fcntl.ioctl(socket.socket(), 0x8955, buffer(size=64))", FORBIDDEN, Reached),
    attempt("a rule of routing", "own_network(); netlink(32, struct.pack('8BI', 2, 0, 0, 0, 254, 0, 0, 7, 0))", FORBIDDEN, Done),
    attempt("another address of its link", "own_network(); netlink(19, struct.pack('BxHiII', 0, 0, 1, 0, 0) + struct.pack('HH6sxx', 10, 1, b'\\x02escap'))", FORBIDDEN, Reached),
    attempt("another name of its link", "own_network(); netlink(19, struct.pack('BxHiII', 0, 0, 1, 0, 0) + struct.pack('HH8s', 12, 3, b'escape0\\0'))", FORBIDDEN, Reached),
    attempt("its link to another network", "own_network(); netlink(19, struct.pack('BxHiII', 0, 0, 1, 0, 0) + struct.pack('HHi', 8, 19, 1))", FORBIDDEN, Reached),
    attempt("its link to another group", "own_network(); netlink(19, struct.pack('BxHiII', 0, 0, 1, 0, 0) + struct.pack('HHI', 8, 27, 7))", FORBIDDEN, Done),
    attempt("a queue of its own", "own_network(); netlink(36, struct.pack('BxHiIII', 0, 0, 1, 0, 0xffffffff, 0) + struct.pack('HH6sxx', 10, 1, b'pfifo\\0'))", FORBIDDEN, Reached),
    attempt("a link between networks", "own_network(); netlink(16, struct.pack('BxHiII', 0, 0, 0, 0, 0) + struct.pack('HH8s', 12, 3, b'escape0\\0') + struct.pack('HHHH5sxxx', 16, 18, 9, 1, b'veth\\0'))", FORBIDDEN, Reached),
    attempt("pass packets on", "rewrite('/proc/sys/net/ipv4/conf/all/forwarding')", UNWRITABLE, Done),
    attempt("take routes from others", "rewrite('/proc/sys/net/ipv4/conf/all/accept_redirects')", UNWRITABLE, Done),
];

/// What a socket may be told with a privilege only.
#[rustfmt::skip]
pub(super) const OPTIONS: &[Attempt] = &[
    attempt("mark its packets", "s = socket.socket(); call('setsockopt', s.fileno(), 1, 36, struct.pack('I', 1), 4)", FORBIDDEN, Done),
    attempt("bind to anybody's address", "s = socket.socket(); call('setsockopt', s.fileno(), 0, 19, struct.pack('I', 1), 4)", FORBIDDEN, Done),
    attempt("bind to anybody's address of version 6", "s = socket.socket(socket.AF_INET6); call('setsockopt', s.fileno(), 41, 75, struct.pack('I', 1), 4)", FORBIDDEN, Done),
    attempt("rewrite a connection", "s = socket.socket(); call('setsockopt', s.fileno(), 6, 19, struct.pack('I', 1), 4)", FORBIDDEN, Done),
    attempt("go before others' packets", "s = socket.socket(); call('setsockopt', s.fileno(), 1, 12, struct.pack('I', 15), 4)", FORBIDDEN, Done),
    attempt("more to be received than it may", "s = socket.socket(); call('setsockopt', s.fileno(), 1, 33, struct.pack('I', 1 << 26), 4)", FORBIDDEN, Done),
    attempt("more to be sent than it may", "s = socket.socket(); call('setsockopt', s.fileno(), 1, 32, struct.pack('I', 1 << 26), 4)", FORBIDDEN, Done),
];

/// Where one port of the host's loopback is reached.
#[rustfmt::skip]
pub(super) const PORTS: &[Attempt] = &[
    attempt("its port at another address", "connect('127.0.0.2', HOST['forwarded'])", NOT_THERE, Done),
    attempt("its port at another address of version 6", "connect('::ffff:127.0.0.2', HOST['forwarded'], socket.AF_INET6)", NOT_THERE, Done),
    attempt("its port by datagrams", "ask('127.0.0.1', HOST['forwarded'])", NOT_THERE, Done),
    attempt("a port of the host as one of version 6", "connect('::ffff:127.0.0.1', HOST['other'], socket.AF_INET6)", NOT_THERE, Done),
    attempt("a port of the host without connecting", "connect_at_once('127.0.0.1', HOST['other'])", NOT_THERE, Done),
    attempt("more of the host's connections than it may", "more_than(64, socket.SOCK_STREAM, '127.0.0.1', HOST['forwarded'])", NO_MORE, Done),
];

/// Where other machines are reached. What takes all there is comes last.
#[rustfmt::skip]
pub(super) const MACHINES: &[Attempt] = &[
    attempt("metadata", "connect(HOST['metadata'], 80)", NOWHERE, Done),
    attempt("metadata as one number", "connect(str(int.from_bytes(socket.inet_aton(HOST['metadata']), 'big')), 80)", NOWHERE, Done),
    attempt("metadata in eights", "connect('.'.join('0%o' % byte for byte in socket.inet_aton(HOST['metadata'])), 80)", NOWHERE, Done),
    attempt("metadata in sixteens", "connect('0x' + socket.inet_aton(HOST['metadata']).hex(), 80)", NOWHERE, Done),
    attempt("metadata in three parts", "a, b, c, d = socket.inet_aton(HOST['metadata']); connect('%d.%d.%d' % (a, b, c << 8 | d), 80)", NOWHERE, Done),
    attempt("metadata as an address of version 6", "connect('::ffff:' + HOST['metadata'], 80, socket.AF_INET6)", NOWHERE, Done),
    attempt("metadata without connecting", "connect_at_once(HOST['metadata'], 80)", NOWHERE, Done),
    attempt("metadata by datagrams", "ask(HOST['metadata'], 7000)", NOWHERE, Done),
    attempt("metadata in fragments", "ask(HOST['metadata'], 7000, 20000)", NOWHERE, Done),
    attempt("metadata by a route in the packet", "ask(HOST['metadata'], 7000, 5, bytes([0x83, 7, 4]) + socket.inet_aton(HOST['service']) + b'\\0')", FORBIDDEN, Reached),
    attempt("metadata by a route of its own", "own_network(); netlink(24, struct.pack('8BI', 2, 32, 0, 0, 254, 4, 0, 1, 0) + struct.pack('HH4s', 8, 1, socket.inet_aton(HOST['metadata'])) + struct.pack('HHi', 8, 4, 1))", FORBIDDEN, Reached),
    attempt("metadata at what the host translates", "connect(HOST['trap'], 80)", NOWHERE, Done),
    attempt("metadata at what the host translates, by datagrams", "ask(HOST['trap'], 7000)", NOWHERE, Done),
    attempt("metadata at what the host translates, in fragments", "ask(HOST['trap'], 7000, 20000)", NOWHERE, Done),
    attempt("a private network", "connect(HOST['private'], 80)", NOWHERE, Done),
    attempt("a private network by datagrams", "ask(HOST['private'], 7000)", NOWHERE, Done),
    attempt("a nameserver at another port", "connect(HOST['nameserver'], 7000)", NOWHERE, Done),
    attempt("a nameserver at another port by datagrams", "ask(HOST['nameserver'], 7000)", NOWHERE, Done),
    attempt("a nameserver at another port in fragments", "ask(HOST['nameserver'], 7000, 20000)", NOWHERE, Done),
    attempt("the host", "connect(HOST['host'], HOST['other'])", NOWHERE, Done),
    attempt("the host as an address of version 6", "connect('::ffff:' + HOST['host'], HOST['other'], socket.AF_INET6)", NOWHERE, Done),
    attempt("the host by datagrams", "ask(HOST['host'], HOST['other'])", NOWHERE, Done),
    attempt("the host in fragments", "ask(HOST['host'], HOST['other'], 20000)", NOWHERE, Done),
    attempt("the host at its end of the link", "connect(HOST['gateway'], HOST['other'])", NOWHERE, Done),
    attempt("the host at its end of the link by datagrams", "ask(HOST['gateway'], HOST['other'])", NOWHERE, Done),
    attempt("the host at its end of another's link", "connect(HOST['gateway beside'], HOST['other'])", NOWHERE, Done),
    attempt("the host's loopback", "connect('127.0.0.1', HOST['other'])", NOT_THERE, Done),
    attempt("the host by no address", "connect('0.0.0.0', HOST['other'])", NOT_THERE, Done),
    attempt("everybody on the link", "shout('255.255.255.255', HOST['other'])", NOWHERE, Done),
    attempt("every address of the links", "shout('10.213.255.255', HOST['other'])", NOWHERE, NotTried("there are no links outside")),
    attempt("every machine that hears a group", "shout('224.0.0.1', HOST['other'])", NOWHERE, Done),
    attempt("the host on the link by version 6", "ask_on_link(HOST['link local'], HOST['other'])", NO_SIXTH, Done),
    attempt("everybody on the link by version 6", "ask_on_link('ff02::1', HOST['other'])", NO_SIXTH, Done),
    attempt("another sandbox", "connect(HOST['beside'], 9000)", NOWHERE, Done),
    attempt("another sandbox by datagrams", "ask(HOST['beside'], 9000)", NOWHERE, Done),
    attempt("a packet from the host's address", "ask_from(HOST['host'], HOST['service'], 7000)", NOT_ITS_OWN, Done),
    attempt("a packet from a neighbour's address", "ask_as(HOST['beside'], HOST['service'], 7000)", NOT_ITS_OWN, Reached),
    attempt("an address of the host's, bound although it has none", "ask_as(HOST['host'], HOST['service'], 7000)", NOT_ITS_OWN, Done),
    attempt("more connections than it may", "more_than(64, socket.SOCK_STREAM, HOST['service'], 7000)", NO_MORE, Done),
    attempt("more flows than it may", "more_than(64, socket.SOCK_DGRAM, HOST['service'], 7000)", NO_MORE, Done),
];
