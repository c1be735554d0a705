//! Which Python runs the functions of the `python` runtime, and where the runtime's own files are.
//!
//! Invariant: an interpreter is used only after it has said itself that it is new enough. It knows no functions.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::config::Interpreter;
use crate::runtimes::{RUNTIMES, lay_out};

/// What is asked of a candidate: its version, its real path, and the folder its standard library is under.
const QUESTION: &str =
    "import os, sys; print(*sys.version_info[:2], os.path.realpath(sys.executable), sys.base_prefix, sep='\\n')";

/// The oldest version whose syntax and library the runtime uses.
const OLDEST: (u32, u32) = (3, 9);

/// Where the Python runtime and the interpreter are.
#[derive(Clone, Debug)]
pub(crate) struct PythonHome {
    /// The interpreter's path, the same outside and inside.
    pub(crate) interpreter: PathBuf,
    /// A folder that the interpreter needs and that is not under `/usr`: its path inside, and where that leads on the host.
    pub(crate) prefix: Option<(PathBuf, PathBuf)>,
}

/// Finds the interpreter and writes the runtime's files under the state directory.
pub(crate) fn prepare(interpreter: &Interpreter, state_directory: &Path) -> Result<PythonHome, String> {
    let (interpreter, prefix) = find(interpreter)?;
    let runtime = state_directory.join(RUNTIMES).join("python");
    lay_out(&runtime, vilya_isolate::runtimes::PYTHON)
        .map_err(|error| format!("the Python runtime cannot be written to {}: {error}", runtime.display()))?;
    // Compiled here, since a sandbox cannot write. Without it every start parses the files again, and works.
    let compiled = Command::new(&interpreter)
        .args(["-I", "-m", "compileall", "-q"])
        .arg(&runtime)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if !compiled.is_ok_and(|status| status.success()) {
        tracing::warn!("the Python runtime could not be compiled ahead; cold starts take a little longer");
    }
    let prefix = prefix.map(|inside| std::fs::canonicalize(&inside).map(|outside| (inside, outside))).transpose();
    let prefix = prefix.map_err(|error| format!("the interpreter's own folder cannot be found: {error}"))?;
    Ok(PythonHome { interpreter, prefix })
}

pub(crate) fn find(wanted: &Interpreter) -> Result<(PathBuf, Option<PathBuf>), String> {
    let candidates: Vec<PathBuf> = match wanted {
        Interpreter::Path(path) => vec![path.clone()],
        Interpreter::Auto => {
            let usual = ["/usr/bin/python3", "/usr/local/bin/python3"].map(PathBuf::from);
            let path = std::env::var_os("PATH").unwrap_or_default();
            let searched = std::env::split_paths(&path).map(|folder| folder.join("python3"));
            usual.into_iter().chain(searched).filter(|candidate| candidate.exists()).collect()
        }
    };
    let mut refused = Vec::new();
    for candidate in &candidates {
        match ask(candidate) {
            Ok(found) => return Ok(found),
            Err(why) => refused.push(format!("{}: {why}", candidate.display())),
        }
    }
    Err(format!(
        "no Python {}.{} or later ({}); install python3 or set runtimes.python.interpreter",
        OLDEST.0,
        OLDEST.1,
        if refused.is_empty() { "none was found".into() } else { refused.join("; ") }
    ))
}

fn ask(interpreter: &Path) -> Result<(PathBuf, Option<PathBuf>), String> {
    let output = Command::new(interpreter)
        .args(["-I", "-c", QUESTION])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("it cannot be run: {error}"))?;
    let answer = String::from_utf8_lossy(&output.stdout);
    parse(&answer).ok_or_else(|| "it does not answer as a Python interpreter".to_string())?
}

fn parse(answer: &str) -> Option<Result<(PathBuf, Option<PathBuf>), String>> {
    let mut lines = answer.lines();
    let version = (lines.next()?.parse().ok()?, lines.next()?.parse().ok()?);
    let (path, prefix) = (PathBuf::from(lines.next()?), PathBuf::from(lines.next()?));
    if version < OLDEST {
        return Some(Err(format!("it is version {}.{}", version.0, version.1)));
    }
    // /usr is in every sandbox; anything else has to be brought along.
    let prefix = (!prefix.starts_with("/usr")).then_some(prefix);
    Some(Ok((path, prefix)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read() {
        let system = parse("3\n11\n/usr/bin/python3.11\n/usr\n");
        assert_eq!(system, Some(Ok(("/usr/bin/python3.11".into(), None))));
        let own = parse("3\n14\n/opt/py/bin/python3.14\n/opt/py\n");
        assert_eq!(own, Some(Ok(("/opt/py/bin/python3.14".into(), Some("/opt/py".into())))));
        assert!(matches!(parse("3\n8\n/usr/bin/python3\n/usr\n"), Some(Err(_))));
        assert_eq!(parse("Segmentation fault"), None);
    }
}
