//! Makes a golden data directory with the release at hand; see `tests/processes/golden/README.md`.

use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use plinth_test_processes::golden;

fn main() -> anyhow::Result<()> {
    let archive = std::env::args_os().nth(1).context("name the archive to be made")?;
    let archive = std::path::absolute(PathBuf::from(archive))?;
    ensure!(!archive.exists(), "{} is there already, and is never made again", archive.display());
    golden::make(&archive)?;
    println!("{}: {} bytes", archive.display(), std::fs::metadata(&archive)?.len());
    Ok(())
}
