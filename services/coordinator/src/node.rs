//! The coordinator's heart: its records, the group that it is active in, and what its tasks share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use openraft::ServerState;
use openraft::error::{ClientWriteError, RaftError};
use plinth_api::coordinator::{Bootstrap, Farewell, Founding, FoundingMember};
use plinth_api::members::OrderMember;
use plinth_api::{Endpoint, ErrorCode, Target};
use plinth_service::{Context, Failure};
use plinth_types::{ConfigVersion, Epoch, GroupId, Incarnation, ServiceRef};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, OnceCell, OwnedMutexGuard, mpsc, watch};
use tokio::time::{Instant, timeout};

use crate::belonging::belong;
use crate::config::{
    ClusterFile, FORWARD_LIMIT, INITIALIZE_TURN, QUORUM_PATIENCE, READ_LIMIT, WRITE_LIMIT,
};
use crate::contacts::Contacts;
use crate::membership::{Seat, Seats};
use crate::meters::Meters;
use crate::raft::{self, LogStore, Machine, Member, Network, Raft, with_random};
use crate::records::{RecordError, Records};
use crate::registry::Registry;
use crate::state::{Applied, ClusterState, Command, Refusal};

/// The group that a coordinator is active in.
#[derive(Clone)]
pub(crate) struct Group {
    /// The founding.
    pub(crate) id: GroupId,
    /// Its identity in Raft.
    pub(crate) raft_id: u64,
    /// Raft itself.
    pub(crate) raft: Raft,
    /// The state as it is applied here.
    pub(crate) states: watch::Receiver<Arc<ClusterState>>,
    /// What it was founded from; none for one that has joined later.
    pub(crate) founding: Option<Arc<Founding>>,
    /// When it became active here.
    pub(crate) since: Instant,
    /// Set once the state has everything that was answered from before this process was started.
    pub(crate) caught_up: Arc<OnceCell<()>>,
}

impl Group {
    /// The state as it is applied here.
    #[must_use]
    pub(crate) fn state(&self) -> Arc<ClusterState> {
        Arc::clone(&self.states.borrow())
    }

    /// Whether this is the same: the group, under the same identity.
    #[must_use]
    pub(crate) fn is(&self, other: &Group) -> bool {
        (self.id, self.raft_id) == (other.id, other.raft_id)
    }

    /// Raft's membership, as it is in effect here.
    #[must_use]
    pub(crate) fn seats(&self) -> Seats {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        Seats::of(metrics.membership_config.membership())
    }

    /// Its voting members, in the order of their names; during a change those of before and after it.
    #[must_use]
    pub(crate) fn members(&self) -> Vec<FoundingMember> {
        let seats = self.seats().everybody().into_iter();
        seats
            .map(|Seat { service, raft_id, address }| FoundingMember { service, raft_id, address })
            .collect()
    }

    /// The Raft leader's id, where one is known.
    #[must_use]
    pub(crate) fn leader(&self) -> Option<u64> {
        self.raft.metrics().borrow().current_leader
    }

    /// Whether this coordinator leads.
    #[must_use]
    pub(crate) fn is_leading(&self) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        // One that has stopped shows for ever what it was last.
        metrics.running_state.is_ok()
            && metrics.state == ServerState::Leader
            && metrics.current_leader == Some(self.raft_id)
    }
}

/// Where a request is served that needs the leader.
pub(crate) enum Place {
    /// Here.
    Here(Group),
    /// There.
    There(Leader),
}

/// Another coordinator that leads.
#[derive(Clone, Debug)]
pub(crate) struct Leader {
    /// Which service.
    pub(crate) service: ServiceRef,
    /// Where it answers.
    pub(crate) target: Target,
}

/// How far the bootstrap is.
#[derive(Clone, Debug)]
pub(crate) enum Start {
    /// Not decided: nobody is appointed.
    Deciding,
    /// Decided. A configuration above the group's, where one was found.
    Decided(Option<Arc<Command>>),
}

/// What the leader sees of the current epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct View {
    /// The director's phase, as its monitor stream tells it.
    pub(crate) phase: Option<String>,
    /// The director that is watched.
    pub(crate) watched: Option<Incarnation>,
    /// Why nothing goes on.
    pub(crate) problem: Option<String>,
}

