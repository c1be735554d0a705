//! What is typed after a measuring program's name: flags, and flags with a value.

use std::collections::BTreeMap;
use std::str::FromStr;

use crate::Failure;

/// What was typed.
#[derive(Clone, Debug, Default)]
pub struct Options {
    typed: BTreeMap<String, String>,
}

impl Options {
    /// Reads the arguments of this process. `flags` stand alone, `valued` take one word.
    ///
    /// # Errors
    /// An argument that the program does not have; the text says which there are.
    pub fn read(flags: &[&str], valued: &[&str]) -> Result<Options, Failure> {
        Options::of(std::env::args().skip(1), flags, valued)
    }

    fn of(arguments: impl Iterator<Item = String>, flags: &[&str], valued: &[&str]) -> Result<Options, Failure> {
        let mut options = Options::default();
        let mut arguments = arguments;
        while let Some(argument) = arguments.next() {
            let value = match argument.as_str() {
                flag if flags.contains(&flag) => String::new(),
                name if valued.contains(&name) => arguments.next().ok_or(format!("{argument} takes a value"))?,
                _ => {
                    let valued: Vec<String> = valued.iter().map(|name| format!("{name} VALUE")).collect();
                    return Err(format!("{argument}: there are {} {}", flags.join(" "), valued.join(" ")).into());
                }
            };
            options.typed.insert(argument, value);
        }
        Ok(options)
    }

    /// Whether a flag was typed.
    #[must_use]
    pub fn has(&self, flag: &str) -> bool {
        self.typed.contains_key(flag)
    }

    /// The value of a flag, or what it is unless typed.
    ///
    /// # Errors
    /// It is no such value.
    pub fn value<T: FromStr>(&self, name: &str, unless: T) -> Result<T, Failure> {
        let Some(text) = self.typed.get(name) else { return Ok(unless) };
        text.parse().map_err(|_| format!("{name} {text}: not a value for it").into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_does_not_have_is_refused() {
        let read = |line: &str| Options::of(line.split_whitespace().map(String::from), &["--json"], &["--rounds"]);
        let options = read("--json --rounds 3").unwrap();
        assert!(options.has("--json") && !options.has("--rounds 3"));
        assert_eq!(options.value("--rounds", 9).unwrap(), 3);
        assert_eq!(options.value("--other", 9).unwrap(), 9);
        assert!(read("--rounds").is_err() && read("--fast").is_err());
        assert!(read("--rounds x").unwrap().value("--rounds", 9).is_err());
    }
}
