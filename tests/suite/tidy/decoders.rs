//! The worker's process decodes nothing that a client sent: it depends on no decoder of archives, and names none of the functions that use
//! one. Who may is the process that runs `vilya_image::work`.

use super::edges::dependencies;
use super::lexer::code_only;
use super::{Violation, files, hold, root_file};

/// What decompresses or reads archives.
const DECODERS: [&str; 5] = ["flate2", "ruzstd", "tar", "zip", "zstd"];
/// What uses them, in the package that has them.
const USES: [&str; 4] = ["Image::open", "open_archive(", "bundle::unpack", "vilya_image::work("];
const WORKER: &str = "core/worker/";

#[test]
fn the_worker_decodes_nothing() {
    let manifest = root_file(&format!("{WORKER}Cargo.toml"));
    let sources = files(&["rs"]).into_iter().filter(|file| file.path.starts_with(&format!("{WORKER}src/")));
    let sources =
        sources.filter(|file| !file.path.ends_with("tests.rs")).map(|file| (file.path, code_only(&file.text)));
    hold(&decoding(&manifest, &sources.collect::<Vec<_>>()));
}

fn decoding(manifest: &str, sources: &[(String, String)]) -> Vec<Violation> {
    let manifest: toml::Table = manifest.parse().expect("a manifest is TOML");
    let depends = dependencies(&manifest, &["dependencies", "build-dependencies"]);
    let depends = depends.iter().filter(|name| DECODERS.contains(&name.as_str()));
    let depends = depends.map(|name| format!("{WORKER}Cargo.toml: {name} belongs into what a confined process runs"));
    let used = sources.iter().flat_map(|(path, text)| {
        let used = USES.iter().filter(|name| text.contains(**name));
        used.map(move |name| format!("{path}: `{name}` is for the confined process; ask that"))
    });
    depends.chain(used).collect()
}

#[cfg(test)]
mod can_fail {
    use super::decoding;

    #[test]
    fn a_worker_that_decodes() {
        let of = |manifest: &str, text: &str| decoding(manifest, &[("a.rs".to_owned(), text.to_owned())]).len();
        assert_eq!(of("[dev-dependencies]\ntar = {}\n", "Unpacker::start(vilya_image::work)"), 0);
        assert_eq!(of("[dependencies]\ntar = {}\nzip = {}\n", ""), 2);
        assert_eq!(of("", "vilya_image::Image::open(path)"), 1);
        assert_eq!(of("", "vilya_image::work(&request)"), 1);
        assert_eq!(of("", "bundle::unpack(archive)"), 1);
    }
}
