//! `function.toml`: what a function says of itself.
//!
//! Invariant: a [`Manifest`] made by [`Manifest::parse`] is within the bounds below, and its handler and variables can be
//! given to a sandbox as they are. It does not know the bundle: whether the handler exists is checked when it is unpacked.

mod image;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::config::units::{GIB, KIB, MIB, MILLISECOND_NS, MINUTE_NS, SECOND_NS};
use crate::config::{Problem, Raw, Reader, Source, Value, idle_step_ns};
use crate::mechanisms::MechanismKind;
use crate::network::Network;

/// The file's name, at the root of a bundle.
pub const FILE_NAME: &str = "function.toml";
/// Longest name of a function, in bytes: that of a DNS label, so that a name can be a host name.
pub const NAME_BYTES_MAX: usize = 63;
/// Largest manifest, in bytes.
pub const FILE_BYTES_MAX: u64 = 64 * KIB;
/// Least memory of a sandbox.
pub const MEMORY_MIN_BYTES: u64 = 16 * MIB;
/// Longest run of an invocation.
pub const TIMEOUT_MAX_NS: u64 = 15 * MINUTE_NS;
/// Most invocations that one sandbox may run at once.
pub const CONCURRENCY_MAX: u32 = 64;
/// Most sandboxes that a function may have kept ready.
pub const MIN_WARM_MAX: u32 = 1024;
/// Most variables in `[env]`.
pub const ENVIRONMENT_COUNT_MAX: usize = 128;
/// Largest `[env]`: the sum of names and values, in bytes.
pub const ENVIRONMENT_BYTES_MAX: usize = 32 << 10;

/// Most modules in `preload`.
pub const PRELOAD_COUNT_MAX: usize = 64;

const HANDLER_BYTES_MAX: usize = 512;
const PYTHON_HANDLER: &str = "main.handler";
const NODE_HANDLER: &str = "index.handler";

// The environment fits its file.
const _: () = assert!(ENVIRONMENT_BYTES_MAX as u64 <= FILE_BYTES_MAX);

/// The language and form of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Runtime {
    /// A module of the bundle, run by the host's Python.
    Python,
    /// An executable of the bundle that speaks the rings.
    Rust,
    /// The same, linked with the library for C.
    C,
    /// A module of the bundle, run by the host's Node.
    Node,
}

impl Runtime {
    /// The word in the manifest.
    pub fn as_str(self) -> &'static str {
        match self {
            Runtime::Python => "python",
            Runtime::Rust => "rust",
            Runtime::C => "c",
            Runtime::Node => "node",
        }
    }

    /// The interpreter that an image must have; none where the handler is a program.
    pub fn interpreter(self) -> Option<&'static str> {
        match self {
            Runtime::Python => Some("python3"),
            Runtime::Node => Some("node"),
            Runtime::Rust | Runtime::C => None,
        }
    }

    /// Whether a sandbox can be a copy of another. Node has threads before it runs any code.
    pub(crate) fn is_copied(self) -> bool {
        self != Runtime::Node
    }
}

/// A checked `function.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// `[a-z0-9][a-z0-9-]{0,62}`.
    pub name: String,
    /// What runs it.
    pub runtime: Runtime,
    /// Python and Node: `module.function`; Rust and C: the executable's path inside the bundle.
    pub handler: String,
    /// Memory limit of each sandbox.
    pub memory_bytes: u64,
    /// Longest run of one invocation.
    pub timeout_ns: u64,
    /// Invocations that one sandbox runs at once.
    pub concurrency: u16,
    /// Sandboxes that are kept ready whether or not anybody asks.
    #[serde(default)]
    pub min_warm: u32,
    /// How long a sandbox is idle before it is frozen; 0: never; `None`: as the worker's `policies.freeze_after` says.
    #[serde(default)]
    pub freeze_after_ns: Option<u64>,
    /// Modules that are imported before the first invocation, besides the handler's own; Python only.
    #[serde(default)]
    pub preload: Vec<String>,
    /// Whether what invocations import is imported ahead as well, once it is known; Python only.
    #[serde(default = "yes")]
    pub learns_imports: bool,
    /// What makes its sandboxes; `None` is the worker's choice.
    #[serde(default)]
    pub mechanism: Option<MechanismKind>,
    /// The container image that it runs in: a file or folder of the bundle, or one of a registry.
    #[serde(default)]
    pub image: Option<String>,
    /// What it reaches.
    #[serde(default)]
    pub network: Network,
    /// Variables given to the function.
    pub environment: BTreeMap<String, String>,
}