/// What the leader's task is told.
#[derive(Debug)]
pub(crate) enum Event {
    /// A director says why it exits.
    Farewell(Farewell),
    /// A new epoch is asked for.
    Begin {
        /// In place of this one; nothing, where that is not the latest any more.
        over: Epoch,
        /// Why.
        reason: String,
    },
}

/// A coordinator.
pub(crate) struct Node {
    /// Its surroundings.
    pub(crate) context: Context,
    /// The cluster file.
    pub(crate) cluster: ClusterFile,
    /// Its node's foreman.
    pub(crate) foreman: Option<Target>,
    /// How it started.
    pub(crate) bootstrap: watch::Sender<Bootstrap>,
    /// How far the bootstrap is.
    pub(crate) start: watch::Sender<Start>,
    /// What it sees as a leader.
    pub(crate) view: watch::Sender<View>,
    /// The leader's task.
    pub(crate) events: mpsc::Sender<Event>,
    /// Told when a node reports something new.
    pub(crate) reported: Notify,
    pub(crate) records: tokio::sync::Mutex<Records>,
    pub(crate) group: watch::Sender<Option<Group>>,
    /// When it started.
    pub(crate) since: Instant,
    /// What it shows at `/metrics`.
    pub(crate) meters: Meters,
    /// Where coordinators answer, as far as it has heard.
    pub(crate) contacts: Contacts,
    /// One change of Raft's membership at a time: it takes two steps.
    pub(crate) voting: tokio::sync::Mutex<()>,
    /// Told when an order about the membership has begun something.
    pub(crate) ordered: Notify,
    ordering: Arc<tokio::sync::Mutex<()>>,
    /// The order about the membership that is carried out here.
    under_way: Mutex<Option<OrderMember>>,
    /// A learner that is being prepared.
    wanted: Mutex<Option<u64>>,
    registry: Mutex<Registry>,
    broken: watch::Sender<Option<String>>,
}

/// The source that is shown before a coordinator knows how it starts.
pub(crate) const DECIDING: &str = "deciding";

/// The status before a coordinator knows how it starts.
#[must_use]
pub(crate) fn deciding() -> Bootstrap {
    Bootstrap {
        source: DECIDING.to_owned(),
        storage: None,
        epoch: Epoch::ZERO,
        config_version: ConfigVersion(0),
        rejected: Vec::new(),
        waiting_for: None,
    }
}

impl Node {
    /// A coordinator that is not active yet.
    #[must_use]
    pub(crate) fn new(
        context: Context,
        cluster: ClusterFile,
        foreman: Option<Target>,
        records: Records,
        events: mpsc::Sender<Event>,
    ) -> Arc<Node> {
        let meters = Meters::new(context.metrics());
        let contacts = Contacts::new(&cluster);
        Arc::new(Node {
            meters,
            contacts,
            voting: tokio::sync::Mutex::default(),
            ordered: Notify::new(),
            ordering: Arc::default(),
            under_way: Mutex::default(),
            wanted: Mutex::default(),
            context,
            cluster,
            foreman,
            bootstrap: watch::Sender::new(deciding()),
            start: watch::Sender::new(Start::Deciding),
            view: watch::Sender::new(View::default()),
            events,
            reported: Notify::new(),
            records: tokio::sync::Mutex::new(records),
            group: watch::Sender::new(None),
            since: Instant::now(),
            registry: Mutex::new(Registry::default()),
            broken: watch::Sender::new(None),
        })
    }

    /// The nodes that have reported.
    pub(crate) fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The group that it is active in.
    #[must_use]
    pub(crate) fn active(&self) -> Option<Group> {
        self.group.borrow().clone()
    }

    /// Whether the bootstrap is decided.
    #[must_use]
    pub(crate) fn is_decided(&self) -> bool {
        matches!(*self.start.borrow(), Start::Decided(_))
    }

    /// The bootstrap is decided, unless it is already.
    pub(crate) fn decide_first(&self, bootstrap: Bootstrap, adopt: Option<Arc<Command>>) {
        let mut first = None;
        self.bootstrap.send_if_modified(|shown| {
            let is_first = shown.source == DECIDING;
            if is_first {
                *shown = bootstrap.clone();
                first = Some(adopt);
            }
            is_first
        });
        if let Some(adopt) = first {
            self.decided(&bootstrap, adopt);
        }
    }

