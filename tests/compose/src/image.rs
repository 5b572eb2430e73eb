//! The images: the Dockerfile's stage `prebuilt` around the executable of this build, and the
//! receiver of traces on top of it.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail, ensure};

use crate::docker::{docker, run};
use crate::repository;

/// The cluster's image.
pub const PLINTH: &str = "plinth-test-compose:prebuilt";
/// The receiver's.
pub const RECORDER: &str = "plinth-test-compose:recorder";

/// The base images that will do, the first that is there: the one that the Dockerfile names, and the
/// one that `tools/setup-compose` makes where no registry answers.
const BASES: [&str; 2] = ["debian:bookworm-slim", "plinth-test-base:bookworm"];

const RECORDER_FILE: &str =
    "FROM plinth-test-compose:prebuilt\nCOPY otlp-recorder /usr/local/bin/otlp-recorder\n";

fn base() -> anyhow::Result<&'static str> {
    for base in BASES {
        if docker(["image", "inspect", "--format", "{{.Id}}", base]).is_ok() {
            return Ok(base);
        }
    }
    bail!("none of the base images {BASES:?} is there: run the test with `make test-compose`")
}

/// Builds both images from this build's executables, and tells which base they stand on.
///
/// # Errors
/// An executable is missing, or a build fails.
pub fn build(recorder: &Path) -> anyhow::Result<&'static str> {
    let base = base()?;
    // The executable under test lies beside the test's own.
    let built = recorder.parent().context("the recorder is nowhere")?;
    let plinth = built.join("plinth");
    ensure!(plinth.is_file(), "{} is missing: build the workspace first", plinth.display());

    let context = tempfile::tempdir()?;
    for (from, name) in [(plinth.as_path(), "plinth"), (recorder, "otlp-recorder")] {
        // Without what only a debugger reads, which is most of it.
        let to = context.path().join(name);
        run(Command::new("objcopy").arg("--strip-debug").arg(from).arg(to))?;
    }
    let dockerfile = repository()?.join("Dockerfile");
    let recorder_file = context.path().join("Dockerfile.recorder");
    std::fs::write(&recorder_file, RECORDER_FILE)?;
    let mut prebuilt = Command::new("docker");
    prebuilt.args(["build", "--quiet", "--target=prebuilt", "--tag", PLINTH]);
    prebuilt.args(["--build-arg=EXECUTABLE=plinth", &format!("--build-arg=BASE={base}")]);
    run(prebuilt.arg("--file").arg(dockerfile).arg(context.path()))?;
    let mut with_recorder = Command::new("docker");
    with_recorder.args(["build", "--quiet", "--tag", RECORDER, "--file"]);
    run(with_recorder.arg(recorder_file).arg(context.path()))?;
    Ok(base)
}

/// How large the cluster's image is, in bytes.
///
/// # Errors
/// It is not there.
pub fn size() -> anyhow::Result<u64> {
    let size = docker(["image", "inspect", "--format", "{{.Size}}", PLINTH])?;
    size.trim().parse().context("the image's size")
}

/// Removes both images, if they are there.
///
/// # Errors
/// The engine refuses.
pub fn remove() -> anyhow::Result<()> {
    for image in [RECORDER, PLINTH] {
        if docker(["image", "inspect", image]).is_ok() {
            docker(["image", "rm", image])?;
        }
    }
    Ok(())
}
