//! What to send, how fast and for how long.

use std::time::Duration;

use serde::Serialize;

use crate::Protocol;

/// One kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// Reads one key, linearizably.
    Get,
    /// Writes one key.
    Put,
    /// Writes one key if it has the value it is expected to have: one compare, one put.
    Transaction,
}

impl Operation {
    /// All of them, in the order of [`Mix`].
    pub const ALL: [Operation; 3] = [Operation::Get, Operation::Put, Operation::Transaction];

    /// Its name in reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Operation::Get => "get",
            Operation::Put => "put",
            Operation::Transaction => "transaction",
        }
    }
}

/// How often each operation is drawn, in proportion to the sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Mix {
    /// Of [`Operation::Get`].
    pub get: u32,
    /// Of [`Operation::Put`].
    pub put: u32,
    /// Of [`Operation::Transaction`].
    pub transaction: u32,
}

impl Mix {
    /// One operation and no other.
    #[must_use]
    pub const fn only(operation: Operation) -> Mix {
        match operation {
            Operation::Get => Mix { get: 1, put: 0, transaction: 0 },
            Operation::Put => Mix { get: 0, put: 1, transaction: 0 },
            Operation::Transaction => Mix { get: 0, put: 0, transaction: 1 },
        }
    }

    pub(crate) fn weights(self) -> [u32; 3] {
        [self.get, self.put, self.transaction]
    }
}

/// Which keys are drawn, of the numbers from 0 to [`Load::keys`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Keys {
    /// Each as often as any other.
    Uniform,
    /// By Zipf's law with this exponent: key 0 most often.
    Zipfian(f64),
    /// One after the other, over and over.
    Sequential,
}

/// When the next request goes out.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Pace {
    /// On each connection as soon as the last one is answered.
    Closed,
    /// So many a second over all connections, whether answers come or not, as long as a connection
    /// is free. Latency counts from when a request was due.
    Open(f64),
}

/// When it is enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Amount {
    /// After this time, warm-up excluded.
    Time(Duration),
    /// After so many requests.
    Requests(u64),
}

/// A load.
#[derive(Clone, Debug, Serialize)]
pub struct Load {
    /// What the servers speak.
    pub protocol: Protocol,
    /// Base URLs, `http://host:port`; connections are spread over them in turn.
    pub urls: Vec<String>,
    /// Connections, 1 to 10,000. One carries one request at a time.
    pub connections: usize,
    /// When the next request goes out.
    pub pace: Pace,
    /// When it is enough.
    pub amount: Amount,
    /// Sent before anything is measured.
    pub warm_up: Duration,
    /// What is sent.
    pub mix: Mix,
    /// Which keys.
    pub key_choice: Keys,
    /// How many keys there are, 1 or more.
    pub keys: u64,
    /// The size of a value in bytes.
    pub value_size: usize,
    /// After this time a request counts as failed and its connection is given up.
    pub timeout: Duration,
    /// The same seed draws the same operations and keys.
    pub seed: u64,
    /// Processes of the servers, whose processor time is measured; empty where they run elsewhere.
    pub server_processes: Vec<u32>,
}

/// A load that can't be driven.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// A number is out of its bounds.
    #[error("{what} must be {bounds}, and {given} is not")]
    OutOfBounds {
        /// Which.
        what: &'static str,
        /// What it may be.
        bounds: &'static str,
        /// What it is.
        given: String,
    },
    /// There is nobody to send to.
    #[error("there is no URL to send to")]
    NoUrl,
    /// Only plain HTTP is spoken.
    #[error("{0} is not of the form http://host:port")]
    Url(String),
}

/// The most connections.
const CONNECTIONS: usize = 10_000;
/// The largest value, in bytes.
const VALUE: usize = 100 << 20;

impl Load {
    /// A load of 64 connections in a closed loop for 10 s, over 100,000 keys with values of 100
    /// bytes, drawn uniformly.
    #[must_use]
    pub fn new(protocol: Protocol, urls: Vec<String>, mix: Mix) -> Load {
        Load {
            protocol,
            urls,
            connections: 64,
            pace: Pace::Closed,
            amount: Amount::Time(Duration::from_secs(10)),
            warm_up: Duration::ZERO,
            mix,
            key_choice: Keys::Uniform,
            keys: 100_000,
            value_size: 100,
            timeout: Duration::from_secs(10),
            seed: 1,
            server_processes: Vec::new(),
        }
    }

