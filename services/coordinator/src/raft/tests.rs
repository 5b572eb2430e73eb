//! openraft's own suite for storages, on the simulated disk.

use std::sync::Arc;

use openraft::testing::{StoreBuilder, Suite};
use plinth_runtime::Runtime;
use plinth_store::{Disk as _, DiskDelays, SimulatedDisk};

use super::log::Failure;
use super::{LogStore, Machine, TypeConfig};
use crate::records::TABLES;

struct OnSimulatedDisk;

impl StoreBuilder<TypeConfig, LogStore, Machine, SimulatedDisk> for OnSimulatedDisk {
    async fn build(&self) -> Result<(SimulatedDisk, LogStore, Machine), Failure> {
        let random = Runtime::real().random();
        let disk = SimulatedDisk::new("machine", random, DiskDelays::none(), None);
        let store = disk.open("/store".as_ref(), TABLES).await.unwrap();
        let log = LogStore::new(Arc::clone(&store));
        let (machine, _) = Machine::open(store).unwrap();
        Ok((disk, log, machine))
    }
}

#[test]
fn the_store_keeps_what_raft_expects_of_it() {
    Suite::test_all(OnSimulatedDisk).unwrap();
}
