//! Requests that are wrong: each is a 4xx problem that names the thing and what to do, and has no
//! effect.

use anyhow::{Context as _, bail, ensure};
use plinth_api::director::LiveLayout;
use plinth_api::{ErrorCode, HEADER_CLUSTER, HEADER_INCARNATION, HEADER_SECRET, Problem};
use plinth_test_processes::Cluster;
use plinth_test_processes::cluster::is_of_kind;
use plinth_types::{KEY_LIMIT, ServiceKind, VALUE_LIMIT};
use reqwest::blocking::RequestBuilder;
use serde_json::json;

use crate::Outcome;

/// Sends a request that must be refused with this code and with these words.
fn refused(request: RequestBuilder, code: ErrorCode, words: &[&str]) -> Outcome {
    let answer = request.send()?;
    let status = answer.status();
    let kind = answer.headers().get("content-type").map(|kind| kind.as_bytes().to_vec());
    let text = answer.text()?;
    ensure!(status.is_client_error(), "{status}: {text}");
    ensure!(kind.as_deref() == Some(b"application/problem+json"), "{kind:?}: {text}");
    let problem: Problem = serde_json::from_str(&text)?;
    ensure!(problem.code == code && problem.status == status.as_u16(), "{problem:?}");
    ensure!(problem.request_id.is_some(), "{problem:?}");
    for word in words {
        ensure!(problem.detail.contains(word), "{:?} does not say {word:?}", problem.detail);
    }
    Ok(())
}

#[test]
fn wrong_requests_are_problems_and_have_no_effect() -> Outcome {
    let directory = tempfile::tempdir()?;
    let cluster = Cluster::start(directory.path())?;
    keys(&cluster)?;
    bodies(&cluster)?;
    workers(&cluster)?;
    fences(&cluster)?;
    ensure!(cluster.epoch()? == 1, "an epoch has ended");
    administrative_acts(&cluster)?;
    for (path, log) in logs(&cluster)? {
        ensure!(!log.contains("panicked"), "{path}: {log}");
    }
    cluster.stop()
}

fn keys(cluster: &Cluster) -> Outcome {
    let http = cluster.http();
    let keys = format!("{}/v1/keys", cluster.gateway()?);
    let longest = "k".repeat(KEY_LIMIT);
    cluster.put(cluster.gateway()?, &longest, "it fits")?;
    let (too_long, limit) = (format!("{longest}k"), KEY_LIMIT.to_string());
    for request in [
        http.put(format!("{keys}/{too_long}")).body("value"),
        http.get(format!("{keys}/{too_long}")),
        http.delete(format!("{keys}/{too_long}")),
    ] {
        refused(request, ErrorCode::LimitExceeded, &["key", &limit])?;
    }
    let limit = VALUE_LIMIT.to_string();
    let largest = "v".repeat(VALUE_LIMIT);
    cluster.put(cluster.gateway()?, "large", &largest)?;
    let request = http.put(format!("{keys}/large")).body(format!("{largest}v"));
    refused(request, ErrorCode::LimitExceeded, &["value", &limit])?;
    let request = http.put(format!("{keys}/large")).body("v".repeat(12 << 20));
    refused(request, ErrorCode::LimitExceeded, &["value", &limit])?;
    ensure!(cluster.get(cluster.gateway()?, "large")?.as_deref() == Some(largest.as_str()));
    let request = http.put(format!("{keys}/%FF%2Fsystem%2Fconfig")).body("mine");
    refused(request, ErrorCode::SystemKey, &["another key"])?;
    let request = http.get(format!("{keys}?key_b64=***"));
    refused(request, ErrorCode::InvalidRequest, &["key_b64", "base64"])?;
    let request = http.get(format!("{keys}?key64=aGVsbG8="));
    refused(request, ErrorCode::InvalidRequest, &["key64", "key_b64"])?;
    refused(http.get(format!("{keys}/absent")), ErrorCode::KeyNotFound, &["absent"])?;
    let nowhere = format!("{}/v1/kyes/hello", cluster.gateway()?);
    refused(http.get(nowhere), ErrorCode::NotFound, &[])?;
    refused(http.post(format!("{keys}/hello")), ErrorCode::MethodNotAllowed, &[])
}

