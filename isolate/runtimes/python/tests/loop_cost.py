"""The interpreter time of one invocation: `python3 loop_cost.py [invocations]`.

Worker and runtime take turns in one thread, so nothing waits and no process is
switched: what is measured is the runtime's own loop, from taking a submission to having
published its completion, printing nothing. "Asleep on both sides" adds the two system
calls of an invocation that finds nobody awake: a wait that the kernel refuses at once,
and the doorbell's. The floor of the same run is parsing and printing the same JSON alone.

The figures are the least of several rounds, since other work only adds to them. A
sandbox that takes turns with others on a core takes several times as long, for its
pages and cache lines are gone whenever its turn comes.
"""

import json
import sys
import time

from fake_worker import Regions, layout, request_metadata

from vilya_runtime import output, vilya
from vilya_runtime.channel import Channel
from vilya_runtime.context import Function
from vilya_runtime.server import Server

ROUNDS = 20
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


def measure(function, payload, invocations, asleep=False):
    """Nanoseconds an invocation takes in the runtime."""
    regions = Regions()
    channel = Channel(regions.down_fd, regions.up_fd, regions.doorbell, spin_limit_ns=0)
    server = Server(channel, function, Function({}))
    rounds = []
    each = -(-invocations // ROUNDS)
    for number in range(ROUNDS):
        spent = 0
        for invocation in range(number * each, (number + 1) * each):
            regions.submit(payload, invocation=invocation, metadata=METADATA, deadline_ns=1)
            if asleep:  # in another sleep each time, so that it is rung each time
                regions.down_words[layout.WORKER_PARKED_OFFSET // 4] = invocation + 1
            started = time.perf_counter_ns()
            if asleep:
                channel._park(invocation - 1 & 0xFFFF_FFFF)  # no longer the tail
            server.run(channel.take())
            spent += time.perf_counter_ns() - started
            claim = regions.pop()
            assert claim.kind == layout.RETURNED, claim.payload
        rounds.append(spent / each)
    return min(rounds)


def measure_json(invocations):
    rounds = []
    each = -(-invocations // ROUNDS)
    for _ in range(ROUNDS):
        started = time.perf_counter_ns()
        for _ in range(each):
            json.dumps(hello(json.loads(EVENT), None)).encode()
        rounds.append((time.perf_counter_ns() - started) / each)
    return min(rounds)


METADATA = request_metadata(content_type=b"application/json")

if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000
    output.adopt()
    print(f"json alone           {measure_json(count) / 1000:8.2f} us")
    print(f"json handler         {measure(hello, EVENT, count) / 1000:8.2f} us")
    print(f"asleep on both sides {measure(hello, EVENT, count, asleep=True) / 1000:8.2f} us")
    print(f"raw, 100 B           {measure(echo, b'x' * 100, count) / 1000:8.2f} us")
    print(f"raw reserve, 5 kB    {measure(upper, b'x' * 5000, count) / 1000:8.2f} us")
