//! The node's directory: held by one foreman, bound to one cluster, with the records of the workers
//! that the foreman knows.
//!
//! | path | what |
//! |---|---|
//! | `cluster` | the cluster's id, once it is founded; written before any durable worker is made |
//! | `workers.json` | the workers that outlive the foreman |
//! | `coordinators.json` | where the coordinators answer, as it was heard last |
//! | `<worker>/` | a durable worker's own directory |
//! | `<worker>.log` | a worker's output |

use std::path::{Path, PathBuf};
use std::time::Duration;

use plinth_service::Manifest;
use plinth_store::{DirectoryLock, Disk, StoreError};
use plinth_types::{ClusterId, ServiceName, StoreId};
use tokio::time::{Instant, sleep};

use crate::coordinators::Heard;
use crate::workers::WorkerRecord;

/// How often a directory that another process still has is tried again.
const TRY_AGAIN: Duration = Duration::from_millis(20);

/// Why a directory can't be used.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// Another process has it.
    #[error("{path} is in use by another foreman; stop that one first, or name another --data-dir")]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// It belongs to another cluster.
    #[error(
        "{path} belongs to cluster {found}, and not to {expected}; name the cluster file of {found}, or another --data-dir"
    )]
    ForeignCluster {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        found: ClusterId,
        /// Whose it should be.
        expected: ClusterId,
    },
    /// A file in it can't be understood.
    #[error(
        "{path} is damaged ({detail}); put it back from a copy, or move the directory away if it holds nothing you need"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// It can't be read or written.
    #[error("the node's directory can't be used; check that it is writable and has space")]
    Disk(#[from] StoreError),
}

impl DirectoryError {
    /// Whether the operator named a directory that can't serve, rather than that a good one failed.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        matches!(self, DirectoryError::InUse { .. } | DirectoryError::ForeignCluster { .. })
    }
}

pub(crate) struct NodeDirectory {
    path: PathBuf,
    expected: Option<ClusterId>,
    cluster: Option<ClusterId>,
    kept: Option<Vec<WorkerRecord>>,
    _lock: Box<dyn DirectoryLock>,
}

impl NodeDirectory {
    /// Takes the directory for this process, waiting up to `patience` for another one to let go.
    pub(crate) async fn open(
        disk: &dyn Disk,
        path: &Path,
        expected: Option<ClusterId>,
        patience: Duration,
    ) -> Result<NodeDirectory, DirectoryError> {
        disk.create_directory(path)?;
        let deadline = Instant::now() + patience;
        let lock = loop {
            match disk.lock(path) {
                Ok(lock) => break lock,
                Err(StoreError::Locked { .. }) if Instant::now() < deadline => {
                    sleep(TRY_AGAIN).await;
                }
                Err(StoreError::Locked { .. }) => {
                    return Err(DirectoryError::InUse { path: path.to_owned() });
                }
                Err(error) => return Err(error.into()),
            }
        };
        let cluster = read_cluster(disk, &path.join("cluster"))?;
        if let (Some(found), Some(expected)) = (cluster, expected)
            && found != expected
        {
            return Err(DirectoryError::ForeignCluster { path: path.to_owned(), found, expected });
        }
        Ok(NodeDirectory { path: path.to_owned(), expected, cluster, kept: None, _lock: lock })
    }

    /// The cluster that the directory is bound to.
    pub(crate) const fn cluster(&self) -> Option<ClusterId> {
        self.cluster
    }

    /// Binds the directory to a cluster, durably; whether it was not before. An order of another
    /// cluster than the one it is for is not followed.
    pub(crate) fn bind_to(
        &mut self,
        disk: &dyn Disk,
        cluster: ClusterId,
    ) -> Result<bool, DirectoryError> {
        if let Some(own) = self.cluster.or(self.expected)
            && own != cluster
        {
            tracing::error!(%own, %cluster, "a coordinator of another cluster answers; check the coordinators' addresses in the cluster file");
            return Ok(false);
        }
        if self.cluster.is_some() {
            return Ok(false);
        }
        disk.write_file(&self.path.join("cluster"), format!("{cluster}\n").as_bytes())?;
        self.cluster = Some(cluster);
        Ok(true)
    }

