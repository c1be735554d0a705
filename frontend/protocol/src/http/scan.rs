//! Finds the end of a section of lines (a head, or trailers) in bytes that arrive in pieces.
//!
//! Invariant: the verdict depends on the bytes alone, not on how they were split: each fault belongs to the first byte
//! that proves it. Every line ends in CRLF; no control character but a tab is inside one; the section, its first line and
//! its number of lines are within bounds. What passes is therefore read by any parser as the same lines.
//!
//! Does not know: what the lines mean.

/// Bounds of a section.
pub(crate) struct Bounds {
    pub(crate) section_bytes: usize,
    /// With its CRLF.
    pub(crate) first_line_bytes: usize,
    /// Lines that are not empty.
    pub(crate) lines: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    SectionTooLong,
    FirstLineTooLong,
    TooManyLines,
    BareLf,
    BareCr,
    Control,
}

/// Progress within one section.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Scanner {
    /// Bytes of the section seen.
    position: usize,
    /// Where the current line started, in bytes of the section.
    line_start: usize,
    /// Lines ended, the empty one not counted.
    lines: usize,
    /// The last byte seen was a CR.
    after_cr: bool,
}

impl Scanner {
    /// Looks at the next piece. `Some(end)`: the section, with its empty line, ends before `input[end]`. `None`: all of
    /// `input` belongs to it and more must come.
    pub(crate) fn feed(&mut self, input: &[u8], bounds: &Bounds) -> Result<Option<usize>, Fault> {
        let base = self.position;
        let mut at = 0;
        loop {
            let (bound, fault) = self.next_bound(bounds);
            let room = (bound - base).min(input.len());
            if self.after_cr && at < room {
                if input[at] != b'\n' {
                    return Err(Fault::BareCr);
                }
                at += 1;
                self.after_cr = false;
                if self.end_line(base + at, bounds)? {
                    self.position = base + at;
                    return Ok(Some(at));
                }
                continue;
            }
            match next_control(&input[at..room]) {
                Some(offset) => {
                    at += offset + 1;
                    match input[at - 1] {
                        b'\r' => self.after_cr = true,
                        b'\t' => {}
                        b'\n' => return Err(Fault::BareLf),
                        _ => return Err(Fault::Control),
                    }
                }
                None => {
                    self.position = base + room;
                    // A section that fills its bound without an end cannot have one inside it.
                    return if self.position >= bound { Err(fault) } else { Ok(None) };
                }
            }
        }
    }

    /// The nearest bound, in bytes of the section, and the fault of reaching it.
    fn next_bound(&self, bounds: &Bounds) -> (usize, Fault) {
        if self.lines == 0 && bounds.first_line_bytes <= bounds.section_bytes {
            (bounds.first_line_bytes, Fault::FirstLineTooLong)
        } else {
            (bounds.section_bytes, Fault::SectionTooLong)
        }
    }

    /// Ends the line whose CRLF ends at `position`; true if it was the empty one.
    fn end_line(&mut self, position: usize, bounds: &Bounds) -> Result<bool, Fault> {
        if position - self.line_start == 2 {
            return Ok(true);
        }
        self.lines += 1;
        self.line_start = position;
        if self.lines > bounds.lines { Err(Fault::TooManyLines) } else { Ok(false) }
    }
}

/// Index of the first byte below 0x20.
fn next_control(bytes: &[u8]) -> Option<usize> {
    const LOW: u64 = u64::MAX / 255;
    const HIGH: u64 = LOW << 7;
    let (words, rest) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        // The lowest marked byte is exact: a borrow only reaches bytes above one that is itself marked.
        let marked = word.wrapping_sub(LOW * 0x20) & !word & HIGH;
        if marked != 0 {
            return Some(index * 8 + marked.trailing_zeros() as usize / 8);
        }
    }
    rest.iter().position(|byte| *byte < 0x20).map(|index| words.len() * 8 + index)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Verdict = Result<Option<usize>, Fault>;

    const BOUNDS: Bounds = Bounds { section_bytes: 64, first_line_bytes: 24, lines: 3 };

    fn whole(input: &[u8]) -> Verdict {
        Scanner::default().feed(input, &BOUNDS)
    }

    fn bytewise(input: &[u8]) -> Verdict {
        let mut scanner = Scanner::default();
        for (index, byte) in input.iter().enumerate() {
            if let Some(end) = scanner.feed(core::slice::from_ref(byte), &BOUNDS)? {
                return Ok(Some(index + end));
            }
        }
        Ok(None)
    }

    #[test]
    fn next_control_is_exact_for_every_byte_and_place() {
        for place in 0..20 {
            for value in 0..=255u8 {
                let mut bytes = [b'a'; 20];
                bytes[place] = value;
                let expected = (value < 0x20).then_some(place);
                assert_eq!(next_control(&bytes), expected, "{value} at {place}");
                // A control character after it must not hide it, nor be hidden by a byte just above the threshold.
                bytes[place] = 0x20;
                if place + 1 < bytes.len() {
                    bytes[place + 1] = value;
                    assert_eq!(next_control(&bytes), (value < 0x20).then_some(place + 1));
                }
            }
        }
    }

    #[test]
    fn finds_the_end_and_the_faults_alike_in_whole_and_byte_by_byte() {
        let cases: [(&[u8], Verdict); 14] = [
            (b"", Ok(None)),
            (b"a\r\n\r\nbody", Ok(Some(5))),
            (b"\r\nrest", Ok(Some(2))),
            (b"a\r\nb\tc\r\n\r\n", Ok(Some(10))),
            (b"a\r\nb\r\nc\r\n\r\n", Ok(Some(11))),
            (b"a\r\nb\r\nc\r\nd\r\n\r\n", Err(Fault::TooManyLines)),
            (b"a\nb", Err(Fault::BareLf)),
            (b"a\r\rb", Err(Fault::BareCr)),
            (b"a\r\n\rb", Err(Fault::BareCr)),
            (b"a\0b", Err(Fault::Control)),
            (b"a\x0bb", Err(Fault::Control)),
            (b"12345678901234567890123\n", Err(Fault::BareLf)),
            (b"123456789012345678901234\n", Err(Fault::FirstLineTooLong)),
            (b"a\r\n345678901234567890123456789012345678901234567890123456789012345", Err(Fault::SectionTooLong)),
        ];
        for (input, expected) in cases {
            assert_eq!(whole(input), expected, "whole {input:?}");
            assert_eq!(bytewise(input), expected, "bytewise {input:?}");
        }
    }

    #[test]
    fn a_section_may_fill_its_bound_exactly() {
        let mut input = b"a\r\n".to_vec();
        input.resize(BOUNDS.section_bytes - 4, b'x');
        input.extend_from_slice(b"\r\n\r\n");
        assert_eq!(input.len(), BOUNDS.section_bytes);
        assert_eq!(whole(&input), Ok(Some(64)));
        assert_eq!(bytewise(&input), Ok(Some(64)));
        input.insert(5, b'x');
        assert_eq!(whole(&input), Err(Fault::SectionTooLong));
        assert_eq!(bytewise(&input), Err(Fault::SectionTooLong));
    }
}
