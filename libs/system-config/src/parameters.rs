//! The parameters by name, and their bounds.

use crate::Parameters;

/// A parameter by its name, with its value and bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// The name, as in JSON.
    pub name: &'static str,
    /// The value, in the unit that the name says.
    pub value: u64,
    /// The least value allowed.
    pub least: u64,
    /// The greatest value allowed.
    pub most: u64,
}

/// A parameter that must not have the value it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParameterError {
    /// It is out of its bounds.
    #[error("{name} is {value}, and must be from {least} to {most}")]
    OutOfBounds {
        /// The name.
        name: &'static str,
        /// The value.
        value: u64,
        /// The least value allowed.
        least: u64,
        /// The greatest value allowed.
        most: u64,
    },
    /// There would be fewer logs than copies.
    #[error("logs is {logs}, and must be at least replication, which is {replication}")]
    FewerLogsThanCopies {
        /// The logs asked for.
        logs: u32,
        /// The copies asked for.
        replication: u32,
    },
}

impl ParameterError {
    /// The parameter to change.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            ParameterError::OutOfBounds { name, .. } => name,
            ParameterError::FewerLogsThanCopies { .. } => "logs",
        }
    }
}

const fn parameter(name: &'static str, value: u64, least: u64, most: u64) -> Parameter {
    Parameter { name, value, least, most }
}

const MINUTE_MS: u64 = 60_000;
const WEEK_MS: u64 = 7 * 24 * 60 * MINUTE_MS;
const MIB: u64 = 1 << 20;
const TIB: u64 = 1 << 40;

impl Parameters {
    /// Every parameter by name, in the order of the fields.
    #[must_use]
    pub fn all(&self) -> [Parameter; 13] {
        // Taken apart by name, so that a new field can't be forgotten here.
        let Parameters {
            replication,
            logs,
            commit_proxies,
            resolvers,
            config_team,
            failure_timeout_ms,
            rejoin_grace_ms,
            start_grace_ms,
            peer_timeout_ms,
            system_transaction_timeout_ms,
            window_versions,
            max_log_backlog_bytes,
            storage_lost_ms,
        } = *self;
        [
            parameter("replication", replication.into(), 1, 5),
            parameter("logs", logs.into(), 1, 100),
            parameter("commit_proxies", commit_proxies.into(), 1, 100),
            parameter("resolvers", resolvers.into(), 1, 100),
            parameter("config_team", config_team.into(), 1, 5),
            parameter("failure_timeout_ms", failure_timeout_ms, 100, MINUTE_MS),
            parameter("rejoin_grace_ms", rejoin_grace_ms, 0, MINUTE_MS),
            parameter("start_grace_ms", start_grace_ms, 0, MINUTE_MS),
            parameter("peer_timeout_ms", peer_timeout_ms, 100, MINUTE_MS),
            parameter(
                "system_transaction_timeout_ms",
                system_transaction_timeout_ms,
                1_000,
                10 * MINUTE_MS,
            ),
            parameter("window_versions", window_versions, 1_000_000, 60_000_000),
            parameter("max_log_backlog_bytes", max_log_backlog_bytes, MIB, TIB),
            parameter("storage_lost_ms", storage_lost_ms, 1_000, WEEK_MS),
        ]
    }

    /// Everything that is wrong with them.
    #[must_use]
    pub fn problems(&self) -> Vec<ParameterError> {
        let mut problems: Vec<ParameterError> = self
            .all()
            .into_iter()
            .filter(|parameter| !(parameter.least..=parameter.most).contains(&parameter.value))
            .map(|Parameter { name, value, least, most }| ParameterError::OutOfBounds {
                name,
                value,
                least,
                most,
            })
            .collect();
        let Parameters { logs, replication, .. } = *self;
        if logs < replication {
            problems.push(ParameterError::FewerLogsThanCopies { logs, replication });
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Map, Value};

    #[test]
    fn names_are_those_of_the_json_fields() {
        let defaults = Parameters::default();
        let Value::Object(json) = serde_json::to_value(&defaults).unwrap() else {
            panic!("not an object")
        };
        let listed: Map<String, Value> = defaults
            .all()
            .into_iter()
            .map(|parameter| (parameter.name.to_owned(), parameter.value.into()))
            .collect();
        assert_eq!(listed, json);
    }

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(Parameters::default().problems(), []);
    }

    #[test]
    fn bounds_are_inclusive_and_every_error_is_named() {
        for Parameter { name, least, most, .. } in Parameters::default().all() {
            for (value, valid) in [
                (Some(least), true),
                (Some(most), true),
                (least.checked_sub(1), false),
                (Some(most + 1), false),
            ] {
                let Some(value) = value else { continue };
                let mut json = serde_json::to_value(Parameters::default()).unwrap();
                json[name] = value.into();
                let changed: Parameters = serde_json::from_value(json).unwrap();
                let error = ParameterError::OutOfBounds { name, value, least, most };
                assert_eq!(!changed.problems().contains(&error), valid, "{name} = {value}");
            }
        }
        let bad =
            Parameters { replication: 6, logs: 2, rejoin_grace_ms: 60_001, ..Default::default() };
        let messages: Vec<String> = bad.problems().iter().map(ToString::to_string).collect();
        assert_eq!(
            messages,
            [
                "replication is 6, and must be from 1 to 5",
                "rejoin_grace_ms is 60001, and must be from 0 to 60000",
                "logs is 2, and must be at least replication, which is 6",
            ]
        );
    }
}
