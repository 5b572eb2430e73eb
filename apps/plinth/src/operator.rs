//! The commands that ask a running cluster: `status`, `config`, `layout`, and `health` of one
//! service.

use std::process::ExitCode;
use std::time::Duration;

use comfy_table::{Table, presets};
use serde_json::Value;

use crate::cli::{AskArgs, HealthArgs};
use crate::process::{FAILURE, USAGE};

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(10);

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
    let base = args.url.trim_end_matches('/');
    let url = reqwest::Url::parse(&format!("{base}{path}")).map_err(|error| {
        (USAGE, format!("--url {base} is not of the form http://host:port: {error}"))
    })?;
    let unreachable = |error: reqwest::Error| {
        let why = crate::process::with_sources(&error.without_url());
        (
            FAILURE,
            format!(
                "{base} does not answer: {why}; is the cluster up? Name a gateway or coordinator with --url or PLINTH_URL"
            ),
        )
    };
    let client =
        reqwest::blocking::Client::builder().timeout(limit).build().map_err(unreachable)?;
    let mut request = match body {
        None => client.get(url),
        Some(body) => client.post(url).json(body),
    };
    if let Some(file) = &args.admin_token_file {
        let token = std::fs::read_to_string(file).map_err(|error| {
            (USAGE, format!("--admin-token-file {} can't be read: {error}", file.display()))
        })?;
        request = request.bearer_auth(token.trim());
    }
    let answer = request.send().map_err(unreachable)?;
    let status = answer.status();
    let text = answer.text().map_err(unreachable)?;
    let document: Value = serde_json::from_str(&text)
        .map_err(|_| (FAILURE, format!("{base}{path} answers {status} and not in JSON")))?;
    if status.is_success() {
        return Ok(document);
    }
    let detail = document.get("detail").and_then(Value::as_str).unwrap_or("no detail");
    Err((FAILURE, format!("the cluster says {status}: {detail}")))
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
    fn a_document_becomes_one_row_a_fact() {
        let mut facts = Vec::new();
        collect(&json!({"a": {"b": [1, "x"]}, "c": null, "d": []}), String::new(), &mut facts);
        let rows: Vec<_> = facts.iter().map(|(path, value)| format!("{path}={value}")).collect();
        assert_eq!(rows, ["a.b.0=1", "a.b.1=x", "c=-", "d=-"]);
    }
}
