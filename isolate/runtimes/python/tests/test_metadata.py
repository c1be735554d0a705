"""The records beside a payload, against bytes that rkyv 0.8 itself wrote."""

import unittest

from fake_worker import layout, request_metadata

from vilya_runtime.metadata import RequestMetadata, response_metadata

# Printed by `vilya_ipc::metadata::RequestMetadata::encode`: request id, milliseconds, content type, trace parent.
EMPTY = (
        "30313233343536373839616263646566cb04fb711f010000e8ffffff00000000e0ffffff00000000"
)
BOTH = (
        "746578742f706c61696e3b20636861727365743d7574662d3830302d3462663932663335373762333464613661336365"
        "3932396430653065343733362d303066303637616130626139303262372d303130313233343536373839616263646566"
        "cb04fb711f01000098ffffff19000000a9ffffff37000000"
)
TRACE_ONLY = (
        "780000000000000030313233343536373839616263646566cb04fb711f010000e0ffffff00000000d8ffffff01000000"
)


class Metadata(unittest.TestCase):
    def test_what_rkyv_wrote_is_read(self):
        trace_parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        for archived, content_type, trace in (
            (EMPTY, "", ""),
            (BOTH, "text/plain; charset=utf-8", trace_parent),
            (TRACE_ONLY, "", "x"),
        ):
            found = RequestMetadata(bytes.fromhex(archived))
            self.assertEqual(found.request_id, b"0123456789abcdef")
            self.assertEqual(found.received_unix_ms, 1234567890123)
            self.assertEqual((found.content_type, found.trace_parent), (content_type, trace))

    def test_the_fake_worker_writes_what_rkyv_writes(self):
        fields = {"request_id": b"0123456789abcdef", "received_unix_ms": 1234567890123}
        trace = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        ours = request_metadata(content_type=b"text/plain; charset=utf-8", trace_parent=trace, **fields)
        self.assertEqual(ours.hex(), BOTH)

    def test_no_metadata_is_empty_metadata(self):
        found = RequestMetadata(b"")
        self.assertEqual((found.request_id, found.content_type, found.trace_parent), (bytes(16), "", ""))

    def test_a_response_archive_has_its_root_last_and_aligned(self):
        self.assertEqual(response_metadata("a").hex(), "61000000" "fcffffff" "01000000")
        self.assertEqual(response_metadata("").hex(), "00000000" "00000000")
        for count in range(layout.MAX_CONTENT_TYPE_BYTES + 1):
            self.assertEqual(len(response_metadata("x" * count)) % layout.RESPONSE_METADATA_ALIGN, 0)

    def test_content_types_the_worker_would_refuse_are_refused_here(self):
        for content_type in ("x" * 256, "a\nb", "a\x7f", "\u00e4"):
            with self.assertRaises(ValueError):
                response_metadata(content_type)
        with self.assertRaises(TypeError):
            response_metadata(b"text/plain")


if __name__ == "__main__":
    unittest.main()
