//! Who is who: nodes, services, processes, stores.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A text that does not have the form its type asks for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {expected}")]
pub struct ParseError {
    /// What was given.
    pub text: String,
    /// What was expected, as a phrase.
    pub expected: &'static str,
}

impl ParseError {
    pub(crate) fn new(text: &str, expected: &'static str) -> Self {
        ParseError { text: text.to_owned(), expected }
    }
}

macro_rules! string_form {
    ($type:ty, $pattern:expr) => {
        impl TryFrom<String> for $type {
            type Error = ParseError;
            fn try_from(text: String) -> Result<Self, ParseError> {
                text.parse()
            }
        }
        impl From<$type> for String {
            fn from(value: $type) -> String {
                value.to_string()
            }
        }
        impl utoipa::PartialSchema for $type {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                utoipa::openapi::ObjectBuilder::new()
                    .schema_type(utoipa::openapi::schema::Type::String)
                    .pattern(Some($pattern))
                    .into()
            }
        }
        impl utoipa::ToSchema for $type {}
    };
}

fn is_name(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// A machine: 1 to 63 of `a-z`, `0-9` and `-`, such as `node-1`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeId(String);

impl NodeId {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NodeId {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        if is_name(text) {
            Ok(NodeId(text.to_owned()))
        } else {
            Err(ParseError::new(text, "a node name (1 to 63 of a-z, 0-9 and -)"))
        }
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
string_form!(NodeId, "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$");

/// What fails together: replicas, logs and coordinators are spread over zones. By default a node
/// is its own zone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Zone(String);

impl Zone {
    /// The zone that a node is when nobody names another one.
    #[must_use]
    pub fn of_node(node: &NodeId) -> Zone {
        Zone(node.0.clone())
    }
}

impl FromStr for Zone {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        if is_name(text) {
            Ok(Zone(text.to_owned()))
        } else {
            Err(ParseError::new(text, "a zone name (1 to 63 of a-z, 0-9 and -)"))
        }
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
string_form!(Zone, "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$");

/// The kinds of service.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum ServiceKind {
    /// Raft member; holds the epoch and the recorded layout.
    Coordinator,
    /// Recovers the transaction system and watches it.
    Director,
    /// Starts and watches a node's workers.
    Foreman,
    /// Hands out commit versions.
    Sequencer,
    /// Batches commits and runs the pipeline.
    CommitProxy,
    /// Detects conflicts in a key range.
    Resolver,
    /// The fsynced record of committed batches.
    Log,
    /// Applies the logs and serves reads.
    Storage,
    /// The public API.
    Gateway,
}

impl ServiceKind {
    /// Every kind.
    pub const ALL: [ServiceKind; 9] = [
        ServiceKind::Coordinator,
        ServiceKind::Director,
        ServiceKind::Foreman,
        ServiceKind::Sequencer,
        ServiceKind::CommitProxy,
        ServiceKind::Resolver,
        ServiceKind::Log,
        ServiceKind::Storage,
        ServiceKind::Gateway,
    ];

    /// The kind as it stands in service names and subcommands, such as `commit-proxy`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            ServiceKind::Coordinator => "coordinator",
            ServiceKind::Director => "director",
            ServiceKind::Foreman => "foreman",
            ServiceKind::Sequencer => "sequencer",
            ServiceKind::CommitProxy => "commit-proxy",
            ServiceKind::Resolver => "resolver",
            ServiceKind::Log => "log",
            ServiceKind::Storage => "storage",
            ServiceKind::Gateway => "gateway",
        }
    }

    /// Whether a service of this kind keeps a directory that must survive its process.
    #[must_use]
    pub const fn is_durable(self) -> bool {
        match self {
            ServiceKind::Coordinator
            | ServiceKind::Foreman
            | ServiceKind::Log
            | ServiceKind::Storage => true,
            ServiceKind::Director
            | ServiceKind::Sequencer
            | ServiceKind::CommitProxy
            | ServiceKind::Resolver
            | ServiceKind::Gateway => false,
        }
    }
}

impl fmt::Display for ServiceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ServiceKind {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        ServiceKind::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| ParseError::new(text, "a kind of service"))
    }
}

/// A service's name, unique on its node: kind, dash, number, such as `commit-proxy-2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServiceName {
    /// The kind.
    pub kind: ServiceKind,
    /// The number among the node's services of that kind, from 1.
    pub number: u32,
}

impl ServiceName {
    /// The name of the `number`th service of a kind.
    #[must_use]
    pub const fn new(kind: ServiceKind, number: u32) -> Self {
        ServiceName { kind, number }
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.kind, self.number)
    }
}

