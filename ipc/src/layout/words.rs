//! Descriptors and headers as the words (of eight bytes) in which they are copied between regions and private memory.

use super::{CompletionDescriptor, DownHeader, SubmissionDescriptor};

/// A word of two halves, low first.
const fn join(low: u32, high: u32) -> u64 {
    low as u64 | (high as u64) << 32
}

const fn low(word: u64) -> u32 {
    word as u32
}

const fn high(word: u64) -> u32 {
    (word >> 32) as u32
}

/// The second word of both descriptors: kind, flags, lane.
const fn join_kind(kind: u16, flags: u16, lane: u32) -> u64 {
    join(kind as u32 | (flags as u32) << 16, lane)
}

impl SubmissionDescriptor {
    /// The descriptor in these words.
    #[must_use]
    pub const fn from_words(words: [u64; 8]) -> SubmissionDescriptor {
        let [invocation, kind, deadline_ns, metadata_offset, metadata, payload_offset, payload_bytes, sequence] = words;
        SubmissionDescriptor {
            invocation,
            kind: low(kind) as u16,
            flags: (low(kind) >> 16) as u16,
            lane: high(kind),
            deadline_ns,
            metadata_offset,
            metadata_bytes: low(metadata),
            reserved: high(metadata),
            payload_offset,
            payload_bytes,
            sequence,
        }
    }

    /// The words of this descriptor.
    #[must_use]
    pub const fn to_words(&self) -> [u64; 8] {
        [
            self.invocation,
            join_kind(self.kind, self.flags, self.lane),
            self.deadline_ns,
            self.metadata_offset,
            join(self.metadata_bytes, self.reserved),
            self.payload_offset,
            self.payload_bytes,
            self.sequence,
        ]
    }
}

impl CompletionDescriptor {
    /// The descriptor in these words.
    #[must_use]
    pub const fn from_words(words: [u64; 8]) -> CompletionDescriptor {
        let [invocation, kind, metadata_offset, metadata, payload_offset, payload_bytes, reserved_tail, sequence] =
            words;
        CompletionDescriptor {
            invocation,
            kind: low(kind) as u16,
            flags: (low(kind) >> 16) as u16,
            lane: high(kind),
            metadata_offset,
            metadata_bytes: low(metadata),
            reserved: high(metadata),
            payload_offset,
            payload_bytes,
            reserved_tail,
            sequence,
        }
    }

    /// The words of this descriptor.
    #[must_use]
    pub const fn to_words(&self) -> [u64; 8] {
        [
            self.invocation,
            join_kind(self.kind, self.flags, self.lane),
            self.metadata_offset,
            join(self.metadata_bytes, self.reserved),
            self.payload_offset,
            self.payload_bytes,
            self.reserved_tail,
            self.sequence,
        ]
    }
}

impl DownHeader {
    /// The header in these words.
    #[must_use]
    pub const fn from_words(w: [u64; 15]) -> DownHeader {
        DownHeader {
            magic: w[0],
            abi: low(w[1]),
            header_bytes: high(w[1]),
            lanes: low(w[2]),
            submission_entries: high(w[2]),
            submission_offset: w[3],
            submission_stride: low(w[4]),
            inline_bytes: high(w[4]),
            completion_entries: low(w[5]),
            completion_stride: high(w[5]),
            completion_offset: w[6],
            request_offset: w[7],
            request_lane_bytes: w[8],
            response_offset: w[9],
            response_lane_bytes: w[10],
            metadata_bytes: low(w[11]),
            reserved: high(w[11]),
            payload_limit: w[12],
            down_bytes: w[13],
            up_bytes: w[14],
        }
    }

    /// The words of this header.
    #[must_use]
    pub const fn to_words(&self) -> [u64; 15] {
        [
            self.magic,
            join(self.abi, self.header_bytes),
            join(self.lanes, self.submission_entries),
            self.submission_offset,
            join(self.submission_stride, self.inline_bytes),
            join(self.completion_entries, self.completion_stride),
            self.completion_offset,
            self.request_offset,
            self.request_lane_bytes,
            self.response_offset,
            self.response_lane_bytes,
            join(self.metadata_bytes, self.reserved),
            self.payload_limit,
            self.down_bytes,
            self.up_bytes,
        ]
    }
}

#[cfg(test)]
mod tests {
    #![allow(unsafe_code)]
    use super::*;
    use crate::layout::{Geometry, RegionSpec};
    use proptest::prelude::*;

    proptest! {
        /// The words are the structures' own memory, field for field.
        #[test]
        fn words_are_the_memory_of_the_structures(words in any::<[u64; 8]>()) {
            // SAFETY: the structures are plain integers without padding, of exactly eight words.
            let submission: SubmissionDescriptor = unsafe { std::mem::transmute(words) };
            prop_assert_eq!(SubmissionDescriptor::from_words(words), submission);
            prop_assert_eq!(submission.to_words(), words);
            // SAFETY: as above.
            let completion: CompletionDescriptor = unsafe { std::mem::transmute(words) };
            prop_assert_eq!(CompletionDescriptor::from_words(words), completion);
            prop_assert_eq!(completion.to_words(), words);
        }
    }

    #[test]
    fn the_header_s_words_are_its_memory() {
        let header = Geometry::new(&RegionSpec { lanes: 5, payload_limit_bytes: 12_345 }).unwrap().header();
        // SAFETY: plain integers without padding, of exactly fifteen words.
        let words: [u64; 15] = unsafe { std::mem::transmute(header) };
        assert_eq!(header.to_words(), words);
        assert_eq!(DownHeader::from_words(words), header);
    }
}
