//! The commands that ask a running cluster: `status`, `config`, `layout`, `nodes`, `members`, and `health` of
//! one service; and `config set`, `config raise`, `nodes drain`, `use` and `remove`, and `members add` and
//! `remove`, which change it.

use std::process::ExitCode;
use std::time::Duration;

use comfy_table::{Table, presets};
use reqwest::Method;
use serde_json::Value;

use crate::cli::{AskArgs, HealthArgs, MembersAction, NodesAction, OrderArgs, RaiseArgs, SetArgs};
use crate::process::{FAILURE, USAGE};

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(10);
/// The same for a change: the director waits until it is in storage.
const CHANGE: Duration = Duration::from_secs(25);
/// The same for a change of the coordinators' membership: a newcomer is given their log first.
const MEMBERS: Duration = Duration::from_secs(60);
/// How often a change is asked for while the configuration changes under it.
const TRIES: u32 = 5;

/// Asks for a document and prints it.
pub(crate) fn ask(args: &AskArgs, path: &str) -> ExitCode {
    match request(args, path, None, ANSWER) {
        Ok(document) => {
            if args.json {
                println!("{document}");
            } else {
                println!("{}", table(&document));
            }
            ExitCode::SUCCESS
        }
        Err(failure) => failed(failure),
    }
}

/// How a command ends that got no good answer: the status, and what to say.
pub(crate) type Failed = (u8, String);

/// Says why a command has failed.
pub(crate) fn failed((status, message): Failed) -> ExitCode {
    eprintln!("error: {message}");
    ExitCode::from(status)
}

/// Asks for a document, or posts one and takes the answer.
pub(crate) fn request(
    args: &AskArgs,
    path: &str,
    body: Option<&Value>,
    limit: Duration,
) -> Result<Value, Failed> {
    let sent = body.map_or(Sent::Nothing, Sent::Post);
    Ok(exchange(args, path, &sent, limit)?.document)
}

/// What goes with a request.
enum Sent<'a> {
    Nothing,
    Post(&'a Value),
    Delete,
    /// A change, under the tag that it is made on.
    Change {
        method: &'a Method,
        tag: &'a str,
        body: &'a Value,
    },
}

/// What the cluster has answered with a success.
struct Answer {
    tag: Option<String>,
    document: Value,
}

/// Why there is no such answer.
struct Refused {
    status: u8,
    message: String,
    /// Whether it is because something has changed meanwhile.
    has_changed: bool,
}

impl From<Refused> for Failed {
    fn from(refused: Refused) -> Failed {
        (refused.status, refused.message)
    }
}

impl Refused {
    fn new(status: u8, message: String) -> Refused {
        Refused { status, message, has_changed: false }
    }
}

fn exchange(
    args: &AskArgs,
    path: &str,
    sent: &Sent<'_>,
    limit: Duration,
) -> Result<Answer, Refused> {
    let base = args.url.trim_end_matches('/');
    let url = reqwest::Url::parse(&format!("{base}{path}")).map_err(|error| {
        Refused::new(USAGE, format!("--url {base} is not of the form http://host:port: {error}"))
    })?;
    let unreachable = |error: reqwest::Error| {
        let why = crate::process::with_sources(&error.without_url());
        Refused::new(
            FAILURE,
            format!(
                "{base} does not answer: {why}; is the cluster up? Name a gateway or coordinator with --url or PLINTH_URL"
            ),
        )
    };
    let client =
        reqwest::blocking::Client::builder().timeout(limit).build().map_err(unreachable)?;
    let mut request = match sent {
        Sent::Nothing => client.get(url),
        Sent::Post(body) => client.post(url).json(body),
        Sent::Delete => client.delete(url),
        Sent::Change { method, tag, body } => {
            client.request(Method::clone(method), url).header("If-Match", *tag).json(body)
        }
    };
    if let Some(file) = &args.admin_token_file {
        let token = std::fs::read_to_string(file).map_err(|error| {
            Refused::new(
                USAGE,
                format!("--admin-token-file {} can't be read: {error}", file.display()),
            )
        })?;
        request = request.bearer_auth(token.trim());
    }
    let answer = request.send().map_err(unreachable)?;
    let status = answer.status();
    let tag = answer.headers().get("etag").and_then(|tag| Some(tag.to_str().ok()?.to_owned()));
    let text = answer.text().map_err(unreachable)?;
    let document: Value = serde_json::from_str(&text).map_err(|_| {
        Refused::new(FAILURE, format!("{base}{path} answers {status} and not in JSON"))
    })?;
    if status.is_success() {
        return Ok(Answer { tag, document });
    }
    let detail = document.get("detail").and_then(Value::as_str).unwrap_or("no detail");
    let message = format!("the cluster says {status}: {detail}");
    let has_changed = status == reqwest::StatusCode::PRECONDITION_FAILED;
    Err(Refused { status: FAILURE, message, has_changed })
}

