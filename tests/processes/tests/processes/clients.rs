//! Clients that are generated of the gateway's OpenAPI document.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};
use plinth_test_processes::{Cluster, python};

use crate::Outcome;

/// Generates a package `plinth_client`. Everything but the endless stream has its place in it.
fn generate(into: &Path) -> Outcome {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let config = into.join("config.json");
    // Nobody reads it, so it needs no formatting.
    std::fs::write(&config, r#"{"post_hooks": []}"#)?;
    let output = Command::new(python()?.with_file_name("openapi-python-client"))
        .args(["generate", "--meta", "none"])
        .arg("--config")
        .arg(config)
        .arg("--path")
        .arg(root.join("openapi/gateway.json"))
        .arg("--output-path")
        .arg(into.join("plinth_client"))
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{said}");
    let warnings: Vec<&str> = said.lines().filter(|line| line.contains("WARNING")).collect();
    ensure!(warnings.len() <= 1 && warnings.iter().all(|it| it.contains("/v1/monitor")), "{said}");
    Ok(())
}

#[test]
fn a_generated_client_works() -> Outcome {
    let directory = tempfile::tempdir()?;
    let package = tempfile::tempdir()?;
    generate(package.path())?;
    let cluster = Cluster::start(directory.path())?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/generated_client.py");
    let output = Command::new(python()?)
        .arg(script)
        .arg(package.path())
        .arg(cluster.gateway()?)
        .output()
        .context("python")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{said}");
    cluster.stop()
}
