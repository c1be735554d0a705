//! What is kept of a request in flight, and of an answer that is put together.
//!
//! Invariant: no more of an answer is kept than its limit. It does not know which requests there are.

use vilya_protocol::wire::ResponseHead;

use crate::Answer;

/// What is kept of a request in flight. Its buffers are used again.
#[derive(Debug, Default)]
pub(super) struct Pending {
    pub(super) answer: Answer,
    /// Payload that no credit was there for, and how much of it was taken since.
    pub(super) rest: Vec<u8>,
    pub(super) rest_taken: usize,
    pub(super) abandoned: bool,
    /// The answer is taken in parts.
    pub(super) by_parts: bool,
    /// The size of an answer over the limit.
    pub(super) too_large_bytes: Option<u64>,
}

/// An answer that is over.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) answer: Answer,
    pub(super) too_large_bytes: Option<u64>,
}

impl Pending {
    /// Makes it that of a request that was started.
    pub(super) fn start(&mut self, id: u64) {
        self.answer.id = id;
        self.answer.body.clear();
        self.rest.clear();
        self.rest_taken = 0;
        self.abandoned = false;
        self.by_parts = false;
        self.too_large_bytes = None;
    }

    /// Takes in what an answer begins with.
    pub(super) fn begin(&mut self, head: &ResponseHead<'_>) {
        let answer = &mut self.answer;
        answer.status = head.status;
        answer.report = head.report;
        answer.content_type.clear();
        answer.content_type.extend_from_slice(head.content_type);
    }

    /// Notes the size that an answer has, or is to have. False if it is over the limit: what came of it is dropped.
    pub(super) fn fits(&mut self, bytes: u64, limit_bytes: u64) -> bool {
        let fits = bytes <= limit_bytes;
        if !fits {
            self.too_large_bytes = Some(bytes);
            self.answer.body.clear();
        }
        fits
    }

    /// Takes in more of an answer. False if it is over the limit.
    pub(super) fn grow(&mut self, bytes: &[u8], limit_bytes: u64) -> bool {
        if self.abandoned || self.too_large_bytes.is_some() {
            return true;
        }
        let fits = self.fits((self.answer.body.len() + bytes.len()) as u64, limit_bytes);
        if fits {
            self.answer.body.extend_from_slice(bytes);
        }
        fits
    }

    /// An answer in parts is cut: put together it is what it would have been whole, the error.
    pub(super) fn cut(&mut self, status: u16, body: &[u8]) {
        let answer = &mut self.answer;
        answer.status = status;
        answer.content_type.clear();
        answer.content_type.extend_from_slice(b"application/json");
        answer.body.clear();
        answer.body.extend_from_slice(body);
    }

    /// The answer, which is over; its place is free.
    pub(super) fn finish(&mut self, spare: Answer) -> Done {
        let spare = Answer { id: 0, ..spare };
        Done { answer: std::mem::replace(&mut self.answer, spare), too_large_bytes: self.too_large_bytes.take() }
    }
}
