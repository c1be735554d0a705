//! Whose the bytes are that come over the binary protocol.
//!
//! Invariant: an answer has all bytes of its frames, heads included, wherever one read ends and the next begins. Frames that
//! are no answer's count for none.

use vilya_client::Event;

/// Bytes of heads that were received and are no answer's yet. Where they end in what one read brought does not matter.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Heads {
    /// Of the head that is coming.
    begun: usize,
    /// The last head that the session kept to itself: of a DATA, whose payload says whose it is, or nobody's.
    kept: usize,
}

impl Heads {
    /// How many bytes the answer that `event` is of has grown by; the session consumed `consumed` for it.
    pub(super) fn answer_bytes(&mut self, consumed: usize, event: &Event<'_>) -> u64 {
        let bytes = match event {
            Event::NeedMore => {
                self.begun += consumed;
                return 0;
            }
            Event::Handled => {
                self.kept = std::mem::take(&mut self.begun) + consumed;
                return 0;
            }
            Event::Payload { .. } => self.kept + consumed,
            Event::Answer { .. } | Event::End { .. } | Event::Cut { .. } | Event::CutShort { .. } => {
                self.begun + consumed
            }
            Event::Welcome | Event::Map(_) | Event::Credit { .. } | Event::Pong { .. } | Event::Goaway { .. } => 0,
        };
        *self = Heads::default();
        bytes as u64
    }
}

#[cfg(test)]
mod tests {
    use vilya_client::{Options, Report, Request, Session};
    use vilya_protocol::wire::{ResponseHead, Welcome, credit, cut, data_head, map, response_head, welcome};

    use super::*;

    const WELCOME: Welcome = Welcome {
        version: 1,
        shard: 0,
        frame_bytes: 4096,
        in_flight: 8,
        payload_bytes: 1 << 20,
        request_credit_bytes: 1 << 16,
    };

    /// What the session makes of `input`, given in pieces of `piece_bytes`: the bytes of each answer.
    fn answers(session: &mut Session, input: &[u8], piece_bytes: usize) -> [u64; 4] {
        let (mut heads, mut answers) = (Heads::default(), [0; 4]);
        for piece in input.chunks(piece_bytes) {
            let mut at = 0;
            loop {
                let (consumed, event) = session.read(&piece[at..]).unwrap();
                at += consumed;
                let bytes = heads.answer_bytes(consumed, &event);
                match event {
                    Event::NeedMore => break,
                    Event::Answer { head: ResponseHead { id, .. }, .. }
                    | Event::Payload { id, .. }
                    | Event::End { id }
                    | Event::Cut { id, .. } => {
                        answers[Session::slot(id)] += bytes;
                    }
                    _ => assert_eq!(bytes, 0),
                }
            }
        }
        answers
    }

    #[test]
    fn an_answer_has_all_its_bytes_however_they_come() {
        for piece_bytes in 1..400 {
            let mut session = Session::new(&Options::DEFAULT);
            let mut greeting = Vec::new();
            welcome(&mut greeting, &WELCOME, &[0]);
            assert_eq!(answers(&mut session, &greeting, piece_bytes), [0; 4]);
            let ids = [0, 1, 2, 3].map(|_| session.start(&Request::new("f", b"")).unwrap().id);

            let mut input = Vec::new();
            let answer = |input: &mut Vec<u8>, id, bytes, payload_bytes: u32| {
                let in_parts = bytes == 0;
                let report = Report::default();
                let head =
                    ResponseHead { id, status: 200, bytes, in_parts, report, content_type: b"a/b", payload_bytes };
                response_head(input, &head).unwrap();
                input.extend(std::iter::repeat_n(0, payload_bytes as usize));
            };
            let data = |input: &mut Vec<u8>, id, payload_bytes: u32, end| {
                data_head(input, id, payload_bytes, end);
                input.extend(std::iter::repeat_n(0, payload_bytes as usize));
            };
            // Frames of two answers in turn, and between them frames that are no answer's.
            answer(&mut input, ids[0], 500, 100);
            credit(&mut input, ids[0], 9);
            answer(&mut input, ids[1], 70, 0);
            data(&mut input, ids[0], 300, false);
            credit(&mut input, ids[0], 9);
            map(&mut input, 1, true, 4096, [("f", &[0][..])]);
            data(&mut input, ids[1], 70, true);
            credit(&mut input, ids[1], 9);
            answer(&mut input, ids[2], 0, 10);
            answer(&mut input, ids[3], 0, 0);
            data(&mut input, ids[0], 100, true);
            data(&mut input, ids[3], 20, false);
            credit(&mut input, ids[2], 9);
            data(&mut input, ids[2], 0, true);
            cut(&mut input, ids[3], 500, &[0; 700]);
            let (head, report, content_type) = (32, 32, 3);
            let begin = head + report + content_type;
            let expected =
                [begin + 500 + 2 * head, begin + 70 + head, begin + 10 + head, begin + head + 20 + head + 700];
            assert_eq!(answers(&mut session, &input, piece_bytes), expected, "in pieces of {piece_bytes}");
        }
    }
}
