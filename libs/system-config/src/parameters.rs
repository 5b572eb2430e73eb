//! The parameters by name, and their bounds.

use serde::{Deserialize, Serialize};

use crate::Parameters;

/// How a change of a parameter takes effect.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Applied {
    /// The epoch goes on with it.
    Live,
    /// The change begins an epoch, whose recovery recruits and assigns by it.
    NewEpoch,
}

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
    /// How a change of it takes effect.
    pub applied: Applied,
}

/// A parameter that must not have the value it has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParameterError {
    /// There is none of this name.
    #[error("{name} is no parameter; there are {}", names())]
    Unknown {
        /// The name.
        name: String,
    },
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
    pub fn name(&self) -> &str {
        match self {
            ParameterError::Unknown { name } => name,
            ParameterError::OutOfBounds { name, .. } => name,
            ParameterError::FewerLogsThanCopies { .. } => "logs",
        }
    }
}

const fn live(name: &'static str, value: u64, least: u64, most: u64) -> Parameter {
    Parameter { name, value, least, most, applied: Applied::Live }
}

const fn new_epoch(name: &'static str, value: u64, least: u64, most: u64) -> Parameter {
    Parameter { name, value, least, most, applied: Applied::NewEpoch }
}

fn names() -> String {
    Parameters::default().all().map(|parameter| parameter.name).join(", ")
}

const MINUTE_MS: u64 = 60_000;
const WEEK_MS: u64 = 7 * 24 * 60 * MINUTE_MS;
const MIB: u64 = 1 << 20;
const TIB: u64 = 1 << 40;

impl Parameter {
    pub(crate) const fn out_of_bounds(self) -> ParameterError {
        let Parameter { name, value, least, most, .. } = self;
        ParameterError::OutOfBounds { name, value, least, most }
    }
}

impl Parameters {
    /// Sets a parameter by its name, whatever its bounds. A value that is too large for its field
    /// becomes the largest one, which is out of bounds too.
    ///
    /// # Errors
    /// There is none of this name.
    pub(crate) fn set(&mut self, name: &str, value: u64) -> Result<(), ParameterError> {
        let count = u32::try_from(value).unwrap_or(u32::MAX);
        match name {
            "replication" => self.replication = count,
            "logs" => self.logs = count,
            "commit_proxies" => self.commit_proxies = count,
            "resolvers" => self.resolvers = count,
            "config_team" => self.config_team = count,
            "failure_timeout_ms" => self.failure_timeout_ms = value,
            "rejoin_grace_ms" => self.rejoin_grace_ms = value,
            "start_grace_ms" => self.start_grace_ms = value,
            "peer_timeout_ms" => self.peer_timeout_ms = value,
            "system_transaction_timeout_ms" => self.system_transaction_timeout_ms = value,
            "window_versions" => self.window_versions = value,
            "max_log_backlog_bytes" => self.max_log_backlog_bytes = value,
            "storage_lost_ms" => self.storage_lost_ms = value,
            _ => return Err(ParameterError::Unknown { name: name.to_owned() }),
        }
        Ok(())
    }

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
            new_epoch("replication", replication.into(), 1, 5),
            new_epoch("logs", logs.into(), 1, 100),
            new_epoch("commit_proxies", commit_proxies.into(), 1, 100),
            new_epoch("resolvers", resolvers.into(), 1, 100),
            live("config_team", config_team.into(), 1, 5),
            live("failure_timeout_ms", failure_timeout_ms, 300, MINUTE_MS),
            live("rejoin_grace_ms", rejoin_grace_ms, 0, MINUTE_MS),
            live("start_grace_ms", start_grace_ms, 0, MINUTE_MS),
            new_epoch("peer_timeout_ms", peer_timeout_ms, 300, MINUTE_MS),
            live(
                "system_transaction_timeout_ms",
                system_transaction_timeout_ms,
                1_000,
                10 * MINUTE_MS,
            ),
            new_epoch("window_versions", window_versions, 1_000_000, 60_000_000),
            live("max_log_backlog_bytes", max_log_backlog_bytes, MIB, TIB),
            live("storage_lost_ms", storage_lost_ms, 1_000, WEEK_MS),
        ]
    }

    /// Everything that is wrong with them.
    #[must_use]
    pub fn problems(&self) -> Vec<ParameterError> {
        let mut problems: Vec<ParameterError> = self
            .all()
            .into_iter()
            .filter(|parameter| !(parameter.least..=parameter.most).contains(&parameter.value))
            .map(Parameter::out_of_bounds)
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
    fn every_parameter_can_be_set_by_its_name_and_no_other() {
        for (index, parameter) in Parameters::default().all().into_iter().enumerate() {
            let mut changed = Parameters::default();
            changed.set(parameter.name, parameter.most).unwrap();
            for (at, other) in changed.all().into_iter().enumerate() {
                let before = Parameters::default().all()[at].value;
                let expected = if at == index { parameter.most } else { before };
                assert_eq!(other.value, expected, "{} after {}", other.name, parameter.name);
            }
        }
        let unknown = Parameters::default().set("replicas", 3).unwrap_err();
        assert!(unknown.to_string().starts_with("replicas is no parameter; there are replication"));
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
