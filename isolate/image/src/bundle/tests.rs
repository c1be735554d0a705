//! Archives as honest tools and as attackers make them.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;

use ::tar::{Builder, EntryType, Header};
use ::zip::write::{SimpleFileOptions, ZipWriter};

use super::*;

const MANIFEST: &str = "function.toml";

fn unpack_into(archive: &[u8], limits: BundleLimits) -> (tempfile::TempDir, Result<Unpacked, BundleError>) {
    let directory = tempfile::tempdir().unwrap();
    let result = unpack(std::io::Cursor::new(archive), directory.path(), MANIFEST, limits);
    (directory, result)
}

fn refusal(archive: &[u8]) -> String {
    let small = BundleLimits { entries: 64, unpacked_bytes: 1 << 20 };
    unpack_into(archive, small).1.unwrap_err().to_string()
}

fn header(kind: EntryType, bytes: u64, mode: u32) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(bytes);
    header.set_mode(mode);
    header
}

/// Writes the name into the header as it is; the crate's own setters refuse hostile names.
fn raw_entry(name: &[u8], kind: EntryType, content: &[u8]) -> Vec<u8> {
    let mut header = header(kind, content.len() as u64, 0o644);
    header.as_mut_bytes()[..name.len()].copy_from_slice(name);
    header.set_cksum();
    let mut out = header.as_bytes().to_vec();
    out.extend_from_slice(content);
    out.resize(out.len().next_multiple_of(512), 0);
    out
}

fn tar_of(entries: &[(&[u8], EntryType, &[u8])]) -> Vec<u8> {
    let mut out: Vec<u8> = entries.iter().flat_map(|(name, kind, content)| raw_entry(name, *kind, content)).collect();
    out.extend_from_slice(&[0; 1024]);
    out
}

fn good_tar(prefix: &str) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    let mut add = |name: &str, mode: u32, content: &[u8]| {
        let mut header = header(EntryType::Regular, content.len() as u64, mode);
        builder.append_data(&mut header, format!("{prefix}{name}"), content).unwrap();
    };
    add(MANIFEST, 0o600, b"name");
    add("bin/run", 0o6777, b"binary");
    add(&format!("{}/long.py", "d".repeat(120)), 0o644, b"long");
    builder.into_inner().unwrap()
}

fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zip_of(entries: &[(&str, u32, &[u8])]) -> Vec<u8> {
    let mut writer = ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, mode, content) in entries {
        let options = SimpleFileOptions::default().unix_permissions(*mode);
        if name.ends_with('/') {
            writer.add_directory(*name, options).unwrap();
        } else {
            writer.start_file(*name, options).unwrap();
            writer.write_all(content).unwrap();
        }
    }
    writer.finish().unwrap().into_inner()
}

