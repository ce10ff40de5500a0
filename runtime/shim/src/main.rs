//! `orlop-shim CONTAINER_DIR`: starts the container described there, and stays with it.

use std::process::ExitCode;

fn main() -> ExitCode {
    orlop_shim::main()
}
