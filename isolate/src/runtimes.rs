//! The texts of the runtimes that the worker lays out for sandboxes.
//!
//! Owns: carrying them inside the binary, so that a worker is one file. Invariant: paths are relative and stay below where they are laid
//! out. Does not know: what is in them.

macro_rules! carried {
    ($language:literal, $directory:literal: $($file:literal),* $(,)?) => {
        &[$((
            concat!($directory, "/", $file),
            include_str!(concat!("../runtimes/", $language, "/", $directory, "/", $file)),
        ),)*]
    };
}

/// The Python runtime: path below its directory, and text.
pub const PYTHON: &[(&str, &str)] = carried!("python", "vilya_runtime":
    "__init__.py",
    "__main__.py",
    "channel.py",
    "context.py",
    "failures.py",
    "handlers.py",
    "kernel.py",
    "layout.py",
    "imports.py",
    "memory.py",
    "metadata.py",
    "output.py",
    "server.py",
    "vilya.py",
    "windows.py",
    "zygote.py",
);

/// The Node runtime but for its addon, which is built and found apart: path below its directory, and text.
pub const NODE: &[(&str, &str)] = carried!("node", "vilya_runtime":
    "context.cjs",
    "failures.cjs",
    "handlers.cjs",
    "main.cjs",
    "server.cjs",
);

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::{NODE, PYTHON};

    #[test]
    fn every_file_of_a_runtime_is_carried() {
        for (language, ending, runtime) in [("python", ".py", PYTHON), ("node", ".cjs", NODE)] {
            let directory = format!("runtimes/{language}/vilya_runtime");
            let entries = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(directory));
            let entries = entries.expect("the runtime's directory").map(|entry| entry.expect("an entry"));
            let names = entries.map(|entry| entry.file_name().into_string().expect("a plain name"));
            let files: BTreeSet<String> =
                names.filter(|name| name.ends_with(ending)).map(|name| format!("vilya_runtime/{name}")).collect();
            let carried: BTreeSet<String> = runtime.iter().map(|(path, _)| (*path).to_owned()).collect();
            assert_eq!(carried, files);
        }
    }
}