impl FromStr for ServiceName {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let error = || ParseError::new(text, "a service name (kind, dash, number: storage-1)");
        let (kind, number) = text.rsplit_once('-').ok_or_else(error)?;
        if number.starts_with('0') || number.starts_with('+') {
            return Err(error());
        }
        Ok(ServiceName {
            kind: kind.parse().map_err(|_| error())?,
            number: number.parse().map_err(|_| error())?,
        })
    }
}
string_form!(ServiceName, "^[a-z]+(-[a-z]+)?-[1-9][0-9]*$");

/// (service name, node): the name of a service that survives restarts, printed
/// `storage-1@node-1`. Of all handles to a service, only this one is persisted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServiceRef {
    /// The name on the node.
    pub name: ServiceName,
    /// The node.
    pub node: NodeId,
}

impl ServiceRef {
    /// A service on a node.
    #[must_use]
    pub const fn new(name: ServiceName, node: NodeId) -> Self {
        ServiceRef { name, node }
    }

    /// The kind of the service.
    #[must_use]
    pub const fn kind(&self) -> ServiceKind {
        self.name.kind
    }
}

impl fmt::Display for ServiceRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.node)
    }
}

impl FromStr for ServiceRef {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let error = || ParseError::new(text, "a service reference (storage-1@node-1)");
        let (name, node) = text.split_once('@').ok_or_else(error)?;
        Ok(ServiceRef {
            name: name.parse().map_err(|_| error())?,
            node: node.parse().map_err(|_| error())?,
        })
    }
}
string_form!(ServiceRef, "^[a-z]+(-[a-z]+)?-[1-9][0-9]*@[a-z0-9-]{1,63}$");

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident, $int:ty, $digits:literal, $expected:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(pub $int);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!("{:0", $digits, "x}"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = ParseError;
            fn from_str(text: &str) -> Result<Self, ParseError> {
                let digits: usize = $digits.parse().unwrap_or(0);
                if text.len() != digits || !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
                    return Err(ParseError::new(text, $expected));
                }
                <$int>::from_str_radix(text, 16)
                    .map($name)
                    .map_err(|_| ParseError::new(text, $expected))
            }
        }
        string_form!($name, concat!("^[0-9a-f]{", $digits, "}$"));
    };
}

hex_id!(
    /// One life of a process: random, so that a reused address or process id can't be mistaken.
    Incarnation, u64, "16", "an incarnation (16 hexadecimal digits)"
);
hex_id!(
    /// The cluster. Made once, and written into every durable directory of it.
    ClusterId, u128, "32", "a cluster id (32 hexadecimal digits)"
);
hex_id!(
    /// One founding of the coordinators' Raft group; a re-founded group has another one.
    GroupId, u128, "32", "a group id (32 hexadecimal digits)"
);
hex_id!(
    /// A durable worker's directory, named at random when it is made. Another `StoreId` under the
    /// same [`ServiceRef`] is another, empty worker.
    StoreId, u128, "32", "a store id (32 hexadecimal digits)"
);

/// One living process of a service. It dies with the process and is never persisted in a
/// configuration.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema,
)]
pub struct Pid {
    /// The machine it runs on.
    pub node: NodeId,
    /// The operating system's process id, or the task id where a cluster runs in one process.
    /// Never an identity: in a container it is always 1.
    pub os_pid: u32,
    /// What tells this process from every other one.
    pub incarnation: Incarnation,
    /// Where it answers: `host:port`, the host resolved at each connect.
    pub address: String,
}

impl fmt::Display for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}@{}", self.node, self.os_pid, self.incarnation, self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_reference_prints_and_parses() {
        for text in ["storage-1@node-1", "commit-proxy-12@a", "log-3@rack-2-b"] {
            let parsed: ServiceRef = text.parse().expect("valid");
            assert_eq!(parsed.to_string(), text);
        }
        for text in [
            "storage@node-1",
            "storage-0@n",
            "storage-01@n",
            "disk-1@n",
            "storage-1",
            "storage-1@",
            "storage-1@N",
            "storage--1@n",
        ] {
            assert!(text.parse::<ServiceRef>().is_err(), "{text}");
        }
    }

    #[test]
    fn ids_are_lower_case_hexadecimal_of_full_width() {
        let id = Incarnation(0xab);
        assert_eq!(id.to_string(), "00000000000000ab");
        assert_eq!("00000000000000ab".parse(), Ok(id));
        assert!("ab".parse::<Incarnation>().is_err());
        assert!("00000000000000AB".parse::<Incarnation>().is_err());
    }
}