/// What a record of before this setting says.
fn yes() -> bool {
    true
}

impl Manifest {
    /// Reads and checks the text of a manifest; all problems at once.
    pub fn parse(text: &str) -> Result<Manifest, Vec<Problem>> {
        let (raw, problems) = Raw::parse(FILE_NAME, text);
        let mut reader = Reader::new(raw, problems);
        let name = required(&mut reader, "name", "name = \"hello\"", check_name);
        let runtimes = [Runtime::Python, Runtime::Rust, Runtime::C, Runtime::Node].map(|one| (one.as_str(), one));
        let runtime = if reader.has("runtime") {
            reader.choice("runtime", Runtime::Python, &runtimes)
        } else {
            required(&mut reader, "runtime", "runtime = \"python\", \"node\", \"rust\" or \"c\"", |_| Ok(()));
            Runtime::Python
        };
        let handler = handler(&mut reader, runtime);
        let memory_bytes = reader.bytes("memory", 128 * MIB, MEMORY_MIN_BYTES..=1024 * GIB);
        let timeout_ns = reader.duration_ns("timeout", 3 * SECOND_NS, MILLISECOND_NS..=TIMEOUT_MAX_NS);
        let concurrency = reader.count("concurrency", 1, 1..=CONCURRENCY_MAX) as u16;
        let min_warm = reader.count("min_warm", 0, 0..=MIN_WARM_MAX);
        let freeze_after_ns = reader.read("freeze_after", idle_step_ns);
        let preload = preload(&mut reader, runtime);
        let learns_imports = learns_imports(&mut reader, runtime);
        let mechanism = mechanism(&mut reader);
        let image = image::read(&mut reader);
        let network = reader.choice("network", Network::None, &Network::CHOICES);
        let environment = environment(&mut reader);
        reader.finish()?;
        Ok(Manifest {
            name,
            runtime,
            handler,
            memory_bytes,
            timeout_ns,
            concurrency,
            min_warm,
            freeze_after_ns,
            preload,
            learns_imports,
            mechanism,
            image,
            network,
            environment,
        })
    }
}

const _: () = assert!(CONCURRENCY_MAX <= u16::MAX as u32);

/// Whether `name` can be a function's. The message says what to write.
pub fn check_name(name: &str) -> Result<(), String> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = name.as_bytes();
    let is_name = bytes.first().is_some_and(|byte| allowed(*byte))
        && bytes.iter().all(|byte| allowed(*byte) || *byte == b'-')
        && bytes.len() <= NAME_BYTES_MAX;
    if is_name {
        return Ok(());
    }
    Err(format!(
        "\"{}\" is not a function name: write 1 to {NAME_BYTES_MAX} of a-z, 0-9 and -, the first of them not -",
        name.escape_default()
    ))
}

/// The text of a key that has no default; empty, with a problem noted, if it is missing or wrong.
fn required(
    reader: &mut Reader,
    key: &'static str,
    example: &str,
    check: impl FnOnce(&str) -> Result<(), String>,
) -> String {
    if !reader.has(key) {
        let source = Source::File { path: FILE_NAME.into(), line: 1 };
        reader.problem_at(Problem { source, key: key.to_owned(), message: format!("is missing: write {example}") });
    }
    let Some(text) = reader.text(key) else {
        return String::new();
    };
    if let Err(message) = check(&text) {
        reader.problem(key, message);
    }
    text
}

fn handler(reader: &mut Reader, runtime: Runtime) -> String {
    let default = match runtime {
        Runtime::Python => Some(PYTHON_HANDLER),
        Runtime::Node => Some(NODE_HANDLER),
        Runtime::Rust | Runtime::C => None,
    };
    match runtime {
        _ if default.is_some() && !reader.has("handler") => {
            reader.text("handler");
            default.unwrap_or_default().to_owned()
        }
        Runtime::Node => required(reader, "handler", "handler = \"index.handler\"", check_node_handler),
        Runtime::Python => required(reader, "handler", "handler = \"main.handler\"", check_python_handler),
        Runtime::Rust | Runtime::C => {
            required(reader, "handler", "handler = \"the-built-executable\"", check_executable)
        }
    }
}

