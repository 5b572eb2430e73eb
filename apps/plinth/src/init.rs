//! `plinth init`: the files that the services of a cluster share, where something else than
//! `plinth up` starts them.

use std::process::ExitCode;

use anyhow::ensure;
use plinth_runtime::Runtime;
use plinth_system_config::Parameters;
use plinth_types::ClusterId;

use crate::cli::InitArgs;
use crate::cluster_file::ClusterFile;
use crate::process;
use crate::up::prepare::{make_directory, secret};

/// Makes the files that are missing. What is there is kept: it is the cluster's identity.
pub(crate) fn init(args: &InitArgs) -> ExitCode {
    match make(args, &Runtime::real()) {
        Ok(file) => {
            eprintln!("plinth: {} has the files of cluster {}", args.dir.display(), file.cluster);
            ExitCode::SUCCESS
        }
        Err(error) => process::usage(&error),
    }
}

fn make(args: &InitArgs, runtime: &Runtime) -> anyhow::Result<ClusterFile> {
    make_directory(&args.dir)?;
    let path = args.dir.join("cluster.json");
    let file = if path.exists() {
        let file = ClusterFile::read(&path)?;
        ensure!(
            file.coordinators == args.coordinators && file.initial_nodes == args.nodes,
            "{} names other coordinators or nodes: give those that it names, or another --dir",
            path.display()
        );
        file
    } else {
        let file = ClusterFile {
            cluster: ClusterId(runtime.random_u128()),
            coordinators: args.coordinators.clone(),
            initial_nodes: args.nodes.clone(),
            parameters: Parameters::default(),
        };
        file.write(&path)?;
        file
    };
    for name in ["secret", "admin-token"] {
        secret(&args.dir.join(name), runtime)?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn args(dir: &Path, coordinators: &[&str]) -> InitArgs {
        InitArgs {
            dir: dir.to_owned(),
            coordinators: coordinators.iter().map(|entry| entry.parse().unwrap()).collect(),
            nodes: vec!["a".parse().unwrap()],
        }
    }

    #[test]
    fn what_is_there_is_kept_and_another_cluster_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cluster");
        let one = args(&path, &["coordinator-1@a=http://coordinator-1:7000"]);
        let first = make(&one, &Runtime::real()).unwrap();
        assert_eq!(first.coordinators[0].address(), "coordinator-1:7000");
        let secret = std::fs::read(path.join("secret")).unwrap();
        assert_eq!(make(&one, &Runtime::real()).unwrap(), first);
        assert_eq!(std::fs::read(path.join("secret")).unwrap(), secret);
        assert_ne!(std::fs::read(path.join("admin-token")).unwrap(), secret);
        let other = args(&path, &["coordinator-1@a=http://elsewhere:7000"]);
        let error = make(&other, &Runtime::real()).unwrap_err();
        assert!(error.to_string().contains("names other coordinators"), "{error}");
    }

    #[test]
    fn nothing_is_made_for_a_cluster_that_cannot_be() {
        let directory = tempfile::tempdir().unwrap();
        let two = ["coordinator-1@a=http://a:1", "coordinator-1@b=http://b:1"];
        let error = make(&args(directory.path(), &two), &Runtime::real()).unwrap_err();
        assert!(format!("{error:#}").contains("names 2 coordinators"), "{error:#}");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        for wrong in ["coordinator-1@a", "coordinator@a=http://a:1", "=http://a:1"] {
            let error = wrong.parse::<crate::cluster_file::CoordinatorEntry>().unwrap_err();
            assert!(error.contains("coordinator-1@node-1=http://host:port"), "{error}");
        }
    }
}
