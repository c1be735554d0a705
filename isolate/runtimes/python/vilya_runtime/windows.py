"""The bytes of one lane, lent to a handler for one call.

A view of shared memory that outlives its call would show the next request's bytes.
The rule here: the view that was lent is released when the call ends, and whatever was
made from it and is still referred to becomes a private copy of the bytes as they were.

Invariant: between two calls no object outside this module refers to shared pages.
How it is known: each lane area is mapped on its own, and every buffer derived from a
mapping holds a reference to its `mmap` object, so the reference count tells whether
any is left. A copy is made only then, and then the pages are swapped under the
leftover, which cannot be told apart from the original (`kernel.make_private`).
"""

import mmap
from sys import getrefcount

from . import kernel


class Window:
    """One lane's area of one region, mapped when first used."""

    __slots__ = ("_descriptor", "_offset", "_bytes", "_skew", "_writable", "_map", "_idle", "_view", "_start", "_used")

    def __init__(self, descriptor, offset, area_bytes, writable):
        self._descriptor = descriptor
        # Lanes are aligned to the ABI's pages, which may be smaller than the machine's.
        self._skew = offset % mmap.ALLOCATIONGRANULARITY
        self._offset = offset - self._skew
        self._bytes = area_bytes + self._skew
        self._writable = writable
        self._map = None
        self._view = None

    def lend(self, start, count):
        """A view of `count` bytes at `start` of the area, until `settle`."""
        if self._map is None:
            access = mmap.ACCESS_WRITE if self._writable else mmap.ACCESS_READ
            self._map = mmap.mmap(self._descriptor, self._bytes, access=access, offset=self._offset)
            self._idle = self._references()
            self._used = 0
        start += self._skew
        self._start = start
        self._used = max(self._used, start + count)
        self._view = memoryview(self._map)[start : start + count]
        return self._view

    def begins(self, view):
        """Whether `view` lies at the beginning of what was lent last."""
        if view is self._view:
            return True
        if self._view is None or view.obj is not self._map or not view.contiguous:
            return False
        return kernel.address_of(view) == kernel.address_of(self._map) + self._start

    def settle(self):
        """Ends the call: releases what was lent and detaches what was kept."""
        view = self._view
        if view is None:
            return
        self._view = None
        try:
            view.release()
        except BufferError:
            pass  # something was built upon the view itself; the count below sees it
        del view
        if self._references() > self._idle:
            self._detach()
        self._used = 0

    def _references(self):
        # The baseline is taken by this same expression, because interpreters differ in
        # how many references evaluating it holds.
        return getrefcount(self._map)

    def _detach(self):
        # The old mapping is unmapped when the last leftover is gone.
        if self._used:
            kernel.make_private(kernel.address_of(self._map), self._used, self._writable)
        self._map = None
