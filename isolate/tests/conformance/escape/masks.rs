//! Ways around what is masked or read-only in `/proc` and in the function's folder: other names of it, races, and other mounts of it.

use super::attempt::Outside::{Done, NotTried, Reached};
use super::attempt::{ABSENT, Attempt, FORBIDDEN, HIDDEN, LEADS_NOWHERE, UNKNOWN_OR_FORBIDDEN, UNWRITABLE, attempt};

#[rustfmt::skip]
pub(super) const NAMES: &[Attempt] = &[
    attempt("what is masked by the process's root", "unmasked('/proc/self/root/proc/kallsyms')", ABSENT, Done),
    attempt("what is masked by a thread's root", "unmasked('/proc/self/task/%d/root/proc/kallsyms' % os.getpid())", ABSENT, Done),
    attempt("what is masked by another thread's root", "with_thread(lambda thread: unmasked('/proc/self/task/%d/root/proc/kallsyms' % thread))", ABSENT, Done),
    attempt("what is masked by the first process's root", "unmasked('/proc/1/root/proc/kallsyms')", HIDDEN, NotTried("the host's first process may have capabilities that root here lacks")),
    attempt("what is masked by the working directory", "os.chdir('/proc'); unmasked('/proc/self/cwd/kallsyms')", ABSENT, Done),
    attempt("what is masked by a thread's working directory", "os.chdir('/proc/sys'); unmasked('/proc/thread-self/cwd/../kallsyms')", ABSENT, Done),
    attempt("what is masked by an open directory", "fd = os.open('/proc', os.O_DIRECTORY); unmasked('/proc/self/fd/%d/kallsyms' % fd)", ABSENT, Done),
    attempt("what is masked below an open directory", "fd = os.open('/proc/sys', os.O_DIRECTORY | os.O_PATH); os.read(os.open('../kallsyms', 0, dir_fd=fd), 1) or nothing()", ABSENT, Done),
    attempt("what is masked by a descriptor of its path", "fd = os.open('/proc/kallsyms', os.O_PATH); unmasked('/proc/self/fd/%d' % fd)", ABSENT, Done),
    attempt("what is masked by a link of its own", "with own_folder() as folder: os.symlink('/proc', folder + '/link'); unmasked(folder + '/link/kallsyms')", ABSENT, Done),
    attempt("a setting by the process's root", "rewrite('/proc/self/root/proc/sys/kernel/core_pattern')", UNWRITABLE, Done),
    attempt("a setting by a thread's root", "rewrite('/proc/thread-self/root/proc/sys/kernel/core_pattern')", UNWRITABLE, Done),
    attempt("a setting by the working directory", "os.chdir('/proc/sys'); rewrite('kernel/core_pattern')", UNWRITABLE, Done),
    attempt("a setting by an open directory", "fd = os.open('/proc/sys/kernel', os.O_DIRECTORY | os.O_PATH); rewrite('/proc/self/fd/%d/core_pattern' % fd)", UNWRITABLE, Done),
    attempt("a setting by a descriptor that reads", "fd = os.open('/proc/sys/kernel/core_pattern', os.O_RDONLY); rewrite('/proc/self/fd/%d' % fd)", UNWRITABLE, Done),
    attempt("a setting by a link of its own", "with own_folder() as folder: os.symlink('/proc/sys/kernel', folder + '/link'); rewrite(folder + '/link/core_pattern')", UNWRITABLE, Done),
    attempt("its code by a descriptor that reads", "fd = os.open(HOST['function'] + '/code', os.O_RDONLY); os.open('/proc/self/fd/%d' % fd, os.O_RDWR)", UNWRITABLE, Done),
    attempt("its code by a thread's root", "os.open('/proc/thread-self/root' + HOST['function'] + '/code', os.O_RDWR)", UNWRITABLE, Done),
    attempt("its libraries by what it maps", "os.open(next(e.path for e in os.scandir('/proc/self/map_files') if '/libc' in os.readlink('/proc/self/map_files/' + e.name)), os.O_RDWR)", UNWRITABLE, Reached),
    attempt("the mounts around it", "list_mounts()", UNKNOWN_OR_FORBIDDEN, Done),
    attempt("a thread's mount namespace", "call('setns', os.open('/proc/thread-self/ns/mnt', 0), 0x00020000)", FORBIDDEN, Done),
];

