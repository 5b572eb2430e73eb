//! The service that the tests host, and how they ask it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::{Path, State};
use bytes::Bytes;
use http::{Request, Response};
use plinth_api::{
    CallError, Endpoint, ErrorCode, Nothing, Problem, Target, TimeLimit, TransportError,
};
use plinth_runtime::{Runtime, Scope, ScopeGuard};
use plinth_service::{
    Answer, Caller, Context, Exit, Failure, Host, HostOptions, Json, Query, Routes, Secret,
    Secrets, Sender, SenderEpoch, Transport,
};
use plinth_types::ClusterId;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tower::ServiceExt as _;
use utoipa_axum::routes;

/// Nothing here may take longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
pub(crate) const CLUSTER: ClusterId = ClusterId(7);

/// What the handlers of the test's service share.
#[derive(Clone)]
pub(crate) struct Counted {
    pub(crate) context: Context,
    /// Requests that reached a handler.
    pub(crate) handled: Arc<AtomicU64>,
}

#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct Parcel {
    pub(crate) weight: u32,
    #[serde(default)]
    pub(crate) labels: Vec<u8>,
}

#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema, utoipa::IntoParams)]
pub(crate) struct ParcelQuery {
    weight: Option<u32>,
}

#[utoipa::path(post, path = "/v1/parcels", request_body = Parcel, responses((status = 200, body = Parcel)))]
async fn post_parcel(
    State(counted): State<Counted>,
    SenderEpoch(epoch): SenderEpoch,
    Json(mut parcel): Json<Parcel>,
) -> Answer<Parcel> {
    counted.handled.fetch_add(1, Ordering::SeqCst);
    parcel.weight += u32::try_from(epoch.map_or(0, |epoch| epoch.0)).unwrap();
    Ok(Json(parcel))
}

#[utoipa::path(get, path = "/v1/parcels", params(ParcelQuery), responses((status = 200, body = Parcel)))]
async fn get_parcels(Query(query): Query<ParcelQuery>) -> Answer<Parcel> {
    Ok(Json(Parcel { weight: query.weight.unwrap_or(0), labels: Vec::new() }))
}

#[utoipa::path(get, path = "/v1/parcels/{number}", params(("number" = u32, Path)), responses((status = 200, body = Parcel)))]
async fn get_parcel(Path(number): Path<u32>) -> Answer<Parcel> {
    let detail = format!("there is no parcel {number}");
    Err(Failure::new(ErrorCode::NotFound, detail).with("parcel", number))
}

#[utoipa::path(get, path = "/v1/for/anyone", responses((status = 200, body = String)))]
async fn for_anyone(caller: Caller) -> Answer<String> {
    Ok(Json(format!("{caller:?}")))
}
#[utoipa::path(get, path = "/v1/for/user", responses((status = 200, body = String)))]
async fn for_user(caller: Caller) -> Answer<String> {
    Ok(Json(format!("{caller:?}")))
}
#[utoipa::path(get, path = "/v1/for/administrator", responses((status = 200, body = String)))]
async fn for_administrator(caller: Caller) -> Answer<String> {
    Ok(Json(format!("{caller:?}")))
}
#[utoipa::path(get, path = "/v1/for/service", responses((status = 200, body = String)))]
async fn for_service(caller: Caller) -> Answer<String> {
    Ok(Json(format!("{caller:?}")))
}

#[utoipa::path(post, path = "/v1/panic", responses((status = 200, body = Nothing)))]
async fn panic_in_handler() -> Answer<Nothing> {
    panic!("a handler's panic");
}

#[utoipa::path(post, path = "/v1/panic_in_task", responses((status = 200, body = Nothing)))]
async fn panic_in_task(State(counted): State<Counted>) -> Answer<Nothing> {
    drop(counted.context.scope().spawn("fragile", async { panic!("on purpose") }));
    Ok(Json(Nothing {}))
}

#[utoipa::path(get, path = "/v1/never", responses((status = 200, body = Nothing)))]
async fn never() -> Answer<Nothing> {
    std::future::pending().await
}

/// Asks another service for something that is not there, and answers with its problem's ids.
#[utoipa::path(post, path = "/v1/relay", request_body = String, responses((status = 200, body = Vec<String>)))]
async fn relay(
    State(counted): State<Counted>,
    Json(address): Json<String>,
) -> Answer<(Option<String>, Option<String>)> {
    let missing: Endpoint<Nothing, Nothing> = Endpoint::get("/v2/nothing");
    let target = Target::address(&address);
    let call = counted.context.peers().call(&target, &missing, &Nothing {}, None, PATIENCE);
    match call.await {
        Err(CallError::Problem(problem)) => Ok(Json((problem.request_id, problem.trace_id))),
        other => panic!("{other:?}"),
    }
}

