//! Deletions of ranges, and what they would delete.

use axum::extract::{OriginalUri, State};
use axum::response::{IntoResponse as _, Response};
use http::HeaderMap;
use plinth_api::gateway::{Action, DeletePreview, Deletion};
use plinth_client::{Isolation, RangeOptions, Transaction};
use plinth_service::{Caller, Failure, Json, Query};
use plinth_types::KeyRange;
use serde::Deserialize;

use crate::admission::Admitted;
use crate::execute::{ANSWER_BYTES, MAX_ROWS, Plan, failed, invalid, reads_system_keys};
use crate::http::Gateway;
use crate::keys::key_of;
use crate::ranges::{Given, listed, most_bytes};
use crate::values::{may_read, name, with_version};

/// Keys that a dry run counts.
const COUNTED: usize = MAX_ROWS as usize;

/// Which keys to remove.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
pub(crate) struct DeleteQuery {
    /// One key, in base64.
    #[serde(default)]
    key_b64: Option<String>,
    /// The first key of a range, percent-encoded.
    #[serde(default)]
    from: Option<String>,
    /// The first key after the range, percent-encoded.
    #[serde(default)]
    to: Option<String>,
    /// Delete nothing, and say how many keys would be deleted.
    #[serde(default)]
    pub(crate) dry_run: bool,
}

impl DeleteQuery {
    /// What it asks for. `query` is the raw one.
    pub(crate) fn action(&self, query: &str) -> Result<Action, Failure> {
        match (&self.key_b64, &self.from, &self.to) {
            (None, Some(_), Some(_)) => {
                let given = Given { from: true, to: true, ..Given::default() };
                Ok(Action::ClearRange(listed(query, given)?))
            }
            (Some(_), None, None) => {
                Ok(Action::Clear(key_of("/v1/keys", self.key_b64.as_deref())?))
            }
            _ => Err(invalid("from", "name both ends of a range, from and to, or one key_b64")),
        }
    }

    /// What it asks for, of which only the keys matter.
    pub(crate) fn range(&self, query: &str) -> Result<KeyRange, Failure> {
        match self.action(query)? {
            Action::Clear(key) => Ok(KeyRange::single(&key)),
            Action::ClearRange(range) => Ok(range),
            _ => Err(invalid("from", "nothing is deleted by this")),
        }
    }
}

/// Removes a range of keys, or a key that stands in the query.
#[utoipa::path(
    delete, path = "/v1/keys", tag = "keys",
    params(
        DeleteQuery,
        ("Idempotency-Key" = Option<String>, Header, description = "the request's name: it is carried out once"),
    ),
    responses((status = 200, description = "committed, or what would be", body = Deletion))
)]
pub(crate) async fn delete_keys(
    State(gateway): State<Gateway>,
    _admitted: Admitted,
    caller: Caller,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    Query(query): Query<DeleteQuery>,
) -> Result<Response, Failure> {
    let raw = uri.query().unwrap_or_default();
    if query.dry_run {
        let range = query.range(raw)?;
        let transaction = gateway.database().begin(gateway.deadline());
        return gateway.preview(caller, &transaction, &range).await;
    }
    let action = query.action(raw)?;
    let named = name(&headers, &("delete", &query.key_b64, &cleared(&action)))?;
    gateway.write(caller, &Plan::blind(action), named.as_ref()).await
}

fn cleared(action: &Action) -> Option<&KeyRange> {
    match action {
        Action::ClearRange(range) => Some(range),
        _ => None,
    }
}

impl Gateway {
    /// What the deletion of a range would delete, as the transaction sees it. Nothing conflicts with
    /// having asked.
    pub(crate) async fn preview(
        &self,
        caller: Caller,
        transaction: &Transaction,
        range: &KeyRange,
    ) -> Result<Response, Failure> {
        may_read(caller, range)?;
        if reads_system_keys(caller) {
            transaction.read_system_keys();
        }
        let taken = self.room(most_bytes(COUNTED)).await?;
        let options = RangeOptions {
            limit: COUNTED,
            limit_bytes: ANSWER_BYTES,
            isolation: Isolation::Snapshot,
            ..RangeOptions::default()
        };
        let found = transaction.get_range(range, options).await.map_err(failed)?;
        let version = transaction.read_version().await.map_err(failed)?;
        let would_delete = u64::try_from(found.items.len()).unwrap_or(u64::MAX);
        drop((found.items, taken));
        let preview = DeletePreview { would_delete, more: found.more, version };
        Ok(with_version(Json(preview).into_response(), version))
    }
}