fn replaced(archive: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut out = archive.to_vec();
    let places: Vec<usize> = (0..=out.len() - from.len()).filter(|at| out[*at..].starts_with(from)).collect();
    assert!(!places.is_empty());
    for at in places {
        out[at..at + to.len()].copy_from_slice(to);
    }
    out
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn check_good(archive: &[u8], top: &str) {
    let (directory, unpacked) = unpack_into(archive, BundleLimits::default());
    let unpacked = unpacked.unwrap();
    let root = directory.path().join(top);
    assert_eq!(unpacked.root.components().collect::<PathBuf>(), root.components().collect::<PathBuf>());
    assert_eq!(unpacked.bytes, 14);
    assert_eq!(std::fs::read(root.join("bin/run")).unwrap(), b"binary");
    assert_eq!(std::fs::read(root.join("d".repeat(120)).join("long.py")).unwrap(), b"long");
    assert_eq!((mode(&root.join(MANIFEST)), mode(&root.join("bin/run"))), (0o644, 0o755));
    assert_eq!(mode(&root.join("bin")), 0o755);
}

#[test]
fn archives_of_every_format_unpack_alike() {
    let long = format!("{}/long.py", "d".repeat(120));
    let zip = zip_of(&[
        (MANIFEST, 0o600, b"name"),
        ("bin/", 0o777, b""),
        ("bin/run", 0o777, b"binary"),
        (&long, 0o644, b"long"),
    ]);
    check_good(&zip, "");
    check_good(&good_tar(""), "");
    check_good(&gz(&good_tar("")), "");
    check_good(&good_tar("./"), "");
}

#[test]
fn a_single_top_folder_is_the_root() {
    check_good(&good_tar("hello/"), "hello");
    let two = zip_of(&[("a/function.toml", 0o644, b""), ("b/x", 0o644, b"")]);
    assert!(refusal(&two).contains("there is no function.toml"));
    assert!(refusal(&zip_of(&[("a/b/function.toml", 0o644, b"")])).contains("there is no function.toml"));
    assert!(refusal(&zip_of(&[])).contains("there is no function.toml"));
}

#[test]
fn a_long_name_of_a_pax_header_is_honoured() {
    let name = format!("{}/x.py", "p".repeat(200));
    let mut builder = Builder::new(Vec::new());
    builder.append_pax_extensions([("mtime", b"1.5".as_slice()), ("path", name.as_bytes())]).unwrap();
    let mut file = header(EntryType::Regular, 2, 0o644);
    file.set_path("short").unwrap();
    file.set_cksum();
    builder.append(&file, b"ab".as_slice()).unwrap();
    let mut manifest = header(EntryType::Regular, 0, 0o644);
    builder.append_data(&mut manifest, MANIFEST, b"".as_slice()).unwrap();
    let (directory, unpacked) = unpack_into(&builder.into_inner().unwrap(), BundleLimits::default());
    unpacked.unwrap();
    assert_eq!(std::fs::read(directory.path().join(name)).unwrap(), b"ab");
    assert!(!directory.path().join("short").exists());
}

#[test]
fn paths_never_leave_the_bundle() {
    let hostile: [(&[u8], &str); 9] = [
        (b"../evil", "upwards"),
        (b"a/../../evil", "upwards"),
        (b"/etc/evil", "absolute"),
        (b"a//b", "empty part"),
        (b"a\\..\\b", "backslash"),
        (b"a\nb", "control character"),
        (b"\xff\xfe", "not UTF-8"),
        (b"..", "upwards"),
        (b"file/", "empty part"),
    ];
    for (name, reason) in hostile {
        let message =
            refusal(&tar_of(&[(MANIFEST.as_bytes(), EntryType::Regular, b""), (name, EntryType::Regular, b"x")]));
        assert!(message.contains(reason) && message.contains(&name.escape_ascii().to_string()), "{message}");
    }
    let zip = zip_of(&[("xx/xx/evil", 0o644, b"x")]);
    assert!(refusal(&replaced(&zip, b"xx/xx/evil", b"../../evil")).contains("upwards"));
    assert!(refusal(&replaced(&zip, b"xx/xx/evil", b"/x/xx/evil")).contains("absolute"));
    assert!(refusal(&replaced(&zip, b"xx/xx/evil", b"xx/xx\0evil")).contains("control character"));
}

#[test]
fn nothing_is_written_outside_even_before_the_refusal() {
    let outer = tempfile::tempdir().unwrap();
    let inner = outer.path().join("inner");
    std::fs::create_dir(&inner).unwrap();
    let archive = tar_of(&[(b"../evil", EntryType::Regular, b"x"), (b"../evil2/", EntryType::Directory, b"")]);
    unpack(std::io::Cursor::new(&archive), &inner, MANIFEST, BundleLimits::default()).unwrap_err();
    assert_eq!(std::fs::read_dir(outer.path()).unwrap().count(), 1);
}

#[test]
fn only_files_and_directories_are_unpacked() {
    let kinds = [
        (EntryType::Symlink, "symbolic link"),
        (EntryType::Link, "hard link"),
        (EntryType::Char, "device"),
        (EntryType::Block, "device"),
        (EntryType::Fifo, "FIFO"),
        (EntryType::GNUSparse, "sparse"),
        (EntryType::new(b'V'), "of a kind"),
        (EntryType::Continuous, "of a kind"),
    ];
    for (kind, reason) in kinds {
        let message = refusal(&tar_of(&[(b"odd", kind, b"")]));
        assert!(message.contains(reason) && message.contains("\"odd\""), "{message}");
    }
    let mut writer = ZipWriter::new(std::io::Cursor::new(Vec::new()));
    writer.add_symlink("odd", "/etc/passwd", SimpleFileOptions::default()).unwrap();
    assert!(refusal(&writer.finish().unwrap().into_inner()).contains("symbolic link"));
}

#[test]
fn an_entry_named_twice_is_refused() {
    let file = EntryType::Regular;
    assert!(refusal(&tar_of(&[(b"a", file, b"1"), (b"./a", file, b"2")])).contains("twice"));
    assert!(
        refusal(&tar_of(&[(b"d/", EntryType::Directory, b""), (b"d/", EntryType::Directory, b"")])).contains("twice")
    );
    assert!(
        refusal(&tar_of(&[(b"a", file, b"1"), (b"a/b", file, b"2")])).contains("inside what the archive made a file")
    );
    assert!(refusal(&tar_of(&[(b"a/b", file, b"1"), (b"a", file, b"2")])).contains("twice"));
    let zip = zip_of(&[("aa", 0o644, b"1"), ("ab", 0o644, b"2")]);
    assert!(refusal(&replaced(&zip, b"ab", b"aa")).contains("twice"));
}

#[test]
fn a_directory_may_follow_what_implied_it() {
    let archive = tar_of(&[
        (b"d/x", EntryType::Regular, b""),
        (b"./", EntryType::Directory, b""),
        (b"d/", EntryType::Directory, b""),
        (MANIFEST.as_bytes(), EntryType::Regular, b""),
    ]);
    assert!(unpack_into(&archive, BundleLimits::default()).1.is_ok());
}

#[test]
fn sizes_are_bounded_as_declared_and_as_inflated() {
    let zeros = vec![0; 2 << 20];
    assert!(refusal(&tar_of(&[(b"big", EntryType::Regular, &zeros)])).contains("more than 1MiB"));
    let zip = zip_of(&[("big", 0o644, &zeros)]);
    assert!(zip.len() < 1 << 16, "a bomb is small");
    assert!(refusal(&zip).contains("more than 1MiB"));
    // The same archive, declaring 16 bytes in both headers.
    let lying = replaced(&zip, &(2u32 << 20).to_le_bytes(), &16u32.to_le_bytes());
    let message = refusal(&lying);
    assert!(message.contains("damaged") || message.contains("more than 1MiB"), "{message}");
    // A gzip bomb whose tar declares little: the excess is behind the end of the tar or never read.
    let mut long_name = raw_entry(b"x", EntryType::GNULongName, &vec![b'a'; 70 << 10]);
    assert!(refusal(&gz(&long_name)).contains("larger than 64 KiB"));
    long_name.truncate(512);
    assert!(refusal(&long_name).contains("larger than 64 KiB"));
}

#[test]
fn what_a_gzip_gives_is_bounded() {
    // Ignored headers may hold what they like; the decompressor stops at the limit all the same.
    let filler = raw_entry(b"x", EntryType::XGlobalHeader, &vec![0; 4 << 20]);
    assert!(refusal(&gz(&filler)).contains("more than 1MiB"));
}

#[test]
fn the_number_of_entries_is_bounded() {
    let names: Vec<String> = (0..65).map(|i| format!("f{i}")).collect();
    let entries: Vec<_> = names.iter().map(|name| (name.as_str(), 0o644, b"".as_slice())).collect();
    assert!(refusal(&zip_of(&entries)).contains("more than 64 files"));
    let deep = format!("{}x", "a/".repeat(33));
    assert!(refusal(&zip_of(&[(&deep, 0o644, b"")])).contains("32 folders deep"));
    let implied: Vec<String> = (0..40).map(|i| format!("d{i}/f")).collect();
    let entries: Vec<_> = implied.iter().map(|name| (name.as_str(), 0o644, b"".as_slice())).collect();
    assert!(refusal(&zip_of(&entries)).contains("more than 64 files"));
}

#[test]
fn damaged_archives_are_refused() {
    assert!(refusal(b"").contains("not an archive"));
    assert!(refusal(b"hello").contains("not an archive"));
    assert!(refusal(b"PK\x03\x04 and then nothing").contains("damaged"));
    assert!(refusal(b"\x1f\x8b and then nothing").contains("damaged"));
    let mut sum = gz(&good_tar(""));
    let crc_at = sum.len() - 8;
    sum[crc_at] ^= 1;
    assert!(refusal(&sum).contains("damaged"));
    assert!(refusal(&sum[..crc_at]).contains("damaged"));
    let tar = tar_of(&[(b"a", EntryType::Regular, &[1; 5000])]);
    assert!(refusal(&tar[..2000]).contains("damaged"));
    let mut zip = zip_of(&[("aa", 0o644, b"some content that is stored")]);
    let at = zip.iter().position(|byte| *byte == b'a').unwrap() + 4;
    zip[at] ^= 0xff;
    assert!(refusal(&zip).contains("damaged"));
}

#[test]
fn many_files_are_unpacked() {
    let names: Vec<String> = (0..100).map(|i| format!("d/f{i}")).collect();
    let mut entries: Vec<_> = names.iter().map(|name| (name.as_str(), 0o644, b"x".as_slice())).collect();
    entries.push((MANIFEST, 0o644, b""));
    let (directory, unpacked) = unpack_into(&zip_of(&entries), BundleLimits::default());
    assert_eq!(unpacked.unwrap().bytes, 100);
    assert_eq!(std::fs::read_dir(directory.path().join("d")).unwrap().count(), 100);
}

#[test]
fn no_prefix_and_no_flipped_byte_panics() {
    let archives = [zip_of(&[(MANIFEST, 0o644, b"name"), ("a/b", 0o755, b"x")]), good_tar(""), gz(&good_tar(""))];
    for archive in archives {
        for step in 0..60 {
            let at = step * archive.len() / 60;
            let mut flipped = archive.clone();
            flipped[at] ^= 0x41;
            // Either answer is right; what is held here is that there is one.
            let _ = unpack_into(&flipped, BundleLimits::default()).1;
            let _ = unpack_into(&archive[..at], BundleLimits::default()).1;
        }
    }
}
