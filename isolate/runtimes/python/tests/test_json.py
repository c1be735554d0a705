"""The JSON contract, through the real process and real regions."""

import json
import textwrap
import unittest

from fake_worker import Sandbox, layout, request_metadata

ECHO = """
def handler(event, context):
    return event
"""


def error(claim):
    assert claim.kind == layout.RAISED, claim
    return json.loads(claim.payload)


class Json(unittest.TestCase):
    def test_an_event_goes_in_and_a_result_comes_out(self):
        with Sandbox(ECHO).ready() as sandbox:
            claim = sandbox.invoke('{"wind": ["\u014csue", 1.5, null, true]}'.encode(), invocation=0xFFFF_0001_0000_0002)
            self.assertEqual((claim.kind, claim.invocation, claim.lane), (layout.RETURNED, 0xFFFF_0001_0000_0002, 0))
            self.assertEqual(claim.payload, '{"wind": ["\u014csue", 1.5, null, true]}'.encode())
            self.assertEqual(claim.content_type, "application/json")
            self.assertTrue(claim.inline)

    def test_an_empty_payload_is_none(self):
        with Sandbox(ECHO).ready() as sandbox:
            self.assertEqual(sandbox.invoke(b"").payload, b"null")

    def test_payloads_of_every_size_around_the_slot_survive(self):
        with Sandbox(ECHO).ready() as sandbox:
            for count in (0, 1000, 1100, 1150, 1160, 1170, 1180, 1190, 1200, 1210, 1214, 1216, 1217, 1300, 4096, 70_000):
                self.assertEqual(sandbox.call("x" * count), "x" * count)

    def test_payloads_of_one_and_five_mebibytes_pass(self):
        with Sandbox(ECHO).ready() as sandbox:
            for mebibytes in (1, 5):
                text = "\u00e6ther " * ((mebibytes << 20) // 7 - 1)
                claim = sandbox.invoke(json.dumps(text, ensure_ascii=False).encode())
                self.assertFalse(claim.inline)
                self.assertEqual(json.loads(claim.payload), text)

    def test_what_is_not_json_is_the_callers_error(self):
        with Sandbox(ECHO).ready() as sandbox:
            for payload in (b"{", b"\xff\xfe", b"[" * 500_000):
                self.assertEqual(error(sandbox.invoke(payload))["errorType"], "Runtime.UnmarshalError")
            self.assertEqual(sandbox.call(1), 1)

    def test_white_space_around_an_event_is_skipped_and_anything_else_is_not(self):
        with Sandbox(ECHO).ready() as sandbox:
            for payload in (b" [1]", b"[1]\n", b"\r\n\t [1]\r\n\t ", b" 1"):
                self.assertEqual(json.loads(sandbox.invoke(payload).payload), json.loads(payload))
            for payload in (b"[1] ]", b"[1]\x0b", b"1 2", b" ", b"\xef\xbb\xbf1", b"[1]\xc2\xa0"):
                record = error(sandbox.invoke(payload))
                self.assertEqual(record["errorType"], "Runtime.UnmarshalError")
                with self.assertRaises(ValueError) as expected:
                    json.JSONDecoder().decode(payload.decode())
                self.assertEqual(record["errorMessage"], f"Unable to unmarshal input: {expected.exception}")

    def test_what_could_not_be_encoded_can_be_once_it_is_mended(self):
        source = """
        inner = []
        kept = {"inner": inner, "again": inner}
        def handler(event, context):
            inner[:] = [{1}] if event else [1]
            return kept
        """
        with Sandbox(source).ready() as sandbox:
            for _ in range(2):
                self.assertEqual(error(sandbox.invoke(b"true"))["errorType"], "Runtime.MarshalError")
                self.assertEqual(sandbox.call(False), {"inner": [1], "again": [1]})

    def test_a_result_is_written_as_json_dumps_writes_it(self):
        source = r"""
        import enum
        class Number(enum.IntEnum):
            ONE = 1
        class Text(str):
            pass
        results = [{}, [], "\u00e6\n\"", Text("t"), 1.5, 1e300, -0.0, 2**70, True, None, (1, [2, {"a": ()}]), Number.ONE,
                   {1: 2, None: 3, True: 4, 1.5: 5, "k": Text("v")}, {"\u2028": "\x7f"}]
        def handler(event, context):
            return len(results) if event is None else results[event]
        """
        namespace = {}
        exec(textwrap.dedent(source), namespace)
        with Sandbox(source).ready() as sandbox:
            for index in range(sandbox.call(None)):
                expected = json.dumps(namespace["results"][index], ensure_ascii=False)
                self.assertEqual(sandbox.invoke(str(index).encode()).payload.decode(), expected)

    def test_a_result_that_json_cannot_hold_raises(self):
        source = """
        def handler(event, context):
            return {"set": {1}, "nan": float("nan"), "deep": (lambda a: a.append(a) or a)([])}[event]
        """
        with Sandbox(source).ready() as sandbox:
            for event in (b'"set"', b'"nan"', b'"deep"'):
                self.assertEqual(error(sandbox.invoke(event))["errorType"], "Runtime.MarshalError")

    def test_a_lone_surrogate_is_escaped(self):
        with Sandbox(ECHO).ready() as sandbox:
            self.assertEqual(sandbox.invoke(b'"\\ud800"').payload, b'"\\ud800"')

    def test_a_response_over_the_limit_raises(self):
        source = """
        def handler(event, context):
            return "x" * event
        """
        with Sandbox(source, payload_limit=10_000).ready() as sandbox:
            self.assertEqual(len(sandbox.invoke(b"9998").payload), 10_000)
            failure = error(sandbox.invoke(b"9999"))
            self.assertEqual(failure["errorType"], "ResponseTooLarge")
            self.assertIn("10001 bytes", failure["errorMessage"])
            self.assertIn("10000", failure["errorMessage"])

    def test_async_handlers_run(self):
        source = """
        import asyncio
        async def handler(event, context):
            await asyncio.sleep(0)
            return event + 1

        def wrapped(event, context):
            return handler(event, context)
        """
        for handler in ("app.handler", "app.wrapped"):
            with Sandbox(source, handler=handler).ready() as sandbox:
                self.assertEqual([sandbox.call(n) for n in range(3)], [1, 2, 3])

    def test_the_context_tells_the_invocation(self):
        source = """
        def handler(event, context):
            return [context.function_name, context.function_version, context.memory_limit_in_mb, context.aws_request_id,
                    context.request_id, context.received_unix_ms, context.request_content_type, context.trace_parent,
                    context.deadline_ns, context.get_remaining_time_in_millis(), context.log_group_name,
                    context.invoked_function_arn]
        """
        metadata = request_metadata(content_type=b"application/json", trace_parent=b"00-4bf92f-00f067-01")
        uuid = "00010203-0405-0607-0809-0a0b0c0d0e0f"
        with Sandbox(source).ready() as sandbox:
            expected = ["tested", "3", 128, uuid, uuid.replace("-", ""), 1_700_000_000_123, "application/json"]
            expected += ["00-4bf92f-00f067-01", 5, 0, "/vilya/tested", "arn:aws:lambda:local:000000000000:function:tested"]
            self.assertEqual(sandbox.call(None, metadata=metadata, deadline_ns=5), expected)
            # The same behind a payload that does not fit the slot.
            self.assertEqual(sandbox.call("x" * 5000, metadata=metadata, deadline_ns=5), expected)
            self.assertGreater(sandbox.call(None)[9], 0)

    def test_the_content_type_is_the_handlers_to_set(self):
        source = """
        def handler(event, context):
            context.content_type = event
            return 1
        """
        with Sandbox(source).ready() as sandbox:
            self.assertEqual(sandbox.invoke(b'"application/problem+json"').content_type, "application/problem+json")
            self.assertEqual(sandbox.invoke(b'"a"').content_type, "a")
            for smuggled in ("text/plain\r\nset-cookie: a=b", "x" * 256, "text/\u00fc"):
                self.assertEqual(error(sandbox.invoke(json.dumps(smuggled).encode()))["errorType"], "ValueError")


if __name__ == "__main__":
    unittest.main()
