//! Traces, as a receiver outside of the cluster gets them.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, ensure};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use plinth_api::coordinator::ProcessRow;
use plinth_system_config::RecoveryPhase;
use plinth_test_processes::cluster::{is_of_kind, reference};
use plinth_test_processes::otlp::{Receiver, Span, Trace};
use plinth_test_processes::{Cluster, eventually, signal};
use rustix::process::Signal;

use crate::Outcome;

/// What all spans of a trace must be like, whatever it is about.
fn check_spans(trace: &Trace, processes: &[ProcessRow]) -> Outcome {
    let listed: BTreeMap<String, u32> =
        processes.iter().map(|row| (reference(row), row.os_pid)).collect();
    for span in trace.spans() {
        ensure!(
            listed.get(&span.instance) == Some(&span.os_pid),
            "no such process is listed: {span:?}"
        );
        let service = span.attribute("plinth.service");
        ensure!(service == Some(span.instance.as_str()), "of another service: {span:?}");
    }
    trace.check_calls()
}

/// Every span has its parent, but for the root; a call that was answered was served by somebody.
/// What was killed, such as who answered at `lost`, has taken its last spans with it.
fn is_whole(trace: &Trace, root: &Span, lost: Option<&str>) -> Outcome {
    for span in trace.spans().filter(|span| span.id != root.id) {
        ensure!(trace.parent(span).is_some(), "without its parent: {span:?}");
        let is_lost = lost.is_some() && span.attribute("plinth.peer") == lost;
        if span.kind == SpanKind::Client
            && !is_lost
            && span.attribute("http.response.status_code").is_some()
        {
            let is_served = |other: &Span| {
                other.kind == SpanKind::Server && other.parent.as_deref() == Some(&span.id)
            };
            ensure!(trace.spans().any(is_served), "nobody served: {span:?}");
        }
    }
    Ok(())
}

fn instances<'a>(spans: impl Iterator<Item = &'a Span>) -> BTreeSet<&'a str> {
    spans.map(|span| span.instance.as_str()).collect()
}

/// The commit's way below a span: proxy, sequencer, resolver, every log with its fsync, and every
/// storage's application; all of one epoch and version.
fn check_commit(trace: &Trace, above: &Span, epoch: u64) -> Outcome {
    let epoch = epoch.to_string();
    let below: Vec<&Span> = trace.below(above).collect();
    let with = |kind: &str, name: &str| {
        let found = below.iter().filter(|span| span.is_at(kind) && span.name == name);
        let found: Vec<&Span> =
            found.copied().filter(|span| span.kind != SpanKind::Client).collect();
        found
    };
    let batches = with("commit-proxy", "commit_batch");
    ensure!(!batches.is_empty(), "no batch below {above:?}");
    let version = batches
        .iter()
        .find_map(|batch| {
            trace
                .parent(batch)
                .filter(|parent| parent.kind == SpanKind::Server)
                .and(batch.attribute("plinth.version"))
        })
        .with_context(|| format!("a batch without a version: {batches:?}"))?;
    let of_version = |span: &&&Span| span.attribute("plinth.version") == Some(version);
    for (kind, name, services) in [
        ("commit-proxy", "POST /v1/commits", 1),
        ("sequencer", "POST /v1/commit_versions", 1),
        ("resolver", "POST /v1/resolutions", 1),
        ("log", "POST /v1/entries", 3),
        ("log", "fsync", 3),
        ("sequencer", "POST /v1/committed_versions", 1),
        ("storage", "apply", 3),
    ] {
        let found = with(kind, name);
        let found: Vec<&&Span> = found.iter().filter(of_version).collect();
        let who = instances(found.iter().map(|span| **span));
        ensure!(who.len() == services, "{name} of version {version} at {who:?}: {below:#?}");
        for span in &found {
            ensure!(span.attribute("plinth.epoch") == Some(&epoch), "of another epoch: {span:?}");
            ensure!(span.error.is_none(), "{span:?}");
            if name == "fsync" {
                let push = trace.parent(span).context("no push")?;
                ensure!(push.name == "POST /v1/entries" && push.kind == SpanKind::Server);
            }
        }
    }
    Ok(())
}

