//! Runs schemathesis, which makes requests out of an OpenAPI document, right and wrong ones, and
//! holds the answers against it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use plinth_types::ServiceKind;
use serde_json::Value;

use crate::{ADMIN_TOKEN, CLUSTER_SECRET};

/// Who makes the requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Nobody in particular.
    Anonymous,
    /// A service of the cluster.
    Service,
    /// The administrator, by this token.
    Administrator(String),
}

impl Caller {
    /// The administrator of the services here.
    #[must_use]
    pub fn administrator() -> Caller {
        Caller::Administrator(ADMIN_TOKEN.to_owned())
    }

    fn header(&self) -> Option<String> {
        match self {
            Caller::Anonymous => None,
            Caller::Service => Some(format!("plinth-secret: {CLUSTER_SECRET}")),
            Caller::Administrator(token) => Some(format!("Authorization: Bearer {token}")),
        }
    }
}

/// A run against a service.
#[derive(Clone, Debug)]
pub struct Schemathesis {
    /// Whose document.
    pub kind: ServiceKind,
    /// Where it answers.
    pub url: String,
    /// Who asks.
    pub caller: Caller,
    /// Further arguments, such as filters of operations.
    pub arguments: Vec<String>,
}

/// Examples of each operation: `PLINTH_CONTRACT_EXAMPLES`, or 10. 200 take many minutes.
fn examples() -> anyhow::Result<u32> {
    let Some(text) = std::env::var_os("PLINTH_CONTRACT_EXAMPLES") else { return Ok(10) };
    let number = text.to_str().and_then(|text| text.parse().ok()).filter(|number| *number > 0);
    number.with_context(|| format!("PLINTH_CONTRACT_EXAMPLES={} is no number", text.display()))
}

/// The root of the repository.
fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

impl Schemathesis {
    /// Runs it.
    ///
    /// # Errors
    /// It is not installed, has found something or has not reached every operation. The error is its
    /// report.
    pub fn run(&self) -> anyhow::Result<()> {
        let program = root().join(".venv/bin/schemathesis");
        ensure!(program.is_file(), "{} is missing: run tools/setup test", program.display());
        let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemathesis");
        let work = tempfile::tempdir()?;
        let report = work.path().join("report.json");
        let mut command = Command::new(program);
        command
            .arg("--config-file")
            .arg(files.join("schemathesis.toml"))
            .arg("run")
            .arg(root().join(format!("openapi/{}.json", self.kind)))
            .args(["--url", &self.url, "--max-examples", &examples()?.to_string()])
            .arg("--report-json-path")
            .arg(&report)
            .args(&self.arguments)
            .env("SCHEMATHESIS_HOOKS", "hooks")
            .env("PYTHONPATH", &files)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .current_dir(work.path())
            .stdin(Stdio::null());
        if let Some(header) = self.caller.header() {
            command.args(["--header", &header]);
        }
        let output = command.output()?;
        let said =
            String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{} as {:?}: {said}", self.kind, self.caller);
        let report: Value = serde_json::from_slice(&std::fs::read(report)?)?;
        let is_whole = report["complete"] == true && report["stop_reason"] == "completed";
        let operations = &report["operations"];
        let reached = operations["tested"] == operations["selected"] && operations["tested"] != 0;
        ensure!(is_whole && reached, "not all were reached: {operations}");
        Ok(())
    }
}