pub(crate) fn routes(counted: Counted) -> Routes {
    Routes::new()
        .describe("Parcels", "The service of the tests.")
        .anyone(routes!(post_parcel, get_parcels))
        .anyone(routes!(get_parcel))
        .anyone(routes!(for_anyone))
        .user(routes!(for_user))
        .administrator(routes!(for_administrator))
        .service(routes!(for_service))
        .service(routes!(panic_in_handler))
        .service(routes!(panic_in_task))
        .anyone(routes!(never))
        .anyone(routes!(relay))
        .with_state(counted)
}

pub(crate) fn secret(text: &str) -> Secret {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    Secret::from_file(file.path()).unwrap()
}

pub(crate) fn options(secrets: Secrets) -> HostOptions {
    HostOptions {
        service: "storage-1@node-1".parse().unwrap(),
        bind: "127.0.0.1:0".to_owned(),
        advertise: None,
        cluster: Some(CLUSTER),
        secrets,
    }
}

/// A hosted service.
pub(crate) struct Hosted {
    pub(crate) context: Context,
    pub(crate) handled: Arc<AtomicU64>,
    pub(crate) exit: JoinHandle<Option<Exit>>,
    /// Ends the main task with this exit.
    pub(crate) end: oneshot::Sender<Exit>,
    /// Dropping it drops the service where it stands, as `kill -9` does.
    pub(crate) life: ScopeGuard,
}

impl Hosted {
    pub(crate) fn target(&self) -> Target {
        Target::from(self.context.pid())
    }

    pub(crate) fn handled(&self) -> u64 {
        self.handled.load(Ordering::SeqCst)
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.context.pid().address)
    }
}

pub(crate) async fn host() -> Hosted {
    host_with(Secrets::default()).await
}

pub(crate) async fn host_with(secrets: Secrets) -> Hosted {
    let host = Host::bind(Runtime::real(), options(secrets)).await.unwrap();
    let context = host.context();
    let counted = Counted { context: context.clone(), handled: Arc::default() };
    let handled = Arc::clone(&counted.handled);
    let (scope, life) = Scope::new();
    let (end, ended) = oneshot::channel();
    let main = async move { ended.await.unwrap_or(Exit::clean()) };
    let exit = scope.spawn("host", host.run(routes(counted), main));
    Hosted { context, handled, exit, end, life }
}

/// Somebody outside.
pub(crate) struct Asker {
    transport: Transport,
    _life: ScopeGuard,
}

impl Asker {
    /// Nobody in particular.
    pub(crate) fn anonymous() -> Asker {
        Asker::new(&Sender::default())
    }

    pub(crate) fn new(sender: &Sender) -> Asker {
        let (scope, life) = Scope::new();
        Asker { transport: Transport::new(Runtime::real(), scope, sender), _life: life }
    }

    pub(crate) async fn ask(&self, request: Request<Bytes>) -> Response<Bytes> {
        self.try_ask(request, PATIENCE).await.unwrap()
    }

    pub(crate) async fn try_ask(
        &self,
        mut request: Request<Bytes>,
        limit: Duration,
    ) -> Result<Response<Bytes>, TransportError> {
        request.extensions_mut().insert(TimeLimit(limit));
        self.transport.clone().oneshot(request).await
    }

    pub(crate) async fn get(&self, url: String) -> Response<Bytes> {
        self.ask(Request::get(url).body(Bytes::new()).unwrap()).await
    }

    pub(crate) async fn post(&self, url: String, json: &'static str) -> Response<Bytes> {
        let request = Request::post(url).header("content-type", "application/json");
        self.ask(request.body(Bytes::from_static(json.as_bytes())).unwrap()).await
    }
}

pub(crate) fn json<T: DeserializeOwned>(answer: &Response<Bytes>) -> T {
    serde_json::from_slice(answer.body()).unwrap()
}

/// A problem whose status, media type and code agree.
pub(crate) fn problem(answer: &Response<Bytes>) -> Problem {
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
    let problem: Problem = json(answer);
    assert_eq!(problem.status, answer.status().as_u16());
    assert_eq!(problem.code.status(), answer.status());
    assert_eq!(answer.headers()["x-request-id"], problem.request_id.as_deref().unwrap());
    problem
}

/// Waits, but not for ever.
pub(crate) async fn within<F: Future>(future: F) -> F::Output {
    timeout(PATIENCE, future).await.expect("it takes too long")
}