/// Modules to import ahead.
fn preload(reader: &mut Reader, runtime: Runtime) -> Vec<String> {
    let is_set = reader.has("preload");
    let names = reader.read("preload", |value| {
        const WANTED: &str = "expected a list of module names, for example [\"json\", \"numpy\"]";
        let Value::List(names) = value else { return Err(WANTED.to_owned()) };
        let texts = names.iter().map(|name| if let Value::Text(name) = name { Some(name.as_str()) } else { None });
        let names: Vec<&str> = texts.collect::<Option<_>>().ok_or(WANTED)?;
        if names.len() > PRELOAD_COUNT_MAX {
            return Err(format!("{} modules are too many: at most {PRELOAD_COUNT_MAX}", names.len()));
        }
        match names.iter().find(|name| !is_module_name(name)) {
            Some(name) => Err(format!("\"{}\" is not the name of a module", name.escape_debug())),
            None => Ok(names.into_iter().map(str::to_owned).collect()),
        }
    });
    if is_set && runtime != Runtime::Python {
        reader.problem("preload", "only Python functions import modules: remove it".to_owned());
    }
    names.unwrap_or_default()
}

fn learns_imports(reader: &mut Reader, runtime: Runtime) -> bool {
    let is_set = reader.has("learn_imports");
    let learns = reader.boolean("learn_imports", true);
    if is_set && runtime != Runtime::Python {
        reader.problem("learn_imports", "only Python functions import modules: remove it".to_owned());
    }
    learns
}

/// Whether Python could import something of this name.
pub(crate) fn is_module_name(name: &str) -> bool {
    name.len() <= HANDLER_BYTES_MAX && name.split('.').all(is_identifier)
}

fn is_identifier(part: &str) -> bool {
    let is_start = |c: char| c == '_' || c.is_alphabetic();
    part.starts_with(is_start) && part.chars().all(|c| is_start(c) || c.is_alphanumeric())
}

fn check_python_handler(handler: &str) -> Result<(), String> {
    let parts: Vec<&str> = handler.split('.').collect();
    if handler.len() <= HANDLER_BYTES_MAX && parts.len() >= 2 && parts.iter().all(|part| is_identifier(part)) {
        return Ok(());
    }
    Err(format!(
        "\"{}\" does not name a function of a module: write module.function, for example \"{PYTHON_HANDLER}\"",
        handler.escape_debug()
    ))
}

/// `folder/module.function`: the module's name has no dot, so that what is exported may be within something.
fn check_node_handler(handler: &str) -> Result<(), String> {
    let file = handler.rsplit('/').next().unwrap_or(handler);
    let (module, export) = file.split_once('.').unwrap_or((file, ""));
    if !module.is_empty() && !export.is_empty() && export.split('.').all(|part| !part.is_empty()) {
        return check_inner_path(handler, "the module");
    }
    Err(format!(
        "\"{}\" does not name a function of a module: write module.function, for example \"{NODE_HANDLER}\"",
        handler.escape_debug()
    ))
}

fn check_executable(handler: &str) -> Result<(), String> {
    check_inner_path(handler, "the executable")
}

fn check_inner_path(path: &str, whose: &str) -> Result<(), String> {
    let is_component = |part: &str| !matches!(part, "" | "." | "..");
    let clean = !path.chars().any(|c| c.is_control() || c == '\\');
    if path.len() <= HANDLER_BYTES_MAX && clean && path.split('/').all(is_component) {
        return Ok(());
    }
    Err(format!(
        "\"{}\" is not a path inside the bundle: write {whose}'s path relative to {FILE_NAME}, without \"..\"",
        path.escape_debug()
    ))
}

fn mechanism(reader: &mut Reader) -> Option<MechanismKind> {
    let written = reader.has("mechanism");
    let chosen = reader.choice("mechanism", MechanismKind::Native, &MechanismKind::CHOICES);
    written.then_some(chosen)
}

fn environment(reader: &mut Reader) -> BTreeMap<String, String> {
    let mut environment = BTreeMap::new();
    let mut bytes = 0usize;
    let written = reader.text_table("env");
    let count = written.len();
    for (name, value, source) in written {
        bytes = bytes.saturating_add(name.len()).saturating_add(value.len());
        if let Err(message) = check_variable(&name, &value) {
            reader.problem_at(Problem { source, key: format!("env.{name}"), message });
        }
        environment.insert(name, value);
    }
    let too_many = count > ENVIRONMENT_COUNT_MAX;
    if too_many || bytes > ENVIRONMENT_BYTES_MAX {
        let message = format!(
            "{count} variables of {bytes} bytes are too many: at most {ENVIRONMENT_COUNT_MAX} variables and \
             {ENVIRONMENT_BYTES_MAX} bytes of names and values; put larger data in a file of the bundle"
        );
        let source = reader.table_source("env");
        reader.problem_at(Problem { source, key: "env".to_owned(), message });
    }
    environment
}

