"""The Python examples with their own inputs, and the cost measurement kept alive."""

import json
import os
import unittest

import loop_cost
from fake_worker import Sandbox, layout, request_metadata

EXAMPLES = os.path.join(os.path.dirname(__file__), "..", "..", "examples")


def example(name, **options):
    return Sandbox("", handler="main.handler", folder=os.path.join(EXAMPLES, name), **options)


def input_of(name, file):
    with open(os.path.join(EXAMPLES, name, file), "rb") as opened:
        return opened.read()


class Examples(unittest.TestCase):
    def test_hello(self):
        with example("hello").ready() as sandbox:
            answer = json.loads(sandbox.invoke(input_of("hello", "event.json")).payload)
            self.assertEqual(answer["message"], "Hello, Ada!")
            self.assertEqual(answer["requestId"], "000102030405060708090a0b0c0d0e0f")
            self.assertEqual(json.loads(sandbox.invoke(b"").payload)["message"], "Hello, world!")

    def test_nap(self):
        with example("nap", lanes=2).ready() as sandbox:
            self.assertGreaterEqual(json.loads(sandbox.invoke(input_of("nap", "event.json")).payload)["slept_ms"], 20)
            self.assertEqual(sandbox.invoke(b'{"ms": -1}').kind, layout.RAISED)

    def test_upper(self):
        with example("upper").ready() as sandbox:
            text = input_of("upper", "body.txt")
            for body in (b"", text, text * 5000):
                claim = sandbox.invoke(body, metadata=request_metadata(content_type=b"text/markdown"))
                self.assertTrue(claim.payload == body.upper())
                self.assertEqual(claim.content_type, "text/markdown")

    def test_word_count(self):
        prose = input_of("word-count", "prose.txt")
        self.assertGreater(len(prose), 100_000)
        with example("word-count").ready() as sandbox:
            claim = sandbox.invoke(prose)
            self.assertEqual(claim.content_type, "application/json")
            counts = json.loads(claim.payload)
            self.assertEqual(counts["characters"], len(prose.decode()))
            self.assertEqual(counts["lines"], prose.count(b"\n"))
            # A text without digits or loose dashes has as many words as `split` finds.
            self.assertEqual(counts["words"], len(prose.decode().replace("-", " ").split()))
            self.assertEqual(counts["most_frequent"][0][0], "the")
            self.assertIn("not UTF-8 at byte 1", json.loads(sandbox.invoke(b"a\xff").payload)["errorMessage"])


class LoopCost(unittest.TestCase):
    def test_it_measures(self):
        for function in (loop_cost.hello, loop_cost.upper):
            for asleep in (False, True):
                self.assertGreater(loop_cost.measure(function, loop_cost.EVENT, 10, asleep), 0)


if __name__ == "__main__":
    unittest.main()