/// Changes parameters, and prints what became of it.
pub(crate) fn set(args: &AskArgs, set: &SetArgs) -> ExitCode {
    match change(args, set) {
        Ok(document) if args.json => println!("{document}"),
        Ok(document) => println!("{}", outcome(&document)),
        Err(refused) => return failed(refused.into()),
    }
    ExitCode::SUCCESS
}

fn change(args: &AskArgs, set: &SetArgs) -> Result<Value, Refused> {
    let mut parameters = serde_json::Map::new();
    for (name, value) in &set.assignments {
        if parameters.insert(name.clone(), (*value).into()).is_some() {
            return Err(Refused::new(USAGE, format!("{name} is named twice")));
        }
    }
    let body = serde_json::json!({ "parameters": parameters });
    let path = if set.dry_run { "/v1/config?dry_run=true" } else { "/v1/config" };
    upon_what_is_read(args, &Method::PATCH, path, &body)
}

/// Reads the configuration and asks for a change of it, again where it has changed in between. What is
/// asked for must not depend on what is read.
fn upon_what_is_read(
    args: &AskArgs,
    method: &Method,
    path: &str,
    body: &Value,
) -> Result<Value, Refused> {
    let mut tries = 1;
    loop {
        let tag = exchange(args, "/v1/config", &Sent::Nothing, ANSWER)?.tag;
        let tag = tag.ok_or_else(|| {
            Refused::new(FAILURE, "the configuration comes without an ETag".to_owned())
        })?;
        match exchange(args, path, &Sent::Change { method, tag: &tag, body }, CHANGE) {
            Err(refused) if refused.has_changed && tries < TRIES => tries += 1,
            answer => return answer.map(|answer| answer.document),
        }
    }
}

/// Raises the format level, and prints what became of it.
pub(crate) fn raise(args: &AskArgs, raise: &RaiseArgs) -> ExitCode {
    let body = serde_json::json!({ "level": raise.level, "without": raise.without });
    let query = if raise.dry_run { "?dry_run=true" } else { "" };
    let path = format!("/v1/format_level{query}");
    match upon_what_is_read(args, &Method::PUT, &path, &body) {
        Ok(document) if args.json => println!("{document}"),
        Ok(document) => println!("{}", raised(&document)),
        Err(refused) => return failed(refused.into()),
    }
    ExitCode::SUCCESS
}

/// What became of the raising of the format level, for people.
fn raised(document: &Value) -> String {
    let number = |name: &str| document.get(name).map(Value::to_string).unwrap_or_default();
    let (from, level, configuration) = (number("from"), number("level"), number("config_version"));
    match document.get("state").and_then(Value::as_str).unwrap_or_default() {
        "dry_run" => {
            format!("the format level would go from {from} to {level}; nothing was done")
        }
        "unchanged" => {
            format!("the format level is {level} already, in configuration {configuration}")
        }
        "recorded" => format!(
            "the format level is {level} in configuration {configuration}, which the coordinators have recorded; no epoch was ready, and the next one brings it into storage"
        ),
        _ => format!(
            "the format level went from {from} to {level}; configuration {configuration} is durable"
        ),
    }
}

