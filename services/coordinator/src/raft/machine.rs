//! The state machine in Raft: [`ClusterState`] with its place in the log. It lives in memory; its
//! snapshots are durable, and what came after the last one is applied again from the log.

use std::collections::BTreeSet;
use std::io::Cursor;
use std::sync::Arc;

use openraft::storage::{RaftStateMachine, Snapshot};
use openraft::{
    Entry, EntryPayload, ErrorSubject, ErrorVerb, LogId, Membership, OptionalSend,
    RaftSnapshotBuilder, SnapshotMeta, StoredMembership,
};
use plinth_store::{Batch, Durability, Store};
use plinth_types::ServiceRef;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::log::{Failure, LogStore, failure};
use super::{META_TABLE, Member, SNAPSHOT_KEY, TypeConfig};
use crate::records::{self, RecordError};
use crate::state::{Applied, ClusterState};

/// The state and its place in the log: what a snapshot holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Image {
    applied: Option<LogId<u64>>,
    membership: StoredMembership<u64, Member>,
    state: Arc<ClusterState>,
}

impl Image {
    fn read(store: &dyn Store) -> Result<Option<Image>, RecordError> {
        records::read(store, META_TABLE, SNAPSHOT_KEY)
    }

    fn apply(&mut self, entry: Entry<TypeConfig>) -> Applied {
        self.applied = Some(entry.log_id);
        match entry.payload {
            EntryPayload::Blank => Applied::Nothing,
            EntryPayload::Normal(command) => {
                let members = names(self.membership.membership());
                Arc::make_mut(&mut self.state).apply_in(command, &members)
            }
            EntryPayload::Membership(membership) => {
                let members = names(&membership);
                self.membership = StoredMembership::new(Some(entry.log_id), membership);
                if self.state.moving.is_some() {
                    Arc::make_mut(&mut self.state).note_members(&members);
                }
                Applied::Nothing
            }
        }
    }

    fn meta(&self) -> SnapshotMeta<u64, Member> {
        SnapshotMeta {
            last_log_id: self.applied,
            last_membership: self.membership.clone(),
            snapshot_id: self.applied.map_or_else(|| "0".to_owned(), |at| at.to_string()),
        }
    }

    async fn save(&self, store: &dyn Store) -> Result<Vec<u8>, RecordError> {
        let bytes = records::encode(SNAPSHOT_KEY, self)?;
        let mut batch = Batch::new();
        batch.put(META_TABLE, SNAPSHOT_KEY, bytes.clone());
        // The log is cut behind it.
        store.write(batch, Durability::Synced).await?;
        Ok(bytes.to_vec())
    }
}

/// The voters of each membership that Raft has, the next one last: two in its joint phase.
pub(crate) fn voters(membership: &Membership<u64, Member>) -> Vec<Vec<(u64, Member)>> {
    let of = |ids: &BTreeSet<u64>| {
        ids.iter().filter_map(|id| Some((*id, membership.get_node(id)?.clone()))).collect()
    };
    membership.get_joint_config().iter().map(of).collect()
}

fn names(membership: &Membership<u64, Member>) -> Vec<BTreeSet<ServiceRef>> {
    let named = |voters: Vec<(u64, Member)>| {
        voters.into_iter().filter_map(|(_, member)| member.service).collect()
    };
    voters(membership).into_iter().map(named).collect()
}

/// What a Raft store holds, entries included that are not known to be committed.
#[derive(Clone, Debug)]
pub(crate) struct Peek {
    /// The state as it would be with every entry applied.
    pub(crate) state: Arc<ClusterState>,
    /// The voters of each membership, the next one last.
    pub(crate) voters: Vec<Vec<(u64, Member)>>,
    /// Whether a vote was given or an entry taken.
    pub(crate) is_used: bool,
}

/// Looks into a Raft store that need not run.
///
/// # Errors
/// The disk's refusal, or a damaged record.
pub(crate) fn peek(store: &Arc<dyn Store>) -> Result<Peek, RecordError> {
    let log = LogStore::new(Arc::clone(store));
    let mut image = Image::read(&**store)?.unwrap_or_default();
    let from = image.applied.map_or(0, |applied| applied.index + 1);
    for entry in log.entries(from, None)? {
        image.apply(entry);
    }
    let voters = voters(image.membership.membership());
    let is_used = image.applied.is_some() || log.is_used()?;
    Ok(Peek { state: image.state, voters, is_used })
}

/// The state machine.
pub(crate) struct Machine {
    store: Arc<dyn Store>,
    image: Image,
    publish: watch::Sender<Arc<ClusterState>>,
}

impl Machine {
    /// The state as of the last snapshot, and where its changes are told.
    ///
    /// # Errors
    /// The disk's refusal, or a damaged snapshot.
    pub(crate) fn open(
        store: Arc<dyn Store>,
    ) -> Result<(Machine, watch::Receiver<Arc<ClusterState>>), RecordError> {
        let image = Image::read(&*store)?.unwrap_or_default();
        let (publish, states) = watch::channel(Arc::clone(&image.state));
        Ok((Machine { store, image, publish }, states))
    }
}

/// Takes a snapshot of the state as it was when the builder was asked for.
pub(crate) struct SnapshotBuilder {
    store: Arc<dyn Store>,
    image: Image,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    async fn build_snapshot(&mut self) -> Result<Snapshot<TypeConfig>, Failure> {
        let bytes = self
            .image
            .save(&*self.store)
            .await
            .map_err(failure(ErrorSubject::Snapshot(None), ErrorVerb::Write))?;
        Ok(Snapshot { meta: self.image.meta(), snapshot: Box::new(Cursor::new(bytes)) })
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogId<u64>>, StoredMembership<u64, Member>), Failure> {
        Ok((self.image.applied, self.image.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Applied>, Failure>
    where
        I: IntoIterator<Item = Entry<TypeConfig>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let answers = entries.into_iter().map(|entry| self.image.apply(entry)).collect();
        // Told before the answers are, so that whoever has an answer sees at least that state.
        self.publish.send_replace(Arc::clone(&self.image.state));
        Ok(answers)
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder { store: Arc::clone(&self.store), image: self.image.clone() }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, Failure> {
        Ok(Box::new(Cursor::new(Vec::new())))
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta<u64, Member>,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), Failure> {
        let subject = || ErrorSubject::Snapshot(Some(meta.signature()));
        let received: Image = records::decode(SNAPSHOT_KEY, snapshot.get_ref())
            .map_err(failure(subject(), ErrorVerb::Read))?;
        let image = Image {
            applied: meta.last_log_id,
            membership: meta.last_membership.clone(),
            state: received.state,
        };
        image.save(&*self.store).await.map_err(failure(subject(), ErrorVerb::Write))?;
        self.image = image;
        self.publish.send_replace(Arc::clone(&self.image.state));
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<TypeConfig>>, Failure> {
        let image = Image::read(&*self.store)
            .map_err(failure(ErrorSubject::Snapshot(None), ErrorVerb::Read))?;
        let Some(image) = image else { return Ok(None) };
        let bytes = records::encode(SNAPSHOT_KEY, &image)
            .map_err(failure(ErrorSubject::Snapshot(None), ErrorVerb::Read))?;
        Ok(Some(Snapshot { meta: image.meta(), snapshot: Box::new(Cursor::new(bytes.to_vec())) }))
    }
}