fn check_variable(name: &str, value: &str) -> Result<(), String> {
    let is_start = |byte: u8| byte == b'_' || byte.is_ascii_alphabetic();
    let bytes = name.as_bytes();
    let is_name = bytes.first().is_some_and(|byte| is_start(*byte))
        && bytes.iter().all(|byte| is_start(*byte) || byte.is_ascii_digit());
    if !is_name {
        return Err("is not a variable name: write letters, digits and _, the first not a digit".to_owned());
    }
    if name.starts_with("VILYA_") {
        return Err("names that start with VILYA_ are set by the worker: choose another name".to_owned());
    }
    if value.contains('\0') {
        return Err("the value holds a NUL, which no variable can: encode it".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<String> {
        Manifest::parse(text).unwrap_err().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_short_manifest_takes_the_defaults() {
        let manifest = Manifest::parse("name = \"hello\"\nruntime = \"python\"\n").unwrap();
        assert_eq!(manifest.handler, "main.handler");
        assert_eq!((manifest.memory_bytes, manifest.timeout_ns), (128 * MIB, 3 * SECOND_NS));
        assert_eq!((manifest.concurrency, manifest.environment.len()), (1, 0));
        assert_eq!(manifest.mechanism, None, "the worker's choice");
        assert_eq!((manifest.min_warm, manifest.freeze_after_ns), (0, None), "the worker's choice");
        let freeze_after = |text: &str| format!("name = \"a\"\nruntime = \"python\"\nfreeze_after = {text}\n");
        assert_eq!(Manifest::parse(&freeze_after("\"off\"")).unwrap().freeze_after_ns, Some(0));
        for wrong in ["\"0s\"", "10", "\"25h\"", "\"on\""] {
            let problem = &problems(&freeze_after(wrong))[0];
            assert!(
                problem.starts_with("function.toml:3: freeze_after: ") && problem.ends_with("\"off\""),
                "{problem}"
            );
        }
        assert_eq!(manifest.network, Network::None);
    }

    #[test]
    fn a_full_manifest_is_read_and_survives_json() {
        let text = "\
name = \"thumb-nail\"
runtime = \"rust\"
handler = \"bin/thumbnail\"
memory = \"256MiB\"
timeout = \"15m\"
concurrency = 64
min_warm = 2
freeze_after = \"1500ms\"
mechanism = \"oci\"
network = \"host-loopback\"
[env]
QUALITY = \"80\"
_x1 = \"\"
";
        let manifest = Manifest::parse(text).unwrap();
        assert_eq!(manifest.runtime.as_str(), "rust");
        assert_eq!(manifest.environment["QUALITY"], "80");
        assert_eq!((manifest.min_warm, manifest.freeze_after_ns), (2, Some(1_500_000_000)));
        let json = serde_json::to_string(&manifest).unwrap();
        assert!(json.contains("\"runtime\":\"rust\""));
        assert_eq!(serde_json::from_str::<Manifest>(&json).unwrap(), manifest);
        assert_eq!(manifest.mechanism, Some(MechanismKind::Oci));
        assert_eq!(manifest.network, Network::HostLoopback);
        let older = json.replace(",\"mechanism\":\"oci\"", "").replace(",\"network\":\"host-loopback\"", "");
        assert_ne!(older, json);
        let older = serde_json::from_str::<Manifest>(&older).unwrap();
        assert_eq!((older.mechanism, older.network), (None, Network::None), "a record of an earlier version");
    }

    #[test]
    fn every_problem_is_reported_with_its_line() {
        let text = "\
name = \"Hello\"
runtime = \"pyton\"
handler = \"main\"
memory = \"1MiB\"
timeout = \"16m\"
concurency = 2
mechanism = \"ocy\"
[env]
VILYA_X = \"1\"
NUMBER = 5
\"A-B\" = \"x\"
NUL = \"\\u0000\"
";
        let expected = [
            "function.toml:1: name: \"Hello\" is not a function name",
            "function.toml:2: runtime: \"pyton\" is not one of \"python\", \"rust\", \"c\", \"node\"; did you mean \"python\"?",
            "function.toml:3: handler: \"main\" does not name a function of a module",
            "function.toml:4: memory: 1MiB is out of range: write 16MiB",
            "function.toml:5: timeout: 16m is out of range: write 1ms to 15m",
            "function.toml:6: concurency: there is no such setting; did you mean \"concurrency\"?",
            "function.toml:7: mechanism: \"ocy\" is not one of \"native\", \"oci\", \"docker\"; did you mean \"oci\"?",
            "function.toml:9: env.VILYA_X: names that start with VILYA_",
            "function.toml:10: env.NUMBER: expected a string in quotes, found a number",
            "function.toml:11: env.A-B: is not a variable name",
            "function.toml:12: env.NUL: the value holds a NUL",
        ];
        let problems = problems(text);
        assert_eq!(problems.len(), expected.len(), "{problems:#?}");
        for (problem, expected) in problems.iter().zip(expected) {
            assert!(problem.starts_with(expected), "{problem}");
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let missing = problems("");
        assert_eq!(missing.len(), 2, "{missing:?}");
        assert!(missing[0].contains("name: is missing") && missing[1].contains("runtime: is missing"));
        assert!(problems("name = \"a\"\nruntime = \"rust\"\n")[0].contains("handler: is missing"));
        assert_eq!(problems("name = 1\nruntime = \"python\"\n").len(), 1);
        assert_eq!(problems("name = \"\"\nruntime = \"python\"\n").len(), 1);
    }

    #[test]
    fn handlers_stay_inside_the_bundle() {
        for handler in ["../x", "/bin/sh", "a//b", "a/./b", "a/..", "", "a\\\\b", "a\\u0000"] {
            for runtime in ["rust", "c"] {
                let text = format!("name = \"a\"\nruntime = \"{runtime}\"\nhandler = \"{handler}\"\n");
                assert_eq!(problems(&text).len(), 1, "{runtime}: {handler}");
            }
        }
        for handler in ["main", ".handler", "main.", "main.1x", "a b.c", "a/b.c"] {
            let text = format!("name = \"a\"\nruntime = \"python\"\nhandler = \"{handler}\"\n");
            assert_eq!(problems(&text).len(), 1, "{handler}");
        }
        assert!(Manifest::parse("name = \"a\"\nruntime = \"python\"\nhandler = \"a.b_1.c\"\n").is_ok());
        for handler in ["index", ".handler", "index.", "../index.handler", "/index.handler", "a/../b.c", "a..b"] {
            let text = format!("name = \"a\"\nruntime = \"node\"\nhandler = \"{handler}\"\n");
            assert_eq!(problems(&text).len(), 1, "{handler}");
        }
        for handler in ["index.handler", "src/my-index.handler", "a.b.c"] {
            let text = format!("name = \"a\"\nruntime = \"node\"\nhandler = \"{handler}\"\n");
            assert_eq!(Manifest::parse(&text).unwrap().handler, handler);
        }
        assert_eq!(Manifest::parse("name = \"a\"\nruntime = \"node\"\n").unwrap().handler, "index.handler");
    }

    #[test]
    fn modules_to_import_ahead_are_names() {
        let manifest =
            |preload: &str| Manifest::parse(&format!("name = \"a\"\nruntime = \"python\"\npreload = {preload}\n"));
        assert_eq!(manifest("[\"json\", \"os.path\"]").unwrap().preload, ["json", "os.path"]);
        for wrong in ["\"json\"", "[1]", "[\"a b\"]", "[\"../x\"]", "[\"\"]"] {
            assert_eq!(manifest(wrong).unwrap_err().len(), 1, "{wrong}");
        }
        assert_eq!(problems("name = \"a\"\nruntime = \"rust\"\nhandler = \"x\"\npreload = [\"json\"]\n").len(), 1);
        let learns = |text: &str| Manifest::parse(&format!("name = \"a\"\nruntime = \"python\"\n{text}\n"));
        assert!(learns("").unwrap().learns_imports && !learns("learn_imports = false").unwrap().learns_imports);
        assert_eq!(learns("learn_imports = 3").unwrap_err().len(), 1);
        assert_eq!(problems("name = \"a\"\nruntime = \"rust\"\nhandler = \"x\"\nlearn_imports = true\n").len(), 1);
    }

    #[test]
    fn names_are_bounded() {
        assert!(check_name(&"a".repeat(63)).is_ok() && check_name("0-a").is_ok());
        for name in ["", "-a", "a_b", "A", "a/b", "a.b", "é", &"a".repeat(64)] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }

    #[test]
    fn the_environment_is_bounded() {
        let header = "name = \"a\"\nruntime = \"python\"\n[env]\n";
        let many: String = (0..=ENVIRONMENT_COUNT_MAX).map(|i| format!("V{i} = \"x\"\n")).collect();
        assert!(problems(&format!("{header}{many}"))[0].starts_with("function.toml:3: env: 129 variables"));
        let large = format!("{header}V = \"{}\"\n", "x".repeat(ENVIRONMENT_BYTES_MAX));
        assert!(problems(&large)[0].contains("too many"));
    }
}
