//! A function's folder as one tar, in memory. The same folder gives the same bytes on every machine: entries are sorted,
//! and times, owners and all of the mode but "may be executed" are left out.
//!
//! It does not judge what is inside: the manifest has been checked by the worker's own code, and the worker checks the
//! archive again.

use std::ffi::OsStr;
use std::fs::{self, DirEntry, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use vilya_worker::manifest::FILE_NAME as MANIFEST;

use crate::failure::Failure;

/// Left out wherever they are: what version control and Python write beside the sources.
const SKIPPED_ANYWHERE: [&str; 2] = [".git", "__pycache__"];
/// Left out at the top: what Cargo writes.
const SKIPPED_AT_TOP: &str = "target";
/// Left out at the top of a compiled function: its sources.
const SKIPPED_SOURCES: &str = "src";

/// More than this is refused before it is read: the archive is made in memory.
const UNPACKED_LIMIT_BYTES: u64 = 1 << 30;

/// What to pack.
pub(crate) struct Folder<'a> {
    /// The folder with the manifest at its top.
    pub(crate) directory: &'a Path,
    /// For a compiled function its executable, relative to the folder: taken along wherever it is, while `src` is not.
    pub(crate) executable: Option<&'a Path>,
}

impl Folder<'_> {
    /// The archive.
    ///
    /// # Errors
    /// A file that cannot be read; a symbolic link, a socket or a device; an executable that is not there; more than
    /// [`UNPACKED_LIMIT_BYTES`].
    pub(crate) fn pack(&self) -> Result<Vec<u8>, Failure> {
        let mut entries = Vec::new();
        self.collect(Path::new(""), &mut entries)?;
        self.add_executable(&mut entries)?;
        entries.sort();
        let mut archive = Archive { tar: tar::Builder::new(Vec::new()), left_bytes: UNPACKED_LIMIT_BYTES };
        for entry in &entries {
            archive.add(self.directory, entry)?;
        }
        archive.tar.into_inner().map_err(|error| Failure::local(format_args!("cannot pack the folder: {error}")))
    }

    /// Gathers what is below `inside` (relative to the folder), directories before what they hold.
    fn collect(&self, inside: &Path, entries: &mut Vec<Entry>) -> Result<(), Failure> {
        let directory = self.directory.join(inside);
        let cannot = |error: io::Error| Failure::file("read", &directory, &error);
        for found in fs::read_dir(&directory).map_err(cannot)? {
            let found = found.map_err(cannot)?;
            if self.skips(inside, &found.file_name()) {
                continue;
            }
            let path = inside.join(found.file_name());
            let directory = is_directory(&found)?;
            entries.push(Entry { path: path.clone(), directory });
            if directory {
                self.collect(&path, entries)?;
            }
        }
        Ok(())
    }

    fn skips(&self, inside: &Path, name: &OsStr) -> bool {
        let top = inside.as_os_str().is_empty();
        SKIPPED_ANYWHERE.iter().any(|skipped| name == *skipped)
            || (top && name == SKIPPED_AT_TOP)
            || (top && self.executable.is_some() && name == SKIPPED_SOURCES)
    }

    /// Adds the executable and the directories above it, if what was skipped holds it.
    fn add_executable(&self, entries: &mut Vec<Entry>) -> Result<(), Failure> {
        let Some(executable) = self.executable else { return Ok(()) };
        let path = self.directory.join(executable);
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_file() && metadata.permissions().mode() & 0o111 != 0 => {}
            Ok(_) => {
                return Err(Failure::usage(format_args!(
                    "the handler {} is not an executable file: build it, or correct `handler` in {MANIFEST}",
                    path.display()
                )));
            }
            Err(error) => {
                return Err(Failure::usage(format_args!(
                    "the handler {} cannot be read ({error}): build it, or correct `handler` in {MANIFEST}",
                    path.display()
                )));
            }
        }
        let mut missing: Vec<Entry> = executable
            .ancestors()
            .filter(|ancestor| !ancestor.as_os_str().is_empty())
            .map(|ancestor| Entry { path: ancestor.to_owned(), directory: ancestor != executable })
            .filter(|entry| !entries.contains(entry))
            .collect();
        entries.append(&mut missing);
        Ok(())
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    /// Relative to the folder.
    path: PathBuf,
    directory: bool,
}

fn is_directory(found: &DirEntry) -> Result<bool, Failure> {
    let path = found.path();
    let kind = found.file_type().map_err(|error| Failure::file("read", &path, &error))?;
    if kind.is_symlink() {
        return Err(Failure::usage(format_args!(
            "{} is a symbolic link, which may point at anything inside a sandbox: put the file itself there",
            path.display()
        )));
    }
    if !kind.is_dir() && !kind.is_file() {
        return Err(Failure::usage(format_args!(
            "{} is neither a file nor a folder: move it out of the function's folder",
            path.display()
        )));
    }
    Ok(kind.is_dir())
}

struct Archive {
    tar: tar::Builder<Vec<u8>>,
    left_bytes: u64,
}