/// What became of a change, for people.
fn outcome(document: &Value) -> String {
    let text = |name: &str| match document.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
        None => String::new(),
    };
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    let changed = document.get("changed").and_then(Value::as_array);
    for one in changed.into_iter().flatten() {
        let part = |name: &str| one.get(name).map(Value::to_string).unwrap_or_default();
        let name = one.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
        let how = match one.get("applied").and_then(Value::as_str) {
            Some("new_epoch") => "by a new epoch",
            _ => "live",
        };
        table.add_row([name, part("from"), "->".to_owned(), part("to"), how.to_owned()]);
    }
    let number = text("config_version");
    let words = match text("state").as_str() {
        "dry_run" if changed.is_none_or(Vec::is_empty) => "nothing would change".to_owned(),
        "dry_run" => format!("this would change configuration {number}; nothing was done"),
        "unchanged" => format!("all is so already, in configuration {number}"),
        "recorded" => format!(
            "configuration {number} is recorded by the coordinators; no epoch was ready, and the next one brings it into storage"
        ),
        _ => format!("configuration {number} is durable"),
    };
    if changed.is_none_or(Vec::is_empty) { words } else { format!("{table}\n{words}") }
}

/// Gives an order about a node, and prints what became of it.
pub(crate) fn order(args: &AskArgs, action: &NodesAction) -> ExitCode {
    let nothing = Value::Null;
    let (OrderArgs { on, dry_run }, drain, sent) = match action {
        NodesAction::Drain(order) => (order, "/drain", Sent::Post(&nothing)),
        NodesAction::Use(order) => (order, "/drain", Sent::Delete),
        NodesAction::Remove(order) => (order, "", Sent::Delete),
    };
    let query = if *dry_run { "?dry_run=true" } else { "" };
    match exchange(args, &format!("/v1/nodes/{on}{drain}{query}"), &sent, CHANGE) {
        Ok(Answer { document, .. }) if args.json => println!("{document}"),
        Ok(Answer { document, .. }) => println!("{}", ordered(&document)),
        Err(refused) => return failed(refused.into()),
    }
    ExitCode::SUCCESS
}

/// What became of an order, for people.
fn ordered(document: &Value) -> String {
    let text = |name: &str| document.get(name).and_then(Value::as_str).unwrap_or_default();
    let (node, number) = (text("node"), document.get("config_version").map(Value::to_string));
    let number = number.unwrap_or_default();
    let standing = text("standing").replace('_', " ");
    let words = match text("state") {
        "dry_run" => format!("{node} would be {standing}; nothing was done"),
        "unchanged" => format!("{node} is {standing} already, in configuration {number}"),
        "recorded" => format!(
            "{node} is {standing} in configuration {number}, which the coordinators have recorded; no epoch was ready, and the next one brings it into storage"
        ),
        _ => format!("{node} is {standing}; configuration {number} is durable"),
    };
    let remaining = document.get("remaining").and_then(Value::as_array).cloned();
    let names: Vec<&str> = remaining.iter().flatten().filter_map(Value::as_str).collect();
    if names.is_empty() { words } else { format!("{words}\nstill there: {}", names.join(", ")) }
}

