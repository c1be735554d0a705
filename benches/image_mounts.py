"""What it costs a start to show an image: as root, `python3 benches/image_mounts.py`.

Medians of 300 rounds of a flattened directory bound entry by entry, as a sandbox's own root needs it, and of an overlay of so many layers
whose entries are then bound the same way. Both lie on a tmpfs in a mount namespace of this process's own, which ends with it.
"""
import ctypes
import os
import statistics
import tempfile
import time

ENTRIES = "bin etc home lib lib64 opt root sbin srv usr var".split()
LAYERS = (2, 5, 10, 20, 60)
ROUNDS = 300
NEW_MOUNTS, PRIVATE, RECURSIVE, BIND, READ_ONLY, DETACH = 0x20000, 1 << 18, 1 << 14, 1 << 12, 1, 2
LIBC = ctypes.CDLL(None, use_errno=True)


def check(result):
    if result:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def mount(source, target, kind=None, flags=0, options=None):
    words = (word.encode() if word else None for word in (source, target, kind))
    check(LIBC.mount(*words, flags, options.encode() if options else None))


def unmount(target):
    check(LIBC.umount2(target.encode(), DETACH))


def bind_from(root):
    for entry in ENTRIES:
        mount(f"{root}/{entry}", f"shown/{entry}", flags=BIND)


def flattened():
    begun = time.perf_counter()
    bind_from("0")
    return time.perf_counter() - begun


def overlaid(layers):
    lower = "lowerdir=" + ":".join(map(str, range(layers)))
    begun = time.perf_counter()
    mount("overlay", "over", "overlay", READ_ONLY, lower)
    bind_from("over")
    return time.perf_counter() - begun


def median_us(show, is_overlay):
    times = []
    for _ in range(ROUNDS):
        times.append(show())
        for entry in ENTRIES:
            unmount(f"shown/{entry}")
        if is_overlay:
            unmount("over")
    return statistics.median(times) * 1e6


def main():
    check(LIBC.unshare(NEW_MOUNTS))
    mount("none", "/", flags=PRIVATE | RECURSIVE)
    with tempfile.TemporaryDirectory() as place:
        mount("none", place, "tmpfs")
        os.chdir(place)
        for root in [*map(str, range(max(LAYERS))), "shown"]:
            for entry in ENTRIES:
                os.makedirs(f"{root}/{entry}")
        os.mkdir("over")
        print(f"flattened: {median_us(flattened, False):.0f} us")
        for layers in LAYERS:
            print(f"{layers} layers overlaid: {median_us(lambda: overlaid(layers), True):.0f} us")
        os.chdir("/")
        unmount(place)


main()