impl Archive {
    fn add(&mut self, root: &Path, entry: &Entry) -> Result<(), Failure> {
        let path = root.join(&entry.path);
        let cannot = |error: io::Error| Failure::file("pack", &path, &error);
        let mut header = tar::Header::new_gnu();
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        if entry.directory {
            header.set_entry_type(tar::EntryType::Directory);
            header.set_mode(0o755);
            header.set_size(0);
            return self.tar.append_data(&mut header, &entry.path, io::empty()).map_err(cannot);
        }
        let file = File::open(&path).map_err(cannot)?;
        let metadata = file.metadata().map_err(cannot)?;
        let bytes = metadata.len();
        self.left_bytes = self.left_bytes.checked_sub(bytes).ok_or_else(|| {
            Failure::usage(format_args!(
                "the folder holds more than {}: leave out what the function does not need at run time",
                crate::output::size(UNPACKED_LIMIT_BYTES)
            ))
        })?;
        let executable = metadata.permissions().mode() & 0o111 != 0;
        header.set_mode(if executable { 0o755 } else { 0o644 });
        header.set_size(bytes);
        // A file that grows meanwhile is cut at the size the header says; one that shrinks is an error.
        let mut content = Vec::with_capacity(usize::try_from(bytes).unwrap_or(0));
        file.take(bytes).read_to_end(&mut content).map_err(cannot)?;
        if content.len() as u64 != bytes {
            return Err(Failure::local(format_args!("{} changed while it was packed: try again", path.display())));
        }
        self.tar.append_data(&mut header, &entry.path, content.as_slice()).map_err(cannot)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::failure::Fault;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        folder
    }

    fn executable(path: &Path) {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).unwrap();
    }

    fn listed(archive: &[u8]) -> Vec<(String, u32, u64)> {
        let mut archive = tar::Archive::new(archive);
        let read = archive.entries().unwrap().map(|entry| {
            let entry = entry.unwrap();
            let header = entry.header();
            assert_eq!((header.mtime().unwrap(), header.uid().unwrap(), header.gid().unwrap()), (0, 0, 0));
            (entry.path().unwrap().display().to_string(), header.mode().unwrap(), entry.size())
        });
        read.collect()
    }

    fn pack(directory: &Path) -> Result<Vec<u8>, Failure> {
        Folder { directory, executable: None }.pack()
    }

    #[test]
    fn sorted_with_modes_and_without_what_is_written_beside_the_sources() {
        let folder = folder(&[
            ("main.py", "code"),
            ("function.toml", "x"),
            ("lib/target/deep.py", "kept: not at the top"),
            ("lib/__pycache__/main.pyc", "no"),
            (".git/config", "no"),
            ("target/release/junk", "no"),
            ("src/kept.py", "kept: not compiled"),
        ]);
        executable(&folder.path().join("main.py"));
        let listed = listed(&pack(folder.path()).unwrap());
        let names: Vec<&str> = listed.iter().map(|(name, ..)| name.as_str()).collect();
        assert_eq!(
            names,
            ["function.toml", "lib", "lib/target", "lib/target/deep.py", "main.py", "src", "src/kept.py"]
        );
        assert_eq!(listed[0].1, 0o644);
        assert_eq!(listed[1].1, 0o755);
        assert_eq!(listed[4], ("main.py".to_owned(), 0o755, 4));
    }

    #[test]
    fn the_same_folder_gives_the_same_bytes() {
        let files = [("b", "2"), ("a", "1"), ("d/c", "3")];
        let mut turned = files;
        turned.reverse();
        let (one, other) = (folder(&files), folder(&turned));
        assert_eq!(pack(one.path()).unwrap(), pack(other.path()).unwrap());
    }

    #[test]
    fn a_long_path_survives() {
        let long = format!("{}/file", "d".repeat(150));
        let folder = folder(&[(&long, "x")]);
        let names: Vec<String> = listed(&pack(folder.path()).unwrap()).into_iter().map(|(name, ..)| name).collect();
        assert!(names.contains(&long));
    }

    #[test]
    fn a_symbolic_link_is_refused_with_advice() {
        let folder = folder(&[("a", "1")]);
        symlink("/etc/passwd", folder.path().join("link")).unwrap();
        let failure = pack(folder.path()).unwrap_err();
        assert_eq!(failure.fault(), Fault::Usage);
        assert!(failure.to_string().contains("put the file itself there"), "{failure}");
    }

    #[test]
    fn a_compiled_function_takes_its_executable_and_leaves_its_sources() {
        let folder = folder(&[
            ("function.toml", "x"),
            ("src/main.rs", "no"),
            ("target/release/run", "elf"),
            ("target/release/other", "no"),
            ("data/model", "kept"),
        ]);
        executable(&folder.path().join("target/release/run"));
        let handler = Path::new("target/release/run");
        let archive = Folder { directory: folder.path(), executable: Some(handler) }.pack().unwrap();
        let names: Vec<String> = listed(&archive).into_iter().map(|(name, ..)| name).collect();
        assert_eq!(names, ["data", "data/model", "function.toml", "target", "target/release", "target/release/run"]);
    }

    #[test]
    fn an_executable_at_the_top_is_packed_once() {
        let folder = folder(&[("run", "elf")]);
        executable(&folder.path().join("run"));
        let archive = Folder { directory: folder.path(), executable: Some(Path::new("run")) }.pack().unwrap();
        assert_eq!(listed(&archive), [("run".to_owned(), 0o755, 3)]);
    }

    #[test]
    fn a_handler_that_is_missing_or_cannot_be_executed_is_refused() {
        let folder = folder(&[("run", "text")]);
        for handler in ["run", "absent"] {
            let failure = Folder { directory: folder.path(), executable: Some(Path::new(handler)) }.pack().unwrap_err();
            assert_eq!(failure.fault(), Fault::Usage);
            assert!(failure.to_string().contains("build it"), "{failure}");
        }
    }
}
