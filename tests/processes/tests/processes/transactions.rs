//! The public API on real processes: transactions, conflicts, ranges, watches, idempotency, the
//! examples, and what of it a killed process lets a client see.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use plinth_test_processes::{Cluster, PATIENCE, is_of_kind, signal};
use reqwest::blocking::{Client, RequestBuilder};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::Outcome;

/// A gateway, asked as a user would.
pub(crate) struct Api {
    pub(crate) http: Client,
    gateways: Vec<String>,
}

impl Api {
    pub(crate) fn new(cluster: &Cluster) -> anyhow::Result<Api> {
        let http = Client::builder().timeout(PATIENCE).build()?;
        Ok(Api { http, gateways: cluster.ready.gateways.clone() })
    }

    pub(crate) fn url(&self, gateway: usize, path: &str) -> String {
        format!("{}{path}", self.gateways[gateway % self.gateways.len()])
    }

    pub(crate) fn answer(request: RequestBuilder) -> anyhow::Result<(u16, Value)> {
        let answer = request.send()?;
        let status = answer.status().as_u16();
        let text = answer.text()?;
        Ok((status, serde_json::from_str(&text).unwrap_or(Value::String(text))))
    }

    pub(crate) fn get(&self, path: &str) -> anyhow::Result<(u16, Value)> {
        Api::answer(self.http.get(self.url(0, path)))
    }

    pub(crate) fn post(
        &self,
        gateway: usize,
        path: &str,
        body: &Value,
    ) -> anyhow::Result<(u16, Value)> {
        Api::answer(self.http.post(self.url(gateway, path)).json(body))
    }

    pub(crate) fn put(&self, path: &str, value: &str) -> anyhow::Result<(u16, Value)> {
        Api::answer(self.http.put(self.url(0, path)).body(value.to_owned()))
    }

    pub(crate) fn transact(&self, body: Value) -> anyhow::Result<(u16, Value)> {
        self.post(0, "/v1/transactions", &body)
    }
}

fn one_shot_transactions(api: &Api) -> Outcome {
    api.put("/v1/keys/one/a", "1")?;
    let (status, answer) = api.transact(json!({
        "reads": [{"key": "one/a"}, {"prefix": "one/"}],
        "checks": [{"key": "one/a", "value": "1"}, {"key": "one/n", "absent": true}],
        "mutations": [
            {"set": {"key": "one/a", "value": "2"}},
            {"set": {"key": "one/b", "value": "3"}},
            {"add": {"key": "one/n", "operand": 5}},
        ],
    }))?;
    ensure!(status == 200, "{answer}");
    ensure!(answer["reads"][0]["value"] == "1", "{answer}");
    ensure!(answer["reads"][1]["items"].as_array().context("items")?.len() == 1, "{answer}");
    let (_, a) = api.get("/v1/keys/one/a")?;
    ensure!(a == 2, "{a}");
    let (status, problem) = api.transact(json!({
        "checks": [{"key": "one/a", "value": "1"}],
        "mutations": [{"clear": {"key": "one/b"}}],
    }))?;
    ensure!((status, &problem["code"]) == (409, &json!("check_failed")), "{problem}");
    ensure!(problem["facts"]["actual"] == "\"2\"", "{problem}");
    ensure!(api.get("/v1/keys/one/b")?.0 == 200, "a failed check changes nothing");
    let (status, _) = api.post(0, "/v1/keys/one/n/atomic", &json!({"op": "add", "operand": 2}))?;
    ensure!(status == 200);
    let (_, answer) = api.transact(json!({"reads": [{"key": "one/n"}]}))?;
    ensure!(answer["reads"][0]["value"]["b64"] == "BwAAAAAAAAA=", "{answer}");
    let put = api.http.put(api.url(0, "/v1/keys/one/a")).header("If-None-Match", "*").body("x");
    ensure!(Api::answer(put)?.0 == 412);
    Ok(())
}

