"""The raw contract: views of shared memory, and what becomes of those that are kept."""

import json
import unittest

from fake_worker import Sandbox, layout

KEEPER = """
import vilya
kept = []

@vilya.raw
def handler(body, context):
    if body[:4] == b"show":
        return b"|".join(bytes(part[:8]) for part in kept)
    kept.append({keep})
    return b""
"""


class Raw(unittest.TestCase):
    def test_bytes_go_in_and_out(self):
        source = """
        import vilya
        @vilya.raw
        def handler(body, context):
            assert type(body) is memoryview and body.readonly
            kind = bytes(body[:1])
            body = body[1:]
            return {b"b": bytes, b"a": bytearray, b"v": lambda v: v, b"s": lambda v: memoryview(bytes(v))[::2],
                    b"n": lambda v: None}[kind](body)
        """
        for count in (0, 1, 800, 1216, 3000, 1 << 20, (5 << 20) - 1):
            data = bytes(range(256)) * (count // 256) + bytes(count % 256)
            with Sandbox(source).ready() as sandbox:
                for kind, expected in ((b"b", data), (b"a", data), (b"v", data), (b"s", data[::2]), (b"n", b"")):
                    claim = sandbox.invoke(kind + data)
                    self.assertEqual(claim.kind, layout.RETURNED, claim.payload[:200])
                    self.assertTrue(claim.payload == expected, (kind, count))
                    self.assertIsNone(claim.content_type)

    def test_a_reserved_view_is_sent_from_where_it_lies(self):
        source = """
        import vilya
        @vilya.raw
        def handler(body, context):
            context.content_type = "image/png"
            out = context.reserve(3 * len(body))
            out[: len(body)] = body
            out[len(body) : 2 * len(body)] = body
            return out[: 2 * len(body)]
        """
        with Sandbox(source).ready() as sandbox:
            for data in (b"", b"a", b"ab" * 600, b"abc" * 300_000):
                claim = sandbox.invoke(data)
                self.assertTrue(claim.payload == data * 2)
                self.assertEqual(claim.content_type, "image/png")
                self.assertFalse(claim.inline)
                self.assertEqual(claim.payload_offset, sandbox.regions.response_offset + layout.METADATA_BYTES)

    def test_another_part_of_a_reserved_view_is_moved(self):
        source = """
        import vilya
        @vilya.raw
        def handler(body, context):
            out = context.reserve(len(body))
            out[:] = body
            return out[5:]
        """
        with Sandbox(source).ready() as sandbox:
            for data in (b"hello world", bytes(range(200)) * 1000):
                self.assertTrue(sandbox.invoke(data).payload == data[5:])

    def test_too_much_is_refused(self):
        source = """
        import vilya
        @vilya.raw
        def handler(body, context):
            count = int(bytes(body[1:]))
            return context.reserve(count) if body[:1] == b"r" else bytearray(count) if body[:1] == b"a" else bytes(count)
        """
        with Sandbox(source, payload_limit=8192).ready() as sandbox:
            for kind in (b"r", b"a", b"b"):
                self.assertEqual(len(sandbox.invoke(kind + b"8192").payload), 8192)
                claim = sandbox.invoke(kind + b"8193")
                self.assertEqual(json.loads(claim.payload)["errorType"], "ResponseTooLarge")

    def test_results_of_other_types_are_explained(self):
        source = """
        import vilya
        @vilya.raw
        def handler(body, context):
            return {} if body else "text"
        """
        with Sandbox(source).ready() as sandbox:
            for payload in (b"", b"x"):
                self.assertEqual(json.loads(sandbox.invoke(payload).payload)["errorType"], "TypeError")

    def test_the_lent_view_ends_with_the_call(self):
        for size in (8, 5000):
            with Sandbox(KEEPER.format(keep="body")).ready() as sandbox:
                sandbox.invoke(b"x" * size)
                failure = json.loads(sandbox.invoke(b"show").payload)
                self.assertEqual(failure["errorType"], "ValueError")
                self.assertIn("released", failure["errorMessage"])

    def test_slices_that_are_kept_never_show_a_later_request(self):
        keeps = (
            "body[:100]",
            "memoryview(body)",
            "memoryview(body).cast('B')",
            # Built upon the lent view itself, which can then not be released.
            "__import__('pickle').PickleBuffer(body).raw()",
        )
        for keep in keeps:
            with Sandbox(KEEPER.format(keep=keep)).ready() as sandbox:
                for letter in (b"a", b"b", b"c"):
                    sandbox.invoke(letter * 5000)
                sandbox.invoke(b"d" * 8)
                claim = sandbox.invoke(b"show")
                self.assertEqual(claim.payload, b"|".join(letter * 8 for letter in (b"a", b"b", b"c", b"d")), keep)

    def test_a_kept_reserved_view_no_longer_reaches_the_lane(self):
        source = """
        import vilya
        kept = []

        @vilya.raw
        def handler(body, context):
            for view in kept:
                view[:] = b"!" * len(view)
            out = context.reserve(len(body))
            out[:] = body
            kept.append(out[:])
            return out
        """
        with Sandbox(source).ready() as sandbox:
            for letter in (b"a", b"b", b"c"):
                claim = sandbox.invoke(letter * 5000)
                self.assertEqual(claim.payload, letter * 5000)

    def test_reserving_after_the_call_is_refused(self):
        source = """
        import vilya
        contexts = []

        @vilya.raw
        def handler(body, context):
            contexts.append(context)
            return contexts[0].reserve(1)
        """
        with Sandbox(source).ready() as sandbox:
            self.assertEqual(sandbox.invoke(b"").kind, layout.RETURNED)
            self.assertEqual(json.loads(sandbox.invoke(b"").payload)["errorType"], "RuntimeError")

    def test_an_exception_leaves_no_view_behind(self):
        source = """
        import vilya
        from vilya_runtime import kernel
        copies = type("Copies", (list,), {})()
        make_private = kernel.make_private
        kernel.make_private = lambda *a: copies.append(make_private(*a))

        @vilya.raw
        def handler(body, context):
            part, out = body[1:], context.reserve(10)
            if body[:1] == b"r":
                raise ValueError("with views in the frame")
            if body[:1] == b"k":
                copies.kept = part
            return str(len(copies)).encode()
        """
        with Sandbox(source).ready() as sandbox:
            for _ in range(3):
                self.assertEqual(sandbox.invoke(b"r" * 5000).kind, layout.RAISED)
            self.assertEqual(sandbox.invoke(b"n" * 5000).payload, b"0")
            # The count does see what is kept.
            sandbox.invoke(b"k" * 5000)
            self.assertEqual(sandbox.invoke(b"n" * 5000).payload, b"1")


if __name__ == "__main__":
    unittest.main()
