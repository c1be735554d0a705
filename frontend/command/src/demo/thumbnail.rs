//! Where the executable of the compiled example comes from: beside our own, else, under `cargo run`, from a build of it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::failure::Failure;
use crate::output::note;

pub(super) const PACKAGE: &str = "vilya-example-thumbnail";

/// The executable, or `None` where there is no way to have it.
pub(super) fn executable() -> Result<Option<PathBuf>, Failure> {
    let ours = std::env::current_exe()
        .map_err(|error| Failure::local(format_args!("cannot tell where this program is: {error}")))?;
    let beside = ours.with_file_name(PACKAGE);
    let (Some(cargo), Some(manifest)) = (std::env::var_os("CARGO"), std::env::var_os("CARGO_MANIFEST_DIR")) else {
        return Ok(beside.is_file().then_some(beside));
    };
    let Some(build) = Build::beside(&ours) else { return Ok(beside.is_file().then_some(beside)) };
    // Under Cargo even an executable that is there may be older than its sources; Cargo knows.
    note(format_args!("building the compiled example, {PACKAGE} (once)"));
    let status = build
        .command(&cargo, Path::new(&manifest))
        .status()
        .map_err(|error| Failure::local(format_args!("cannot run {}: {error}", Path::new(&cargo).display())))?;
    if !status.success() || !beside.is_file() {
        return Err(Failure::local(format_args!(
            "{PACKAGE} was not built ({status}): see above, or build it with `cargo build -p {PACKAGE}`"
        )));
    }
    Ok(Some(beside))
}

/// The way our own executable was built, read off where Cargo put it: `<target>/<profile folder>/vilya`.
#[derive(Debug, PartialEq, Eq)]
struct Build {
    target_directory: PathBuf,
    profile: String,
}

impl Build {
    fn beside(ours: &Path) -> Option<Build> {
        let folder = ours.parent()?;
        let name = folder.file_name()?.to_str()?;
        // Cargo's own names: the folder of the `dev` profile is `debug`.
        let profile = if name == "debug" { "dev" } else { name };
        Some(Build { target_directory: folder.parent()?.to_owned(), profile: profile.to_owned() })
    }

    fn command(&self, cargo: &OsStr, manifest_directory: &Path) -> Command {
        let mut command = Command::new(cargo);
        command.args(["build", "--quiet", "--package", PACKAGE, "--profile", &self.profile, "--target-dir"]);
        command.arg(&self.target_directory).current_dir(manifest_directory).stdin(Stdio::null());
        // Our standard output is the report; Cargo has no business there.
        command.stdout(Stdio::null());
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_build_is_read_off_our_own_place() {
        let build = |path: &str| Build::beside(Path::new(path)).map(|build| (build.target_directory, build.profile));
        assert_eq!(build("/x/target/release/vilya"), Some(("/x/target".into(), "release".to_owned())));
        assert_eq!(build("/x/target/debug/vilya"), Some(("/x/target".into(), "dev".to_owned())));
        assert_eq!(build("vilya"), None);
    }
}
