//! One writer: it writes at a steady rate to whichever gateway answers, and keeps what it is told.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::ensure;
use plinth_api::{Outcome, Problem};
use reqwest::blocking::{Client, RequestBuilder};
use serde_json::json;

use super::Shared;
use super::ledger::{Fate, Ledger};

/// Between two writes: several writers at once leave the processors to the cluster.
const PAUSE: Duration = Duration::from_millis(10);
/// Attempts at an addition. Each bears the same idempotency id, so that no more than one counts.
const ATTEMPTS: usize = 20;

/// Below which a writer writes.
#[must_use]
pub fn prefix(writer: usize) -> String {
    format!("soak/{writer}/")
}

/// A writer under way.
#[derive(Debug)]
pub struct Writer<'a> {
    number: usize,
    shared: &'a Shared,
    http: Client,
    /// Moves on when a gateway does not answer.
    turn: usize,
    ledger: Ledger,
}

impl<'a> Writer<'a> {
    /// A writer that has written nothing yet.
    ///
    /// # Errors
    /// There is no client.
    pub fn new(number: usize, shared: &'a Shared) -> anyhow::Result<Writer<'a>> {
        let http = Client::builder().no_proxy().timeout(Duration::from_secs(10)).build()?;
        Ok(Writer { number, shared, http, turn: number, ledger: Ledger::default() })
    }

    /// Writes until it is done, and gives the ledger.
    ///
    /// # Errors
    /// An answer that no client should be given.
    pub fn run(mut self, done: &AtomicBool) -> anyhow::Result<Ledger> {
        for number in 0_u64.. {
            if done.load(Ordering::Relaxed) {
                break;
            }
            match number % 4 {
                0 | 1 => self.write_once(number)?,
                2 => self.set_register(number)?,
                _ => self.add_one(number)?,
            }
            std::thread::park_timeout(PAUSE);
        }
        Ok(self.ledger)
    }

    fn write_once(&mut self, number: u64) -> anyhow::Result<()> {
        let key = format!("{}once/{number:08}", prefix(self.number));
        let value = format!("{number} of {}", self.number);
        let fate = self.attempt("", &key, |request| request.body(value.clone()))?;
        self.ledger.once.insert(key, (value, fate));
        Ok(())
    }

    fn set_register(&mut self, number: u64) -> anyhow::Result<()> {
        let key = format!("{}register", prefix(self.number));
        let fate = self.attempt("", &key, |request| request.body(number.to_string()))?;
        self.ledger.register.push((number, fate));
        Ok(())
    }

    fn add_one(&mut self, number: u64) -> anyhow::Result<()> {
        let key = format!("{}counter", prefix(self.number));
        let id = format!("soak-{}-{number}", self.number);
        let mut fate = Fate::Refused;
        for _ in 0..ATTEMPTS {
            let body = json!({ "op": "add", "operand": 1 });
            let with = |request: RequestBuilder| request.header("idempotency-key", &id).json(&body);
            // After an attempt whose fate is unknown, a refused one leaves it unknown.
            fate = match (fate, self.attempt("/atomic", &key, with)?) {
                (_, Fate::Acknowledged) => Fate::Acknowledged,
                (Fate::Unknown, _) | (_, Fate::Unknown) => Fate::Unknown,
                (_, Fate::Refused) => Fate::Refused,
            };
            if fate == Fate::Acknowledged {
                break;
            }
        }
        self.ledger.additions.push(fate);
        Ok(())
    }

    /// Sends one write to the gateway whose turn it is.
    fn attempt(
        &mut self,
        path: &str,
        key: &str,
        with: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> anyhow::Result<Fate> {
        let gateways = self.shared.gateways();
        ensure!(!gateways.is_empty(), "no gateways");
        let url = format!("{}/v1/keys/{key}{path}", gateways[self.turn % gateways.len()]);
        let request = if path.is_empty() { self.http.put(url) } else { self.http.post(url) };
        let Ok(answer) = with(request).send() else {
            self.turn += 1;
            return Ok(Fate::Unknown);
        };
        let status = answer.status();
        if status.is_success() {
            return Ok(Fate::Acknowledged);
        }
        let Ok(text) = answer.text() else { return Ok(Fate::Unknown) };
        self.turn += 1;
        let problem: Problem = serde_json::from_str(&text)
            .map_err(|error| anyhow::anyhow!("{status} is no problem ({error}): {text}"))?;
        ensure!(problem.retryable || problem.outcome == Outcome::Unknown, "{problem:?}");
        Ok(match problem.outcome {
            Outcome::Committed => Fate::Acknowledged,
            Outcome::NotCommitted => Fate::Refused,
            Outcome::Unknown => Fate::Unknown,
        })
    }
}
