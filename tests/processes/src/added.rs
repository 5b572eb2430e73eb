//! A machine that is added to a cluster of `plinth up`, and the operator's commands.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::ensure;
use rustix::process::Signal;

use crate::{Cluster, executable, signal};

/// `plinth node` of an added machine. Dropping it ends it.
pub struct Added(Child);

impl Added {
    /// Starts it beside the cluster's own nodes, with more flags.
    ///
    /// # Errors
    /// It can't be started.
    pub fn start(directory: &Path, node: &str, flags: &[&str]) -> anyhow::Result<Added> {
        let file = |name: &str| directory.join(name);
        let mut command = Command::new(executable()?);
        command.args(["node", "--parent-pipe", "--lock-patience", "8", "--node", node]).args(flags);
        command.arg("--data-dir").arg(file(node));
        for (flag, name) in [
            ("--cluster-file", "cluster.json"),
            ("--secret-file", "secret"),
            ("--admin-token-file", "admin-token"),
        ] {
            command.arg(flag).arg(file(name));
        }
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Added(command.spawn()?))
    }
}

impl Drop for Added {
    fn drop(&mut self) {
        // One that has ended already is gone as well.
        let _ = signal(self.0.id(), Signal::TERM);
        let _ = self.0.wait();
    }
}

/// A command of the operator, such as `plinth nodes drain node-3`: whether it has succeeded, and what it has
/// printed.
///
/// # Errors
/// It can't be started.
pub fn operate(cluster: &Cluster, arguments: &[&str]) -> anyhow::Result<(bool, String)> {
    let mut command = Command::new(executable()?);
    command.args(arguments).args(["--url", cluster.gateway()?]);
    command.arg("--admin-token-file").arg(cluster.directory().join("admin-token"));
    let output = command.stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    Ok((output.status.success(), said.into_owned()))
}

/// A command that succeeds and says this.
///
/// # Errors
/// It does not.
pub fn done(cluster: &Cluster, arguments: &[&str], words: &str) -> anyhow::Result<()> {
    let (is_done, said) = operate(cluster, arguments)?;
    ensure!(is_done && said.contains(words), "{arguments:?}: {said}");
    Ok(())
}

/// A command that is refused with these words.
///
/// # Errors
/// It is not.
pub fn refused(cluster: &Cluster, arguments: &[&str], words: &str) -> anyhow::Result<()> {
    let (is_done, said) = operate(cluster, arguments)?;
    ensure!(!is_done && said.contains(words), "{arguments:?}: {said}");
    Ok(())
}
