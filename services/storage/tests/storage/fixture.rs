//! Logs that hold what a test puts into them.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use plinth_api::log::{Entry, Generation, PopRequest, PullAnswer, PullQuery, TagMutations};
use plinth_api::{ErrorCode, Nothing};
use plinth_runtime::{Runtime, Scope, ScopeGuard};
use plinth_service::{Answer, Exit, Failure, Host, HostOptions, Json, Query, Routes, Secrets};
use plinth_types::{ClusterId, Epoch, Mutation, Pid, Tag, VERSION_GAP, Version};
use tokio::sync::watch;
use utoipa_axum::routes;

pub(crate) const CLUSTER: ClusterId = ClusterId(0xc1);

pub(crate) fn generation(epoch: u64, recovery_version: Version) -> Generation {
    let first_version = Version(epoch * VERSION_GAP);
    Generation { epoch: Epoch(epoch), recovery_version, first_version }
}

pub(crate) fn options(service: &str) -> HostOptions {
    HostOptions {
        service: service.parse().unwrap(),
        bind: "127.0.0.1:0".to_owned(),
        advertise: None,
        cluster: Some(CLUSTER),
        secrets: Secrets::default(),
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) generation: Generation,
    pub(crate) entries: Vec<Entry>,
    pub(crate) end: Version,
    pub(crate) known_committed: Version,
    pub(crate) pops: Vec<PopRequest>,
    pub(crate) pulls: usize,
    pub(crate) broken: bool,
    /// What is up to here has been dropped.
    pub(crate) popped: Version,
}

impl Held {
    fn answer(&self, query: &PullQuery) -> PullAnswer {
        let after = query.after;
        let entries = self.entries.iter().filter(|entry| entry.version > after).cloned();
        PullAnswer {
            entries: entries
                .filter_map(|mut entry| {
                    entry.messages.retain(|message| message.tag == query.tag);
                    (!entry.messages.is_empty()).then_some(entry)
                })
                .collect(),
            end: self.end.max(after),
            known_committed: self.known_committed,
            generation: Some(self.generation),
        }
    }
}

/// A faked log.
pub(crate) struct Log {
    pub(crate) pid: Pid,
    pub(crate) held: Arc<watch::Sender<Held>>,
    _end: ScopeGuard,
}

impl Log {
    pub(crate) async fn start(service: &str, generation: Generation) -> Log {
        let held = Held {
            generation,
            entries: Vec::new(),
            end: generation.recovery_version,
            known_committed: generation.recovery_version,
            pops: Vec::new(),
            pulls: 0,
            broken: false,
            popped: Version::ZERO,
        };
        let held = Arc::new(watch::Sender::new(held));
        let (scope, end) = Scope::new();
        let host = Host::bind(Runtime::real(), options(service)).await.unwrap();
        let pid = host.context().pid().clone();
        let routes =
            Routes::new().service(routes!(pull)).service(routes!(pop)).with_state(held.clone());
        drop(scope.spawn("log", host.run(routes, std::future::pending::<Exit>())));
        Log { pid, held, _end: end }
    }

    /// Adds a batch, which answers its version.
    pub(crate) fn push(&self, tag: Tag, mutations: Vec<Mutation>) -> Version {
        self.held.send_modify(|held| {
            let prev = held.end;
            let version = prev.plus(10).max(held.generation.first_version);
            let (epoch, known_committed) = (held.generation.epoch, held.known_committed);
            let messages = vec![TagMutations { tag, mutations }];
            let traceparent =
                Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned());
            held.entries.push(Entry {
                epoch,
                prev,
                version,
                known_committed,
                messages,
                traceparent,
            });
            held.end = version;
        });
        self.held.borrow().end
    }

    /// Everything pushed so far becomes known to be committed.
    pub(crate) fn commit(&self) {
        self.held.send_modify(|held| held.known_committed = held.end);
    }

    /// A recovery: what is above RV is gone.
    pub(crate) fn begin(&self, generation: Generation) {
        self.held.send_modify(|held| {
            held.entries.retain(|entry| entry.version <= generation.recovery_version);
            held.end = generation.recovery_version;
            held.generation = generation;
        });
    }

    /// Everything that is known to be committed is dropped, as once all members have it.
    pub(crate) fn drop_all(&self) {
        self.held.send_modify(|held| {
            held.popped = held.known_committed;
            held.entries.retain(|entry| entry.version > held.popped);
        });
    }

    pub(crate) async fn wait_for(&self, condition: impl FnMut(&Held) -> bool) {
        let mut held = self.held.subscribe();
        let waiting = held.wait_for(condition);
        tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap().unwrap();
    }
}

type Shared = Arc<watch::Sender<Held>>;

#[utoipa::path(get, path = "/v1/entries", params(PullQuery), responses((status = 200, body = PullAnswer)))]
async fn pull(State(held): State<Shared>, Query(query): Query<PullQuery>) -> Answer<PullAnswer> {
    held.send_modify(|held| held.pulls += 1);
    let mut watching = held.subscribe();
    let news = |held: &Held| {
        held.broken
            || query.after < held.popped
            || held.end > query.after
            || held.known_committed > query.known_committed
            || held.generation.epoch > query.epoch
    };
    let wait = Duration::from_millis(query.wait_ms);
    let _ = tokio::time::timeout(wait, watching.wait_for(news)).await;
    let held = held.borrow().clone();
    if query.after < held.popped {
        return Err(Failure::new(ErrorCode::TransactionTooOld, "dropped by the test"));
    }
    if held.broken {
        return Err(Failure::new(ErrorCode::NotReady, "broken by the test"));
    }
    Ok(Json(held.answer(&query)))
}

#[utoipa::path(post, path = "/v1/pops", request_body = PopRequest, responses((status = 200, body = Nothing)))]
async fn pop(State(held): State<Shared>, Json(request): Json<PopRequest>) -> Answer<Nothing> {
    held.send_modify(|held| held.pops.push(request));
    Ok(Json(Nothing {}))
}
