//! A function's files as a tar archive (POSIX.1-1988 ustar).

const BLOCK_BYTES: usize = 512;

/// A file of a bundle.
pub struct File<'a> {
    /// Its path, at most 99 bytes.
    pub path: &'a str,
    /// What it holds.
    pub bytes: &'a [u8],
    /// Whether it is a program.
    pub executable: bool,
}

/// The files as one archive: a header and whole blocks for each, then two empty blocks.
#[must_use]
pub fn archive(files: &[File<'_>]) -> Vec<u8> {
    let mut archive = Vec::new();
    for file in files {
        archive.extend_from_slice(&header(file));
        archive.extend_from_slice(file.bytes);
        archive.resize(archive.len().next_multiple_of(BLOCK_BYTES), 0);
    }
    archive.resize(archive.len() + 2 * BLOCK_BYTES, 0);
    archive
}

fn header(file: &File<'_>) -> [u8; BLOCK_BYTES] {
    let mut header = [0_u8; BLOCK_BYTES];
    let mode: &[u8; 7] = if file.executable { b"0000755" } else { b"0000644" };
    header[..file.path.len()].copy_from_slice(file.path.as_bytes());
    header[100..107].copy_from_slice(mode);
    header[108..115].copy_from_slice(b"0000000");
    header[116..123].copy_from_slice(b"0000000");
    header[124..135].copy_from_slice(format!("{:011o}", file.bytes.len()).as_bytes());
    header[136..147].copy_from_slice(b"00000000000");
    header[156] = b'0';
    header[257..265].copy_from_slice(b"ustar\x0000");
    // The sum is taken with spaces in its own place.
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}
