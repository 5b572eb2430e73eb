//! A user of the cluster: talks HTTP to its gateways, and knows what each answer promises.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use plinth_api::gateway::{ClusterStatus, KeyAnswer, WatchEvent, Written};
use plinth_api::{Client, Endpoint, Nothing, Outcome, Problem, Target, TimeLimit, TransportError};
use plinth_runtime::{Runtime, Scope};
use plinth_service::{Sender, Transport};
use plinth_types::Version;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep};
use tower::ServiceExt as _;

/// How long a user waits for an answer. Longer than a gateway's own deadline.
const PATIENCE: Duration = Duration::from_secs(7);
/// Between two looks at the cluster's status.
const LOOK: Duration = Duration::from_millis(50);

/// `GET /v1/status`.
const STATUS: Endpoint<Nothing, ClusterStatus> = Endpoint::get("/v1/status");

/// What became of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It was committed, at this version.
    Committed(Version),
    /// It was not, and never will be.
    NotCommitted(String),
    /// It may have been, or may still be.
    Unknown(String),
}

/// A person or program outside of the cluster.
#[derive(Clone)]
pub struct User {
    transport: Transport,
}

/// A gateway, as a user sees it.
#[derive(Clone)]
pub struct Gateway {
    transport: Transport,
    address: String,
}

impl User {
    /// A user whose connections live in this scope.
    #[must_use]
    pub fn new(runtime: Runtime, scope: Scope) -> User {
        User { transport: Transport::new(runtime, scope, &Sender::default()) }
    }

    /// The gateway at this address, `host:port`.
    #[must_use]
    pub fn gateway(&self, address: &str) -> Gateway {
        Gateway { transport: self.transport.clone(), address: address.to_owned() }
    }
}

impl Gateway {
    /// Where it answers.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The value of a key and the version it was read at.
    ///
    /// # Errors
    /// Why there is no answer. It says nothing of the key.
    pub async fn get(&self, key: &str) -> anyhow::Result<(Version, Option<Bytes>)> {
        let answer = self.send(Method::GET, key, Bytes::new()).await?;
        if answer.status().is_success() {
            let answer: KeyAnswer = serde_json::from_slice(answer.body())?;
            return Ok((answer.version, Some(answer.value.0)));
        }
        let problem: Problem = serde_json::from_slice(answer.body())?;
        match problem.facts.get("version") {
            Some(version) if answer.status() == StatusCode::NOT_FOUND => {
                Ok((version.parse()?, None))
            }
            _ => Err(problem.into()),
        }
    }

    /// Waits until a key has another value than was seen, for so long; less than 6 s.
    ///
    /// # Errors
    /// Why there is no answer. It says nothing of the key.
    pub async fn watch(
        &self,
        key: &str,
        seen: Option<&Bytes>,
        wait: Duration,
    ) -> anyhow::Result<WatchEvent> {
        let seen = match seen {
            Some(value) => {
                let text = std::str::from_utf8(value)?;
                let encoded: String = form_urlencoded::byte_serialize(text.as_bytes()).collect();
                format!("value={encoded}")
            }
            None => "absent=true".to_owned(),
        };
        let path = format!("/v1/keys/{key}/watch?wait={}ms&{seen}", wait.as_millis());
        let answer = self.request(Method::GET, &path, Bytes::new()).await?;
        if answer.status().is_success() {
            return Ok(serde_json::from_slice(answer.body())?);
        }
        Err(serde_json::from_slice::<Problem>(answer.body())?.into())
    }

    /// Writes a key.
    pub async fn put(&self, key: &str, value: impl Into<Bytes>) -> Fate {
        self.write(Method::PUT, key, value.into()).await
    }

    /// Removes a key.
    pub async fn delete(&self, key: &str) -> Fate {
        self.write(Method::DELETE, key, Bytes::new()).await
    }

    async fn write(&self, method: Method, key: &str, value: Bytes) -> Fate {
        let answer = match self.send(method, key, value).await {
            Ok(answer) => answer,
            // It was never sent.
            Err(error @ TransportError::Connect { .. }) => {
                return Fate::NotCommitted(error.to_string());
            }
            Err(error) => return Fate::Unknown(error.to_string()),
        };
        if answer.status().is_success() {
            return match serde_json::from_slice::<Written>(answer.body()) {
                Ok(written) => Fate::Committed(written.version),
                Err(error) => Fate::Unknown(format!("an answer of another form: {error}")),
            };
        }
        match serde_json::from_slice::<Problem>(answer.body()) {
            Ok(problem) if problem.outcome == Outcome::NotCommitted => {
                Fate::NotCommitted(problem.to_string())
            }
            Ok(problem) => Fate::Unknown(problem.to_string()),
            Err(error) => Fate::Unknown(format!("a problem of another form: {error}")),
        }
    }

    async fn send(
        &self,
        method: Method,
        key: &str,
        body: Bytes,
    ) -> Result<Response<Bytes>, TransportError> {
        self.request(method, &format!("/v1/keys/{key}"), body).await
    }

    /// Sends a JSON body to a path.
    ///
    /// # Errors
    /// There is no answer; [`TransportError::Connect`] where the request was never sent.
    pub async fn post(&self, path: &str, body: Bytes) -> Result<Response<Bytes>, TransportError> {
        self.request(Method::POST, path, body).await
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Response<Bytes>, TransportError> {
        let uri = format!("http://{}{path}", self.address);
        let request = Request::builder()
            .method(method)
            .uri(uri)
            .header(http::header::ACCEPT, "application/json")
            .header(http::header::CONTENT_TYPE, "application/json")
            .extension(TimeLimit(PATIENCE))
            .body(body)
            .map_err(|error| TransportError::Connect {
                peer: self.address.clone(),
                detail: error.to_string(),
            })?;
        self.transport.clone().oneshot(request).await
    }

    /// The cluster's status.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn status(&self) -> anyhow::Result<ClusterStatus> {
        self.ask(&STATUS).await
    }

    /// What a route without parameters answers.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn ask<T: DeserializeOwned>(
        &self,
        endpoint: &Endpoint<Nothing, T>,
    ) -> anyhow::Result<T> {
        let client = Client::new(self.transport.clone());
        let target = Target::address(&self.address);
        Ok(client.call(&target, endpoint, &Nothing {}, None, PATIENCE).await?)
    }

    /// Waits until the cluster accepts commits.
    ///
    /// # Errors
    /// It does not within the time; the error says what it was at last.
    pub async fn ready(&self, within: Duration) -> anyhow::Result<ClusterStatus> {
        let deadline = Instant::now() + within;
        loop {
            let status = self.status().await;
            if let Ok(status) = &status
                && status.ready
            {
                return Ok(status.clone());
            }
            if Instant::now() >= deadline {
                anyhow::bail!("not ready after {within:?}: {status:?}");
            }
            sleep(LOOK).await;
        }
    }
}
