//! House tools: `cargo xtask deps` checks that dependencies between the workspace's crates point the
//! way that ARCHITECTURE.md says.

use std::collections::BTreeMap;
use std::process::ExitCode;

use cargo_metadata::{DependencyKind, MetadataCommand};

fn main() -> ExitCode {
    let task = std::env::args().nth(1).unwrap_or_default();
    let result = match task.as_str() {
        "deps" => dependencies(),
        _ => {
            eprintln!("usage: cargo xtask deps");
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

#[cfg(test)]
mod tests {
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
