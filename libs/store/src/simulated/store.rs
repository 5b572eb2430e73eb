//! The handle of an open simulated store.

use std::path::PathBuf;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::oneshot::{self, error::TryRecvError};
use tokio::time::Instant;

use super::SharedPlatter;
use super::platter::handle_is_gone;
use crate::{Batch, Direction, Durability, Rows, Store, StoreError, Table};

pub(super) struct SimulatedStore {
    platter: SharedPlatter,
    directory: PathBuf,
    handle: u64,
}

impl SimulatedStore {
    pub(super) fn new(platter: SharedPlatter, directory: PathBuf, handle: u64) -> Self {
        SimulatedStore { platter, directory, handle }
    }
}

impl Store for SimulatedStore {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let mut platter = self.platter.lock();
        platter.readable(&self.directory, self.handle, Instant::now())?.get(
            &self.directory,
            table,
            key,
        )
    }

    fn scan(
        &self,
        table: Table,
        from: &[u8],
        to: Option<&[u8]>,
        direction: Direction,
        limit: usize,
    ) -> Result<Rows, StoreError> {
        let mut platter = self.platter.lock();
        let content = platter.readable(&self.directory, self.handle, Instant::now())?;
        content.scan(&self.directory, table, (from, to), direction, limit)
    }

    fn write(
        &self,
        batch: Batch,
        durability: Durability,
    ) -> BoxFuture<'static, Result<(), StoreError>> {
        let queued = self.platter.lock().queue_write(
            &self.directory,
            self.handle,
            batch,
            durability,
            Instant::now(),
        );
        match queued {
            Ok(done) => {
                let directory = self.directory.clone();
                Waiting { platter: self.platter.clone(), directory, handle: self.handle, done }
                    .outcome()
                    .boxed()
            }
            Err(error) => futures::future::ready(Err(error)).boxed(),
        }
    }
}

impl Drop for SimulatedStore {
    fn drop(&mut self) {
        self.platter.lock().close_store(&self.directory, self.handle);
    }
}

/// A write on its way. It need not be polled for the write to happen.
struct Waiting {
    platter: SharedPlatter,
    directory: PathBuf,
    handle: u64,
    done: oneshot::Receiver<Result<(), StoreError>>,
}

impl Waiting {
    async fn outcome(mut self) -> Result<(), StoreError> {
        loop {
            let busy_until =
                self.platter.lock().advance(&self.directory, self.handle, Instant::now());
            match (self.done.try_recv(), busy_until) {
                (Ok(result), _) => return result,
                (Err(TryRecvError::Empty), Some(instant)) => {
                    tokio::time::sleep_until(instant).await
                }
                (Err(_), _) => return Err(handle_is_gone(&self.directory)),
            }
        }
    }
}
