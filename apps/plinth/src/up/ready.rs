//! Waiting until a cluster is ready, and what is then told.

use std::time::Duration;

use anyhow::{Context as _, anyhow};
use http::{HeaderMap, HeaderName, HeaderValue};
use plinth_api::HEADER_CLUSTER;
use plinth_api::coordinator::{ProcessRow, Processes};
use plinth_api::gateway::ClusterStatus;
use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::Cluster;
use super::progress::Voice;

/// Between two looks at the gateways.
const LOOK: Duration = Duration::from_millis(20);
/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(2);
/// After this time without progress it is said where to look.
const PATIENCE: Duration = Duration::from_secs(10);

/// A ready cluster.
#[derive(Clone, Debug)]
pub struct Ready {
    processes: Vec<ProcessRow>,
    gateways: Vec<String>,
}

/// What `--json` prints.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// From the start of the command to readiness, in milliseconds.
    pub ready_ms: u64,
    /// The gateways' URLs.
    pub gateways: Vec<String>,
    /// The trace store's URL.
    pub jaeger: Option<String>,
    /// Every process.
    pub processes: Vec<ProcessRow>,
}

impl Ready {
    /// The report of a cluster that took so long.
    #[must_use]
    pub fn report(self, took: Duration, jaeger: Option<String>) -> Report {
        Report {
            ready_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            gateways: self.gateways,
            jaeger,
            processes: self.processes,
        }
    }
}

/// Waits until a gateway says that commits are accepted, telling each step on the way.
///
/// # Errors
/// It takes longer than `limit`; the message says what was waited for last.
pub(crate) async fn wait(
    cluster: &Cluster,
    limit: Duration,
    voice: &Voice,
) -> anyhow::Result<Ready> {
    // Whoever has taken a gateway's port meanwhile, another cluster's gateway too, is not taken for it.
    let ours = HeaderValue::try_from(cluster.file.cluster.to_string())?;
    let headers = HeaderMap::from_iter([(HeaderName::from_static(HEADER_CLUSTER), ours)]);
    let client =
        reqwest::Client::builder().no_proxy().default_headers(headers).timeout(ANSWER).build()?;
    let gateways = cluster.gateways();
    let deadline = Instant::now() + limit;
    let mut told = String::new();
    let mut since = Instant::now();
    let mut hinted = false;
    loop {
        let seen = look(&client, &gateways).await;
        let waits_for = match &seen {
            Some(status) if status.ready => {
                let processes = processes(&client, &gateways).await?;
                return Ok(Ready { processes, gateways });
            }
            Some(status) => describe(status),
            None => "waiting for the processes to start".to_owned(),
        };
        if waits_for != told {
            voice.progress(&waits_for);
            told = waits_for;
            since = Instant::now();
            hinted = false;
        }
        if since.elapsed() > PATIENCE && !hinted {
            hinted = true;
            voice.progress(&format!(
                "no progress for {} s; the logs are {}/*/*.log",
                PATIENCE.as_secs(),
                cluster.data_dir.display()
            ));
        }
        if Instant::now() >= deadline {
            return Err(anyhow!(
                "the cluster is not ready after {} s: {told}; the logs are {}/*/*.log",
                limit.as_secs(),
                cluster.data_dir.display()
            ));
        }
        sleep(LOOK).await;
    }
}

async fn look(client: &reqwest::Client, gateways: &[String]) -> Option<ClusterStatus> {
    for gateway in gateways {
        if let Ok(status) = get(client, gateway, "/v1/status").await {
            return Some(status);
        }
    }
    None
}

async fn processes(
    client: &reqwest::Client,
    gateways: &[String],
) -> anyhow::Result<Vec<ProcessRow>> {
    let mut last = anyhow!("there is no gateway");
    for gateway in gateways {
        match get::<Processes>(client, gateway, "/v1/processes").await {
            Ok(answer) => return Ok(answer.processes),
            Err(error) => last = error,
        }
    }
    Err(last.context("the cluster is ready, and its processes can't be listed"))
}

async fn get<T: serde::de::DeserializeOwned>(
    client: &reqwest::Client,
    base: &str,
    path: &str,
) -> anyhow::Result<T> {
    let answer = client.get(format!("{base}{path}")).send().await?.error_for_status()?;
    answer.json().await.with_context(|| format!("{base}{path} answers in another form"))
}

fn describe(status: &ClusterStatus) -> String {
    let mut text = format!("epoch {}: {}", status.epoch, status.phase);
    if !status.problems.is_empty() {
        text.push_str(" (");
        text.push_str(&status.problems.join("; "));
        text.push(')');
    }
    text
}
