//! Deployments that go well, that are refused, and that a crash cuts short.

use super::*;
use crate::config::units::{GIB, MIB};
use sha2::{Digest, Sha256};
use std::io::Write;
use std::sync::LazyLock;
use vilya_image::bundle::BundleError;
use zip::write::{SimpleFileOptions, ZipWriter};

const LIMITS: CatalogLimits = CatalogLimits {
    functions: 3,
    function_memory_bytes: GIB,
    bundle: BundleLimits { entries: 16, unpacked_bytes: MIB },
    image_bytes: GIB,
};

impl Catalog {
    /// All steps of a deployment that pulls nothing.
    fn deploy(&mut self, name: &str, archive: &[u8], now_unix_ms: u64) -> Result<Deployed, CatalogError> {
        let opened = self.ask(name, archive.to_vec())?.unpack()?;
        let prepared = self.prepare(opened)?;
        let fetched = prepared.wanted().map(|wanted| wanted.fetch(None)).transpose()?;
        self.complete(prepared, fetched, now_unix_ms)
    }
}

fn opened(directory: &Path) -> Catalog {
    // One for all tests: where it is forked, it holds for a moment what other threads have open, locks of registries too.
    static UNPACKER: LazyLock<Arc<Unpacker>> = LazyLock::new(|| Arc::new(Unpacker::start(vilya_image::work).unwrap()));
    let unpacker = Arc::clone(&UNPACKER);
    Catalog::open(directory, LIMITS).unwrap().unpacked_by(unpacker)
}

fn archive(files: &[(&str, &str)]) -> Vec<u8> {
    let mut writer = ZipWriter::new(io::Cursor::new(Vec::new()));
    for (name, content) in files {
        writer.start_file(*name, SimpleFileOptions::default()).unwrap();
        writer.write_all(content.as_bytes()).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

fn python(name: &str) -> Vec<u8> {
    let manifest = format!("name = \"{name}\"\nruntime = \"python\"\n");
    archive(&[("function.toml", &manifest), ("main.py", "def handler(event, context): ...")])
}

fn names(catalog: &Catalog) -> Vec<String> {
    catalog.list().unwrap().into_iter().map(|record| record.name).collect()
}

fn bundles(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory.join(BUNDLES)).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn refusal(files: &[(&str, &str)]) -> CatalogError {
    let directory = tempfile::tempdir().unwrap();
    let mut catalog = opened(directory.path());
    let error = catalog.deploy("hello", &archive(files), 0).unwrap_err();
    assert_eq!(bundles(directory.path()), Vec::<String>::new(), "a refused deployment leaves nothing");
    assert_eq!(names(&catalog), Vec::<String>::new());
    error
}

#[test]
fn a_function_is_deployed_replaced_and_removed() {
    let directory = tempfile::tempdir().unwrap();
    let mut catalog = opened(directory.path());
    let first = catalog.deploy("hello", &python("hello"), 7).unwrap();
    assert_eq!((first.record.version, first.replaced), (1, None));
    assert_eq!(first.record.digest, crate::storage::hex(&Sha256::digest(python("hello"))));
    assert_eq!((first.record.deployed_unix_ms, first.record.bundle.as_str()), (7, "bundles/hello.1"));
    let path = catalog.bundle_path(&first.record);
    assert!(path.join("main.py").is_file());
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o755);

    let second = catalog.deploy("hello", &python("hello"), 8).unwrap();
    assert_eq!((second.record.version, second.replaced.as_ref()), (2, Some(&first.record)));
    assert_eq!(bundles(directory.path()), ["hello.1", "hello.2"]);
    catalog.discard(&first.record).unwrap();
    catalog.discard(&first.record).unwrap();
    assert_eq!(bundles(directory.path()), ["hello.2"]);
    assert_eq!(catalog.get("hello").unwrap(), second.record);

    let removed = catalog.remove("hello").unwrap();
    assert_eq!(catalog.get("hello").unwrap_err().fault(), Fault::NoSuchFunction);
    assert_eq!(catalog.remove("hello").unwrap_err().fault(), Fault::NoSuchFunction);
    catalog.discard(&removed).unwrap();
    assert_eq!(bundles(directory.path()), Vec::<String>::new());
}

#[test]
#[should_panic(expected = "cannot be discarded")]
fn the_deployed_version_cannot_be_discarded() {
    let directory = tempfile::tempdir().unwrap();
    let mut catalog = opened(directory.path());
    let deployed = catalog.deploy("hello", &python("hello"), 0).unwrap();
    let _ = catalog.discard(&deployed.record);
}

#[test]
fn a_restart_keeps_what_is_registered_and_removes_what_a_crash_left() {
    let directory = tempfile::tempdir().unwrap();
    let mut catalog = opened(directory.path());
    let kept = catalog.deploy("hello", &python("hello"), 0).unwrap().record;
    drop(catalog);
    // Killed while unpacking version 2; and killed after the rename, before the record.
    std::fs::create_dir_all(directory.path().join("bundles/.incoming-2/half")).unwrap();
    std::fs::create_dir_all(directory.path().join("bundles/hello.2/pkg")).unwrap();
    std::fs::write(directory.path().join("bundles/hello.2/pkg/x.py"), "x").unwrap();
    let mut catalog = opened(directory.path());
    assert_eq!(bundles(directory.path()), ["hello.1"]);
    assert_eq!(catalog.list().unwrap(), [kept]);
    assert_eq!(catalog.deploy("hello", &python("hello"), 0).unwrap().record.version, 2);
}

#[test]
fn a_version_is_never_used_twice() {
    let directory = tempfile::tempdir().unwrap();
    let mut catalog = opened(directory.path());
    catalog.deploy("hello", &python("hello"), 0).unwrap();
    catalog.remove("hello").unwrap();
    drop(catalog);
    let mut catalog = opened(directory.path());
    assert_eq!(catalog.deploy("hello", &python("hello"), 0).unwrap().record.version, 2);
}

#[test]
fn what_does_not_fit_together_is_refused_with_the_reason() {
    let hello = "name = \"hello\"\nruntime = \"python\"\n";
    let other = refusal(&[("function.toml", "name = \"other\"\nruntime = \"python\"\n"), ("main.py", "")]);
    assert!(other.to_string().contains("deploys \"hello\"") && other.to_string().contains("\"other\""), "{other}");
    let missing = refusal(&[("function.toml", hello)]);
    assert!(missing.to_string().contains("needs main.py"), "{missing}");
    let large = refusal(&[("function.toml", &format!("{hello}memory = \"2GiB\"\n")), ("main.py", "")]);
    assert!(large.to_string().contains("limits.memory"), "{large}");
    let wrong = refusal(&[("function.toml", &format!("{hello}memory = 1\ntimeout = 1\n"))]);
    assert!(wrong.to_string().contains("2 problem(s)") && wrong.to_string().contains("function.toml:4"), "{wrong}");
    let binary = refusal(&[("function.toml", "name = \"hello\"\nruntime = \"rust\"\nhandler = \"run\"\n")]);
    assert!(binary.to_string().contains("not a file of the archive"), "{binary}");
    for error in [other, missing, large, wrong, binary, refusal(&[("x", "")])] {
        assert_eq!(error.fault(), Fault::InvalidFunction);
    }
    let bomb = refusal(&[("function.toml", hello), ("main.py", &" ".repeat(2 << 20))]);
    assert_eq!(bomb.fault(), Fault::PayloadTooLarge);
    let heavy = refusal(&[("function.toml", &"#".repeat(70 << 10)), ("main.py", "")]);
    assert!(heavy.to_string().contains("larger than 64KiB"), "{heavy}");
}

#[test]
fn names_that_no_function_can_have_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let mut catalog = opened(directory.path());
    for name in ["../x", "A", ""] {
        assert_eq!(catalog.deploy(name, &python("hello"), 0).unwrap_err().fault(), Fault::InvalidFunction);
    }
}

