"""Waiting to be copied: a runtime that has imported its function becomes the image of its sandboxes.

The worker copies this process while it reads from descriptor 3, and ends it. A copy is
another process in another sandbox, in which that read has returned nothing; its ring is
on descriptors 3, 4 and 5.

Owns what must not be the same in two copies. Knows no rings and no handlers.
"""

import ctypes
import gc
import os
import sys

_FD = 3
_ENVIRONMENT_FD = 13
_WAITING = b"Z"


#: What modules registered to be done in the child of a fork: a copy is one as far as they can tell. Nothing else of a
#: fork applies: there was one thread, it held no lock, and its identity is the same.
_hooks = []


def watch_forks():
    """From now on, notes what is registered for children; a real fork does it all the same."""
    register = os.register_at_fork

    def register_at_fork(*, before=None, after_in_parent=None, after_in_child=None):
        hooks = {"before": before, "after_in_parent": after_in_parent, "after_in_child": after_in_child}
        register(**{name: hook for name, hook in hooks.items() if hook is not None})
        if after_in_child is not None:
            _hooks.append(after_in_child)

    os.register_at_fork = register_at_fork


def preload(names):
    """Imports modules that the function will want; one that is not there is the function's own affair."""
    for name in names:
        try:
            __import__(name)
        except ImportError as error:
            print(f"vilya: preload: {error}", file=sys.stderr)


def preload_learned(names):
    """Imports what earlier invocations of the function have; what cannot be is imported again when it is wanted, and fails then."""
    for name in names:
        try:
            __import__(name)
        except Exception:
            pass


def become_copy():
    """Returns in the copies alone."""
    gc.collect()
    # What was imported stays: the collector need not walk it again, nor write to its pages.
    gc.freeze()
    heap_end = _heap_end()
    os.write(_FD, _WAITING)
    if os.read(_FD, 1) != b"":
        os._exit(1)
    # The kernel's end of the heap is another one in a copy; without one of its own, libc asks.
    if heap_end is not None:
        heap_end.value = None
    for hook in _hooks:
        hook()
    _reseed()


def adopt_environment(environment):
    """Takes over the environment of the function that a copy of the bare runtime is for."""
    with os.fdopen(_ENVIRONMENT_FD, "rb") as told:
        pairs = [pair.partition(b"=") for pair in told.read().split(b"\0") if pair]
    environment.clear()
    for name, _, value in pairs:
        environment[os.fsdecode(name)] = os.fsdecode(value)


def _heap_end():
    """Where glibc keeps the end of the heap."""
    try:
        return ctypes.c_void_p.in_dll(ctypes.CDLL(None), "__curbrk")
    except ValueError:
        return None  # another libc


def _reseed():
    """Generators that tell a fork by the process id, which every copy shares."""
    modules = sys.modules
    if "tempfile" in modules:
        modules["tempfile"]._name_sequence = None
    if "_ssl" in modules:
        modules["_ssl"].RAND_add(os.urandom(32), 32.0)
    if "numpy.random" in modules:
        modules["numpy.random"].seed()
    if "uuid" in modules:
        modules["uuid"]._last_timestamp = None