#[test]
fn the_recovery_of_the_first_epoch_is_one_trace_through_every_service() -> Outcome {
    let receiver = Receiver::start()?;
    let directory = tempfile::tempdir()?;
    let cluster = Cluster::start_with(directory.path(), &["--otlp", receiver.url()])?;
    ensure!(cluster.ready.jaeger.is_none(), "two receivers: {:?}", cluster.ready.jaeger);
    let epoch = cluster.epoch()?;
    ensure!(epoch == 1, "a cold start took {epoch} epochs");
    let processes = cluster.ready.processes.clone();
    ensure!(processes == cluster.processes()?, "other processes than at the start");
    let leader = processes.iter().find(|row| row.role == "leader").context("no leader")?;
    let active = processes.iter().find(|row| row.role == "active").context("no director")?;
    eventually("the trace of the first recovery", || {
        let (root, trace) = receiver.recovery(epoch)?;
        is_whole(&trace, &root, None)?;
        ensure!(root.parent.is_none() && root.error.is_none(), "{root:?}");
        ensure!(root.instance == reference(leader), "begun by {root:?}");
        check_spans(&trace, &processes)?;
        let elsewhere: Vec<&Span> =
            trace.spans().filter(|span| span.attribute("plinth.epoch") != Some("1")).collect();
        ensure!(elsewhere.is_empty(), "of no or another epoch: {elsewhere:#?}");

        for phase in RecoveryPhase::ALL {
            let span = trace.the(phase.as_str())?;
            ensure!(span.instance == reference(active), "{span:?}");
            ensure!(trace.is_below(span, &root) && span.error.is_none(), "{span:?}");
        }
        check_commit(&trace, trace.the("system_transaction")?, epoch)?;
        let recording = trace.the("recording_layout")?;
        let mut below = trace.below(recording).filter(|span| span.name == "PUT /v1/holding");
        ensure!(
            below.any(|span| span.kind == SpanKind::Server && span.instance == reference(leader)),
            "not recorded at the coordinators"
        );
        let pids: BTreeSet<u32> = trace.spans().map(|span| span.os_pid).collect();
        ensure!(pids.len() >= 11, "only {} processes: {:?}", pids.len(), instances(trace.spans()));
        Ok(())
    })?;
    cluster.stop()
}

/// A caller that samples decides for the whole commit, and its trace goes on in the cluster.
#[test]
fn a_users_commit_is_traced_through_the_pipeline() -> Outcome {
    let receiver = Receiver::start()?;
    let directory = tempfile::tempdir()?;
    let cluster = Cluster::start_with(directory.path(), &["--otlp", receiver.url()])?;
    let epoch = cluster.epoch()?;
    let (id, caller) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
    let url = format!("{}/v1/keys/traced", cluster.gateway()?);
    let answer = cluster
        .http()
        .put(url)
        .header("traceparent", format!("00-{id}-{caller}-01"))
        .body("value")
        .send()?;
    ensure!(answer.status().is_success(), "{answer:?}");
    eventually("the trace of the commit", || {
        let trace = receiver.trace(id)?;
        let mut requests = trace.spans().filter(|span| span.parent.as_deref() == Some(caller));
        let request = requests.next().context("no span of the caller's")?;
        ensure!(request.is_at("gateway") && request.kind == SpanKind::Server, "{request:?}");
        ensure!(request.name.starts_with("PUT /v1/keys/"), "{request:?}");
        is_whole(&trace, request, None)?;
        check_spans(&trace, &cluster.ready.processes)?;
        check_commit(&trace, request, epoch)
    })?;
    cluster.stop()
}

/// Two of the three storages are frozen, so that the next recovery stops in `system_transaction`;
/// there a component is killed. So the failure comes at a known step, however fast the machine is.
#[test]
fn a_failing_directors_trace_names_the_step() -> Outcome {
    let receiver = Receiver::start()?;
    let directory = tempfile::tempdir()?;
    let cluster = Cluster::start_with(directory.path(), &["--otlp", receiver.url()])?;
    cluster.put(cluster.gateway()?, "kept", "through a failed recovery")?;
    let before = cluster.epoch()?;
    let storages = cluster.of_kind("storage")?;
    let frozen = &storages[..2];
    for storage in frozen {
        signal(storage.os_pid, Signal::STOP)?;
    }
    cluster.begin_recovery("the storages are frozen")?;
    let failing = eventually("a recovery that waits for the storages", || {
        let status = cluster.status()?;
        let director = status.director.context("no director")?;
        let waits = director.epoch.0 > before && director.phase == "system_transaction";
        ensure!(waits, "{director:?}");
        let reason = director.stalled.context("it does not wait")?;
        ensure!(frozen.iter().any(|row| reason.contains(&reference(row))), "{reason}");
        Ok(director.epoch.0)
    })?;
    let resolver = cluster.process(|row| is_of_kind(row, "resolver"))?;
    let at = resolver.url.trim_start_matches("http://");
    cluster.kill(resolver.os_pid)?;
    eventually("the trace of the failed recovery", || {
        let (root, trace) = receiver.recovery(failing)?;
        is_whole(&trace, &root, Some(at))?;
        let failed: Vec<&Span> = RecoveryPhase::ALL
            .iter()
            .flat_map(|phase| trace.named(phase.as_str()))
            .filter(|span| span.error.is_some())
            .collect();
        ensure!(failed.len() == 1 && failed[0].name == "system_transaction", "{failed:#?}");
        let who = reference(&resolver);
        let names = |text: &Option<String>| text.as_ref().is_some_and(|text| text.contains(&who));
        ensure!(names(&failed[0].error), "{:?} does not name {who}", failed[0]);
        let why = root.error.as_ref().context("the root has not failed")?;
        ensure!(why.contains("system_transaction") && why.contains(&who), "{why}");
        Ok(())
    })?;
    for storage in frozen {
        signal(storage.os_pid, Signal::CONT)?;
    }
    cluster.ready_above(failing)?;
    let kept = cluster.get(cluster.gateway()?, "kept")?;
    ensure!(kept.as_deref() == Some("through a failed recovery"), "{kept:?}");
    cluster.stop()
}
