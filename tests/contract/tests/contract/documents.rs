//! The OpenAPI documents: served as they are committed, well formed, and true.

use std::collections::BTreeSet;
use std::path::PathBuf;

use plinth_api::ErrorCode;
use plinth_test_contract::{Services, documents, operations};
use serde_json::Value;

use crate::{callers, client, request};

#[tokio::test]
async fn what_a_service_serves_is_what_is_committed() {
    let services = Services::start().await.expect("services");
    let client = client();
    for (kind, url) in services.urls() {
        let answer = client.get(format!("{url}/openapi.json")).send().await.expect("an answer");
        let served = answer.text().await.expect("a text");
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../openapi");
        let committed = std::fs::read_to_string(path.join(format!("{kind}.json"))).expect("a file");
        assert!(served == committed, "{kind}: run `cargo xtask openapi`");
    }
}

#[test]
fn every_operation_is_named_once_and_says_how_it_fails() {
    for (kind, document) in documents() {
        let json = serde_json::to_value(&document).expect("a document");
        let mut names = BTreeSet::new();
        for (path, item) in json["paths"].as_object().expect("paths") {
            for (method, operation) in item.as_object().expect("operations") {
                let what = format!("{kind} {method} {path}");
                let name = operation["operationId"].as_str().unwrap_or_else(|| panic!("{what}"));
                assert!(names.insert(name.to_owned()), "{what}: {name} is another's name too");
                assert!(operation["x-plinth-caller"].is_string(), "{what} does not say who may");
                let responses = operation["responses"].as_object().expect("responses");
                assert!(responses.contains_key("400"), "{what}");
                assert!(!responses.contains_key("default"), "{what} has a catch-all");
                for (status, response) in responses {
                    assert!(response["description"].is_string(), "{what} {status}");
                    if status.as_str() < "400" {
                        continue;
                    }
                    let content = response["content"].as_object().expect("a content");
                    let kinds: Vec<&String> = content.keys().collect();
                    assert_eq!(kinds, ["application/problem+json"], "{what} {status}");
                    let codes = response["x-plinth-codes"].as_array();
                    assert!(codes.is_some_and(|codes| !codes.is_empty()), "{what} {status}");
                }
            }
        }
        assert!(!json.to_string().contains("{*"), "{kind} has a router's path");
    }
}

#[tokio::test]
async fn no_answer_has_a_status_that_the_document_does_not_name() {
    let services = Services::start().await.expect("services");
    let client = client();
    for ((kind, url), (_, document)) in services.urls().zip(documents()) {
        for operation in operations(&document).expect("operations") {
            for caller in callers() {
                let answer = request(&client, url, &operation, &caller).send().await;
                answer.expect("an answer");
            }
        }
        let metrics = client.get(format!("{url}/metrics")).send().await.expect("metrics");
        let metrics = metrics.text().await.expect("a text");
        let undocumented: Vec<&str> = metrics
            .lines()
            .filter(|line| line.starts_with("http_undocumented_answers_total"))
            .collect();
        assert!(undocumented.is_empty(), "{kind}: {undocumented:?}");
        assert!(metrics.contains("http_requests_total"), "{kind} counts nothing");
    }
}

#[tokio::test]
async fn the_page_for_people_needs_nothing_from_elsewhere() {
    let services = Services::start().await.expect("services");
    let client = client();
    let mut shown = Vec::new();
    for (kind, url) in services.urls() {
        let answer = client.get(format!("{url}/docs")).send().await.expect("an answer");
        if answer.status() == 404 {
            continue;
        }
        shown.push(kind.to_string());
        let place = answer.headers()["location"].to_str().expect("a place").to_owned();
        let page = client.get(format!("{url}{place}")).send().await.expect("a page");
        assert_eq!(page.status(), 200);
        let page = page.text().await.expect("a text");
        let links = page.split('"').filter(|text| text.ends_with(".js") || text.ends_with(".css"));
        let mut count = 0;
        for link in links {
            assert!(!link.contains("//"), "{link} is elsewhere");
            let link = link.trim_start_matches("./");
            let file = client.get(format!("{url}/docs/{link}")).send().await.expect("a file");
            assert_eq!(file.status(), 200, "{link}");
            count += 1;
        }
        assert!(count >= 3, "{page}");
        let start = client.get(format!("{url}/docs/swagger-initializer.js")).send().await;
        let start = start.expect("a file").text().await.expect("a text");
        assert!(start.contains("\"/openapi.json\""), "{start}");
    }
    assert_eq!(shown, ["coordinator", "gateway"]);
}

/// The names of all schemas that are referred to are there.
#[test]
fn every_reference_leads_somewhere() {
    fn references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
        match value {
            Value::Object(map) => {
                found.extend(map.get("$ref").and_then(Value::as_str));
                map.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
    for (kind, document) in documents() {
        let json = serde_json::to_value(&document).expect("a document");
        let mut found = BTreeSet::new();
        references(&json, &mut found);
        for reference in found {
            let pointer = reference.strip_prefix('#').expect("within the document");
            assert!(json.pointer(pointer).is_some(), "{kind}: {reference}");
        }
    }
}

#[test]
fn the_table_of_codes_is_the_codes() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/api.md");
    let page = std::fs::read_to_string(path).expect("the page");
    let rows: Vec<&str> = page.lines().skip_while(|line| *line != "## Problems").collect();
    let rows: Vec<&str> = rows.into_iter().filter(|line| line.starts_with("| `")).collect();
    assert_eq!(rows.len(), ErrorCode::ALL.len());
    for (row, code) in rows.iter().zip(ErrorCode::ALL) {
        let status = code.status().as_u16();
        let retryable = if code.retryable() { "yes" } else { "no" };
        let outcome = serde_json::to_value(code.outcome()).expect("JSON");
        let outcome = outcome.as_str().expect("text");
        let start = format!("| `{}` | {status} | {retryable} | `{outcome}` |", code.as_str());
        assert!(row.starts_with(&start), "{row} should begin with {start}");
    }
}
