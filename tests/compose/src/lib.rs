//! The cluster of `compose.yaml` for its test: built from the executable that is there, started,
//! disturbed and taken away again on the local Docker engine.

pub mod docker;
pub mod image;
pub mod readme;
pub mod stack;
pub mod trace;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;

/// How long any state may take to come. Generous: machines are slow, and no test is about time.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Tries until it succeeds, for as long as [`PATIENCE`] lasts.
///
/// # Errors
/// The last failure.
pub fn eventually<T>(
    what: &str,
    mut attempt: impl FnMut() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    #[expect(clippy::disallowed_methods, reason = "a test outside of the cluster's world")]
    let now = Instant::now;
    let deadline = now() + PATIENCE;
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if now() > deadline => {
                let limit = PATIENCE.as_secs();
                return Err(error).with_context(|| format!("{what}: not within {limit} s"));
            }
            Err(_) => std::thread::park_timeout(Duration::from_millis(200)),
        }
    }
}

/// The repository.
///
/// # Errors
/// The test runs from somewhere else.
pub fn repository() -> anyhow::Result<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    path.canonicalize().with_context(|| format!("{} is gone", path.display()))
}
