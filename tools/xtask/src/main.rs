//! House tools.
//!
//! - `cargo xtask deps` checks that dependencies between the workspace's crates point the way that
//!   ARCHITECTURE.md says.
//! - `cargo xtask openapi` writes each service's OpenAPI document into `openapi/`;
//!   `cargo xtask openapi --check` only compares.
//! - `cargo xtask tidy` checks the house rules that no compiler checks.
//! - `cargo xtask sim [--seeds N] [--first N] [--record FILE]` simulates the whole cluster under faults.
//! - `cargo xtask scale` prints what clusters of many sizes cost, by simulation.

mod failures;
mod tidy;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::Context as _;
use cargo_metadata::{DependencyKind, MetadataCommand};

fn main() -> ExitCode {
    let task = std::env::args().nth(1).unwrap_or_default();
    let result = match task.as_str() {
        "deps" => dependencies(),
        "openapi" if std::env::args().any(|argument| argument == "--check") => openapi(true),
        "openapi" => openapi(false),
        "tidy" => tidy::tidy(),
        "sim" => campaign(),
        "scale" => simulate(|simulate| _ = simulate.arg("scale")),
        _ => {
            eprintln!(
                "usage: cargo xtask deps | openapi [--check] | tidy | scale | sim [--seeds N] \
                 [--first N] [--record FILE]"
            );
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask {task}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Which crates of the workspace a crate may depend on, outside of its tests.
fn allowed(krate: &str) -> Option<&'static [&'static str]> {
    const ALL_LIBRARIES: &[&str] = &[
        "plinth-types",
        "plinth-system-config",
        "plinth-api",
        "plinth-runtime",
        "plinth-store",
        "plinth-service",
        "plinth-telemetry",
        "plinth-client",
    ];
    Some(match krate {
        "plinth-types" => &[],
        "plinth-system-config" | "plinth-runtime" | "plinth-telemetry" => &["plinth-types"],
        "plinth-api" => &["plinth-types", "plinth-system-config"],
        "plinth-store" => &["plinth-types", "plinth-runtime"],
        "plinth-store-rocksdb" => &["plinth-store", "plinth-runtime"],
        "plinth-simulation" => &["plinth-types", "plinth-runtime", "plinth-store"],
        "plinth-service" => {
            &["plinth-types", "plinth-api", "plinth-runtime", "plinth-store", "plinth-telemetry"]
        }
        "plinth-client" => &[
            "plinth-types",
            "plinth-system-config",
            "plinth-api",
            "plinth-runtime",
            "plinth-service",
            "plinth-telemetry",
        ],
        "plinth-load" => &["plinth-runtime"],
        "plinth-examples" => &["plinth-client"],
        "plinth-bench" => &["plinth-types", "plinth-api", "plinth-runtime", "plinth-load"],
        "plinth" | "xtask" => return None,
        test if test.starts_with("plinth-test-") => return None,
        _service => ALL_LIBRARIES,
    })
}

fn dependencies() -> anyhow::Result<()> {
    let metadata = MetadataCommand::new().no_deps().exec()?;
    let members: BTreeMap<&str, _> =
        metadata.packages.iter().map(|package| (package.name.as_str(), package)).collect();
    let mut wrong = Vec::new();
    for (name, package) in &members {
        let Some(allowed) = allowed(name) else { continue };
        for dependency in &package.dependencies {
            let inside = members.contains_key(dependency.name.as_str());
            let normal = dependency.kind != DependencyKind::Development;
            if inside && normal && !allowed.contains(&dependency.name.as_str()) {
                wrong.push(format!("{name} may not depend on {}", dependency.name));
            }
            if dependency.name == "rocksdb" && *name != "plinth-store-rocksdb" {
                wrong.push(format!("{name} may not depend on rocksdb: libs/store is the seam"));
            }
        }
    }
    anyhow::ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    println!("dependency directions: {} crates, as they should be", members.len());
    Ok(())
}

/// Runs a campaign of the simulation, whose executable takes the rest of the command line. It notes
/// what it has run below `target`, unless told where, and goes on there.
fn campaign() -> anyhow::Result<()> {
    simulate(|simulate| {
        simulate.arg("campaign").args(std::env::args().skip(2));
        if !std::env::args().any(|argument| argument == "--record") {
            let records = Path::new(simulate.get_program()).with_file_name("simulation");
            simulate.arg("--record").arg(records);
        }
    })
}

/// Builds the executable of the simulation and runs it with these arguments.
fn simulate(with: impl FnOnce(&mut Command)) -> anyhow::Result<()> {
    // Of the whole workspace, as `make test` builds it: one package would choose other features.
    let build = ["build", "--quiet", "--workspace", "--bin", "simulate"];
    let status = Command::new("cargo").args(build).status()?;
    anyhow::ensure!(status.success(), "the build ends with {status}");
    let target = MetadataCommand::new().no_deps().exec()?.target_directory.into_std_path_buf();
    let mut simulate = Command::new(target.join("debug").join("simulate"));
    with(&mut simulate);
    let status = simulate.status()?;
    anyhow::ensure!(status.success(), "it ends with {status}");
    Ok(())
}

/// Every service's document, as it stands in `openapi/`.
fn documents() -> BTreeMap<&'static str, String> {
    [
        ("coordinator", plinth_coordinator::openapi()),
        ("director", plinth_director::openapi()),
        ("foreman", plinth_foreman::openapi()),
        ("sequencer", plinth_sequencer::openapi()),
        ("commit-proxy", plinth_commit_proxy::openapi()),
        ("resolver", plinth_resolver::openapi()),
        ("log", plinth_log::openapi()),
        ("storage", plinth_storage::openapi()),
        ("gateway", plinth_gateway::openapi()),
    ]
    .into_iter()
    .map(|(service, document)| (service, plinth_service::document_text(&document)))
    .collect()
}

fn openapi(check: bool) -> anyhow::Result<()> {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../openapi");
    let mut stale = Vec::new();
    for (service, document) in documents() {
        let path = directory.join(format!("{service}.json"));
        if check {
            let committed = std::fs::read_to_string(&path).unwrap_or_default();
            if committed != document {
                stale.push(service);
            }
        } else {
            std::fs::create_dir_all(&directory)?;
            std::fs::write(&path, document).with_context(|| path.display().to_string())?;
        }
    }
    anyhow::ensure!(
        stale.is_empty(),
        "openapi/ differs from the code for {}: run `cargo xtask openapi`",
        stale.join(", ")
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_committed_openapi_documents_are_the_codes() {
        super::openapi(true).expect("up to date");
    }

    #[test]
    fn dependencies_point_the_right_way() {
        super::dependencies().expect("directions");
    }

    #[test]
    fn no_service_may_depend_on_another() {
        let allowed = super::allowed("plinth-director").expect("a service");
        assert!(!allowed.contains(&"plinth-log"));
    }
}
