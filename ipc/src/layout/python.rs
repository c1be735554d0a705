//! The ABI as a Python module, so that the Python runtime shares these constants instead of repeating them.

use super::{
    ABI_VERSION, COMPLETION_HEAD_OFFSET, COMPLETION_TAIL_OFFSET, CompletionDescriptor, DESCRIPTOR_BYTES, DOORBELL_FD,
    DOWN_FD, DOWN_MAGIC, DownHeader, HEADER_BYTES, INLINE_BYTES, MAX_CONTENT_TYPE_BYTES, MAX_LANES, MAX_PAYLOAD_BYTES,
    METADATA_BYTES, PAGE_BYTES, PART_BYTES, PARTS_TAKEN_OFFSET, PAYLOAD_ALIGN_BYTES, SANDBOX_PARKED_OFFSET,
    SEQUENCE_OFFSET, SLOT_STRIDE_BYTES, SUBMISSION_HEAD_OFFSET, SUBMISSION_TAIL_OFFSET, SubmissionDescriptor, UP_FD,
    UP_MAGIC, UpHeader, WORKER_PARKED_OFFSET, completion_kind, submission_kind,
};
use crate::metadata::{ArchivedRequestMetadata, ArchivedResponseMetadata};
use rkyv::vec::ArchivedVec;
use std::fmt::Write as _;
use std::mem::{align_of, offset_of, size_of};

/// One field of a structure: its name, where it lies, and its `struct` code.
type Field = (&'static str, usize, &'static str);

macro_rules! fields {
    ($type:ty { $($name:ident: $code:literal),* $(,)? }) => {
        &[$((stringify!($name), offset_of!($type, $name), $code)),*] as &[Field]
    };
}

/// The text of the Python runtime's `layout.py`: every offset, size, kind and format of this ABI.
#[must_use]
pub fn python_module() -> String {
    let mut text = String::from(
        "\"\"\"The shared-memory ABI between the worker and a sandbox.\n\
         \n\
         Printed by `vilya_ipc::layout::python_module`; a test there fails when the two differ. To print it again:\n\
         VILYA_BLESS=1 cargo test -p vilya-ipc python\n\
         \"\"\"\n",
    );
    identity(&mut text);
    words(&mut text);
    slots(&mut text);
    structure(&mut text, "The header of the down region.", "DOWN_HEADER", DOWN_HEADER, size_of::<DownHeader>());
    structure(&mut text, "The header of the up region.", "UP_HEADER", UP_HEADER, size_of::<UpHeader>());
    let title = "A submission, at the start of its slot.";
    structure(&mut text, title, "SUBMISSION", SUBMISSION, size_of::<SubmissionDescriptor>());
    let title = "A completion, at the start of its slot.";
    structure(&mut text, title, "COMPLETION", COMPLETION, size_of::<CompletionDescriptor>());
    metadata(&mut text);
    text
}

const DOWN_HEADER: &[Field] = fields!(DownHeader {
    magic: "Q",
    abi: "I",
    header_bytes: "I",
    lanes: "I",
    submission_entries: "I",
    submission_offset: "Q",
    submission_stride: "I",
    inline_bytes: "I",
    completion_entries: "I",
    completion_stride: "I",
    completion_offset: "Q",
    request_offset: "Q",
    request_lane_bytes: "Q",
    response_offset: "Q",
    response_lane_bytes: "Q",
    metadata_bytes: "I",
    reserved: "I",
    payload_limit: "Q",
    down_bytes: "Q",
    up_bytes: "Q",
});

const UP_HEADER: &[Field] = fields!(UpHeader { magic: "Q", abi: "I", reserved: "I" });

const SUBMISSION: &[Field] = fields!(SubmissionDescriptor {
    invocation: "Q",
    kind: "H",
    flags: "H",
    lane: "I",
    deadline_ns: "Q",
    metadata_offset: "Q",
    metadata_bytes: "I",
    reserved: "I",
    payload_offset: "Q",
    payload_bytes: "Q",
    sequence: "Q",
});