    /// The bootstrap is decided by a founding, whatever was thought before.
    pub(crate) fn decide(&self, bootstrap: Bootstrap, adopt: Option<Arc<Command>>) {
        self.bootstrap.send_replace(bootstrap.clone());
        self.decided(&bootstrap, adopt);
    }

    fn decided(&self, bootstrap: &Bootstrap, adopt: Option<Arc<Command>>) {
        tracing::info!(source = bootstrap.source, epoch = %bootstrap.epoch, "bootstrap decided");
        self.context.runtime().mark(format_args!("coordinator.bootstrap.{}", bootstrap.source));
        self.start.send_replace(Start::Decided(adopt));
        self.context.set_check("bootstrap", Ok(()));
    }

    /// Runs to its end whatever happens to who asked for it.
    ///
    /// # Errors
    /// The service is ending.
    pub(crate) async fn finish<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl Future<Output = Result<T, Failure>> + Send + 'static,
    ) -> Result<T, Failure> {
        match self.context.scope().spawn(name, work).await {
            Ok(Some(result)) => result,
            Ok(None) | Err(_) => {
                Err(Failure::new(ErrorCode::NotReady, "the coordinator is about to end"))
            }
        }
    }

    /// Notes that nothing more can be done here: the process must end.
    pub(crate) fn set_broken(&self, reason: impl Into<String>) {
        let reason = reason.into();
        self.broken.send_if_modified(|broken| {
            let first = broken.is_none();
            broken.get_or_insert(reason);
            first
        });
    }

    /// A disk's refusal as an answer. A full disk clears by itself; anything else ends the process.
    pub(crate) fn disk_failure(&self, error: &RecordError) -> Failure {
        if let RecordError::Store(plinth_store::StoreError::Full { .. }) = error {
            return Failure::new(ErrorCode::DiskFull, error.to_string());
        }
        self.set_broken(error.to_string());
        Failure::new(ErrorCode::Damaged, error.to_string())
    }

    /// Waits until nothing more can be done here, and says why.
    pub(crate) async fn broken(&self) -> String {
        let mut broken = self.broken.subscribe();
        loop {
            if let Some(reason) = broken.borrow_and_update().clone() {
                return reason;
            }
            if broken.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Starts Raft in the group of the records, if there is one and it does not run.
    ///
    /// # Errors
    /// The store can't be read, or Raft does not start on it.
    pub(crate) async fn activate(self: &Arc<Self>, records: &Records) -> Result<(), String> {
        let part = records.part();
        let Some(id) = part.acceptor.active_group() else { return Ok(()) };
        if self.active().is_some_and(|group| group.id == id) {
            return Ok(());
        }
        let store = Arc::clone(records.store());
        let raft_id = records.raft_id();
        let (machine, states) =
            Machine::open(Arc::clone(&store)).map_err(|error| error.to_string())?;
        let contacts = self.contacts.clone();
        let network = Network::new(self.context.peers().clone(), contacts, id, raft_id);
        let config = raft::config().map_err(|error| error.to_string())?;
        let log = LogStore::new(store).with_faults_of(self.context.runtime());
        let raft = Raft::new(raft_id, config, network, log, machine);
        let raft = self
            .context
            .scope()
            .enter(with_random(self.context.runtime().random(), raft))
            .await
            .map_err(|error| format!("Raft does not start: {error}"))?;
        let founding = part.founding.clone().map(Arc::new);
        let caught_up = Arc::default();
        let group = Group { id, raft_id, raft, states, founding, since: Instant::now(), caught_up };
        self.group.send_replace(Some(group.clone()));
        let scope = self.context.scope();
        drop(scope.spawn("group", follow(Arc::clone(self), group.clone())));
        drop(scope.spawn("belonging", belong(Arc::clone(self), group.clone())));
        if let Some(founding) = group.founding.clone() {
            drop(scope.spawn("initialize", initialize(group, founding)));
        }
        Ok(())
    }

    /// Stops Raft, if it runs. It never acts in that group again before [`Node::activate`].
    pub(crate) async fn deactivate(&self) {
        let Some(group) = self.group.send_replace(None) else { return };
        self.start.send_replace(Start::Deciding);
        self.bootstrap.send_replace(deciding());
        self.context.set_check("bootstrap", Err("the group was renounced".to_owned()));
        // Its result only says that it had ended before.
        drop(group.raft.shutdown().await);
    }

    /// Where a request is served that needs the leader. One that a coordinator has passed on is
    /// never passed on again.
    ///
    /// # Errors
    /// `no_quorum`, at once.
    pub(crate) fn place(&self, passed_on: bool) -> Result<Place, Failure> {
        let group = self.active().ok_or_else(|| {
            let waiting = self.bootstrap.borrow().waiting_for.clone();
            let why = waiting.unwrap_or_else(|| "the bootstrap is under way".to_owned());
            no_quorum(format!("the coordinators' group is not founded or joined yet: {why}"))
        })?;
        if group.is_leading() {
            let silent = group.raft.metrics().borrow().millis_since_quorum_ack;
            if silent.is_some_and(|ms| Duration::from_millis(ms) > QUORUM_PATIENCE) {
                return Err(no_quorum("no majority of the coordinators answers the leader"));
            }
            return Ok(Place::Here(group));
        }
        let leader = group.leader().filter(|leader| *leader != group.raft_id && !passed_on);
        let leader = leader.and_then(|leader| {
            let member = group.members().into_iter().find(|member| member.raft_id == leader)?;
            Some(Leader { target: Target::address(&member.address), service: member.service })
        });
        leader
            .map(Place::There)
            .ok_or_else(|| no_quorum("the coordinators have no leader now: try again"))
    }

    /// Passes a request on.
    ///
    /// # Errors
    /// What the leader answers, or that it does not.
    pub(crate) async fn pass_on<Req: Serialize, Resp: DeserializeOwned>(
        &self,
        leader: &Leader,
        endpoint: &Endpoint<Req, Resp>,
        request: &Req,
    ) -> Result<Resp, Failure> {
        let peers = self.context.peers();
        Ok(peers.call(&leader.target, endpoint, request, None, FORWARD_LIMIT).await?)
    }

    /// The state, read linearizably. The leader only.
    ///
    /// # Errors
    /// `no_quorum`.
    pub(crate) async fn read(&self, group: &Group) -> Result<Arc<ClusterState>, Failure> {
        let confirm = async {
            // openraft has a leader that was started again go on in its term. What it knows to be
            // committed may then be less than what it has answered from, and it enters nothing that
            // would tell, as a leader that was elected does.
            let mark = async || group.raft.client_write(Command::mark()).await.map(drop);
            group.caught_up.get_or_try_init(mark).await.map_err(|error| error.to_string())?;
            group.raft.ensure_linearizable().await.map_err(|error| error.to_string())
        };
        match timeout(READ_LIMIT, confirm).await {
            Ok(Ok(_)) => Ok(group.state()),
            Ok(Err(error)) => Err(no_quorum(format!("this is not the leader any more: {error}"))),
            Err(_) => Err(no_quorum("no majority of the coordinators answers the leader")),
        }
    }

    /// Has a command committed and applied. The leader only.
    ///
    /// # Errors
    /// A refusal of the state, or that its fate is not known.
    pub(crate) async fn write(&self, group: &Group, command: Command) -> Result<Applied, Failure> {
        match self.submit(group, command).await? {
            Applied::Refused(refusal) => Err(refused(&refusal)),
            applied => Ok(applied),
        }
    }

    /// The same; what the state refuses is an answer.
    ///
    /// # Errors
    /// Its fate is not known.
    pub(crate) async fn submit(&self, group: &Group, command: Command) -> Result<Applied, Failure> {
        let unknown = |detail: String| Failure::new(ErrorCode::DeadlineExceeded, detail);
        match timeout(WRITE_LIMIT, group.raft.client_write(command)).await {
            Ok(Ok(answer)) => Ok(answer.data),
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_)))) => {
                Err(unknown("the leadership was lost before the majority answered".into()))
            }
            Ok(Err(error)) => Err(unknown(error.to_string())),
            Err(_) => Err(unknown(format!(
                "no majority of the coordinators answered within {} ms",
                WRITE_LIMIT.as_millis()
            ))),
        }
    }

    /// The learner that is being prepared; nobody takes it out meanwhile.
    #[must_use]
    pub(crate) fn wanted(&self) -> Option<u64> {
        *self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Prepares a learner for as long as what is returned is kept.
    #[must_use]
    pub(crate) fn want(&self, raft_id: u64) -> Wanted<'_> {
        *self.wanted.lock().unwrap_or_else(PoisonError::into_inner) = Some(raft_id);
        Wanted(self)
    }

    /// Waits until an order about the membership may be carried out: one is at a time.
    ///
    /// # Errors
    /// Another one is being carried out. The same one is waited for.
    pub(crate) async fn turn(&self, order: &OrderMember) -> Result<OwnedMutexGuard<()>, Failure> {
        let under_way = || self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        if let Ok(turn) = Arc::clone(&self.ordering).try_lock_owned() {
            *under_way() = Some(order.clone());
            return Ok(turn);
        }
        let other = under_way().clone();
        match other {
            Some(other) if other != *order => {
                let detail = format!(
                    "another change is under way: {}. One is made at a time",
                    other.describe()
                );
                Err(Failure::new(ErrorCode::Unsatisfiable, detail).with("field", "service"))
            }
            _ => {
                let turn = Arc::clone(&self.ordering).lock_owned().await;
                *under_way() = Some(order.clone());
                Ok(turn)
            }
        }
    }

    /// This coordinator as a member of a founding.
    #[must_use]
    pub(crate) fn as_member(&self, raft_id: u64) -> FoundingMember {
        let service = self.context.service().clone();
        let address = self.cluster.address(&service).unwrap_or(&self.context.pid().address);
        FoundingMember { raft_id, address: address.to_owned(), service }
    }
}

