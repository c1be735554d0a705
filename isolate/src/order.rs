//! What a waiting sandbox is told: the scripts that make it a program or a copy.
//!
//! Owns: the calls of those scripts, and what a failure of one means. Invariant: pure; a script is complete before it is sent. Does not
//! know: sockets, or what a program is.
//!
//! A program takes one message. A copy takes two or three: to load the image, to touch the pages that copies write to, and, when it is
//! known which sandbox it is, to go on.

use std::ops::Range;

use crate::calls::{ANY, BACK, CALL_BYTES, NEVER, NO_ERROR, Script, Word};
use crate::spec::Spec;
use crate::stub::{FIRST_RECEIVED, MESSAGE_BYTES, TOLD_AT, message_at, wait_at};

/// Descriptors that come with the last message: standard output and error, and the three of the ring. What tells a copy its environment
/// follows.
pub(crate) const PLACED: usize = 5;
/// Where the image is until it is loaded.
pub(crate) const IMAGE: i32 = FIRST_RECEIVED;

/// Where a copy of a runtime that knew no function yet reads its environment: `NAME=value` with a NUL each, to the end.
pub(crate) const ENVIRONMENT: i32 = 13;

const _: () = assert!(FIRST_RECEIVED + (PLACED as i32) < ENVIRONMENT && ENVIRONMENT < BACK);

/// What to become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Becoming {
    /// The program of the spec.
    Program,
    /// A copy of the image that it has loaded, whose script goes on at this address.
    Copy { resume: u64, tells_environment: bool },
}

/// What could not be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Entering,
    Becoming,
}

/// A message and how to read what is said of it.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) bytes: Vec<u8>,
    entering: usize,
    place: u64,
}

/// Bytes of what is said when a call fails.
pub(crate) const FAILURE_BYTES: usize = 16;
/// More than the calls of a message.
const CALLS_BYTES: usize = 32 * CALL_BYTES;

/// Whether a spec's strings fit into a message.
pub(crate) fn fits(spec: &Spec) -> bool {
    let pointers = 8 * (spec.command.len() + spec.environment.len() + 2);
    let words = spec.command.iter().map(|word| word.len() + 1);
    let variables = spec.environment.iter().map(|(name, value)| name.len() + value.len() + 2);
    let bytes: usize = words.chain(variables).sum();
    CALLS_BYTES + spec.working_directory.len() + pointers + bytes <= MESSAGE_BYTES
}

impl Order {
    /// Writes the last message, behind so many others, for a spec that fits.
    pub(crate) fn new(spec: &Spec, becoming: Becoming, others: usize) -> Order {
        let mut script = Script::default();
        place(&mut script, becoming);
        let directory = script.put(&terminated(&spec.working_directory));
        let entering = script.call(libc::SYS_chdir, &[Word::Data(directory)], NO_ERROR);
        match becoming {
            Becoming::Program => execute(&mut script, spec),
            Becoming::Copy { resume, .. } => script.jump(resume),
        }
        let place = message_at(others);
        let bytes = script.lay_out(place);
        debug_assert!(bytes.len() <= MESSAGE_BYTES, "checked by `fits`");
        Order { bytes, entering, place }
    }

    /// What could not be done, and the error, as the sandbox says it: the result of a call and where the call is.
    pub(crate) fn failure(&self, said: &[u8; FAILURE_BYTES]) -> (Part, i32) {
        let [result, place] = [0, 8].map(|at| i64::from_le_bytes(std::array::from_fn(|index| said[at + index])));
        let call = (place as u64).saturating_sub(self.place) / CALL_BYTES as u64;
        let part = if call == self.entering as u64 { Part::Entering } else { Part::Becoming };
        (part, i32::try_from(-result).unwrap_or(libc::EIO))
    }
}

/// The first message of a copy: so many first bytes of the image, which comes with it, belong at this address, and are the script that
/// restores the rest.
pub(crate) fn load(address: u64, bytes: u64) -> Vec<u8> {
    const FLAGS: u64 = (libc::MAP_PRIVATE | libc::MAP_FIXED_NOREPLACE) as u64;
    let mut script = Script::default();
    script.numbers(libc::SYS_dup3, &[TOLD_AT as u64, BACK as u64, libc::O_CLOEXEC as u64], BACK as u64);
    let arguments = [address, bytes, libc::PROT_READ as u64, FLAGS, IMAGE as u64, 0];
    script.numbers(libc::SYS_mmap, &arguments, address);
    script.jump(address);
    script.lay_out(message_at(0))
}

/// Most stretches of pages that are touched.
pub(crate) const TOUCHED: usize = MESSAGE_BYTES / CALL_BYTES - 1;

/// The second message: has the kernel provide these pages, which are touched soon, all at once, with this advice. What cannot be provided
/// is when it is touched.
pub(crate) fn touch(pages: &[(Range<u64>, i32)]) -> Vec<u8> {
    let mut script = Script::default();
    for (range, advice) in pages.iter().take(TOUCHED) {
        script.numbers(libc::SYS_madvise, &[range.start, range.end - range.start, *advice as u64], ANY);
    }
    script.jump(wait_at(2));
    script.lay_out(message_at(1))
}

