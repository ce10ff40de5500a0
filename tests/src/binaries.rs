//! Where the binaries under test are, and which other programs the machine has.

use std::path::PathBuf;

/// A binary of this workspace, from the directory that the running program was built into: tests are
/// in `deps` below it, other programs in itself.
pub fn binary(name: &str) -> PathBuf {
    let program = std::env::current_exe().unwrap();
    let directory = program.parent().unwrap();
    let profile = if directory.ends_with("deps") {
        directory.parent().unwrap()
    } else {
        directory
    };
    let path = profile.join(name);
    assert!(
        path.exists(),
        "{} is not built: run `cargo build --workspace --bins`",
        path.display()
    );
    path
}

/// Whether a program of that name is on the `PATH`.
pub fn have(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).exists())
}
