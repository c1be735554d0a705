"""What it costs a start to show an image, and to touch its files: as root, `python3 benches/image_mounts.py`.

Medians of 200 rounds of a flattened directory bound entry by entry, as a sandbox's own root needs it, and of an overlay of so many layers
whose entries are then bound the same way (the kernel takes no overlay of one). Then all 600 files, of which every layer has its share, are opened and read from the fresh mounts;
the page cache has them. Both lie on a tmpfs in a mount namespace of this process's own, which ends with it.
"""
import ctypes
import os
import shutil
import statistics
import tempfile
import time

ENTRIES = "bin etc home lib lib64 opt root sbin srv usr var".split()
LAYERS = (2, 5, 10, 20, 60)
FILES = 600
ROUNDS = 200
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
    bind_from("flat")
    return time.perf_counter() - begun


def touched():
    begun = time.perf_counter()
    for number in range(FILES):
        descriptor = os.open(f"shown/usr/{number}", os.O_RDONLY)
        os.read(descriptor, 4096)
        os.close(descriptor)
    return time.perf_counter() - begun


def overlaid(layers):
    lower = "lowerdir=" + ":".join(map(str, range(layers)))
    begun = time.perf_counter()
    mount("overlay", "over", "overlay", READ_ONLY, lower)
    bind_from("over")
    return time.perf_counter() - begun


def medians_us(show, is_overlay):
    shows, touches = [], []
    for _ in range(ROUNDS):
        shows.append(show())
        touches.append(touched())
        for entry in ENTRIES:
            unmount(f"shown/{entry}")
        if is_overlay:
            unmount("over")
    return f"{statistics.median(shows) * 1e6:.0f} us to show, {statistics.median(touches) * 1e6:.0f} us to touch {FILES} files"


def fill(layers):
    """So many layers, named by numbers, and what they add up to."""
    for root in [*map(str, range(layers)), "flat"]:
        for entry in ENTRIES:
            os.makedirs(f"{root}/{entry}")
    for number in range(FILES):
        path = f"{number % layers}/usr/{number}"
        with open(path, "wb") as file:
            file.write(bytes(4096))
        os.link(path, f"flat/usr/{number}")


def empty(layers):
    for root in [*map(str, range(layers)), "flat"]:
        shutil.rmtree(root)


def main():
    check(LIBC.unshare(NEW_MOUNTS))
    mount("none", "/", flags=PRIVATE | RECURSIVE)
    with tempfile.TemporaryDirectory() as place:
        mount("none", place, "tmpfs")
        os.chdir(place)
        for entry in ENTRIES:
            os.makedirs(f"shown/{entry}")
        os.mkdir("over")
        for layers in LAYERS:
            fill(layers)
            if layers == LAYERS[0]:
                print(f"flattened: {medians_us(flattened, False)}")
            print(f"{layers} layers overlaid: {medians_us(lambda: overlaid(layers), True)}")
            empty(layers)
        os.chdir("/")
        unmount(place)


main()