/// Puts the descriptors of the message where a program expects them.
fn place(script: &mut Script, becoming: Becoming) {
    let mut duplicate = |source: i32, place: i32, flags: i32| {
        script.numbers(libc::SYS_dup3, &[source as u64, place as u64, flags as u64], place as u64);
    };
    duplicate(TOLD_AT, BACK, libc::O_CLOEXEC);
    for (place, source) in (1..).zip(FIRST_RECEIVED..).take(PLACED) {
        duplicate(source, place, 0);
    }
    // Those that came have the numbers from 6 on, so this overwrites nothing that is still needed.
    let environment = FIRST_RECEIVED + PLACED as i32;
    let mut last = BACK - 1;
    if let Becoming::Copy { tells_environment: true, .. } = becoming {
        duplicate(environment, ENVIRONMENT, libc::O_CLOEXEC);
        last = ENVIRONMENT - 1;
    }
    script.numbers(libc::SYS_close_range, &[FIRST_RECEIVED as u64, last as u64, 0], ANY);
}

fn execute(script: &mut Script, spec: &Spec) {
    let environment = spec.environment.iter().map(|(name, value)| format!("{name}={value}"));
    let arguments = array(script, spec.command.iter().cloned());
    let environment = array(script, environment);
    let program = script.put(&terminated(spec.command.first().map_or("", String::as_str)));
    let words = [program, arguments, environment].map(Word::Data);
    script.call(libc::SYS_execve, &words, NEVER);
}

fn terminated(text: &str) -> Vec<u8> {
    [text.as_bytes(), b"\0"].concat()
}

/// The environment of a spec, as a copy reads it.
pub(crate) fn environment(spec: &Spec) -> Vec<u8> {
    spec.environment.iter().flat_map(|(name, value)| format!("{name}={value}\0").into_bytes()).collect()
}

/// A null-terminated array of pointers to these strings; its place.
fn array(script: &mut Script, strings: impl Iterator<Item = String>) -> usize {
    let strings: Vec<String> = strings.collect();
    let table = script.put(&vec![0; 8 * (strings.len() + 1)]);
    for (index, string) in strings.iter().enumerate() {
        let place = script.append(&terminated(string));
        script.point(table + 8 * index, place);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::{Becoming, Order, Part, TOUCHED, fits, touch};
    use crate::calls::CALL_BYTES;
    use crate::reach::Reach;
    use crate::spec::{ResourceLimits, Root, Spec};
    use crate::stub::{MESSAGE_BYTES, message_at};

    const MESSAGE_AT: u64 = message_at(0);

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
            reach: Reach::Nothing,
        }
    }

    #[test]
    fn the_strings_are_where_the_arrays_point() {
        let Order { bytes, .. } = Order::new(&spec(), Becoming::Program, 0);
        let word = |at: u64| u64::from_le_bytes(std::array::from_fn(|index| bytes[(at - MESSAGE_AT) as usize + index]));
        let text = |at: u64| {
            let rest = &bytes[(at - MESSAGE_AT) as usize..];
            std::ffi::CStr::from_bytes_until_nul(rest).expect("terminated").to_str().expect("text").to_owned()
        };
        let mut calls = (0..).map(|index| MESSAGE_AT + index * CALL_BYTES as u64);
        let exec = calls.find(|at| word(*at) == libc::SYS_execve as u64).expect("a call of execve");
        let (program, arguments, environment) = (word(exec + 8), word(exec + 16), word(exec + 24));
        assert_eq!(text(program), "/bin/program");
        let listed =
            |table: u64| (0..).map(move |index| table + 8 * index).map(word).take_while(|at| *at != 0).map(text);
        assert_eq!(listed(arguments).collect::<Vec<_>>(), ["/bin/program", "", "two"]);
        assert_eq!(listed(environment).collect::<Vec<_>>(), ["A=1"]);
    }

    #[test]
    fn a_failure_names_its_call() {
        let order = Order::new(&spec(), Becoming::Program, 0);
        let said = |call: usize, errno: i64| {
            let place = MESSAGE_AT + (call * CALL_BYTES) as u64;
            let bytes = [(-errno).to_le_bytes(), place.to_le_bytes()].concat();
            order.failure(&bytes.try_into().expect("two words"))
        };
        assert_eq!(said(order.entering, 2), (Part::Entering, 2));
        assert_eq!(said(order.entering + 1, 13), (Part::Becoming, 13));
    }

    #[test]
    fn however_many_pages_are_touched_the_message_fits() {
        let pages: Vec<_> =
            (0..2 * TOUCHED as u64).map(|page| (page << 13..(page << 13) + 4096, libc::MADV_COLD)).collect();
        assert_eq!(touch(&pages).len(), MESSAGE_BYTES);
    }

    #[test]
    fn what_fits_is_not_too_long() {
        let mut spec = spec();
        spec.environment.push(("B".into(), String::new()));
        for length in (MESSAGE_BYTES - 8192..MESSAGE_BYTES).step_by(97) {
            spec.environment[1].1 = "x".repeat(length);
            if !fits(&spec) {
                return;
            }
            assert!(Order::new(&spec, Becoming::Program, 0).bytes.len() <= MESSAGE_BYTES, "{length}");
        }
        panic!("it never becomes too long");
    }
}
