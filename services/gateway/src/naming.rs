//! Callers' own names for transactions: a request under a name is carried out once.

use plinth_api::ErrorCode;
use plinth_api::gateway::{ReadResult, TransactionAnswer, TransactionRequest};
use plinth_client::{ClientError, IdempotencyId, Outcome, Transaction};
use plinth_service::Failure;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::execute::{Stop, failed, invalid};
use crate::sessions::ended;

/// A caller's own name for a transaction, and what tells another request under that name.
pub(crate) struct Named {
    pub(crate) id: IdempotencyId,
    fingerprint: String,
}

impl Named {
    /// `request` is all that makes the request what it is.
    pub(crate) fn new(id: &str, request: &impl Serialize) -> Result<Named, Failure> {
        let id = IdempotencyId::new(id).map_err(failed)?;
        let request = serde_json::to_vec(request)
            .map_err(|error| Failure::new(ErrorCode::Internal, error.to_string()))?;
        let digest = Sha256::digest(&request);
        let fingerprint = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Named { id, fingerprint })
    }

    #[cfg(test)]
    pub(crate) fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// What the name stands for already; none where there is no transaction under it.
    pub(crate) async fn earlier(
        &self,
        transaction: &Transaction,
    ) -> Result<Option<TransactionAnswer>, Stop> {
        match transaction.outcome(&self.id).await? {
            None => Ok(None),
            Some((stamp, outcome)) => first_outcome(stamp, outcome, &self.fingerprint),
        }
    }

    /// Commits with the transaction what the name stands for.
    pub(crate) fn note(
        &self,
        transaction: &Transaction,
        reads: &[ReadResult],
    ) -> Result<(), ClientError> {
        self.set(transaction, serde_json::to_value(reads).unwrap_or_default())
    }

    /// Commits that nothing was or will be committed for this very request.
    pub(crate) fn give_up(&self, transaction: &Transaction) -> Result<(), ClientError> {
        self.set(transaction, GIVEN_UP)
    }

    fn set(&self, transaction: &Transaction, answer: serde_json::Value) -> Result<(), ClientError> {
        let outcome = Outcome { fingerprint: self.fingerprint.clone(), answer };
        transaction.set_outcome(&self.id, &outcome)
    }
}

/// In place of an answer: the interactive transaction that the id was given for has ended, and
/// nothing of it was committed.
const GIVEN_UP: serde_json::Value = serde_json::Value::Null;

/// What the first request with an id was answered; none where it was given up and this is another.
fn first_outcome(
    stamp: plinth_types::Versionstamp,
    outcome: Outcome,
    fingerprint: &str,
) -> Result<Option<TransactionAnswer>, Stop> {
    let is_same = outcome.fingerprint == fingerprint;
    if outcome.answer == GIVEN_UP {
        return if is_same { Err(ended().into()) } else { Ok(None) };
    }
    if !is_same {
        let failure = Failure::new(
            ErrorCode::IdempotencyMismatch,
            "the idempotency id stands for another request: use a new one for each transaction",
        );
        return Err(failure.into());
    }
    let reads = serde_json::from_value(outcome.answer).map_err(|_| {
        Failure::new(ErrorCode::Damaged, "what the idempotency id stands for can't be read")
    })?;
    Ok(Some(TransactionAnswer { version: stamp.version, versionstamp: Some(stamp), reads }))
}

/// The one name that a body and a header give.
pub(crate) fn one_name<'a>(
    body: Option<&'a str>,
    header: Option<&'a str>,
) -> Result<Option<&'a str>, Failure> {
    match (body, header) {
        (Some(body), Some(header)) if body != header => {
            Err(invalid("idempotency_id", "the body and the header name different ids"))
        }
        (body, header) => Ok(body.or(header)),
    }
}

/// What names a one-shot transaction: its body, or the header.
pub(crate) fn transaction_name(
    request: &TransactionRequest,
    header: Option<&str>,
) -> Result<Option<Named>, Failure> {
    let id = one_name(request.idempotency_id.as_deref(), header)?;
    id.map(|id| {
        let anonymous = TransactionRequest { idempotency_id: None, ..request.clone() };
        Named::new(id, &anonymous)
    })
    .transpose()
}

#[cfg(test)]
mod tests {
    use plinth_api::gateway::Reading;

    use super::*;

    #[test]
    fn the_name_does_not_make_the_request() {
        let request = |id: Option<&str>, key: &str| TransactionRequest {
            reads: vec![Reading { key: Some(key.into()), ..Reading::default() }],
            idempotency_id: id.map(str::to_owned),
            ..TransactionRequest::default()
        };
        let named = |request: &TransactionRequest, header| {
            transaction_name(request, header).expect("a name").map(|named| named.fingerprint)
        };
        let by_body = named(&request(Some("i"), "a"), None);
        assert_eq!(by_body, named(&request(None, "a"), Some("i")));
        assert_ne!(by_body, named(&request(Some("i"), "b"), None));
        assert_eq!(named(&request(None, "a"), None), None);
        assert!(transaction_name(&request(Some("i"), "a"), Some("j")).is_err());
        assert!(transaction_name(&request(Some(""), "a"), None).is_err());
    }
}