const COMPLETION: &[Field] = fields!(CompletionDescriptor {
    invocation: "Q",
    kind: "H",
    flags: "H",
    lane: "I",
    metadata_offset: "Q",
    metadata_bytes: "I",
    reserved: "I",
    payload_offset: "Q",
    payload_bytes: "Q",
    reserved_tail: "Q",
    sequence: "Q",
});

fn section(text: &mut String, title: &str) {
    writeln!(text, "\n# {title}").expect("writing to a string");
}

fn constant(text: &mut String, name: &str, value: impl std::fmt::Display) {
    writeln!(text, "{name} = {value}").expect("writing to a string");
}

fn identity(text: &mut String) {
    section(text, "Identity.");
    constant(text, "DOWN_MAGIC", format_args!("{DOWN_MAGIC:#018x}"));
    constant(text, "UP_MAGIC", format_args!("{UP_MAGIC:#018x}"));
    constant(text, "ABI_VERSION", ABI_VERSION);
    section(text, "File descriptors.");
    constant(text, "DOWN_FD", DOWN_FD);
    constant(text, "UP_FD", UP_FD);
    constant(text, "DOORBELL_FD", DOORBELL_FD);
}

fn words(text: &mut String) {
    section(text, "Indices and flags, each a u32: in the down region (read-only here).");
    constant(text, "SUBMISSION_TAIL_OFFSET", SUBMISSION_TAIL_OFFSET);
    constant(text, "COMPLETION_HEAD_OFFSET", COMPLETION_HEAD_OFFSET);
    constant(text, "WORKER_PARKED_OFFSET", WORKER_PARKED_OFFSET);
    constant(text, "PARTS_TAKEN_OFFSET", PARTS_TAKEN_OFFSET);
    section(text, "Indices and flags, each a u32: in the up region.");
    constant(text, "COMPLETION_TAIL_OFFSET", COMPLETION_TAIL_OFFSET);
    constant(text, "SUBMISSION_HEAD_OFFSET", SUBMISSION_HEAD_OFFSET);
    constant(text, "SANDBOX_PARKED_OFFSET", SANDBOX_PARKED_OFFSET);
}

fn slots(text: &mut String) {
    section(text, "Sizes.");
    constant(text, "PAGE_BYTES", PAGE_BYTES);
    constant(text, "HEADER_BYTES", HEADER_BYTES);
    constant(text, "DESCRIPTOR_BYTES", DESCRIPTOR_BYTES);
    constant(text, "SEQUENCE_OFFSET", SEQUENCE_OFFSET);
    constant(text, "SLOT_STRIDE_BYTES", SLOT_STRIDE_BYTES);
    constant(text, "INLINE_BYTES", INLINE_BYTES);
    constant(text, "PAYLOAD_ALIGN_BYTES", PAYLOAD_ALIGN_BYTES);
    constant(text, "METADATA_BYTES", METADATA_BYTES);
    constant(text, "MAX_LANES", MAX_LANES);
    constant(text, "MAX_PAYLOAD_BYTES", MAX_PAYLOAD_BYTES);
    constant(text, "PART_BYTES", PART_BYTES);
    constant(text, "MAX_CONTENT_TYPE_BYTES", MAX_CONTENT_TYPE_BYTES);
    section(text, "Kinds of submissions.");
    constant(text, "INVOKE", submission_kind::INVOKE);
    constant(text, "CANCEL", submission_kind::CANCEL);
    constant(text, "STOP", submission_kind::STOP);
    constant(text, "TRIM", submission_kind::TRIM);
    section(text, "Kinds of completions.");
    constant(text, "READY", completion_kind::READY);
    constant(text, "RETURNED", completion_kind::RETURNED);
    constant(text, "RAISED", completion_kind::RAISED);
    constant(text, "INIT_FAILED", completion_kind::INIT_FAILED);
    constant(text, "IMPORTED", completion_kind::IMPORTED);
    constant(text, "PART", completion_kind::PART);
}