fn bodies(cluster: &Cluster) -> Outcome {
    let http = cluster.http();
    let leader = cluster.process(|row| row.role == "leader")?;
    let token = std::fs::read_to_string(cluster.directory().join("admin-token"))?;
    let url = format!("{}/v1/recoveries", leader.url);
    let post = |body: &str| {
        let request = http.post(&url).bearer_auth(token.trim()).body(body.to_owned());
        request.header("content-type", "application/json")
    };
    refused(post("{\"reason\": "), ErrorCode::InvalidRequest, &["body"])?;
    refused(post("{}"), ErrorCode::InvalidRequest, &["reason"])?;
    refused(post("{\"reason\": 7}"), ErrorCode::InvalidRequest, &["reason"])?;
    let typo = post("{\"reason\": \"a test\", \"raeson\": \"\"}");
    refused(typo, ErrorCode::InvalidRequest, &["raeson"])?;
    let request = post("reason").header("content-type", "text/plain");
    let request = request.build().map(|mut request| {
        request.headers_mut().insert("content-type", "text/plain".parse().expect("a header"));
        request
    })?;
    refused(
        RequestBuilder::from_parts(http.clone(), request),
        ErrorCode::UnsupportedMediaType,
        &["application/json"],
    )?;
    let anonymous = http.post(&url).json(&json!({ "reason": "a test" }));
    refused(anonymous, ErrorCode::Unauthenticated, &["administrator", "Bearer"])?;
    let wrong = http.post(&url).bearer_auth("0123456789abcdef0123").json(&json!({ "reason": "x" }));
    refused(wrong, ErrorCode::Unauthenticated, &["token"])
}

/// Each is in the log of whoever was asked, done or refused, with who asked; secrets are in none.
fn administrative_acts(cluster: &Cluster) -> Outcome {
    let leader = cluster.process(|row| row.role == "leader")?;
    let kept = |name: &str| std::fs::read_to_string(cluster.directory().join(name));
    let (token, secret) = (kept("admin-token")?, kept("secret")?);
    let ask = |id: &str, token: Option<&str>, body: &serde_json::Value| {
        let request = cluster.http().post(format!("{}/v1/recoveries", leader.url)).json(body);
        let request = request.header("x-request-id", id);
        let request = token.into_iter().fold(request, RequestBuilder::bearer_auth);
        anyhow::Ok(request.send()?.status().as_u16())
    };
    let wanted = json!({ "reason": "an act to be seen" });
    let asked = [
        ("act-of-nobody", "Anonymous", ask("act-of-nobody", None, &wanted)?),
        ("act-malformed", "Administrator", ask("act-malformed", Some(token.trim()), &json!({}))?),
        ("act-done", "Administrator", ask("act-done", Some(token.trim()), &wanted)?),
    ];
    ensure!(asked.map(|(_, _, status)| status / 100) == [4, 4, 2], "{asked:?}");
    cluster.ready_above(1)?;
    let logs = logs(cluster)?;
    for (id, caller, status) in asked {
        let lines = logs.iter().flat_map(|(_, log)| log.lines());
        let acts = lines.filter(|line| line.contains("administrative act") && line.contains(id));
        let acts: Vec<&str> = acts.collect();
        let [act] = acts.as_slice() else { bail!("{id}: {acts:?}") };
        for word in [caller, "POST", "/v1/recoveries", &format!("status={status}")] {
            ensure!(act.contains(word), "{act:?} does not say {word:?}");
        }
    }
    for (path, log) in logs {
        ensure!(![&token, &secret].iter().any(|it| log.contains(it.trim())), "{path} has a secret");
    }
    Ok(())
}

fn workers(cluster: &Cluster) -> Outcome {
    let http = cluster.http();
    let foreman = cluster.process(|row| is_of_kind(row, "foreman"))?;
    let workers = format!("{}/v1/workers", foreman.url);
    let unknown = http.get(format!("{workers}/storage-9"));
    refused(unknown, ErrorCode::NotFound, &["storage-9", foreman.node.as_str()])?;
    let unknown = cluster.as_service(http.delete(format!("{workers}/sequencer-9")))?;
    refused(unknown, ErrorCode::NotFound, &["sequencer-9", foreman.node.as_str()])?;
    refused(http.get(format!("{workers}/disk-1")), ErrorCode::InvalidRequest, &["disk-1"])?;
    let kind = http.get(format!("{workers}?kind=disk"));
    refused(kind, ErrorCode::InvalidRequest, &["kind"])?;
    let wait = http.get(format!("{}/v1/health?wait=soon", foreman.url));
    refused(wait, ErrorCode::InvalidRequest, &["soon", "5s"])?;
    let anonymous = http.delete(format!("{workers}/log-1"));
    refused(anonymous, ErrorCode::Unauthenticated, &["services"])
}

