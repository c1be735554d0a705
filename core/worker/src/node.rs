//! Which Node runs the functions of the `node` runtime, and the addon that it needs.
//!
//! Invariant: nothing is run to find them, since most workers have no Node function; whether Node is recent enough and the
//! addon of this release is looked at inside, by the runtime. It knows no functions.

use std::path::{Path, PathBuf};

use crate::config::{Interpreter, NodeSettings};
use crate::runtimes::{RUNTIMES, RUNTIMES_INSIDE, lay_out, put};

/// The addon's name, as cargo builds it and as it is laid out.
const BUILT: &str = "libvilya_node.so";
const ADDON: &str = "vilya.node";
/// Where the package has it, below a folder of modules.
const PACKAGED: &str = "@vilya/runtime/vilya.node";
const MIB: u64 = 1 << 20;

/// The Node that runs functions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeHome {
    /// The interpreter's path, the same outside and inside.
    interpreter: PathBuf,
    /// A folder that the interpreter needs and that is not under `/usr`.
    pub(crate) prefix: Option<PathBuf>,
}

/// Finds Node and the addon, and writes the runtime's files under the state directory.
pub(crate) fn prepare(settings: &NodeSettings, state_directory: &Path) -> Result<NodeHome, String> {
    let home = find(&settings.interpreter)?;
    let addon = find_addon(&settings.addon, &home)?;
    let runtime = state_directory.join(RUNTIMES).join("node");
    let unwritten = |error| format!("the Node runtime cannot be written to {}: {error}", runtime.display());
    let bytes = std::fs::read(&addon).map_err(|error| format!("{} cannot be read: {error}", addon.display()))?;
    lay_out(&runtime, vilya_isolate::runtimes::NODE).map_err(unwritten)?;
    put(&runtime.join(ADDON), &bytes).map_err(unwritten)?;
    Ok(home)
}

impl NodeHome {
    /// The command that runs a function within this memory.
    pub(crate) fn command(&self, memory_bytes: u64) -> Vec<String> {
        arguments(self.interpreter.to_string_lossy().into_owned(), memory_bytes)
    }
}

/// The last word of the command of a process that waits to be told its function.
pub(crate) const AHEAD: &str = "ahead";

/// The command of an interpreter inside. V8 takes its heap's limit from the machine's memory, and would be killed for it:
/// what is young has an eighth of the sandbox's at most, what is old three quarters, and the rest is for everything else.
pub(crate) fn arguments(interpreter: String, memory_bytes: u64) -> Vec<String> {
    let (old, semi) = (memory_bytes * 3 / 4 / MIB, (memory_bytes / 32 / MIB).clamp(1, 16));
    vec![
        interpreter,
        format!("--max-old-space-size={old}"),
        format!("--max-semi-space-size={semi}"),
        format!("{RUNTIMES_INSIDE}/node/vilya_runtime/main.cjs"),
        format!("{RUNTIMES_INSIDE}/node/{ADDON}"),
        env!("CARGO_PKG_VERSION").into(),
    ]
}

/// What it needs in its environment: its rings are not io_uring, which no sandbox may use.
pub(crate) const ENVIRONMENT: (&str, &str) = ("UV_USE_IO_URING", "0");

/// The interpreter, if it and the addon are there.
pub(crate) fn interpreter(settings: &NodeSettings) -> Result<PathBuf, String> {
    let home = find(&settings.interpreter)?;
    find_addon(&settings.addon, &home)?;
    Ok(home.interpreter)
}

fn find(wanted: &Interpreter) -> Result<NodeHome, String> {
    let candidates: Vec<PathBuf> = match wanted {
        Interpreter::Path(path) => vec![path.clone()],
        Interpreter::Auto => {
            let usual = ["/usr/bin/node", "/usr/local/bin/node"].map(PathBuf::from);
            let path = std::env::var_os("PATH").unwrap_or_default();
            let searched = std::env::split_paths(&path).map(|folder| folder.join("node"));
            usual.into_iter().chain(searched).collect()
        }
    };
    let real = candidates.iter().find_map(|candidate| candidate.canonicalize().ok().filter(|path| path.is_file()));
    let interpreter = real.ok_or_else(|| match wanted {
        Interpreter::Path(path) => format!("runtimes.node.interpreter = \"{}\" is not there", path.display()),
        Interpreter::Auto => "no Node was found: install nodejs 18 or later, or set runtimes.node.interpreter".into(),
    })?;
    let prefix = prefix_of(&interpreter)?;
    Ok(NodeHome { interpreter, prefix })
}