/// A structure's format, size, fields in order and their offsets.
fn structure(text: &mut String, title: &str, name: &str, fields: &[Field], bytes: usize) {
    section(text, title);
    let format: String = fields.iter().map(|(_, _, code)| *code).collect();
    constant(text, &format!("{name}_FORMAT"), format_args!("\"<{format}\""));
    constant(text, &format!("{name}_BYTES"), bytes);
    text.push_str(&format!("{name}_FIELDS = (\n"));
    for (field, _, _) in fields {
        text.push_str(&format!("    \"{field}\",\n"));
    }
    text.push_str(")\n");
    for (field, offset, _) in fields {
        constant(text, &format!("{name}_{}_OFFSET", field.to_uppercase()), offset);
    }
}

fn metadata(text: &mut String) {
    section(text, "A byte string in an archive: i32 offset from its own place to the bytes, u32 length.");
    constant(text, "VECTOR_FORMAT", "\"<iI\"");
    constant(text, "VECTOR_BYTES", size_of::<ArchivedVec<u8>>());
    section(text, "A request's metadata: its root, the last bytes of the archive.");
    constant(text, "REQUEST_METADATA_ROOT_FORMAT", "\"<16sQiIiI\"");
    constant(text, "REQUEST_METADATA_ROOT_BYTES", size_of::<ArchivedRequestMetadata>());
    constant(text, "REQUEST_METADATA_ALIGN", align_of::<ArchivedRequestMetadata>());
    for (name, offset) in [
        ("REQUEST_ID", offset_of!(ArchivedRequestMetadata, request_id)),
        ("RECEIVED_UNIX_MS", offset_of!(ArchivedRequestMetadata, received_unix_ms)),
        ("CONTENT_TYPE", offset_of!(ArchivedRequestMetadata, content_type)),
        ("TRACE_PARENT", offset_of!(ArchivedRequestMetadata, trace_parent)),
    ] {
        constant(text, &format!("REQUEST_METADATA_{name}_OFFSET"), offset);
    }
    section(
        text,
        "A response's metadata: the content type's bytes, zeros to the alignment, then the root. None at all (0\n\
         # bytes) means the default. A content type is at most MAX_CONTENT_TYPE_BYTES of printable ASCII.",
    );
    constant(text, "RESPONSE_METADATA_ROOT_FORMAT", "\"<iI\"");
    constant(text, "RESPONSE_METADATA_ROOT_BYTES", size_of::<ArchivedResponseMetadata>());
    constant(text, "RESPONSE_METADATA_ALIGN", align_of::<ArchivedResponseMetadata>());
    let offset = offset_of!(ArchivedResponseMetadata, content_type);
    constant(text, "RESPONSE_METADATA_CONTENT_TYPE_OFFSET", offset);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn the_python_runtime_has_this_layout() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../isolate/runtimes/python/vilya_runtime/layout.py");
        let text = python_module();
        if std::env::var_os("VILYA_BLESS").is_some() {
            std::fs::write(&path, &text).unwrap();
        }
        let found = std::fs::read_to_string(&path).unwrap();
        assert!(found == text, "{} differs; run VILYA_BLESS=1 cargo test -p vilya-ipc python", path.display());
    }

    #[test]
    fn formats_have_the_sizes_and_offsets_of_the_structures() {
        let width = |code: &str| {
            code.bytes()
                .map(|c| match c {
                    b'Q' => 8,
                    b'I' => 4,
                    _ => 2,
                })
                .sum::<usize>()
        };
        for (fields, bytes) in [
            (DOWN_HEADER, size_of::<DownHeader>()),
            (UP_HEADER, size_of::<UpHeader>()),
            (SUBMISSION, size_of::<SubmissionDescriptor>()),
            (COMPLETION, size_of::<CompletionDescriptor>()),
        ] {
            let mut at = 0;
            for (name, offset, code) in fields {
                assert_eq!(*offset, at, "{name}");
                at += width(code);
            }
            assert_eq!(at, bytes);
        }
    }
}