fn ranges_are_of_one_version(api: &Api) -> Outcome {
    for number in 0..25 {
        api.put(&format!("/v1/keys/range/{number:02}"), "v")?;
    }
    let mut seen = Vec::new();
    let mut path = "/v1/keys?prefix=range/&limit=10&reverse=true".to_owned();
    loop {
        let (status, page) = api.get(&path)?;
        ensure!(status == 200, "{page}");
        for item in page["items"].as_array().context("items")? {
            seen.push(item["key"].as_str().context("text")?.to_owned());
        }
        // What is written between two pages is in neither.
        api.put("/v1/keys/range/00x", "late")?;
        match page["cursor"].as_str() {
            Some(cursor) => path = format!("/v1/keys?limit=10&cursor={cursor}"),
            None => break,
        }
    }
    let expected: Vec<String> = (0..25).rev().map(|number| format!("range/{number:02}")).collect();
    ensure!(seen == expected, "{seen:?}");
    let preview = api.http.delete(api.url(0, "/v1/keys?from=range/&to=range0&dry_run=true"));
    let (status, preview) = Api::answer(preview)?;
    ensure!(status == 200 && preview["would_delete"] == 26, "{preview}");
    ensure!(preview["more"] == false, "{preview}");
    let (_, page) = api.get("/v1/keys?prefix=range/")?;
    ensure!(page["items"].as_array().is_some_and(|items| items.len() == 26), "{page}");
    let delete = api.http.delete(api.url(0, "/v1/keys?from=range/&to=range0"));
    ensure!(Api::answer(delete)?.0 == 200);
    let (_, page) = api.get("/v1/keys?prefix=range/")?;
    ensure!(page["items"] == json!([]), "{page}");
    Ok(())
}

fn interactive_transactions_conflict(api: &Api) -> Outcome {
    let begin = || -> anyhow::Result<String> {
        let (status, begun) = api.post(0, "/v1/transactions/begin", &json!({}))?;
        ensure!(status == 200, "{begun}");
        Ok(begun["transaction"].as_str().context("an id")?.to_owned())
    };
    api.put("/v1/keys/inter", "0")?;
    let (first, second) = (begin()?, begin()?);
    // The second one is spoken to through another gateway, which forwards.
    for (gateway, id) in [(0, &first), (1, &second)] {
        let key = api.url(gateway, &format!("/v1/transactions/{id}/keys/inter"));
        let (status, value) = Api::answer(api.http.get(&key))?;
        ensure!(status == 200 && value == 0, "{value}");
        let put = api.http.put(&key).body(format!("{}", gateway + 1));
        let (status, answer) = Api::answer(put)?;
        ensure!(status == 200, "{answer}");
        let (_, own) = Api::answer(api.http.get(&key))?;
        ensure!(own == gateway + 1, "its own write: {own}");
    }
    let (status, answer) = api.post(0, &format!("/v1/transactions/{first}/commit"), &json!({}))?;
    ensure!(status == 200, "{answer}");
    let (status, problem) =
        api.post(1, &format!("/v1/transactions/{second}/commit"), &json!({}))?;
    ensure!((status, &problem["code"]) == (409, &json!("conflict")), "{problem}");
    let (status, _) = api.post(2, &format!("/v1/transactions/{second}/commit"), &json!({}))?;
    ensure!(status == 410, "it has ended");
    let (_, value) = api.get("/v1/keys/inter")?;
    ensure!(value == 1, "{value}");
    Ok(())
}

/// Interactive transactions live for 5 s; where the machine was slower, they are begun again.
pub(crate) fn within_their_time(act: impl Fn() -> Outcome) -> Outcome {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let late = |error: &anyhow::Error| {
            let text = error.to_string();
            text.contains("transaction_ended") || text.contains("transaction_too_old")
        };
        match act() {
            Err(error) if late(&error) && tokio::time::Instant::now() < deadline => {}
            outcome => return outcome,
        }
    }
}

fn an_id_stands_for_one_transaction(api: &Api) -> Outcome {
    let request = |operand: i64| {
        json!({
            "reads": [{"key": "once"}],
            "mutations": [{"add": {"key": "once", "operand": operand}}],
            "idempotency_id": "order-17",
        })
    };
    let (status, first) = api.transact(request(1))?;
    ensure!(status == 200, "{first}");
    for gateway in 0..3 {
        let (status, again) = api.post(gateway, "/v1/transactions", &request(1))?;
        ensure!((status, &again) == (200, &first), "{again}");
    }
    let (status, problem) = api.transact(request(2))?;
    ensure!((status, &problem["code"]) == (422, &json!("idempotency_mismatch")), "{problem}");
    let (_, answer) = api.transact(json!({"reads": [{"key": "once"}]}))?;
    ensure!(answer["reads"][0]["value"]["b64"] == "AQAAAAAAAAA=", "{answer}");
    Ok(())
}