/// What is meant for another epoch, process or cluster.
fn fences(cluster: &Cluster) -> Outcome {
    let http = cluster.http();
    let layout: LiveLayout = cluster.get_json("/v1/layout")?;
    let placed = |kind: ServiceKind| {
        let found = layout.directory.iter().find(|placed| placed.service.kind() == kind);
        found.with_context(|| format!("no {kind} in the directory"))
    };
    let url = |kind: ServiceKind, path: &str| {
        placed(kind).map(|placed| format!("http://{}{path}", placed.pid.address))
    };
    let reads = url(ServiceKind::Storage, "/v1/reads")?;
    let read = json!({ "epoch": 0, "version": "1", "keys": ["hello"] });
    let stale = cluster.as_service(http.post(&reads).json(&read))?;
    refused(stale, ErrorCode::StaleEpoch, &["epoch"])?;

    let entries = url(ServiceKind::Log, "/v1/entries")?;
    let status = || -> anyhow::Result<serde_json::Value> {
        Ok(http.get(url(ServiceKind::Log, "/v1/status")?).send()?.json()?)
    };
    let before = status()?;
    let entry =
        json!({ "epoch": 0, "prev": "0", "version": "1", "known_committed": "0", "messages": [] });
    let stale = cluster.as_service(http.post(&entries).json(&entry))?;
    refused(stale, ErrorCode::StaleEpoch, &["epoch"])?;
    ensure!(status()?["end"] == before["end"], "something was appended");
    let commit = json!({ "epoch": 0, "reads": [], "writes": [], "mutations": [], "system": false });
    let commits = url(ServiceKind::CommitProxy, "/v1/commits")?;
    let stale = cluster.as_service(http.post(&commits).json(&commit))?;
    refused(stale, ErrorCode::StaleEpoch, &["epoch"])?;
    let lock = json!({ "epoch": layout.config.epoch, "director": "0000000000000001" });
    let locks = url(ServiceKind::Log, "/v1/locks")?;
    let usurper = cluster.as_service(http.post(&locks).json(&lock))?;
    let answer = usurper.send()?;
    ensure!(answer.status().as_u16() == 409, "another director of the epoch: {answer:?}");

    for kind in [ServiceKind::Log, ServiceKind::Storage, ServiceKind::CommitProxy] {
        let own = placed(kind)?.pid.incarnation;
        let status = url(kind, "/v1/status")?;
        let request = http.get(&status).header(HEADER_INCARNATION, "0000000000000001");
        let words = [placed(kind)?.service.to_string(), own.to_string()];
        refused(request, ErrorCode::WrongIncarnation, &words.each_ref().map(String::as_str))?;
        let request = http.get(&status).header(HEADER_INCARNATION, "another");
        refused(request, ErrorCode::InvalidRequest, &[HEADER_INCARNATION])?;
        let request = http.get(&status).header(HEADER_CLUSTER, "f".repeat(32));
        refused(request, ErrorCode::WrongCluster, &["cluster"])?;
        let request = http.get(&status).header(HEADER_SECRET, "0123456789abcdef");
        refused(request, ErrorCode::Unauthenticated, &["secret"])?;
    }
    Ok(())
}

/// The logs of a cluster's processes.
fn logs(cluster: &Cluster) -> anyhow::Result<Vec<(String, String)>> {
    let mut logs = Vec::new();
    for node in ["node-1", "node-2", "node-3"] {
        for entry in std::fs::read_dir(cluster.directory().join(node))? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "log") {
                logs.push((path.display().to_string(), std::fs::read_to_string(&path)?));
            }
        }
    }
    ensure!(logs.len() >= 21, "{logs:?}");
    Ok(logs)
}
