//! The `plinth` executable.

use std::process::ExitCode;

fn main() -> ExitCode {
    plinth::main()
}