/// The folder to bring along: that of `bin` for `bin/node`, and none where every sandbox has it.
fn prefix_of(interpreter: &Path) -> Result<Option<PathBuf>, String> {
    if interpreter.starts_with("/usr") {
        return Ok(None);
    }
    let folder = interpreter.parent().unwrap_or(interpreter);
    let prefix = if folder.ends_with("bin") { folder.parent().unwrap_or(folder) } else { folder };
    if prefix == Path::new("/") {
        return Err(format!(
            "{} lies at the root, which cannot be shown in a sandbox: move it to a folder of its own",
            interpreter.display()
        ));
    }
    Ok(Some(prefix.to_owned()))
}

fn find_addon(wanted: &Interpreter, home: &NodeHome) -> Result<PathBuf, String> {
    match wanted {
        Interpreter::Path(path) if path.is_file() => Ok(path.clone()),
        Interpreter::Path(path) => Err(format!("runtimes.node.addon = \"{}\" is not there", path.display())),
        Interpreter::Auto => {
            let own = std::env::current_exe().ok();
            let places = addon_places(own.as_deref(), home);
            let told = || {
                let places: Vec<_> = places.iter().map(|place| place.display().to_string()).collect();
                format!(
                    "the addon of the Node runtime is not at {}: build it with `cargo build --release -p vilya-node` and \
                     set runtimes.node.addon to the {BUILT} it made, or install the package with `npm install -g`",
                    places.join(", ")
                )
            };
            places.iter().find(|place| place.is_file()).cloned().ok_or_else(told)
        }
    }
}

/// Beside the worker's program, where its libraries would be, and where `npm install -g` puts packages.
fn addon_places(own: Option<&Path>, home: &NodeHome) -> Vec<PathBuf> {
    let folder = own.and_then(Path::parent);
    let beside = folder.map(|folder| folder.join(BUILT));
    let library = folder.and_then(Path::parent).map(|prefix| prefix.join("lib/vilya").join(BUILT));
    let prefixes = [Some(Path::new("/usr")), Some(Path::new("/usr/local")), home.prefix.as_deref()];
    let packages = prefixes.into_iter().flatten().map(|prefix| prefix.join("lib/node_modules").join(PACKAGED));
    beside.into_iter().chain(library).chain(packages).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heap_fits_its_sandbox() {
        let arguments = arguments("/usr/bin/node".into(), 128 * MIB);
        assert!(arguments.contains(&"--max-old-space-size=96".into()), "{arguments:?}");
        assert!(arguments.contains(&"--max-semi-space-size=4".into()), "{arguments:?}");
    }

    #[test]
    fn a_node_elsewhere_brings_its_folder() {
        let of = |path: &str| prefix_of(Path::new(path));
        assert_eq!(of("/usr/bin/node"), Ok(None));
        assert_eq!(of("/usr/local/bin/node"), Ok(None));
        assert_eq!(of("/opt/node/bin/node"), Ok(Some("/opt/node".into())));
        assert_eq!(of("/opt/node/node"), Ok(Some("/opt/node".into())));
        assert!(of("/bin/node").is_err() && of("/node").is_err());
    }

    #[test]
    fn what_is_missing_is_named_with_what_to_do() {
        let nowhere = Interpreter::Path("/nowhere/node".into());
        assert!(find(&nowhere).unwrap_err().contains("runtimes.node.interpreter"));
        let home = NodeHome { interpreter: "/opt/n/bin/node".into(), prefix: Some("/opt/n".into()) };
        assert!(find_addon(&nowhere, &home).unwrap_err().contains("runtimes.node.addon"));
        let places = addon_places(Some(Path::new("/a/bin/vilya")), &home);
        for place in ["/a/bin/libvilya_node.so", "/a/lib/vilya/libvilya_node.so"] {
            assert!(places.contains(&place.into()), "{places:?}");
        }
        assert!(places.contains(&"/opt/n/lib/node_modules/@vilya/runtime/vilya.node".into()), "{places:?}");
    }

    #[test]
    fn the_runtime_is_laid_out_whole() {
        let folder = tempfile::tempdir().unwrap();
        let addon = folder.path().join("built.so");
        std::fs::write(&addon, b"addon").unwrap();
        let node = folder.path().join("bin/node");
        std::fs::create_dir(folder.path().join("bin")).unwrap();
        std::fs::write(&node, b"").unwrap();
        let settings = NodeSettings { interpreter: Interpreter::Path(node), addon: Interpreter::Path(addon) };
        let home = prepare(&settings, folder.path()).unwrap();
        assert_eq!(home.prefix, Some(folder.path().canonicalize().unwrap()));
        let laid = folder.path().join("runtimes/node");
        assert_eq!(std::fs::read(laid.join(ADDON)).unwrap(), b"addon");
        assert!(laid.join("vilya_runtime/main.cjs").is_file());
    }
}
