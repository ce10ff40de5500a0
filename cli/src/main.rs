//! The binary `orlop`.

use std::process::ExitCode;

fn main() -> ExitCode {
    orlop_cli::main()
}