/// Lets a coordinator into the group or takes one out, and prints what became of it.
pub(crate) fn order_member(args: &AskArgs, action: &MembersAction) -> ExitCode {
    let query = |dry_run: bool| if dry_run { "?dry_run=true" } else { "" };
    let body;
    let (path, sent) = match action {
        MembersAction::Add { service, address, dry_run } => {
            body = serde_json::json!({ "service": service, "address": address });
            (format!("/v1/members{}", query(*dry_run)), Sent::Post(&body))
        }
        MembersAction::Remove { service, dry_run } => {
            (format!("/v1/members/{service}{}", query(*dry_run)), Sent::Delete)
        }
    };
    match exchange(args, &path, &sent, MEMBERS) {
        Ok(Answer { document, .. }) if args.json => println!("{document}"),
        Ok(Answer { document, .. }) => println!("{}", member_ordered(&document)),
        Err(refused) => return failed(refused.into()),
    }
    ExitCode::SUCCESS
}

/// What became of an order about the membership, for people.
fn member_ordered(document: &Value) -> String {
    let text = |name: &str| document.get(name).and_then(Value::as_str).unwrap_or_default();
    let number = document.get("config_version").map(Value::to_string).unwrap_or_default();
    let service = text("service");
    let is_member = document.get("member").and_then(Value::as_bool).unwrap_or_default();
    let is = if is_member { "a member" } else { "no member" };
    let words = match text("state") {
        "dry_run" => format!("{service} would be {is}; nothing was done"),
        "unchanged" => format!("{service} is {is} already, in configuration {number}"),
        "recorded" => format!(
            "{service} is {is} in configuration {number}, which the coordinators have recorded; the next epoch brings it into storage"
        ),
        _ => format!("{service} is {is}; configuration {number} is durable"),
    };
    let members = document.get("members").and_then(Value::as_array).cloned();
    let name = |member: &Value| Some(member.get("service")?.as_str()?.to_owned());
    let names: Vec<String> = members.iter().flatten().filter_map(name).collect();
    let note = document.get("note").and_then(Value::as_str).map(|note| format!("\n{note}"));
    format!("{words}\nmembers: {}{}", names.join(", "), note.unwrap_or_default())
}

/// Asks one service whether it can do its work, and says what is in its way if not.
pub(crate) fn health(args: &HealthArgs) -> ExitCode {
    let base = args.url.trim_end_matches('/');
    let limit = Duration::from_secs(args.timeout);
    // The service is asked itself: a proxy's answer would not be its own.
    let client = reqwest::blocking::Client::builder().timeout(limit).no_proxy().build();
    let answer = client
        .and_then(|client| client.get(format!("{base}/readyz")).send())
        .and_then(|answer| Ok((answer.status(), answer.text()?)));
    let (ready, words) = match answer {
        Ok((status, _)) if status.is_success() => (true, "ready".to_owned()),
        Ok((status, text)) => (false, refusal(status.as_u16(), &text)),
        Err(error) => {
            let why = crate::process::with_sources(&error.without_url());
            (false, format!("does not answer: {why}"))
        }
    };
    println!("{base}: {words}");
    if ready { ExitCode::SUCCESS } else { ExitCode::from(FAILURE) }
}

/// What a problem document says, or the status where the answer is none.
fn refusal(status: u16, text: &str) -> String {
    let document = serde_json::from_str::<Value>(text).ok();
    let detail = document.as_ref().and_then(|problem| problem.get("detail")?.as_str());
    format!("answers {status}: {}", detail.unwrap_or("no detail"))
}

/// A document as a table for people: one row a fact, its path and its value.
fn table(document: &Value) -> String {
    let mut facts = Vec::new();
    collect(document, String::new(), &mut facts);
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    for (path, value) in facts {
        table.add_row([path, value]);
    }
    table.to_string()
}