#[test]
fn the_number_of_functions_is_bounded_but_replacing_is_always_possible() {
    let directory = tempfile::tempdir().unwrap();
    let mut catalog = opened(directory.path());
    for name in ["a", "b", "c"] {
        catalog.deploy(name, &python(name), 0).unwrap();
    }
    assert_eq!(catalog.deploy("d", &python("d"), 0).unwrap_err().fault(), Fault::FunctionsFull);
    catalog.deploy("a", &python("a"), 0).unwrap();
    catalog.remove("b").unwrap();
    catalog.deploy("d", &python("d"), 0).unwrap();
    assert_eq!(names(&catalog), ["a", "c", "d"]);
}

#[test]
fn a_single_top_folder_becomes_the_bundle_and_executables_can_run() {
    let directory = tempfile::tempdir().unwrap();
    let mut catalog = opened(directory.path());
    let manifest = "name = \"hello\"\nruntime = \"rust\"\nhandler = \"bin/run\"\n";
    let files = [("top/function.toml", manifest), ("top/bin/run", "binary")];
    let record = catalog.deploy("hello", &archive(&files), 0).unwrap().record;
    let executable = catalog.bundle_path(&record).join("bin/run");
    assert_eq!(std::fs::metadata(executable).unwrap().permissions().mode() & 0o7777, 0o755);
    assert_eq!(bundles(directory.path()), ["hello.1"]);
}

#[test]
fn a_full_disk_is_told_from_other_failures() {
    let full = io::Error::from_raw_os_error(nix::errno::Errno::ENOSPC as i32);
    let path = || PathBuf::from("/x");
    assert_eq!(CatalogError::Disk { path: path(), source: full }.fault(), Fault::DiskFull);
    let of_bundle = |errno| {
        let source = io::Error::from_raw_os_error(errno as i32);
        CatalogError::from(UnpackError::from(BundleError::Disk { path: path(), source })).fault()
    };
    assert_eq!(of_bundle(nix::errno::Errno::ENOSPC), Fault::DiskFull);
    assert_eq!(of_bundle(nix::errno::Errno::EIO), Fault::Internal);
    assert_eq!(CatalogError::from(RegistryError::Locked { path: path() }).fault(), Fault::Internal);
}

#[test]
fn a_second_worker_touches_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let _first = opened(directory.path());
    let under_way = directory.path().join("bundles/.incoming-1");
    std::fs::create_dir(&under_way).unwrap();
    assert!(Catalog::open(directory.path(), LIMITS).is_err());
    assert!(under_way.exists());
}
