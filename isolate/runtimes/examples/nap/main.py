"""Sleeps for `event["ms"]` milliseconds, 20 without a wish: work that waits, as a call to a database does."""

import time

DEFAULT_MS = 20
LONGEST_MS = 5_000


def handler(event, context):
    ms = (event or {}).get("ms", DEFAULT_MS)
    if not 0 <= ms <= LONGEST_MS:
        raise ValueError(f"ms is {ms}; give 0 to {LONGEST_MS}")
    started = time.monotonic()
    time.sleep(ms / 1000)
    return {"slept_ms": round((time.monotonic() - started) * 1000, 3)}
