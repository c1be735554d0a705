//! Privileges that a program's file would give to whoever runs it.

use super::attempt::Outside::Done;
use super::attempt::{Attempt, FORBIDDEN, attempt};

/// Outside they are made by a user that has no privileges, and gains some.
#[rustfmt::skip]
pub(super) const PRIVILEGES: &[Attempt] = &[
    attempt("a set-user-id program of its own", "ordinary(); gain(str(os.getuid()), run(HOST['function'] + '/id', '-u'))", FORBIDDEN, Done),
    attempt("a set-group-id program of its own", "ordinary(); gain(str(os.getgid()), run(HOST['function'] + '/id', '-g'))", FORBIDDEN, Done),
    attempt("capabilities of a file of its own", "ordinary(); gain('0' * 16, capabilities(run(HOST['function'] + '/capable', '/proc/self/status')))", FORBIDDEN, Done),
    attempt("a set-user-id program of the system", "ordinary(); gain(False, any([gains(path) for path in set_user_id_programs('/usr/bin', '/usr/sbin')]))", FORBIDDEN, Done),
];
