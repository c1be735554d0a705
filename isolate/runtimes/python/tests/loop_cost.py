"""The interpreter time of one invocation: `python3 loop_cost.py [invocations]`.

Worker and runtime take turns in one thread, so nothing waits and no process is
switched: what is measured is the runtime's own loop. The floor of the same run is
parsing and printing the same JSON alone.
"""

import json
import sys
import time

from fake_worker import Regions, layout, request_metadata

from vilya_runtime import vilya
from vilya_runtime.channel import Channel
from vilya_runtime.context import Function
from vilya_runtime.server import Server

EVENT = json.dumps({"name": "Vilya", "count": 3}).encode()


def hello(event, context):
    return {"message": "hello " + event["name"]}


@vilya.raw
def upper(body, context):
    out = context.reserve(len(body))
    out[:] = bytes(body).upper()
    return out


@vilya.raw
def echo(body, context):
    return bytes(body)


def measure(function, payload, invocations):
    """Nanoseconds an invocation takes in the runtime, the median of five rounds."""
    regions = Regions()
    channel = Channel(regions.down_fd, regions.up_fd, regions.doorbell, spin_limit_ns=0)
    server = Server(channel, function, Function({}))
    rounds = []
    for _ in range(5):
        spent = 0
        for invocation in range(invocations // 5):
            regions.submit(payload, invocation=invocation, metadata=METADATA, deadline_ns=1)
            started = time.perf_counter_ns()
            server.run(channel.take())
            spent += time.perf_counter_ns() - started
            claim = regions.pop()
            assert claim.kind == layout.RETURNED, claim.payload
        rounds.append(spent / (invocations // 5))
    return sorted(rounds)[2]


def measure_json(invocations):
    started = time.perf_counter_ns()
    for _ in range(invocations):
        json.dumps(hello(json.loads(EVENT), None)).encode()
    return (time.perf_counter_ns() - started) / invocations


METADATA = request_metadata(content_type=b"application/json")

if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000
    print(f"json alone        {measure_json(count) / 1000:8.2f} us")
    print(f"json handler      {measure(hello, EVENT, count) / 1000:8.2f} us")
    print(f"raw, 100 B        {measure(echo, b'x' * 100, count) / 1000:8.2f} us")
    print(f"raw reserve, 5 kB {measure(upper, b'x' * 5000, count) / 1000:8.2f} us")
