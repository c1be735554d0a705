//! What a waiting sandbox is told: the bytes of the one message that makes it a program or a copy.
//!
//! Owns: the message, both ways. Invariant: reading one neither allocates nor trusts a length: what does not fit is an error. Does not know:
//! sockets, or what a program is.

use std::ffi::CStr;

use crate::spec::Spec;

/// Largest message: a command and an environment at their bounds with room to spare. Longer ones are started another way.
pub(crate) const ORDER_BYTES: usize = 128 << 10;
/// Before the strings.
pub(crate) const HEADER_BYTES: usize = 32;

/// What to become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Becoming {
    /// The program that the strings name.
    Program,
    /// A copy: the first bytes of the image belong at this address, and begin with what restores the rest.
    Copy { address: u64, bytes: u64 },
}

/// A message as it was read.
#[derive(Debug)]
pub(crate) struct Order<'a> {
    pub(crate) becoming: Becoming,
    pub(crate) working_directory: &'a CStr,
    /// How many of the strings are arguments, the program first; the others are the environment.
    pub(crate) arguments: usize,
    pub(crate) environment: usize,
    /// Each with its NUL, one after the other.
    pub(crate) strings: &'a [u8],
}

/// Whether a spec's strings fit into a message.
pub(crate) fn fits(spec: &Spec) -> bool {
    let words = spec.command.iter().map(|word| word.len() + 1);
    let variables = spec.environment.iter().map(|(name, value)| name.len() + value.len() + 2);
    let bytes: usize = words.chain(variables).sum();
    HEADER_BYTES + spec.working_directory.len() + 1 + bytes <= ORDER_BYTES
}

/// Writes a message for a spec that fits.
pub(crate) fn encode(spec: &Spec, becoming: Becoming) -> Vec<u8> {
    let (address, bytes) = match becoming {
        Becoming::Program => (0, 0),
        Becoming::Copy { address, bytes } => (address, bytes),
    };
    let environment = spec.environment.iter().map(|(name, value)| format!("{name}={value}"));
    let strings =
        std::iter::once(spec.working_directory.clone()).chain(spec.command.iter().cloned()).chain(environment);
    let mut message = Vec::with_capacity(1024);
    message.extend_from_slice(&address.to_le_bytes());
    message.extend_from_slice(&bytes.to_le_bytes());
    message.extend_from_slice(&(spec.command.len() as u64).to_le_bytes());
    message.extend_from_slice(&(spec.environment.len() as u64).to_le_bytes());
    for string in strings {
        message.extend_from_slice(string.as_bytes());
        message.push(0);
    }
    debug_assert!(message.len() <= ORDER_BYTES, "checked by `fits`");
    message
}

/// Reads a message.
pub(crate) fn decode(message: &[u8]) -> Option<Order<'_>> {
    let (words, strings) = message.split_at_checked(HEADER_BYTES)?;
    let mut words = words.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word));
    let (address, bytes) = (words.next()?, words.next()?);
    let (arguments, environment) = (words.next()? as usize, words.next()? as usize);
    let working_directory = CStr::from_bytes_until_nul(strings).ok()?;
    let strings = &strings[working_directory.count_bytes() + 1..];
    let whole = strings.iter().filter(|byte| **byte == 0).count();
    let complete = arguments >= 1 && strings.last() == Some(&0) && Some(whole) == arguments.checked_add(environment);
    let becoming = if address == 0 { Becoming::Program } else { Becoming::Copy { address, bytes } };
    complete.then_some(Order { becoming, working_directory, arguments, environment, strings })
}

#[cfg(test)]
mod tests {
    use super::{Becoming, ORDER_BYTES, decode, encode, fits};
    use crate::spec::{ResourceLimits, Root, Spec};

    fn spec() -> Spec {
        Spec {
            name: "a".into(),
            command: vec!["/bin/program".into(), String::new(), "two".into()],
            environment: vec![("A".into(), "1".into())],
            working_directory: "/function".into(),
            root: Root::System,
            binds: Vec::new(),
            limits: ResourceLimits {
                memory_bytes: 64 << 20,
                cpu_millis: None,
                processes: 8,
                tmp_bytes: 4096,
                open_files: 64,
            },
            cores: Vec::new(),
            hostname: "a".into(),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let message = encode(&spec(), Becoming::Copy { address: 4096, bytes: 8192 });
        let order = decode(&message).expect("a whole one");
        assert_eq!(order.becoming, Becoming::Copy { address: 4096, bytes: 8192 });
        assert_eq!(order.working_directory, c"/function");
        assert_eq!((order.arguments, order.environment), (3, 1));
        assert_eq!(order.strings, b"/bin/program\0\0two\0A=1\0");
    }

    #[test]
    fn what_is_cut_short_is_refused() {
        let message = encode(&spec(), Becoming::Program);
        for length in 0..message.len() {
            assert!(decode(&message[..length]).is_none(), "{length} bytes");
        }
    }

    #[test]
    fn what_is_too_long_is_not_sent() {
        let mut spec = spec();
        let left = ORDER_BYTES - encode(&spec, Becoming::Program).len();
        spec.environment.push(("B".into(), "x".repeat(left - 3)));
        assert!(fits(&spec));
        assert_eq!(encode(&spec, Becoming::Program).len(), ORDER_BYTES);
        spec.environment.push(("C".into(), String::new()));
        assert!(!fits(&spec));
    }
}
