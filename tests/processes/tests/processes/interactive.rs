//! Interactive transactions on real processes: ranges, forwarding, names, and what ends them.

use anyhow::{Context as _, ensure};
use plinth_test_processes::cluster::reference;
use plinth_test_processes::{Cluster, eventually, signal};
use reqwest::blocking::RequestBuilder;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::Outcome;
use crate::transactions::{Api, within_their_time};

/// A transaction begun at a gateway.
fn begin(api: &Api, gateway: usize) -> anyhow::Result<String> {
    let (status, begun) = api.post(gateway, "/v1/transactions/begin", &json!({}))?;
    ensure!(status == 200, "{begun}");
    Ok(begun["transaction"].as_str().context("an id")?.to_owned())
}

fn text(request: RequestBuilder) -> anyhow::Result<Value> {
    let (status, answer) = Api::answer(request)?;
    ensure!(status == 200, "{answer}");
    Ok(answer)
}

fn keys(page: &Value) -> anyhow::Result<Vec<&str>> {
    let items = page["items"].as_array().context("items")?;
    Ok(items.iter().filter_map(|item| item["key"].as_str()).collect())
}

/// A page reads what the transaction has written, at any gateway, and conflicts like any read.
fn ranges(api: &Api) -> Outcome {
    text(api.http.delete(api.url(0, "/v1/keys?from=list/&to=list0")))?;
    for name in ["a", "b", "c", "d"] {
        api.put(&format!("/v1/keys/list/{name}"), name)?;
    }
    let id = begin(api, 0)?;
    for gateway in 0..3 {
        let all = |query: &str| api.url(gateway, &format!("/v1/transactions/{id}/keys{query}"));
        text(api.http.put(all("/list%2Fown")).body(gateway.to_string()))?;
        text(api.http.put(all("?key_b64=bGlzdC96")).body("by base64"))?;
        text(api.http.delete(all("?from=list/b&to=list/c")))?;
        let preview = text(api.http.delete(all("?from=list/c&to=list/z&dry_run=true")))?;
        ensure!(preview["would_delete"] == 3 && preview["more"] == false, "{preview}");
        let answer = api.http.get(all("?prefix=list/&limit=2")).send()?;
        let by = answer.headers()["served-by"].to_str()?.to_owned();
        ensure!(id.starts_with(&format!("{by}.")), "{by} answers for {id}");
        let page: Value = answer.json()?;
        ensure!(keys(&page)? == ["list/a", "list/c"], "{page}");
        let cursor = page["cursor"].as_str().context("there is more")?;
        let rest = text(api.http.get(all(&format!("?cursor={cursor}"))))?;
        ensure!(keys(&rest)? == ["list/d", "list/own", "list/z"], "{rest}");
        ensure!(rest.get("cursor").is_none() && rest["version"] == page["version"], "{rest}");
        let back = text(api.http.get(all("?from=list/&to=list/e&reverse=true")))?;
        ensure!(keys(&back)? == ["list/d", "list/c", "list/a"], "{back}");
        ensure!(text(api.http.get(all("?key_b64=bGlzdC96")))? == "by base64");
        let other = begin(api, gateway)?;
        api.put("/v1/keys/list/later", "v")?;
        let foreign = api.url(gateway, &format!("/v1/transactions/{other}/keys?cursor={cursor}"));
        let (status, problem) = Api::answer(api.http.get(foreign))?;
        ensure!((status, &problem["facts"]["field"]) == (400, &json!("cursor")), "{problem}");
    }
    let (status, problem) =
        Api::answer(api.http.get(api.url(1, &format!("/v1/transactions/{id}/keys?prefix=%ff"))))?;
    ensure!((status, &problem["code"]) == (403, &json!("system_key")), "{problem}");
    // A key that came into a range that was read is a phantom, whichever way it came.
    let (status, problem) = api.post(1, &format!("/v1/transactions/{id}/commit"), &json!({}))?;
    ensure!((status, &problem["code"]) == (409, &json!("conflict")), "{problem}");
    Ok(())
}

fn commit(api: &Api, gateway: usize, id: &str, name: &str) -> anyhow::Result<(u16, Value)> {
    let url = api.url(gateway, &format!("/v1/transactions/{id}/commit"));
    Api::answer(api.http.post(url).header("Idempotency-Key", name))
}

