//! This program's own file, as the executable of a function: what the kernel loads of it, without what debuggers read.
//!
//! Format: ELF-64, little-endian (System V ABI, chapters 4 and 5). The parts that are loaded lie in front of the rest.

use std::io;
use std::path::{Path, PathBuf};

const LOAD: u32 = 1;
const PROGRAM_HEADER_BYTES: usize = 56;

/// The file of the program that runs.
///
/// # Errors
/// It cannot be read, or is no ELF file.
pub fn own() -> io::Result<Vec<u8>> {
    let mut file = std::fs::read(std::env::current_exe()?)?;
    let end = loaded_end(&file).filter(|end| *end <= file.len());
    file.truncate(end.ok_or_else(|| io::Error::other("this program is not in the format that was expected"))?);
    // Where the section headers were, how many, and which of them has the names.
    file[40..48].fill(0);
    file[60..64].fill(0);
    Ok(file)
}

/// The addon of the Node runtime that cargo builds with this program.
///
/// # Errors
/// This program's own place is not known.
pub fn addon() -> io::Result<PathBuf> {
    const NAME: &str = "libvilya_node.so";
    let folder = std::env::current_exe()?.parent().map(Path::to_owned).unwrap_or_default();
    let places = [folder.join("deps").join(NAME), folder.join(NAME)];
    Ok(places.iter().find(|place| place.is_file()).unwrap_or(&places[0]).clone())
}

/// Where the last part ends that is loaded.
fn loaded_end(file: &[u8]) -> Option<usize> {
    if file.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let table = u64_at(file, 32)? as usize;
    let count = u16::from_le_bytes(*file.get(56..)?.first_chunk()?);
    let headers = file.get(table..)?.chunks_exact(PROGRAM_HEADER_BYTES).take(usize::from(count));
    let loaded = headers.filter(|header| header.starts_with(&LOAD.to_le_bytes()));
    loaded.filter_map(|header| u64_at(header, 8)?.checked_add(u64_at(header, 32)?)).max().map(|end| end as usize)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    use super::*;

    #[test]
    fn what_is_left_of_this_program_runs() {
        let whole = std::fs::metadata(std::env::current_exe().unwrap()).unwrap().len();
        let bytes = own().unwrap();
        assert!((bytes.len() as u64) < whole, "{} of {whole} bytes", bytes.len());
        let path = std::env::temp_dir().join(format!("vilya-own-{}", std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let listed = Command::new(&path).arg("--list").output();
        std::fs::remove_file(&path).unwrap();
        assert!(String::from_utf8_lossy(&listed.unwrap().stdout).contains("what_is_left_of_this_program_runs"));
    }

    #[test]
    fn another_format_is_refused() {
        assert_eq!(loaded_end(b"#!/bin/sh\n"), None);
        assert_eq!(loaded_end(b"\x7fELF\x02\x01"), None);
    }
}
