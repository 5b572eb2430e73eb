//! The directory of a durable worker: a lock, a manifest that says whose it is, and the store.

use std::path::{Path, PathBuf};

use plinth_runtime::Runtime;
use plinth_store::{DirectoryLock, Disk, StoreError};
use plinth_types::{ClusterId, ServiceRef, StoreId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::Exit;

/// The newest level of the directory's layout, and the one that is written.
pub const DIRECTORY_LEVEL: u32 = 1;

const MANIFEST: &str = "manifest.json";
const STORE: &str = "store";

/// Whose directory it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The level of the directory's layout.
    pub format_level: u32,
    /// The cluster that the worker belongs to.
    pub cluster: ClusterId,
    /// The directory's own name, random.
    pub store: StoreId,
    /// Which service keeps it.
    pub service: ServiceRef,
    /// When it was made, in milliseconds since 1970; for people.
    pub created_unix_ms: u64,
}

/// The file: the manifest, and the CRC-32C of its bytes as they stand there.
#[derive(Serialize, Deserialize)]
struct File {
    crc32c: u32,
    manifest: Box<RawValue>,
}

/// Why a directory can't be used.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The disk refuses.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no directory yet, and no cluster is known that it could belong to.
    #[error("{path} does not exist yet, and it can't be made before the cluster is founded")]
    NoCluster {
        /// The directory.
        path: String,
    },
    /// It belongs to another cluster.
    #[error(
        "{path} belongs to cluster {found}, not to {expected}: give this service another directory"
    )]
    ForeignCluster {
        /// The directory.
        path: String,
        /// The cluster in its manifest.
        found: ClusterId,
        /// The cluster of the service.
        expected: ClusterId,
    },
    /// It belongs to another service.
    #[error(
        "{path} belongs to {found}, not to {expected}: give this service a directory of its own"
    )]
    ForeignService {
        /// The directory.
        path: String,
        /// The service in its manifest.
        found: ServiceRef,
        /// The service that asks.
        expected: ServiceRef,
    },
    /// A newer release made it.
    #[error(
        "{path} is of format level {found}, and this release knows levels up to {DIRECTORY_LEVEL}: run a newer release"
    )]
    NewerLevel {
        /// The directory.
        path: String,
        /// Its level.
        found: u32,
    },
    /// The manifest is not what was written.
    #[error(
        "the manifest of {path} is damaged ({detail}): move the directory away, and the worker's data is copied from its replicas"
    )]
    Damaged {
        /// The directory.
        path: String,
        /// What was found.
        detail: String,
    },
    /// The manifest can't be written as JSON.
    #[error("the manifest can't be written")]
    Encode(#[from] serde_json::Error),
}

impl DirectoryError {
    /// How a service ends that can't use its directory: as wrongly started, where the directory is
    /// somebody else's, so that another one must be named.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            DirectoryError::ForeignCluster { .. }
            | DirectoryError::ForeignService { .. }
            | DirectoryError::NewerLevel { .. }
            | DirectoryError::Store(StoreError::Locked { .. }) => Exit::usage(self.to_string()),
            DirectoryError::Store(_)
            | DirectoryError::NoCluster { .. }
            | DirectoryError::Damaged { .. }
            | DirectoryError::Encode(_) => Exit::failure(self.to_string()),
        }
    }
}

#[derive(Deserialize)]
struct Level {
    format_level: u32,
}

impl Manifest {
    /// Reads a directory's manifest without taking the directory.
    ///
    /// # Errors
    /// It can't be read, is damaged, or is of a newer release.
    pub fn read(disk: &dyn Disk, directory: &Path) -> Result<Option<Manifest>, DirectoryError> {
        let Some(bytes) = disk.read_file(&directory.join(MANIFEST))? else {
            return Ok(None);
        };
        let path = || directory.display().to_string();
        let damaged = |error: serde_json::Error| DirectoryError::Damaged {
            path: path(),
            detail: error.to_string(),
        };
        let file: File = serde_json::from_slice(&bytes).map_err(damaged)?;
        let text = file.manifest.get();
        if crc32c::crc32c(text.as_bytes()) != file.crc32c {
            let detail = "its checksum does not match".to_owned();
            return Err(DirectoryError::Damaged { path: path(), detail });
        }
        let Level { format_level } = serde_json::from_str(text).map_err(damaged)?;
        if format_level > DIRECTORY_LEVEL {
            return Err(DirectoryError::NewerLevel { path: path(), found: format_level });
        }
        serde_json::from_str(text).map(Some).map_err(damaged)
    }

    fn write(&self, disk: &dyn Disk, directory: &Path) -> Result<(), DirectoryError> {
        let manifest = serde_json::value::to_raw_value(self)?;
        let crc32c = crc32c::crc32c(manifest.get().as_bytes());
        let mut bytes = serde_json::to_vec(&File { crc32c, manifest })?;
        bytes.push(b'\n');
        disk.write_file(&directory.join(MANIFEST), &bytes)?;
        Ok(())
    }
}

/// A durable worker's directory, held by this process until it is dropped.
pub struct WorkerDirectory {
    manifest: Manifest,
    path: PathBuf,
    _lock: Box<dyn DirectoryLock>,
}

impl std::fmt::Debug for WorkerDirectory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkerDirectory")
            .field("path", &self.path)
            .field("manifest", &self.manifest)
            .finish_non_exhaustive()
    }
}

impl WorkerDirectory {
    /// Takes a worker's directory, making it where it is missing and the cluster is known.
    ///
    /// # Errors
    /// Another process holds it, it belongs to another cluster or service, it is damaged, or it
    /// would have to be made while no cluster is known.
    pub fn open_or_create(
        disk: &dyn Disk,
        path: impl Into<PathBuf>,
        cluster: Option<ClusterId>,
        service: &ServiceRef,
        runtime: &Runtime,
    ) -> Result<WorkerDirectory, DirectoryError> {
        let path = path.into();
        let text = || path.display().to_string();
        // Nothing is made, not even the lock, before there is a cluster.
        if cluster.is_none() && Manifest::read(disk, &path)?.is_none() {
            return Err(DirectoryError::NoCluster { path: text() });
        }
        let lock = disk.lock(&path)?;
        let manifest = match (Manifest::read(disk, &path)?, cluster) {
            (Some(manifest), _) => manifest,
            // A store without a manifest was never made by this code: the manifest comes first.
            (None, _) if !disk.list(&path.join(STORE))?.is_empty() => {
                let detail = format!("{STORE}/ is there and {MANIFEST} is not");
                return Err(DirectoryError::Damaged { path: text(), detail });
            }
            (None, None) => return Err(DirectoryError::NoCluster { path: text() }),
            (None, Some(cluster)) => {
                let manifest = Manifest {
                    format_level: DIRECTORY_LEVEL,
                    cluster,
                    store: StoreId(runtime.random_u128()),
                    service: service.clone(),
                    created_unix_ms: runtime.unix_ms(),
                };
                manifest.write(disk, &path)?;
                manifest
            }
        };
        if let Some(expected) = cluster
            && manifest.cluster != expected
        {
            let found = manifest.cluster;
            return Err(DirectoryError::ForeignCluster { path: text(), found, expected });
        }
        if manifest.service != *service {
            let (found, expected) = (manifest.service, service.clone());
            return Err(DirectoryError::ForeignService { path: text(), found, expected });
        }
        Ok(WorkerDirectory { manifest, path, _lock: lock })
    }

    /// Whose it is.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The directory itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the store is.
    #[must_use]
    pub fn store_path(&self) -> PathBuf {
        self.path.join(STORE)
    }
}
