"""The shared-memory ABI between the worker and a sandbox.

Printed by `vilya_ipc::layout::python_module`; a test there fails when the two differ. To print it again:
VILYA_BLESS=1 cargo test -p vilya-ipc python
"""

# Identity.
DOWN_MAGIC = 0x314e4441594c4956
UP_MAGIC = 0x31505541594c4956
ABI_VERSION = 4

# File descriptors.
DOWN_FD = 3
UP_FD = 4
DOORBELL_FD = 5

# Indices and flags, each a u32: in the down region (read-only here).
SUBMISSION_TAIL_OFFSET = 256
COMPLETION_HEAD_OFFSET = 384
WORKER_PARKED_OFFSET = 512
PARTS_TAKEN_OFFSET = 1024

# Indices and flags, each a u32: in the up region.
COMPLETION_TAIL_OFFSET = 256
SUBMISSION_HEAD_OFFSET = 384
SANDBOX_PARKED_OFFSET = 512

# Sizes.
PAGE_BYTES = 4096
HEADER_BYTES = 4096
DESCRIPTOR_BYTES = 64
SEQUENCE_OFFSET = 56
SLOT_STRIDE_BYTES = 1280
INLINE_BYTES = 1216
PAYLOAD_ALIGN_BYTES = 16
METADATA_BYTES = 4096
MAX_LANES = 256
MAX_PAYLOAD_BYTES = 1073741824
PART_BYTES = 65536
MAX_CONTENT_TYPE_BYTES = 255

# Kinds of submissions.
INVOKE = 1
CANCEL = 2
STOP = 3
TRIM = 4

# Kinds of completions.
READY = 1
RETURNED = 2
RAISED = 3
INIT_FAILED = 4
IMPORTED = 5
PART = 6

# The header of the down region.
DOWN_HEADER_FORMAT = "<QIIIIQIIIIQQQQQIIQQQ"
DOWN_HEADER_BYTES = 120
DOWN_HEADER_FIELDS = (
    "magic",
    "abi",
    "header_bytes",
    "lanes",
    "submission_entries",
    "submission_offset",
    "submission_stride",
    "inline_bytes",
    "completion_entries",
    "completion_stride",
    "completion_offset",
    "request_offset",
    "request_lane_bytes",
    "response_offset",
    "response_lane_bytes",
    "metadata_bytes",
    "reserved",
    "payload_limit",
    "down_bytes",
    "up_bytes",
)
DOWN_HEADER_MAGIC_OFFSET = 0
DOWN_HEADER_ABI_OFFSET = 8
DOWN_HEADER_HEADER_BYTES_OFFSET = 12
DOWN_HEADER_LANES_OFFSET = 16
DOWN_HEADER_SUBMISSION_ENTRIES_OFFSET = 20
DOWN_HEADER_SUBMISSION_OFFSET_OFFSET = 24
DOWN_HEADER_SUBMISSION_STRIDE_OFFSET = 32
DOWN_HEADER_INLINE_BYTES_OFFSET = 36
DOWN_HEADER_COMPLETION_ENTRIES_OFFSET = 40
DOWN_HEADER_COMPLETION_STRIDE_OFFSET = 44
DOWN_HEADER_COMPLETION_OFFSET_OFFSET = 48
DOWN_HEADER_REQUEST_OFFSET_OFFSET = 56
DOWN_HEADER_REQUEST_LANE_BYTES_OFFSET = 64
DOWN_HEADER_RESPONSE_OFFSET_OFFSET = 72
DOWN_HEADER_RESPONSE_LANE_BYTES_OFFSET = 80
DOWN_HEADER_METADATA_BYTES_OFFSET = 88
DOWN_HEADER_RESERVED_OFFSET = 92
DOWN_HEADER_PAYLOAD_LIMIT_OFFSET = 96
DOWN_HEADER_DOWN_BYTES_OFFSET = 104
DOWN_HEADER_UP_BYTES_OFFSET = 112

# The header of the up region.
UP_HEADER_FORMAT = "<QII"
UP_HEADER_BYTES = 16
UP_HEADER_FIELDS = (
    "magic",
    "abi",
    "reserved",
)
UP_HEADER_MAGIC_OFFSET = 0
UP_HEADER_ABI_OFFSET = 8
UP_HEADER_RESERVED_OFFSET = 12

# A submission, at the start of its slot.
SUBMISSION_FORMAT = "<QHHIQQIIQQQ"
SUBMISSION_BYTES = 64
SUBMISSION_FIELDS = (
    "invocation",
    "kind",
    "flags",
    "lane",
    "deadline_ns",
    "metadata_offset",
    "metadata_bytes",
    "reserved",
    "payload_offset",
    "payload_bytes",
    "sequence",
)
SUBMISSION_INVOCATION_OFFSET = 0
SUBMISSION_KIND_OFFSET = 8
SUBMISSION_FLAGS_OFFSET = 10
SUBMISSION_LANE_OFFSET = 12
SUBMISSION_DEADLINE_NS_OFFSET = 16
SUBMISSION_METADATA_OFFSET_OFFSET = 24
SUBMISSION_METADATA_BYTES_OFFSET = 32
SUBMISSION_RESERVED_OFFSET = 36
SUBMISSION_PAYLOAD_OFFSET_OFFSET = 40
SUBMISSION_PAYLOAD_BYTES_OFFSET = 48
SUBMISSION_SEQUENCE_OFFSET = 56

# A completion, at the start of its slot.
COMPLETION_FORMAT = "<QHHIQIIQQQQ"
COMPLETION_BYTES = 64
COMPLETION_FIELDS = (
    "invocation",
    "kind",
    "flags",
    "lane",
    "metadata_offset",
    "metadata_bytes",
    "reserved",
    "payload_offset",
    "payload_bytes",
    "reserved_tail",
    "sequence",
)
COMPLETION_INVOCATION_OFFSET = 0
COMPLETION_KIND_OFFSET = 8
COMPLETION_FLAGS_OFFSET = 10
COMPLETION_LANE_OFFSET = 12
COMPLETION_METADATA_OFFSET_OFFSET = 16
COMPLETION_METADATA_BYTES_OFFSET = 24
COMPLETION_RESERVED_OFFSET = 28
COMPLETION_PAYLOAD_OFFSET_OFFSET = 32
COMPLETION_PAYLOAD_BYTES_OFFSET = 40
COMPLETION_RESERVED_TAIL_OFFSET = 48
COMPLETION_SEQUENCE_OFFSET = 56

# A byte string in an archive: i32 offset from its own place to the bytes, u32 length.
VECTOR_FORMAT = "<iI"
VECTOR_BYTES = 8

# A request's metadata: its root, the last bytes of the archive.
REQUEST_METADATA_ROOT_FORMAT = "<16sQiIiI"
REQUEST_METADATA_ROOT_BYTES = 40
REQUEST_METADATA_ALIGN = 8
REQUEST_METADATA_REQUEST_ID_OFFSET = 0
REQUEST_METADATA_RECEIVED_UNIX_MS_OFFSET = 16
REQUEST_METADATA_CONTENT_TYPE_OFFSET = 24
REQUEST_METADATA_TRACE_PARENT_OFFSET = 32

# A response's metadata: the content type's bytes, zeros to the alignment, then the root. None at all (0
# bytes) means the default. A content type is at most MAX_CONTENT_TYPE_BYTES of printable ASCII.
RESPONSE_METADATA_ROOT_FORMAT = "<iI"
RESPONSE_METADATA_ROOT_BYTES = 8
RESPONSE_METADATA_ALIGN = 4
RESPONSE_METADATA_CONTENT_TYPE_OFFSET = 0
