//! The `vilya` command, built by this package so that its tests find it however they are run.

fn main() -> std::process::ExitCode {
    vilya::main()
}
