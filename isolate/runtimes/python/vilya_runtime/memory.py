"""Giving memory back while nobody asks for the function.

Only what has grown is worth it: a collection walks over everything that lives.
"""

import ctypes
import gc
import mmap

_GROWTH_PAGES = (8 << 20) // mmap.PAGESIZE
_kept_pages = 0


def give_back():
    """Collects what is unreachable and returns what is free, if there may be much of it."""
    global _kept_pages
    pages = _private_pages()
    _kept_pages = min(_kept_pages, pages)
    if pages - _kept_pages < _GROWTH_PAGES:
        return
    if gc.isenabled():  # else the function does not want it
        gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's alone
    if trim is not None:
        trim(0)
    _kept_pages = _private_pages()


def _private_pages():
    try:
        with open("/proc/self/statm", "rb") as statm:
            _, resident, shared = statm.read().split()[:3]
    except OSError:  # the function has used up its descriptors
        return 0
    return int(resident) - int(shared)
