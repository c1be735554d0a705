//! Netlink, as far as links and rules need it.
//!
//! Owns: how messages are written, sent and answered. Invariant: nothing waits: the kernel has answered when a message is sent, and a missing
//! answer is an error. Does not know: what the messages mean.

use std::io::{self, Error, ErrorKind};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket};

/// Of `nlmsghdr`: length, type, flags, sequence, sender.
const HEADER_BYTES: usize = 16;
/// Most that the kernel puts into one answer.
const ANSWER_BYTES: usize = 64 << 10;

const NESTED: u16 = libc::NLA_F_NESTED as u16;
const ACKNOWLEDGE: u16 = libc::NLM_F_ACK as u16;
const ERROR: u16 = libc::NLMSG_ERROR as u16;
const DONE: u16 = libc::NLMSG_DONE as u16;

/// A message, or the inside of an attribute.
#[derive(Clone, Debug, Default)]
pub(super) struct Message {
    kind: u16,
    flags: u16,
    body: Vec<u8>,
}

impl Message {
    /// One that begins with this structure of its family.
    pub(super) fn new(kind: u16, flags: i32, structure: &[u8]) -> Message {
        Message { kind, flags: flags as u16 | libc::NLM_F_REQUEST as u16, body: structure.to_vec() }
    }

    /// Adds an attribute.
    pub(super) fn attribute(mut self, kind: u16, value: &[u8]) -> Message {
        // Attributes hold names, addresses and lists that are bounded far below what the length can say.
        let length = 4 + value.len() as u16;
        self.body.extend(length.to_ne_bytes());
        self.body.extend(kind.to_ne_bytes());
        self.body.extend(value);
        self.body.resize(self.body.len().next_multiple_of(4), 0);
        self
    }

    /// Adds a number in the order of this machine.
    pub(super) fn number(self, kind: u16, value: u32) -> Message {
        self.attribute(kind, &value.to_ne_bytes())
    }

    /// Adds a number in the order of networks.
    pub(super) fn big_endian(self, kind: u16, value: u32) -> Message {
        self.attribute(kind, &value.to_be_bytes())
    }

    /// Adds a string.
    pub(super) fn text(self, kind: u16, value: &str) -> Message {
        let mut terminated = value.as_bytes().to_vec();
        terminated.push(0);
        self.attribute(kind, &terminated)
    }

    /// Adds an attribute of attributes.
    pub(super) fn nested(self, kind: u16, inside: Message) -> Message {
        self.attribute(kind | NESTED, &inside.body)
    }

    /// The inside of an attribute that begins with a structure.
    pub(super) fn inside(structure: &[u8]) -> Message {
        Message { body: structure.to_vec(), ..Message::default() }
    }

    fn write(&self, sequence: u32, flags: u16, out: &mut Vec<u8>) {
        let length = (HEADER_BYTES + self.body.len()) as u32;
        out.extend(length.to_ne_bytes());
        out.extend(self.kind.to_ne_bytes());
        out.extend((self.flags | flags).to_ne_bytes());
        out.extend(sequence.to_ne_bytes());
        out.extend(0_u32.to_ne_bytes());
        out.extend(&self.body);
        out.resize(out.len().next_multiple_of(4), 0);
    }
}

/// An answer that is no acknowledgement.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) kind: u16,
    /// After the header.
    pub(super) body: Vec<u8>,
}

/// A socket of the network namespace that its maker was in. It is left after an error.
#[derive(Debug)]
pub(super) struct Socket(OwnedFd);

impl Socket {
    pub(super) fn open(protocol: SockProtocol) -> io::Result<Socket> {
        let flags = SockFlag::SOCK_CLOEXEC;
        Ok(Socket(socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?))
    }

    /// Has the kernel perform messages in order; `last` is the position of the one that it acknowledges.
    pub(super) fn perform(&self, messages: &[Message], last: usize) -> io::Result<()> {
        self.send(messages, last)?;
        self.answers(last as u32).map(drop)
    }

    /// What the kernel answers to one question: everything up to its acknowledgement or the end of a list.
    pub(super) fn ask(&self, question: Message) -> io::Result<Vec<Answer>> {
        self.send(&[question], 0)?;
        self.answers(0)
    }

    fn send(&self, messages: &[Message], last: usize) -> io::Result<()> {
        let mut bytes = Vec::new();
        for (sequence, message) in messages.iter().enumerate() {
            let flags = if sequence == last { ACKNOWLEDGE } else { 0 };
            message.write(sequence as u32, flags, &mut bytes);
        }
        let sent = sendto(self.0.as_raw_fd(), &bytes, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
        if sent == bytes.len() { Ok(()) } else { Err(ErrorKind::WriteZero.into()) }
    }

    fn answers(&self, last: u32) -> io::Result<Vec<Answer>> {
        let mut buffer = vec![0; ANSWER_BYTES];
        let mut answers = Vec::new();
        loop {
            let length = recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC)?;
            let mut rest = buffer.get(..length).ok_or(ErrorKind::InvalidData)?;
            while let Some((header, after)) = rest.split_first_chunk::<HEADER_BYTES>() {
                let length = word(header, 0) as usize;
                let body = length.checked_sub(HEADER_BYTES).and_then(|bytes| after.get(..bytes));
                let body = body.ok_or(ErrorKind::InvalidData)?;
                let kind = u16::from_ne_bytes([header[4], header[5]]);
                match kind {
                    ERROR | DONE => {
                        let errno = body.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
                        if errno != 0 {
                            return Err(Error::from_raw_os_error(-errno));
                        }
                        if word(header, 8) == last {
                            return Ok(answers);
                        }
                    }
                    _ => answers.push(Answer { kind, body: body.to_vec() }),
                }
                rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            }
        }
    }
}

/// Every attribute in these bytes: its kind without flags, and its value.
pub(super) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let header = rest.first_chunk::<4>()?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & libc::NLA_TYPE_MASK as u16;
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// A number in the order of this machine; 0 if it is cut off.
pub(super) fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|from| from.first_chunk()).map_or(0, |word| u32::from_ne_bytes(*word))
}

#[cfg(test)]
mod tests {
    use super::{Message, attributes, word};

    #[test]
    fn attributes_are_read_as_they_were_written() {
        let inner = Message::inside(&[]).number(1, 7).text(2, "name");
        let message = Message::new(16, 0, &[]).attribute(3, &[1, 2, 3, 4, 5]).nested(4, inner);
        let outer: Vec<_> = attributes(&message.body).collect();
        assert_eq!(outer[0], (3, &[1, 2, 3, 4, 5][..]));
        assert_eq!(outer[1].0, 4, "without the flag");
        let inside: Vec<_> = attributes(outer[1].1).collect();
        assert_eq!((inside[0].0, word(inside[0].1, 0)), (1, 7));
        assert_eq!(inside[1], (2, &b"name\0"[..]));
    }

    #[test]
    fn what_is_cut_off_ends_the_list() {
        let bytes = Message::inside(&[]).number(1, 7).number(2, 8).body;
        for end in 0..bytes.len() {
            assert_eq!(attributes(&bytes[..end]).count(), end / 8, "{end}");
        }
        assert_eq!(attributes(&[0, 0, 1, 0, 0, 0]).count(), 0, "a length below that of its header");
    }
}
