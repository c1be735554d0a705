//! `deploy`: a folder becomes a function. The manifest is checked here with the worker's own code, so that a mistake costs
//! no upload; the worker checks it again.

use std::fs;
use std::path::{Path, PathBuf};

use vilya_worker::manifest::{FILE_NAME as MANIFEST, Manifest, Runtime};

use crate::arguments::DEFAULT_SERVER;
use crate::bundle::Folder;
use crate::client::{Client, FunctionRecord};
use crate::failure::Failure;
use crate::output::{Screen, complain, size};

/// What a folder without a manifest is told to write.
const EXAMPLE: &str = "name = \"hello\" and runtime = \"python\"";

pub(crate) fn deploy(client: &Client, directory: &Path, screen: &mut Screen) -> Result<(), Failure> {
    let prepared = Prepared::read(directory)?;
    let function = client.deploy(&prepared.name, &prepared.archive, prepared.pulls)?;
    say(client, &function, screen)
}

/// A function's name and the archive to send.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) name: String,
    pub(crate) archive: Vec<u8>,
    /// Whether the worker pulls an image for it.
    pub(crate) pulls: bool,
}

impl Prepared {
    /// Checks the manifest in `directory` and packs the rest of it.
    pub(crate) fn read(directory: &Path) -> Result<Prepared, Failure> {
        let manifest = manifest(directory)?;
        let executable = match manifest.runtime {
            Runtime::Rust | Runtime::C => Some(PathBuf::from(&manifest.handler)),
            Runtime::Python | Runtime::Node => None,
        };
        let archive = Folder { directory, executable: executable.as_deref() }.pack()?;
        Ok(Prepared { pulls: manifest.image_reference().is_some(), name: manifest.name, archive })
    }
}

fn manifest(directory: &Path) -> Result<Manifest, Failure> {
    let path = directory.join(MANIFEST);
    let text = fs::read_to_string(&path).map_err(|error| {
        Failure::usage(format_args!(
            "cannot read {} ({error}): a function is a folder with a {MANIFEST} that says at least {EXAMPLE}",
            path.display()
        ))
    })?;
    Manifest::parse(&text).map_err(|problems| {
        let place = |problem: &_| format!("{}/{problem}", directory.display());
        match problems.as_slice() {
            [only] => Failure::usage(place(only)),
            several => {
                several.iter().for_each(|problem| complain(place(problem)));
                Failure::usage(format_args!("{} problems in {}: correct them", several.len(), path.display()))
            }
        }
    })
}

fn say(client: &Client, function: &FunctionRecord, screen: &mut Screen) -> Result<(), Failure> {
    let FunctionRecord { name, version, runtime, bundle_bytes, .. } = function;
    screen.line(format_args!("deployed {name} version {version} ({runtime}, {})", size(*bundle_bytes)))?;
    if let Some(pinned) = &function.pinned {
        screen.line(format_args!("  in {pinned}"))?;
    }
    let elsewhere =
        if client.base() == DEFAULT_SERVER { String::new() } else { format!(" --server {}", client.base()) };
    screen.line(format_args!("  vilya invoke {name} -d '{{}}'{elsewhere}"))?;
    screen.line(format_args!("  curl -d '{{}}' {}", client.invoke_url(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(manifest: &str, files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(MANIFEST), manifest).unwrap();
        for file in files {
            fs::write(folder.path().join(file), "x").unwrap();
        }
        folder
    }

    #[test]
    fn a_good_folder_is_packed_under_its_name() {
        let folder = function("name = \"greet\"\nruntime = \"python\"\n", &["main.py"]);
        let prepared = Prepared::read(folder.path()).unwrap();
        assert_eq!(prepared.name, "greet");
        assert_eq!(tar::Archive::new(prepared.archive.as_slice()).entries().unwrap().count(), 2);
    }

    #[test]
    fn a_mistake_is_found_before_anything_is_sent() {
        let wrong = function("name = \"Not A Name\"\nruntime = \"python\"\n", &[]);
        let failure = Prepared::read(wrong.path()).unwrap_err();
        assert_eq!(failure.fault().code(), 2);
        assert!(failure.to_string().contains("name"), "{failure}");
        let empty = tempfile::tempdir().unwrap();
        let failure = Prepared::read(empty.path()).unwrap_err();
        assert!(failure.to_string().contains("runtime = \"python\""), "{failure}");
    }

    #[test]
    fn a_compiled_function_needs_its_executable() {
        let folder = function("name = \"fast\"\nruntime = \"rust\"\nhandler = \"fast\"\n", &[]);
        let failure = Prepared::read(folder.path()).unwrap_err();
        assert!(failure.to_string().contains("build it"), "{failure}");
    }
}
