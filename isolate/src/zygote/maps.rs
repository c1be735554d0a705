//! The mappings of a process, as `/proc/<pid>/maps` lists them.
//!
//! Owns: reading the list. Invariant: pure; a line that is not understood is an error, never skipped. Does not know: what is in the memory.

use std::ops::Range;

/// Bytes of a page on the machines that images are taken on.
#[cfg(target_arch = "x86_64")]
pub(crate) const PAGE: u64 = 4096;

/// What a mapping shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Backing {
    /// Private memory without a file.
    Anonymous,
    /// The first thread's stack, which grows.
    Stack,
    /// The kernel's own, the same in every process but for its address: `[vdso]` and the data that it reads.
    Kernel(String),
    /// The one mapping at a fixed address.
    Vsyscall,
    /// A file, by its path inside the sandbox.
    File { path: String, offset: u64 },
    /// What cannot be mapped again by its name.
    Other(String),
}

/// One mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mapping {
    pub(crate) range: Range<u64>,
    /// `PROT_*`.
    pub(crate) protection: i32,
    pub(crate) is_shared: bool,
    pub(crate) backing: Backing,
}

/// The kernel's own, with their names.
pub(crate) fn kernel_mappings(mappings: &[Mapping]) -> impl Iterator<Item = (&str, &Range<u64>)> {
    mappings.iter().filter_map(|mapping| match &mapping.backing {
        Backing::Kernel(name) => Some((name.as_str(), &mapping.range)),
        _ => None,
    })
}

/// Reads the whole list.
pub(crate) fn parse(text: &str) -> Result<Vec<Mapping>, String> {
    text.lines().map(|line| mapping(line).ok_or_else(|| format!("a mapping that is not understood: {line}"))).collect()
}

/// `7f0000000000-7f0000001000 r-xp 00002000 fe:00 1234       /usr/lib/x.so`
fn mapping(line: &str) -> Option<Mapping> {
    let mut fields = line.splitn(6, ' ');
    let (start, end) = fields.next()?.split_once('-')?;
    let hexadecimal = |text| u64::from_str_radix(text, 16).ok();
    let range = hexadecimal(start)?..hexadecimal(end)?;
    let permissions = fields.next()?.as_bytes();
    let offset = hexadecimal(fields.next()?)?;
    let (_device, _inode) = (fields.next()?, fields.next()?);
    let name = fields.next().unwrap_or("").trim_start();
    let allowed = [(b'r', libc::PROT_READ), (b'w', libc::PROT_WRITE), (b'x', libc::PROT_EXEC)];
    let protection = allowed.iter().zip(permissions).filter(|((letter, _), there)| letter == *there);
    let protection = protection.fold(0, |all, ((_, bit), _)| all | bit);
    let is_shared = *permissions.get(3)? == b's';
    let backing = match name {
        "" | "[heap]" => Backing::Anonymous,
        "[stack]" => Backing::Stack,
        "[vsyscall]" => Backing::Vsyscall,
        name if name.starts_with("[anon:") => Backing::Anonymous,
        name if name.starts_with("[v") => Backing::Kernel(name.to_owned()),
        // A newline in a name is written as a backslash and digits; nobody needs such a library.
        path if path.starts_with('/') && !path.contains('\\') && !path.ends_with(" (deleted)") => {
            Backing::File { path: path.to_owned(), offset }
        }
        other => Backing::Other(other.to_owned()),
    };
    Some(Mapping { range, protection, is_shared, backing })
}

#[cfg(test)]
mod tests {
    use super::{Backing, parse};

    #[test]
    fn every_kind_is_told_apart() {
        let text = "\
55d0c0000000-55d0c0001000 r-xp 00002000 fe:00 1234                       /usr/bin/python3.11
55d0c1000000-55d0c1021000 rw-p 00000000 00:00 0                          [heap]
7f0000000000-7f0000001000 ---p 00000000 00:00 0 
7f0000001000-7f0000003000 rw-p 00000000 00:00 0                          [anon:arena]
7ffc00000000-7ffc00021000 rw-p 00000000 00:00 0                          [stack]
7ffc00100000-7ffc00104000 r--p 00000000 00:00 0                          [vvar]
7ffc00106000-7ffc00108000 r-xp 00000000 00:00 0                          [vdso]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
";
        let mappings = parse(text).expect("every line is known");
        let backings: Vec<&Backing> = mappings.iter().map(|mapping| &mapping.backing).collect();
        assert_eq!(backings[0], &Backing::File { path: "/usr/bin/python3.11".into(), offset: 0x2000 });
        assert_eq!(backings[1..4], [&Backing::Anonymous; 3]);
        assert_eq!(backings[4], &Backing::Stack);
        assert_eq!(backings[5..7], [&Backing::Kernel("[vvar]".into()), &Backing::Kernel("[vdso]".into())]);
        assert_eq!(backings[7], &Backing::Vsyscall);
        assert_eq!(mappings[0].protection, libc::PROT_READ | libc::PROT_EXEC);
        assert_eq!(mappings[2].protection, 0);
        assert!(mappings.iter().all(|mapping| !mapping.is_shared));
    }

    #[test]
    fn what_cannot_be_mapped_again_is_told_apart() {
        for name in ["/usr/lib/x.so (deleted)", "/memfd:x (deleted)", "/usr/a\\012b", "anon_inode:[io_uring]"] {
            let mappings = parse(&format!("7f0000000000-7f0000001000 r--s 00000000 fe:00 12 {name}"));
            assert_eq!(mappings.expect("a mapping")[0].backing, Backing::Other(name.into()));
        }
        assert!(parse("nonsense").is_err());
    }
}
