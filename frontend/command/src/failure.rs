//! Why the command did not do what it was asked: one line for a person, one stable exit code for a script.
//! The codes are a promise (`vilya --help` lists them); the wording is not.

use std::fmt::Display;
use std::io;
use std::path::Path;
use std::process::ExitCode;

/// Whose fault it was, which is what the exit code says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The function raised, ran out of time or died.
    Function,
    /// This host cannot run a worker.
    Unfit,
    /// Arguments, a manifest or a configuration.
    Usage,
    /// Nothing that speaks as a worker does answers.
    Unreachable,
    /// The worker answered, and said no.
    Refused,
    /// This machine said no: a file, a port, a privilege.
    Local,
    /// A signal asked us to stop.
    Interrupted,
    /// Whoever read our output has enough; that is no failure.
    OutputClosed,
}

/// A refusal to go on. The message is one line and ends with what to do next.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    fault: Fault,
    message: String,
}

impl Failure {
    pub(crate) fn new(fault: Fault, message: impl Display) -> Failure {
        // The messages of others may span lines; ours is one.
        let message = message.to_string();
        let lines: Vec<&str> = message.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        Failure { fault, message: lines.join("; ") }
    }

    pub(crate) fn usage(message: impl Display) -> Failure {
        Failure::new(Fault::Usage, message)
    }

    pub(crate) fn local(message: impl Display) -> Failure {
        Failure::new(Fault::Local, message)
    }

    /// A file could not be read or written.
    pub(crate) fn file(doing: &str, path: &Path, error: &io::Error) -> Failure {
        Failure::local(format_args!("cannot {doing} {}: {error}", path.display()))
    }

    /// Our own standard output could not be written to.
    pub(crate) fn output(error: &io::Error) -> Failure {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Failure::new(Fault::OutputClosed, "the reader of the output went away")
        } else {
            Failure::local(format_args!("cannot write the output: {error}"))
        }
    }

    pub(crate) fn fault(&self) -> Fault {
        self.fault
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.fault.code())
    }
}

impl Fault {
    pub(crate) const fn code(self) -> u8 {
        match self {
            Fault::OutputClosed => 0,
            Fault::Function | Fault::Unfit => 1,
            Fault::Usage => 2,
            Fault::Unreachable => 3,
            Fault::Refused => 4,
            Fault::Local => 5,
            // As a shell reports a process that SIGINT ended.
            Fault::Interrupted => 130,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_the_documented_ones() {
        let codes: Vec<u8> =
            [Fault::OutputClosed, Fault::Function, Fault::Usage, Fault::Unreachable, Fault::Refused, Fault::Local]
                .map(Fault::code)
                .to_vec();
        assert_eq!(codes, [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn a_message_is_one_line() {
        let failure = Failure::usage("first\n\n  second\n");
        assert_eq!(failure.to_string(), "first; second");
    }

    #[test]
    fn a_closed_pipe_is_no_failure_and_a_full_disk_is() {
        let closed = Failure::output(&io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(closed.fault(), Fault::OutputClosed);
        let full = Failure::output(&io::Error::from(io::ErrorKind::StorageFull));
        assert_eq!(full.fault(), Fault::Local);
    }
}