    /// The same load, but every key is written once and nothing else is done.
    #[must_use]
    pub fn filling(&self) -> Load {
        Load {
            mix: Mix::only(Operation::Put),
            key_choice: Keys::Sequential,
            amount: Amount::Requests(self.keys),
            pace: Pace::Closed,
            warm_up: Duration::ZERO,
            ..self.clone()
        }
    }

    /// Refuses what can't be driven, and gives `host:port` of each URL.
    pub(crate) fn check(&self) -> Result<Vec<String>, LoadError> {
        let bad = |what, bounds, given: String| Err(LoadError::OutOfBounds { what, bounds, given });
        if !(1..=CONNECTIONS).contains(&self.connections) {
            return bad("connections", "1 to 10000", self.connections.to_string());
        }
        if self.keys == 0 {
            return bad("keys", "at least 1", "0".to_owned());
        }
        if self.value_size > VALUE {
            return bad("value-size", "at most 100 MiB", self.value_size.to_string());
        }
        if self.mix.weights().iter().map(|weight| u64::from(*weight)).sum::<u64>() == 0 {
            return bad("mix", "more than nothing", "0".to_owned());
        }
        match self.pace {
            Pace::Open(rate) if !(rate.is_finite() && rate > 0.0) => {
                return bad("rate", "above 0", rate.to_string());
            }
            Pace::Open(_) | Pace::Closed => {}
        }
        match self.key_choice {
            Keys::Zipfian(exponent) if !(exponent.is_finite() && exponent >= 0.0) => {
                return bad("zipf exponent", "0 or more", exponent.to_string());
            }
            Keys::Zipfian(_) | Keys::Uniform | Keys::Sequential => {}
        }
        if self.urls.is_empty() {
            return Err(LoadError::NoUrl);
        }
        self.urls.iter().map(|url| authority(url)).collect()
    }
}

fn authority(url: &str) -> Result<String, LoadError> {
    let refused = || LoadError::Url(url.to_owned());
    let uri: http::Uri = url.parse().map_err(|_| refused())?;
    let plain = uri.scheme_str() == Some("http") && matches!(uri.path(), "" | "/");
    match uri.authority() {
        Some(authority) if plain && uri.query().is_none() => Ok(match authority.port_u16() {
            Some(_) => authority.to_string(),
            None => format!("{authority}:80"),
        }),
        _ => Err(refused()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(url: &str) -> Load {
        Load::new(Protocol::Plinth, vec![url.to_owned()], Mix::only(Operation::Get))
    }

    #[test]
    fn only_plain_base_urls_are_driven() {
        assert_eq!(load("http://[::1]:4000").check(), Ok(vec!["[::1]:4000".to_owned()]));
        assert_eq!(load("http://db/").check(), Ok(vec!["db:80".to_owned()]));
        for url in ["https://a:1", "a:1", "http://", "http://a:1/v1", "http://a:1?b", ""] {
            assert_eq!(load(url).check(), Err(LoadError::Url(url.to_owned())), "{url}");
        }
    }

    #[test]
    fn what_is_out_of_bounds_is_named() {
        type Change = fn(&mut Load);
        let changes: [(&str, Change); 6] = [
            ("connections", |load| load.connections = 0),
            ("connections", |load| load.connections = 10_001),
            ("keys", |load| load.keys = 0),
            ("rate", |load| load.pace = Pace::Open(0.0)),
            ("zipf exponent", |load| load.key_choice = Keys::Zipfian(f64::NAN)),
            ("mix", |load| load.mix = Mix { get: 0, put: 0, transaction: 0 }),
        ];
        for (name, change) in changes {
            let mut load = load("http://a:1");
            change(&mut load);
            match load.check() {
                Err(LoadError::OutOfBounds { what, .. }) => assert_eq!(what, name),
                other => panic!("{name}: {other:?}"),
            }
        }
    }
}