    /// The records of the foreman before.
    pub(crate) fn records(&self, disk: &dyn Disk) -> Result<Vec<WorkerRecord>, DirectoryError> {
        let path = self.records_path();
        match disk.read_file(&path)? {
            None => Ok(Vec::new()),
            Some(bytes) => serde_json::from_slice(&bytes)
                .map_err(|error| DirectoryError::Damaged { path, detail: error.to_string() }),
        }
    }

    /// Keeps the records, where they have changed.
    pub(crate) fn keep(
        &mut self,
        disk: &dyn Disk,
        records: &[WorkerRecord],
    ) -> Result<(), DirectoryError> {
        if self.kept.as_deref() == Some(records) {
            return Ok(());
        }
        let path = self.records_path();
        let bytes = serde_json::to_vec_pretty(records).map_err(|error| {
            DirectoryError::Damaged { path: path.clone(), detail: error.to_string() }
        })?;
        disk.write_file(&path, &bytes)?;
        self.kept = Some(records.to_vec());
        Ok(())
    }

    /// The durable workers that have a directory. Where the manifest is damaged there is no store:
    /// the worker itself says so when it is started, and the others go on.
    pub(crate) fn durable_workers(
        &self,
        disk: &dyn Disk,
    ) -> Result<Vec<(ServiceName, Option<StoreId>)>, DirectoryError> {
        let mut found = Vec::new();
        for entry in disk.list(&self.path)? {
            let Ok(name) = entry.parse::<ServiceName>() else { continue };
            if !name.kind.is_durable() {
                continue;
            }
            match Manifest::read(disk, &self.path.join(entry)) {
                Ok(None) => {}
                Ok(Some(manifest)) => found.push((name, Some(manifest.store))),
                Err(error) => {
                    tracing::error!(worker = %name, %error, "a worker's manifest can't be used");
                    found.push((name, None));
                }
            }
        }
        Ok(found)
    }

    /// The coordinators that were heard of last. They are only where to begin: a file that can't be
    /// understood is none.
    pub(crate) fn coordinators(&self, disk: &dyn Disk) -> Result<Heard, DirectoryError> {
        let path = self.coordinators_path();
        let Some(bytes) = disk.read_file(&path)? else { return Ok(Heard::default()) };
        Ok(serde_json::from_slice(&bytes).unwrap_or_else(|error| {
            tracing::warn!(path = %path.display(), %error, "the coordinators that were heard of last can't be read");
            Heard::default()
        }))
    }

    /// Keeps the coordinators that were heard of.
    pub(crate) fn keep_coordinators(
        &self,
        disk: &dyn Disk,
        heard: &Heard,
    ) -> Result<(), DirectoryError> {
        let path = self.coordinators_path();
        let bytes = serde_json::to_vec_pretty(heard).map_err(|error| DirectoryError::Damaged {
            path: path.clone(),
            detail: error.to_string(),
        })?;
        disk.write_file(&path, &bytes)?;
        Ok(())
    }

    fn coordinators_path(&self) -> PathBuf {
        self.path.join("coordinators.json")
    }

    fn records_path(&self) -> PathBuf {
        self.path.join("workers.json")
    }
}

fn read_cluster(disk: &dyn Disk, path: &Path) -> Result<Option<ClusterId>, DirectoryError> {
    let Some(bytes) = disk.read_file(path)? else { return Ok(None) };
    let text = String::from_utf8_lossy(&bytes);
    let id = text.trim().parse::<ClusterId>().map_err(|error| DirectoryError::Damaged {
        path: path.to_owned(),
        detail: error.to_string(),
    })?;
    Ok(Some(id))
}
