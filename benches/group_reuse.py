"""What it would save to use a version 1 control group again: as root, `python3 benches/group_reuse.py`.

Medians over 300 groups, each of which one process was in. What both ways need (the limits) is apart. Groups are made under names of this
process's own and removed.
"""
import os
import statistics
import time

OWN = os.getpid()
LIMITS = {
    "memory": [("memory.limit_in_bytes", "67108864"), ("memory.swappiness", "0")],
    "pids": [("pids.max", "16")],
    "cpu": [("cpu.cfs_period_us", "100000"), ("cpu.cfs_quota_us", "100000")],
}


def group(controller):
    return f"/sys/fs/cgroup/{controller}/vilya-reuse-{OWN}"


def write(path, value):
    with open(path, "wb", buffering=0) as file:
        file.write(value)


def read(path):
    with open(path, "rb", buffering=0) as file:
        return file.read()


def make():
    for controller in LIMITS:
        os.mkdir(group(controller))


def limit():
    for controller, settings in LIMITS.items():
        for file, value in settings:
            write(f"{group(controller)}/{file}", value.encode())


def use():
    child = os.fork()
    if child == 0:
        for controller in LIMITS:
            write(group(controller) + "/tasks", b"0")
        os._exit(0)
    os.waitpid(child, 0)


def look():
    """Whether nothing is in it, and its counters are as those of a new one where they can be."""
    for controller in LIMITS:
        while read(group(controller) + "/tasks"):
            pass
    write(group("memory") + "/memory.max_usage_in_bytes", b"0")
    write(group("memory") + "/memory.failcnt", b"0")
    return int(read(group("memory") + "/memory.usage_in_bytes"))


def empty():
    write(group("memory") + "/memory.force_empty", b"0")


def remove():
    for controller in LIMITS:
        while True:
            try:
                os.rmdir(group(controller))
                break
            except OSError:
                time.sleep(0.0005)


def main():
    times = {step.__name__: [] for step in (make, limit, use, look, empty, remove)}
    charged = []
    for _ in range(300):
        for step in (make, limit, use, look, empty, remove):
            begun = time.perf_counter_ns()
            found = step()
            times[step.__name__].append((time.perf_counter_ns() - begun) / 1000)
            if step is look:
                charged.append(found)
    for name, spent in times.items():
        print(f"{name:<8}{statistics.median(spent):9.1f} us")
    left = sum(1 for bytes_left in charged if bytes_left)
    print(f"of {len(charged)} groups {left} were still charged memory, {statistics.median(charged) / 1024:.0f} KiB at the median")


if __name__ == "__main__":
    main()
