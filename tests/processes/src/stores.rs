//! Damage done to the directories of a cluster that does not run.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use plinth_store::{Batch, Disk as _, Durability, Store, Table};
use plinth_store_rocksdb::RocksDisk;
use plinth_system_config::keys;

/// A worker's directory, such as that of `storage-1` on `node-2`.
#[must_use]
pub fn directory(cluster: &Path, worker: &str, node: &str) -> PathBuf {
    cluster.join(node).join(worker)
}

/// Changes one bit in each copy that a log or storage has of the configuration.
///
/// # Errors
/// It has none, or it runs.
pub fn spoil_configuration(cluster: &Path, worker: &str, node: &str) -> anyhow::Result<()> {
    use plinth_log::records::{ENTRIES, META};
    use plinth_storage::records::{self, SYSTEM, TABLES};
    let path = directory(cluster, worker, node).join("store");
    ensure!(path.is_dir(), "{} is missing", path.display());
    let (tables, rows): (&[Table], &[(Table, &[u8])]) = match worker.rsplit_once('-') {
        Some(("log", _)) => (&[ENTRIES, META], &[(META, b"config")]),
        Some(("storage", _)) => {
            (&TABLES, &[(records::META, records::CONFIG), (SYSTEM, keys::CONFIG)])
        }
        _ => bail!("{worker} keeps no configuration"),
    };
    tokio::runtime::Runtime::new()?.block_on(async {
        let store = RocksDisk::default().open(&path, tables).await?;
        for (table, row) in rows {
            flip_a_bit(&*store, table, row).await?;
        }
        Ok(())
    })
}

async fn flip_a_bit(store: &dyn Store, table: Table, row: &'static [u8]) -> anyhow::Result<()> {
    let value = store.get(table, row)?.with_context(|| format!("{table} has no such row"))?;
    let mut bytes = value.to_vec();
    let middle = bytes.len() / 2;
    *bytes.get_mut(middle).context("an empty row")? ^= 1;
    let mut batch = Batch::new();
    batch.put(table, row, Bytes::from(bytes));
    store.write(batch, Durability::Synced).await?;
    Ok(())
}

/// Copies a directory with everything in it.
///
/// # Errors
/// It can't be read, or the copy can't be written.
pub fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to)?;
        } else {
            std::fs::copy(entry.path(), &to)?;
        }
    }
    Ok(())
}