/// A named commit is answered alike however often and wherever it is asked for.
fn names(api: &Api) -> Outcome {
    let id = begin(api, 0)?;
    let key = |gateway| api.url(gateway, &format!("/v1/transactions/{id}/keys/named"));
    text(api.http.put(key(0)).body("once"))?;
    let name = format!("commit {id}");
    let (status, first) = commit(api, 1, &id, &name)?;
    ensure!(status == 200 && first["versionstamp"].is_string(), "{first}");
    for gateway in 0..3 {
        ensure!(commit(api, gateway, &id, &name)? == (200, first.clone()), "at {gateway}");
    }
    let by_body = json!({"idempotency_id": name});
    let answer = api.post(2, &format!("/v1/transactions/{id}/commit"), &by_body)?;
    ensure!(answer == (200, first), "{answer:?}");
    // Without the name nobody can tell; under it, another transaction is another request.
    for gateway in 0..3 {
        let again = api.post(gateway, &format!("/v1/transactions/{id}/commit"), &json!({}))?;
        ensure!((again.0, &again.1["outcome"]) == (409, &json!("unknown")), "{again:?}");
    }
    let other = begin(api, 2)?;
    let (status, problem) = commit(api, 0, &other, &name)?;
    ensure!((status, &problem["code"]) == (422, &json!("idempotency_mismatch")), "{problem}");
    Ok(())
}

/// An epoch that begins ends the transactions that have read in the last one.
fn epochs(api: &Api, cluster: &Cluster) -> Outcome {
    let id = begin(api, 1)?;
    let key = api.url(1, &format!("/v1/transactions/{id}/keys/across"));
    let (status, _) = Api::answer(api.http.get(&key))?;
    ensure!(status == 404, "it has no value yet");
    let watching = api.http.get(api.url(2, "/v1/keys/watched-across/watch?wait=30s&absent=true"));
    let watching = std::thread::spawn(move || Api::answer(watching));
    let epoch = cluster.epoch()?;
    cluster.begin_recovery("a test of interactive transactions")?;
    cluster.ready_above(epoch)?;
    let put = Api::answer(api.http.put(&key).body("late"))?;
    ensure!(put.0 == 200 || put.0 == 410, "{put:?}");
    let (status, problem) = api.post(0, &format!("/v1/transactions/{id}/commit"), &json!({}))?;
    let ended = [(409, json!("transaction_too_old")), (410, json!("transaction_ended"))];
    ensure!(ended.contains(&(status, problem["code"].clone())), "{problem}");
    ensure!(problem["retryable"] == true && problem["outcome"] == "not_committed", "{problem}");
    ensure!(api.get("/v1/keys/across")?.0 == 404, "nothing of it took effect");
    // A watch that was begun in the last epoch sees what is committed in this one.
    api.put("/v1/keys/watched-across", "here")?;
    let (status, event) = watching.join().expect("no panic")?;
    ensure!(status == 200 && event["changed"] == true && event["value"] == "here", "{event}");
    Ok(())
}

/// What a gateway held is gone with it; what it had committed is told by the others.
fn a_killed_gateway(api: &Api, cluster: &Cluster) -> Outcome {
    let (done, open) = (begin(api, 2)?, begin(api, 2)?);
    for id in [&done, &open] {
        let key = api.url(2, &format!("/v1/transactions/{id}/keys/of-the-killed"));
        text(api.http.put(key).body(id.clone()))?;
    }
    let (status, first) = commit(api, 2, &done, &format!("done {done}"))?;
    ensure!(status == 200, "{first}");
    let gateway = cluster.process(|row| open.starts_with(&format!("{}.", reference(row))))?;
    signal(gateway.os_pid, Signal::KILL)?;
    for other in [0, 1, 0] {
        let again = commit(api, other, &done, &format!("done {done}"))?;
        ensure!(again == (200, first.clone()), "{again:?}");
        let unnamed = api.post(other, &format!("/v1/transactions/{done}/commit"), &json!({}))?;
        ensure!((unnamed.0, &unnamed.1["outcome"]) == (409, &json!("unknown")), "{unnamed:?}");
        let (status, problem) = commit(api, other, &open, &format!("open {open}"))?;
        ensure!((status, &problem["code"]) == (410, &json!("transaction_ended")), "{problem}");
    }
    // Its name is free for another try.
    let retry = begin(api, 0)?;
    let key = api.url(0, &format!("/v1/transactions/{retry}/keys/of-the-killed"));
    text(api.http.put(key).body("the retry"))?;
    let (status, answer) = commit(api, 1, &retry, &format!("open {open}"))?;
    ensure!(status == 200, "{answer}");
    let (status, problem) = commit(api, 1, &open, &format!("open {open}"))?;
    ensure!((status, &problem["code"]) == (422, &json!("idempotency_mismatch")), "{problem}");
    ensure!(api.get("/v1/keys/of-the-killed")?.1 == "the retry");
    Ok(())
}

