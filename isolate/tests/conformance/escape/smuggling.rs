//! Descriptors that change hands between sandboxes, or between one and the worker.

use super::attempt::Outside::Done;
use super::attempt::{ABSENT, Attempt, NOBODY, Refusal, UNWRITABLE, attempt};

const NOT_THERE: &[Refusal] = &[Refusal::Errno(libc::ECONNREFUSED)];

/// A neighbour of the same function, which shares more than any other, waits at each of these places and hands out what it has.
#[rustfmt::skip]
pub(super) const SMUGGLING: &[Attempt] = &[
    attempt("take a descriptor by a name", "take('\\0' + HOST['meet'])", NOT_THERE, Done),
    attempt("take a descriptor by a name, in packets", "take('\\0' + HOST['meet'] + '-packets', socket.SOCK_SEQPACKET)", NOT_THERE, Done),
    attempt("take a descriptor in /tmp", "take('/tmp/' + HOST['meet'])", ABSENT, Done),
    attempt("take a descriptor in shared memory", "take('/dev/shm/' + HOST['meet'])", ABSENT, Done),
    attempt("take a descriptor in the function's folder", "take(HOST['function'] + '/' + HOST['meet'])", ABSENT, Done),
    attempt("take a descriptor in the neighbour's /tmp", "take('/proc/%d/root/tmp/%s' % (HOST['neighbour'], HOST['meet']))", NOBODY, Done),
    attempt("give a descriptor by a name", "give('\\0' + HOST['meet'] + '-datagrams')", NOT_THERE, Done),
    attempt("give a descriptor in /tmp", "give('/tmp/' + HOST['meet'] + '-datagrams')", ABSENT, Done),
    attempt("wait for others in the function's folder", "offer(HOST['function'] + '/offer')", UNWRITABLE, Done),
    attempt("wait for others among the system's files", "offer('/usr/vilya-escape-%d' % os.getpid())", UNWRITABLE, Done),
    attempt("see a neighbour's descriptors", "os.listdir('/proc/%d/fd' % HOST['neighbour'])", NOBODY, Done),
    attempt("open a neighbour's descriptor", "os.open('/proc/%d/fd/0' % HOST['neighbour'], os.O_RDONLY)", NOBODY, Done),
    attempt("take a neighbour's descriptor", "call('pidfd_getfd', os.pidfd_open(HOST['neighbour']), 0, 0)", NOBODY, Done),
    attempt("a socket that was left open", "sockets()", ABSENT, Done),
    attempt("push a descriptor through what was left open", "push()", ABSENT, Done),
];
