//! What a transaction does to keys.

use serde::{Deserialize, Serialize};

use crate::{AtomicOp, Key, KeyRange, Value, ValueBytes};

/// One change. A transaction's mutations are applied in their order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mutation {
    /// The key has this value.
    Set {
        /// The key.
        key: Key,
        /// Its new value.
        #[schema(value_type = ValueBytes)]
        value: Value,
    },
    /// The key has no value.
    Clear {
        /// The key.
        key: Key,
    },
    /// No key of the range has a value.
    ClearRange(KeyRange),
    /// The key has what the operation makes of its value.
    Atomic {
        /// The key.
        key: Key,
        /// The operation.
        op: AtomicOp,
        /// Its other side.
        #[schema(value_type = ValueBytes)]
        operand: Value,
    },
}

impl Mutation {
    /// The keys that it changes.
    #[must_use]
    pub fn range(&self) -> KeyRange {
        match self {
            Mutation::Set { key, .. } | Mutation::Clear { key } | Mutation::Atomic { key, .. } => {
                KeyRange::single(key)
            }
            Mutation::ClearRange(range) => range.clone(),
        }
    }

    /// Bytes of keys and values in it, as limits count them.
    #[must_use]
    pub fn size(&self) -> usize {
        match self {
            Mutation::Set { key, value } | Mutation::Atomic { key, operand: value, .. } => {
                key.0.len() + value.0.len()
            }
            Mutation::Clear { key } => key.0.len(),
            Mutation::ClearRange(range) => {
                range.from.0.len() + range.to.as_ref().map_or(0, |to| to.0.len())
            }
        }
    }
}