/// A learner that is being prepared.
pub(crate) struct Wanted<'a>(&'a Node);

impl Drop for Wanted<'_> {
    fn drop(&mut self) {
        *self.0.wanted.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// A `no_quorum` answer.
pub(crate) fn no_quorum(detail: impl Into<String>) -> Failure {
    Failure::new(ErrorCode::NoQuorum, detail)
}

fn refused(refusal: &Refusal) -> Failure {
    let code = match refusal {
        Refusal::NotFounded => ErrorCode::NotReady,
        Refusal::Founded
        | Refusal::Superseded { .. }
        | Refusal::Changed { .. }
        | Refusal::Ready(_) => ErrorCode::Superseded,
        Refusal::Unfit(_) | Refusal::NoLayout(_) => ErrorCode::InvalidRequest,
    };
    Failure::new(code, refusal.to_string())
}

/// Shows the group's epoch, and notes its end.
async fn follow(node: Arc<Node>, group: Group) {
    let mut states = group.states.clone();
    let mut metrics = group.raft.metrics();
    loop {
        node.context.set_epoch(states.borrow_and_update().epoch);
        let is_current = node.active().is_some_and(|active| active.is(&group));
        {
            let metrics = metrics.borrow_and_update();
            node.context.set_state(match metrics.state {
                ServerState::Leader => "leader",
                ServerState::Candidate => "candidate",
                ServerState::Follower | ServerState::Learner | ServerState::Shutdown => "follower",
            });
            match &metrics.running_state {
                Ok(()) => {}
                Err(openraft::error::Fatal::Stopped) if !is_current => return,
                Err(error) => return node.set_broken(format!("Raft has stopped: {error}")),
            }
        }
        if !is_current {
            return;
        }
        tokio::select! {
            biased;
            changed = metrics.changed() => if changed.is_err() { return },
            changed = states.changed() => if changed.is_err() { return },
        }
    }
}

/// One of the founders starts the group: the first, and should it be lost before it has, the next.
/// All name the same members, so a second call changes nothing.
async fn initialize(group: Group, founding: Arc<Founding>) {
    let Some(turn) = founding.members.iter().position(|member| member.raft_id == group.raft_id)
    else {
        return;
    };
    let turn = u32::try_from(turn).unwrap_or(u32::MAX);
    tokio::time::sleep(INITIALIZE_TURN.saturating_mul(turn)).await;
    if !matches!(group.raft.is_initialized().await, Ok(false)) {
        return;
    }
    let members: std::collections::BTreeMap<u64, Member> = founding
        .members
        .iter()
        .map(|member| {
            let service = Some(member.service.clone());
            (member.raft_id, Member { service, address: member.address.clone() })
        })
        .collect();
    if let Err(error) = group.raft.initialize(members).await {
        // The others were faster.
        tracing::debug!(%error, "the group was initialized already");
    }
}

#[cfg(test)]
pub(crate) mod tests;