fn collect(value: &Value, path: String, facts: &mut Vec<(String, String)>) {
    let join = |part: &str| {
        if path.is_empty() { part.to_owned() } else { format!("{path}.{part}") }
    };
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (name, value) in map {
                collect(value, join(name), facts);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for (index, value) in items.iter().enumerate() {
                collect(value, join(&index.to_string()), facts);
            }
        }
        Value::Object(_) | Value::Array(_) | Value::Null => facts.push((path, "-".to_owned())),
        Value::String(text) => facts.push((path, text.clone())),
        Value::Bool(_) | Value::Number(_) => facts.push((path, value.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_refusal_says_what_the_problem_says() {
        assert_eq!(refusal(503, r#"{"detail": "not open yet"}"#), "answers 503: not open yet");
        assert_eq!(refusal(404, "<html>"), "answers 404: no detail");
    }

    #[test]
    fn a_change_is_told_in_words() {
        let changed = json!([
            {"name": "logs", "from": 3, "to": 2, "applied": "new_epoch"},
            {"name": "rejoin_grace_ms", "from": 200, "to": 5, "applied": "live"},
        ]);
        let told = |state: &str, changed: &Value| {
            outcome(&json!({"state": state, "config_version": 8, "changed": changed}))
        };
        let durable = told("durable", &changed);
        let lines: Vec<Vec<&str>> =
            durable.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["logs", "3", "->", "2", "by", "a", "new", "epoch"]);
        assert_eq!(lines[1], ["rejoin_grace_ms", "200", "->", "5", "live"]);
        assert_eq!(lines[2].join(" "), "configuration 8 is durable");
        assert!(told("dry_run", &changed).ends_with("nothing was done"));
        assert_eq!(told("dry_run", &json!([])), "nothing would change");
        assert_eq!(told("unchanged", &json!([])), "all is so already, in configuration 8");
        assert!(told("recorded", &changed).contains("no epoch was ready"));
    }

    #[test]
    fn a_raised_level_is_told_in_words() {
        let told = |state: &str| {
            raised(&json!({"state": state, "config_version": 8, "from": 1, "level": 3}))
        };
        assert_eq!(
            told("durable"),
            "the format level went from 1 to 3; configuration 8 is durable"
        );
        assert!(told("dry_run").ends_with("from 1 to 3; nothing was done"));
        assert_eq!(told("unchanged"), "the format level is 3 already, in configuration 8");
        assert!(told("recorded").contains("no epoch was ready"));
    }

    #[test]
    fn an_order_is_told_in_words() {
        let told = |state: &str, standing: &str, remaining: &[&str]| {
            ordered(&json!({"state": state, "node": "node-4", "standing": standing,
                "config_version": 8, "remaining": remaining}))
        };
        assert_eq!(
            told("durable", "draining", &["log-1@node-4", "storage-1@node-4"]),
            "node-4 is draining; configuration 8 is durable\nstill there: log-1@node-4, storage-1@node-4"
        );
        assert_eq!(told("dry_run", "removed", &[]), "node-4 would be removed; nothing was done");
        assert!(told("unchanged", "in_use", &[]).starts_with("node-4 is in use already"));
        assert!(told("recorded", "draining", &[]).contains("no epoch was ready"));
    }

    #[test]
    fn an_order_about_the_membership_is_told_in_words() {
        let told = |state: &str, member: bool, note: Option<&str>| {
            member_ordered(&json!({"state": state, "service": "coordinator-1@node-4",
                "member": member, "config_version": 8, "note": note,
                "members": [{"service": "coordinator-1@node-1", "raft_id": 1, "address": "a:1"}]}))
        };
        assert_eq!(
            told("durable", true, Some("think")),
            "coordinator-1@node-4 is a member; configuration 8 is durable\nmembers: coordinator-1@node-1\nthink"
        );
        assert!(told("dry_run", false, None).contains("would be no member; nothing was done"));
        assert!(told("unchanged", false, None).contains("is no member already"));
    }

    #[test]
    fn a_document_becomes_one_row_a_fact() {
        let mut facts = Vec::new();
        collect(&json!({"a": {"b": [1, "x"]}, "c": null, "d": []}), String::new(), &mut facts);
        let rows: Vec<_> = facts.iter().map(|(path, value)| format!("{path}={value}")).collect();
        assert_eq!(rows, ["a.b.0=1", "a.b.1=x", "c=-", "d=-"]);
    }
}
