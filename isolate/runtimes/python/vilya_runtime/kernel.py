"""The system calls that Python's library does not offer, through ctypes.

Owns the numbers and signatures; knows nothing of rings. Each call releases the
interpreter's lock while it is in the kernel.
"""

import ctypes
import errno
import mmap
import os

MACHINE = os.uname().machine
_FUTEX_NUMBERS = {"x86_64": 202, "aarch64": 98}
_FUTEX_WAIT = 0  # without FUTEX_PRIVATE_FLAG: the waker is another process
_MREMAP_MAYMOVE = 1
_MREMAP_FIXED = 2
_MAP_FAILED = ctypes.c_void_p(-1).value

_libc = ctypes.CDLL(None, use_errno=True)
# Takes its arguments as they come and keeps no errno, which halves the time of a call.
_bare_syscall = ctypes.CDLL(None).syscall
_bare_syscall.restype = None
_pointer, _size, _int = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int

_syscall = _libc.syscall
_syscall.restype = ctypes.c_long
_syscall.argtypes = (ctypes.c_long, _pointer, _int, ctypes.c_uint32, _pointer, _pointer, _int)

_mmap = _libc.mmap
_mmap.restype = _pointer
_mmap.argtypes = (_pointer, _size, _int, _int, _int, ctypes.c_long)

_mremap = _libc.mremap
_mremap.restype = _pointer
_mremap.argtypes = (_pointer, _size, _size, _int, _pointer)

_mprotect = _libc.mprotect
_mprotect.restype = _int
_mprotect.argtypes = (_pointer, _size, _int)


class _PyBuffer(ctypes.Structure):
    """`Py_buffer` of the stable ABI."""

    _fields_ = [
        ("buf", _pointer),
        ("obj", _pointer),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", _int),
        ("ndim", _int),
        ("format", ctypes.c_char_p),
        ("shape", _pointer),
        ("strides", _pointer),
        ("suboffsets", _pointer),
        ("internal", _pointer),
    ]


_get_buffer = ctypes.pythonapi.PyObject_GetBuffer
_get_buffer.restype = _int
_get_buffer.argtypes = (ctypes.py_object, ctypes.POINTER(_PyBuffer), _int)
_release_buffer = ctypes.pythonapi.PyBuffer_Release
_release_buffer.restype = None
_release_buffer.argtypes = (ctypes.POINTER(_PyBuffer),)


def address_of(buffer):
    """The address of a contiguous buffer's first byte; valid while `buffer` lives."""
    view = _PyBuffer()
    _get_buffer(buffer, ctypes.byref(view), 0)  # PyBUF_SIMPLE; raises BufferError itself
    address = view.buf
    _release_buffer(ctypes.byref(view))
    return address


def futex_waiter(address):
    """Returns `doze(expected)` and `wait(expected)`: both sleep while the u32 at `address` equals `expected`.

    Both may return early; the caller looks at the word again. `doze` is the quick one: it
    also returns when the kernel refuses, and only `wait` can tell, so call that one after it.
    """
    number = _FUTEX_NUMBERS.get(MACHINE)
    if number is None:
        raise OSError(errno.ENOSYS, f"the Python runtime does not know the futex call of {MACHINE}")

    place = ctypes.c_void_p(address)

    def doze(expected, syscall=_bare_syscall):
        syscall(number, place, _FUTEX_WAIT, expected, None)

    def wait(expected, syscall=_syscall):
        if syscall(number, address, _FUTEX_WAIT, expected, None, None, 0) == 0:
            return
        error = ctypes.get_errno()
        if error not in (errno.EAGAIN, errno.EINTR):
            raise OSError(error, f"FUTEX_WAIT on the submission ring: {os.strerror(error)}")

    return doze, wait


def make_private(address, used_bytes, writable):
    """Replaces the pages at `address` by a private copy of their first `used_bytes`.

    One mremap swaps the pages, so that a thread reading them meanwhile sees the same
    bytes before and after. `address` is page aligned.
    """
    length = -(-used_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
    copy = _mmap(None, length, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
    if copy == _MAP_FAILED:
        _fail("mmap")
    ctypes.memmove(copy, address, used_bytes)
    if not writable and _mprotect(copy, length, mmap.PROT_READ) != 0:
        _fail("mprotect")
    if _mremap(copy, length, length, _MREMAP_MAYMOVE | _MREMAP_FIXED, address) == _MAP_FAILED:
        _fail("mremap")


def _fail(call):
    error = ctypes.get_errno()
    raise OSError(error, f"{call}, to keep bytes a handler still refers to: {os.strerror(error)}")