fn watches_see_what_is_committed(api: &Api) -> Outcome {
    api.put("/v1/keys/watched", "1")?;
    let stream = api.http.get(api.url(1, "/v1/keys/watched/watch"));
    let stream = stream.header("Accept", "text/event-stream").send()?;
    ensure!(stream.headers()["content-type"] == "text/event-stream");
    let mut lines = BufReader::new(stream).lines();
    let mut next = || -> anyhow::Result<Value> {
        loop {
            let line = lines.next().context("the stream ended")??;
            if let Some(data) = line.strip_prefix("data: ").or_else(|| line.strip_prefix("data:")) {
                return Ok(serde_json::from_str(data)?);
            }
        }
    };
    ensure!(next()?["value"] == "1");
    let poll = api.http.get(api.url(2, "/v1/keys/watched/watch?wait=30s&value=1"));
    let polling = std::thread::spawn(move || Api::answer(poll));
    api.put("/v1/keys/watched", "2")?;
    ensure!(next()?["value"] == "2");
    let (status, event) = polling.join().expect("no panic")?;
    ensure!(status == 200 && event["changed"] == true && event["value"] == "2", "{event}");
    let (_, event) = api.get("/v1/keys/watched/watch?wait=100ms&value=2")?;
    ensure!(event["changed"] == false, "{event}");
    Ok(())
}

fn system_keys_are_the_administrators(api: &Api, directory: &Path) -> Outcome {
    for path in ["/v1/keys/%ff/system/epoch", "/v1/keys?from=%ff&to=%ff%ff"] {
        let (status, problem) = api.get(path)?;
        ensure!((status, &problem["code"]) == (403, &json!("system_key")), "{problem}");
        let token = std::fs::read_to_string(directory.join("admin-token"))?;
        let (status, answer) =
            Api::answer(api.http.get(api.url(0, path)).bearer_auth(token.trim()))?;
        ensure!(status == 200, "{answer}");
    }
    ensure!(api.put("/v1/keys/%ff/system/epoch", "9")?.0 == 403);
    Ok(())
}

fn examples_run(api: &Api) -> Outcome {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/curl");
    for example in ["bank.sh", "queue.sh", "leader.sh"] {
        let output = Command::new(examples.join(example)).arg(&api.gateways[0]).output()?;
        ensure!(
            output.status.success(),
            "{example}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}

#[test]
fn the_public_api() -> Outcome {
    let directory = tempfile::tempdir()?;
    let cluster = Cluster::start(directory.path())?;
    let api = Api::new(&cluster)?;
    one_shot_transactions(&api).context("one-shot transactions")?;
    ranges_are_of_one_version(&api).context("ranges")?;
    within_their_time(|| interactive_transactions_conflict(&api))
        .context("interactive transactions")?;
    an_id_stands_for_one_transaction(&api).context("idempotency")?;
    watches_see_what_is_committed(&api).context("watches")?;
    system_keys_are_the_administrators(&api, directory.path()).context("system keys")?;
    examples_run(&api).context("examples")?;
    cluster.stop()
}

/// The gateway gives a request up after so long; only then may it fail.
const DEADLINE: Duration = Duration::from_secs(5);

/// Every kind of process that an epoch depends on is killed under a client that only adds. It sees
/// latency and no error, unless the recovery takes longer than the gateway may wait, and every
/// addition counts once.
#[test]
fn a_killed_process_is_only_latency_and_nothing_is_done_twice() -> Outcome {
    let directory = tempfile::tempdir()?;
    let cluster = Cluster::start(directory.path())?;
    let api = Api::new(&cluster)?;
    // Through a gateway that nobody kills.
    let (mut added, mut unknown) = (0_u64, 0_u64);
    let mut add = || -> Outcome {
        let body = json!({"op": "add", "operand": 1});
        let started = tokio::time::Instant::now();
        let (status, answer) = api.post(0, "/v1/keys/counter/atomic", &body)?;
        let late = started.elapsed() >= DEADLINE;
        match (status, answer["outcome"].as_str()) {
            (200, _) => added += 1,
            (_, Some("not_committed")) if late => {}
            (_, Some("unknown")) if late => unknown += 1,
            _ => anyhow::bail!("{answer} after {:?}", started.elapsed()),
        }
        Ok(())
    };
    for kind in ["commit-proxy", "sequencer", "resolver", "director"] {
        for _ in 0..10 {
            add()?;
        }
        let victim =
            cluster.process(|row| is_of_kind(row, kind) && row.role != "standby").context(kind)?;
        let killer = std::thread::spawn({
            let os_pid = victim.os_pid;
            move || {
                std::thread::park_timeout(Duration::from_millis(30));
                signal(os_pid, Signal::KILL)
            }
        });
        for _ in 0..40 {
            add().context(kind)?;
        }
        killer.join().expect("no panic")?;
        for _ in 0..10 {
            add().context(kind)?;
        }
    }
    let (_, answer) = api.transact(json!({"reads": [{"key": "counter"}]}))?;
    let bytes = answer["reads"][0]["value"]["b64"].as_str().context("a number")?;
    let bytes = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, bytes)?;
    let counted = u64::from_le_bytes(bytes.try_into().ok().context("eight bytes")?);
    ensure!((added..=added + unknown).contains(&counted), "{counted}: {added} and {unknown}");
    cluster.stop()
}
