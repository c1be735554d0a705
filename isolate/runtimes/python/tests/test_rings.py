"""Indices, parking, lanes and cancels."""

import json
import os
import tempfile
import unittest
from unittest import mock

from fake_worker import Regions, Sandbox, layout, open_when_read

from vilya_runtime import channel
from vilya_runtime.context import Function
from vilya_runtime.server import Server

ECHO = """
def handler(event, context):
    return event
"""


class Rings(unittest.TestCase):
    def test_indices_wrap_around(self):
        with Sandbox(ECHO, first_index=0xFFFF_FFFA).ready() as sandbox:
            for number in range(40):
                self.assertEqual(sandbox.call(number, invocation=number), number)
            self.assertEqual(sandbox.regions.tail, 34)
            self.assertEqual(sandbox.regions.up_words[layout.SUBMISSION_HEAD_OFFSET // 4], 34)

    def test_a_parked_runtime_wakes_every_time(self):
        with Sandbox(ECHO).ready() as sandbox:
            for number in range(300):
                sandbox.regions.wait_until_parked()
                self.assertEqual(sandbox.call(number), number)
            self.assertEqual(sandbox.regions.wakes, 300)

    def test_the_doorbell_is_rung_only_for_a_parked_worker(self):
        with Sandbox(ECHO).ready() as sandbox:
            regions = sandbox.regions
            rings = regions.rings
            regions.submit(b"1")
            claim = None
            while claim is None:  # looks without parking
                claim = regions.pop()
            sandbox.regions.wait_until_parked()  # so that a late ring would have been heard
            with self.assertRaises(BlockingIOError):
                os.read(regions.doorbell, 8)
            self.assertEqual(regions.rings, rings)

    def test_spinning_finds_what_parking_finds(self):
        for spin_us in ("1", "200", "5000"):
            with Sandbox(ECHO, environment={"VILYA_SPIN_US": spin_us}).ready() as sandbox:
                for number in range(200):
                    if number % 50 == 0:
                        sandbox.regions.wait_until_parked()
                    self.assertEqual(sandbox.call(number), number)

    def test_a_cancel_between_invocations_changes_nothing(self):
        with Sandbox(ECHO).ready() as sandbox:
            for number in range(20):
                self.assertEqual(sandbox.call(number, invocation=number), number)
                sandbox.regions.cancel(number)

    def test_a_running_handler_can_see_that_it_was_cancelled(self):
        source = """
        def handler(event, context):
            before = context.cancelled
            open(event).read()
            return [before, context.cancelled]
        """
        for lanes in (1, 3):
            with tempfile.TemporaryDirectory() as folder, Sandbox(source, lanes=lanes).ready() as sandbox:
                for invocation, cancelled in ((5, True), (6, False), (7, True)):
                    path = os.path.join(folder, str(invocation))
                    os.mkfifo(path)
                    lane = lanes - 1
                    sandbox.regions.submit(json.dumps(path).encode(), invocation=invocation, lane=lane)
                    with open_when_read(path):
                        sandbox.regions.cancel(invocation if cancelled else invocation - 1, lane=lane)
                    self.assertEqual(json.loads(sandbox.wait().payload), [False, cancelled])


class Spinning(unittest.TestCase):
    def test_the_budget_follows_the_waits_and_needs_a_lane_alone(self):
        regions = Regions()
        ring = channel.Channel(regions.down_fd, regions.up_fd, regions.doorbell, spin_limit_ns=200_000)
        budgets = [ring._spin_ns]
        for waited_us in (120, 120, 120, 5000, 5000):
            budgets.append(ring._next_budget(budgets[-1], waited_us * 1000))
        self.assertEqual(budgets, [50_000, 100_000, 200_000, 200_000, 100_000, 50_000])
        self.assertEqual(ring._next_budget(1_999, 5_000_000), 0)
        self.assertEqual(ring._next_budget(0, 120_000), 50_000)

        regions = Regions(lanes=2)
        ring = channel.Channel(regions.down_fd, regions.up_fd, regions.doorbell, spin_limit_ns=200_000)
        self.assertEqual(ring._spin_limit_ns, 0)


class Ordering(unittest.TestCase):
    def test_a_full_barrier_is_between_each_store_and_the_load_it_must_not_pass(self):
        steps = []

        class Words:
            def __init__(self, words, names):
                self.words, self.names = words, names

            def __getitem__(self, index):
                steps.append(f"load {self.names.get(index)}")
                return self.words[index]

            def __setitem__(self, index, value):
                steps.append(f"store {self.names.get(index, 'sequence')}")
                self.words[index] = value

        class Lock:
            def acquire(self):
                steps.append("acquire")

            def release(self):
                steps.append("barrier")

            __enter__ = acquire

            def __exit__(self, *_):
                self.release()

        regions = Regions()
        ring = channel.Channel(regions.down_fd, regions.up_fd, regions.doorbell, spin_limit_ns=0)
        down = {layout.SUBMISSION_TAIL_OFFSET // 4: "submission tail", layout.WORKER_PARKED_OFFSET // 4: "worker parked"}
        up = {layout.COMPLETION_TAIL_OFFSET // 4: "completion tail", layout.SANDBOX_PARKED_OFFSET // 4: "sandbox parked"}
        ring._down_words, ring._up_words = Words(ring._down_words, down), Words(ring._up_words, up)
        ring._up_quads = Words(ring._up_quads, {})
        ring._publishing = Lock()
        # The kernel's own look at the tail, and the barrier before it.
        ring._doze = lambda seen: steps.append("wait") or regions.submit(b"1")
        for payload in (b"", bytes(5000)):
            steps.clear()
            ring.publish(layout.RETURNED, 7, 0, b"", payload)
            self.assertEqual(
                steps, ["acquire", "store completion tail", "store sequence", "barrier", "load worker parked"]
            )
        steps.clear()
        ring.take()
        self.assertEqual(steps[:3], ["load submission tail", "store sandbox parked", "wait"])


class OtherMachines(unittest.TestCase):
    def test_without_strong_ordering_the_doorbell_is_always_rung(self):
        with mock.patch.object(channel, "_STRONGLY_ORDERED", False):
            regions = Regions()
            ring = channel.Channel(regions.down_fd, regions.up_fd, regions.doorbell, spin_limit_ns=0)
            server = Server(ring, lambda event, context: event, Function({}))
            for number in range(20):
                regions.submit(str(number).encode(), invocation=number)
                server.run(ring.take())
                self.assertEqual(regions.pop().payload, str(number).encode())
                self.assertEqual(int.from_bytes(os.read(regions.doorbell, 8), "little"), 1)


class Lanes(unittest.TestCase):
    def test_lanes_run_at_once_and_complete_in_any_order(self):
        source = """
        def handler(event, context):
            with open(event) as pipe:
                return pipe.read()
        """
        with tempfile.TemporaryDirectory() as folder, Sandbox(source, lanes=4).ready() as sandbox:
            for _ in range(3):
                pipes = []
                for lane in range(4):
                    path = os.path.join(folder, f"pipe-{lane}")
                    if not os.path.exists(path):
                        os.mkfifo(path)
                    sandbox.regions.submit(json.dumps(path).encode(), invocation=100 + lane, lane=lane)
                # Opening a pipe waits for the handler that reads it: all four run now.
                for lane in range(4):
                    pipes.append(open_when_read(os.path.join(folder, f"pipe-{lane}")))
                for lane in (2, 0, 3, 1):
                    pipes[lane].write(f"lane {lane}")
                    pipes[lane].close()
                    claim = sandbox.wait()
                    self.assertEqual((claim.invocation, claim.lane), (100 + lane, lane))
                    self.assertEqual(json.loads(claim.payload), f"lane {lane}")

    def test_many_invocations_on_four_lanes_all_answer_with_their_own_bytes(self):
        source = """
        import vilya
        @vilya.raw
        def handler(body, context):
            out = context.reserve(len(body))
            out[:] = body
            return out if len(body) % 2 else bytes(body)
        """
        with Sandbox(source, lanes=4, first_index=0xFFFF_FF00).ready() as sandbox:
            def payload(number):
                return number.to_bytes(4, "little") * (1 + number * 37 % 900) + b"." * (number % 2)

            sent, answered, running = 0, 0, {}
            while answered < 600:
                while sent < 600 and len(running) < 4:
                    lane = next(lane for lane in range(4) if lane not in running)
                    running[lane] = sent
                    sandbox.regions.submit(payload(sent), invocation=sent, lane=lane)
                    sent += 1
                claim = sandbox.wait()
                self.assertEqual(claim.kind, layout.RETURNED, claim.payload)
                self.assertEqual(running.pop(claim.lane), claim.invocation)
                self.assertTrue(claim.payload == payload(claim.invocation))
                answered += 1

    def test_async_handlers_run_on_every_lane(self):
        source = """
        import asyncio
        async def handler(event, context):
            await asyncio.sleep(0)
            return event
        """
        with Sandbox(source, lanes=4).ready() as sandbox:
            for lane in range(4):
                sandbox.regions.submit(str(lane).encode(), invocation=lane, lane=lane)
            self.assertEqual(sorted(json.loads(sandbox.wait().payload) for _ in range(4)), [0, 1, 2, 3])


if __name__ == "__main__":
    unittest.main()
