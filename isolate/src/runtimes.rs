//! The texts of the runtimes that the worker lays out for sandboxes.
//!
//! Owns: carrying them inside the binary, so that a worker is one file. Invariant: paths are relative and stay below where they are laid
//! out. Does not know: what is in them.

macro_rules! carried {
    ($directory:literal: $($file:literal),* $(,)?) => {
        &[$((
            concat!($directory, "/", $file),
            include_str!(concat!("../runtimes/python/", $directory, "/", $file)),
        ),)*]
    };
}

/// The Python runtime: path below its directory, and text.
pub const PYTHON: &[(&str, &str)] = carried!("vilya_runtime":
    "__init__.py",
    "__main__.py",
    "channel.py",
    "context.py",
    "failures.py",
    "handlers.py",
    "kernel.py",
    "layout.py",
    "memory.py",
    "metadata.py",
    "output.py",
    "server.py",
    "vilya.py",
    "windows.py",
    "zygote.py",
);

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::PYTHON;

    #[test]
    fn every_file_of_the_python_runtime_is_carried() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("runtimes/python/vilya_runtime");
        let entries = std::fs::read_dir(directory).expect("the runtime's directory");
        let names = entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("a plain name"));
        let files: BTreeSet<String> =
            names.filter(|name| name.ends_with(".py")).map(|name| format!("vilya_runtime/{name}")).collect();
        let carried: BTreeSet<String> = PYTHON.iter().map(|(path, _)| (*path).to_owned()).collect();
        assert_eq!(carried, files);
    }
}
