//! Compiles the launcher of Docker containers, which is carried inside the worker.
//!
//! Owns: how it is compiled. Invariant: without a launcher for the architecture the build succeeds all the same, and the mechanism says that
//! it has none. Does not know: what the launcher does.

use std::env;
use std::path::PathBuf;
use std::process::Command;

const SOURCE: &str = "src/mechanism/docker/launcher.rs";

fn main() {
    println!("cargo::rerun-if-changed={SOURCE}");
    println!("cargo::rerun-if-changed=build.rs");
    let set = |name: &str| env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"));
    let launcher = PathBuf::from(set("OUT_DIR")).join("launcher");
    if !["x86_64", "aarch64"].contains(&set("CARGO_CFG_TARGET_ARCH").as_str()) {
        std::fs::write(&launcher, "").expect("the build's own directory can be written");
        return;
    }
    let mut compile = Command::new(set("RUSTC"));
    compile.args(["--edition", "2024", "--crate-name", "launcher", "--crate-type", "bin", SOURCE, "-o"]).arg(&launcher);
    compile.args(["--target", &set("TARGET")]);
    // Small, without start files, libraries and unwinding, and at a fixed address: there is nobody to relocate it.
    for option in ["panic=abort", "opt-level=s", "strip=symbols", "relocation-model=static", "overflow-checks=off"] {
        compile.args(["-C", option]);
    }
    for argument in ["-nostartfiles", "-nostdlib", "-static", "-no-pie", "-Wl,--build-id=none"] {
        compile.arg(format!("-Clink-arg={argument}"));
    }
    if let Ok(linker) = env::var("RUSTC_LINKER") {
        compile.arg(format!("-Clinker={linker}"));
    }
    let status = compile.status().expect("the compiler that compiles everything else runs");
    assert!(status.success(), "the launcher does not compile");
}