/// Each look fails, for whatever reason it finds things in; only one that comes to something counts.
#[rustfmt::skip]
pub(super) const RACES: &[Attempt] = &[
    attempt("what is masked while a link is exchanged", "with own_folder() as folder: race(exchange(folder, '/proc', '/tmp'), lambda: unmasked(folder + '/link/kallsyms'))", LEADS_NOWHERE, Done),
    attempt("what is masked while a link is exchanged for a directory", "with own_folder() as folder: race(exchange(folder, '/proc', None), lambda: unmasked(folder + '/link/kallsyms'))", LEADS_NOWHERE, Done),
    attempt("what is masked while the working directory changes", "race([lambda: os.chdir('/proc'), lambda: os.chdir('/tmp')], lambda: unmasked('kallsyms'), False)", LEADS_NOWHERE, Done),
    attempt("what is masked by a working directory that changes", "race([lambda: os.chdir('/proc/sys/kernel'), lambda: os.chdir('/tmp')], lambda: unmasked('/proc/thread-self/cwd/../../kallsyms'), False)", LEADS_NOWHERE, Done),
    attempt("what is masked by a descriptor that changes", "race([lambda: put('/proc', 40), lambda: put('/tmp', 40)], lambda: unmasked('/proc/self/fd/40/kallsyms'), False)", LEADS_NOWHERE, Done),
    attempt("a setting while a link is exchanged", "with own_folder() as folder: race(exchange(folder, '/proc/sys/kernel', '/tmp'), lambda: rewrite(folder + '/link/core_pattern'))", LEADS_NOWHERE, Done),
    attempt("its code while a link is exchanged", "with own_folder() as folder: open(folder + '/code', 'w').close(); race(exchange(folder, HOST['function'], folder), lambda: not_below(folder, os.open(folder + '/link/code', os.O_RDWR)))", LEADS_NOWHERE, Done),
    attempt("upwards out of a directory that moves", "with own_folder() as folder: race(moving(folder), lambda: open(folder + '/a/b/c' + '/..' * 20 + HOST['canary']).read())", LEADS_NOWHERE, Done),
    attempt("upwards out of a working directory that moves", "with own_folder() as folder: race([lambda: os.chdir(folder), *moving(folder), lambda: os.chdir(folder + '/c')], lambda: open('../' * 20 + HOST['canary']).read(), False)", LEADS_NOWHERE, Done),
    attempt("upwards out of its folder while its place changes", "race([lambda: os.chdir(HOST['function']), lambda: os.chdir('/tmp')], lambda: open('../' * 20 + HOST['canary']).read(), False)", LEADS_NOWHERE, Done),
];

#[rustfmt::skip]
pub(super) const MASKS: &[Attempt] = &[
    attempt("a mount of /proc without what masks it", "call('mount', b'/proc', b'/tmp', None, 0x1000, None)", FORBIDDEN, Done),
    attempt("a clone of /proc without what masks it", "call('open_tree', -100, b'/proc', 1)", FORBIDDEN, Done),
    attempt("a clone of what is open", "call('open_tree', os.open('/proc', os.O_PATH), b'', 0x1001)", FORBIDDEN, Done),
    attempt("unmount a mask", "call('umount2', b'/proc/kallsyms', 2)", FORBIDDEN, Reached),
    attempt("unmount a mask by its descriptor", "fd = os.open('/proc/kallsyms', os.O_PATH); call('umount2', b'/proc/self/fd/%d' % fd, 2)", FORBIDDEN, Reached),
    attempt("unmount what shows settings", "call('umount2', b'/proc/sys', 2)", FORBIDDEN, Reached),
    attempt("move a mask away", "call('mount', b'/proc/kallsyms', b'/tmp', None, 0x2000, None)", FORBIDDEN, Reached),
    attempt("something of its own over a mask", "call('mount', b'/proc/version', b'/proc/kallsyms', None, 0x1000, None)", FORBIDDEN, Done),
    attempt("something of its own over a program", "call('mount', b'/proc/version', b'/usr/bin/env', None, 0x1000, None)", FORBIDDEN, Done),
    attempt("make settings writable again", "call('mount', None, b'/proc', None, 0x20, None)", FORBIDDEN, Reached),
    attempt("make its folder writable", "call('mount', None, HOST['function'].encode(), None, 0x1020, None)", FORBIDDEN, Reached),
];