#[test]
fn interactive_transactions() -> Outcome {
    let directory = tempfile::tempdir()?;
    let cluster = Cluster::start(directory.path())?;
    let api = Api::new(&cluster)?;
    within_their_time(|| ranges(&api)).context("ranges")?;
    within_their_time(|| names(&api)).context("names")?;
    epochs(&api, &cluster).context("epochs")?;
    within_their_time(|| a_killed_gateway(&api, &cluster)).context("a killed gateway")?;
    cluster.stop()
}

/// Base64 of so many bytes that are no text.
fn binary(bytes: usize) -> Value {
    use base64::Engine as _;
    let engine = base64::engine::general_purpose::STANDARD;
    json!({"b64": engine.encode(vec![0xfe_u8; bytes])})
}

/// One hundred sets that have so many bytes of keys and values together.
fn sets(bytes: usize) -> Value {
    let (each, rest) = (bytes / 100, bytes % 100);
    let set = |number: usize| {
        let value = each - 8 + if number == 99 { rest } else { 0 };
        json!({"set": {"key": format!("large/{number:02}"), "value": binary(value)}})
    };
    json!({"mutations": (0..100).map(set).collect::<Vec<_>>()})
}

fn over(answer: (u16, Value), limit: usize, actual: usize) -> Outcome {
    let (status, problem) = answer;
    let facts = &problem["facts"];
    ensure!((status, &problem["code"]) == (413, &json!("limit_exceeded")), "{problem}");
    ensure!(facts["limit_bytes"] == json!(limit.to_string()), "{problem}");
    ensure!(facts["actual_bytes"] == json!(actual.to_string()), "{problem}");
    Ok(())
}

/// Each limit holds at what is said and not at one more.
#[test]
fn transactions_are_as_large_and_as_long_as_is_said() -> Outcome {
    let directory = tempfile::tempdir()?;
    let cluster = Cluster::start(directory.path())?;
    let api = Api::new(&cluster)?;
    // 10 MB of no text are 13.4 MB of JSON.
    let limit = plinth_types::TRANSACTION_LIMIT;
    let (status, answer) = api.transact(sets(limit))?;
    ensure!(status == 200, "{answer}");
    over(api.transact(sets(limit + 1))?, limit, limit + 1)?;
    let reads: Vec<Value> =
        (0..100).map(|number| json!({"key": format!("large/{number:02}")})).collect();
    let (status, answer) = api.transact(json!({"reads": reads}))?;
    ensure!(status == 200 && answer["reads"][99]["value"] == binary(limit / 100 - 8));
    let name = |length: usize| json!({"idempotency_id": "i".repeat(length), "mutations": []});
    ensure!(api.transact(name(256))?.0 == 200);
    over(api.transact(name(257))?, 256, 257)?;
    let body = plinth_types::TRANSACTION_LIMIT * 4;
    let (status, problem) =
        Api::answer(api.http.post(api.url(0, "/v1/transactions")).body(" ".repeat(body)))?;
    ensure!(
        (status, &problem["facts"]["actual_bytes"]) == (413, &json!(body.to_string())),
        "{problem}"
    );
    // A page stays readable for 5 s of the cluster's versions, and no longer.
    let (_, page) = api.get("/v1/keys?prefix=large/&limit=1")?;
    let cursor = page["cursor"].as_str().context("there is more")?.to_owned();
    eventually("the version is forgotten", || {
        api.put("/v1/keys/tick", "tock")?;
        let (status, problem) = api.get(&format!("/v1/keys?limit=1&cursor={cursor}"))?;
        ensure!(status == 409, "still readable: {problem}");
        ensure!(problem["code"] == "transaction_too_old" && problem["retryable"] == true);
        Ok(())
    })?;
    cluster.stop()
}
