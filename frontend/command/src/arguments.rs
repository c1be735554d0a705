//! What may be typed after `vilya`. Words and defaults only: nothing here acts, and what a value means
//! (a configuration, a function's name) is for the module that uses it to say.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use vilya_protocol::name::NameError;

use crate::load::arguments::Load;

/// Where a worker listens unless it is told otherwise.
pub(crate) const DEFAULT_SERVER: &str = "http://127.0.0.1:7878";

/// Where it listens for the binary protocol.
pub(crate) const DEFAULT_WIRE_ADDRESS: &str = "127.0.0.1:7879";

const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    the function failed: it raised, ran out of time or died; doctor: no worker can serve here
  2    what was asked makes no sense: arguments, a manifest, a configuration
  3    no worker answers
  4    the worker refused: no such function, too busy, stopping, not allowed
  5    this machine refused: a file, a port, a privilege
  130  interrupted

A function is a folder with a `function.toml`. First steps: `vilya demo`.";

#[derive(Debug, Parser)]
#[command(
    name = "vilya",
    version,
    about = "A serverless worker: run it, deploy functions to it, invoke them",
    after_help = EXIT_CODES,
    disable_help_subcommand = true
)]
pub(crate) struct Arguments {
    /// The worker to talk to
    #[arg(long, global = true, value_name = "URL", env = "VILYA_SERVER", default_value = DEFAULT_SERVER)]
    pub(crate) server: String,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a worker until it is told to stop (Ctrl-C or SIGTERM; a second one stops it at once)
    Serve(ConfigSources),
    /// Say what this host can enforce for a worker of this configuration, what it cannot, and how to mend it
    Doctor {
        #[command(flatten)]
        sources: ConfigSources,
        /// Print the findings as JSON
        #[arg(long)]
        json: bool,
    },
    /// Pack a folder with a function.toml and hand it to the worker
    Deploy {
        /// The folder
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
    /// Show the functions the worker has
    List {
        /// Print the worker's own JSON
        #[arg(long)]
        json: bool,
    },
    /// Show the sandboxes the worker has: what they are doing, their age, memory and invocations; and what is made ahead
    Ps {
        /// Print the worker's own JSON
        #[arg(long)]
        json: bool,
    },
    /// Show one function
    Get {
        /// The function's name
        #[arg(value_parser = function_name)]
        name: String,
        /// Print the worker's own JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove a function: no new invocations, running ones finish
    Remove {
        /// The function's name
        #[arg(value_parser = function_name)]
        name: String,
    },
    /// Run a function once and print what it returns
    Invoke(Invoke),
    /// Measure functions under load, and say how far the measurement can be trusted
    Load(Box<Load>),
    /// Show what a function wrote to its standard output and error
    Logs {
        /// The function's name
        #[arg(value_parser = function_name)]
        name: String,
        /// Lines to show from the end
        #[arg(long, value_name = "N", default_value_t = 100)]
        tail: u32,
        /// Go on printing new lines until interrupted
        #[arg(short, long)]
        follow: bool,
    },
    /// Start a worker, deploy the example functions, invoke and measure them, and clean up
    Demo {
        /// Leave the worker's state folder in place afterwards
        #[arg(long)]
        keep: bool,
        /// Print the measurements as JSON instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Check or show a worker's configuration
    #[command(subcommand)]
    Config(Config),
    /// Print the version
    Version,
}

/// Where a worker's configuration comes from, weakest first: built-in values, the file, `--set`, `--address`.
#[derive(Debug, Default, Args)]
pub(crate) struct ConfigSources {
    /// A configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Override one setting; may be repeated
    #[arg(long = "set", value_name = "section.key=value")]
    pub(crate) sets: Vec<String>,
    /// Listen here
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) address: Option<String>,
}

/// How functions are invoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Protocol {
    /// HTTP/1.1, at --server
    Http,
    /// Vilya's own, at --wire-address
    Binary,
}

impl Protocol {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Protocol::Http => "http",
            Protocol::Binary => "binary",
        }
    }
}

/// Which protocol, and where the binary one is spoken.
#[derive(Clone, Debug, Args)]
pub(crate) struct Wire {
    /// How to talk to the worker
    #[arg(long, value_enum, default_value = "http")]
    pub(crate) protocol: Protocol,
    /// Where the worker listens for the binary protocol
    #[arg(long, value_name = "HOST:PORT", env = "VILYA_WIRE_ADDRESS", default_value = DEFAULT_WIRE_ADDRESS)]
    pub(crate) wire_address: String,
}

#[derive(Debug, Args)]
pub(crate) struct Invoke {
    /// The function's name
    #[arg(value_parser = function_name)]
    pub(crate) name: String,
    /// The payload: text, @FILE for a file, - for standard input; nothing when absent
    #[arg(short, long, value_name = "DATA|@FILE|-", allow_hyphen_values = true)]
    pub(crate) data: Option<String>,
    /// What the payload is; unless given, application/json when it is JSON, else text or bytes
    #[arg(long, value_name = "TYPE")]
    pub(crate) content_type: Option<String>,
    #[command(flatten)]
    pub(crate) wire: Wire,
    /// Write the answer here instead of to standard output
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Also print the status, the request id and where the time went, to standard error
    #[arg(short, long)]
    pub(crate) verbose: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Say every problem of a configuration at once
    Check(ConfigSources),
    /// Print the configuration in force
    Print(ConfigSources),
}

fn function_name(name: &str) -> Result<String, NameError> {
    vilya_protocol::name::check(name)?;
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn server_is_global() {
        let parsed = Arguments::try_parse_from(["vilya", "list", "--server", "http://127.0.0.1:1"]).unwrap();
        assert_eq!(parsed.server, "http://127.0.0.1:1");
    }

    #[test]
    fn a_payload_may_start_with_a_hyphen() {
        let parsed = Arguments::try_parse_from(["vilya", "invoke", "f", "-d", "-1"]).unwrap();
        let Command::Invoke(invoke) = parsed.command else { panic!("invoke expected") };
        assert_eq!(invoke.data.as_deref(), Some("-1"));
    }

    #[test]
    fn a_name_is_checked_before_anything_is_sent() {
        assert!(Arguments::try_parse_from(["vilya", "get", "../x"]).is_err());
        assert!(Arguments::try_parse_from(["vilya", "get", "thumbnail-2"]).is_ok());
    }
}
