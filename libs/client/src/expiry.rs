//! Forgets what idempotency ids stand for, once nobody can ask any more.
//!
//! A marker of an attempt is needed until the attempt's deadline. It is removed when this process
//! has known for [`ATTEMPT_AGE`], by its own monotonic clock, that later versions are committed: so
//! neither the wall clock nor the leaps that versions make at recoveries matter. A caller's own id
//! is kept for [`ID_AGE`] by the wall clock; a clock that is wrong by more than that would forget
//! ids early.
//!
//! Every process that does this does all of it, slowly; what two remove at the same time is removed.

use std::collections::VecDeque;
use std::time::Duration;

use plinth_runtime::Scope;
use plinth_types::{Key, KeyRange, Mutation, Version};
use tokio::time::{Instant, sleep};

use crate::attempts::Deadline;
use crate::committing::Commit;
use crate::{ClientError, Database, idempotency};

/// How long the marker of an attempt is kept at least; deadlines are far shorter.
pub const ATTEMPT_AGE: Duration = Duration::from_secs(300);
/// How long a caller's idempotency id is kept at least.
pub const ID_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// Between two rounds; half of it is left to chance, so that processes do not meet.
const ROUND: Duration = Duration::from_secs(20);
/// Between two steps of a round that finds more.
const STEP: Duration = Duration::from_millis(20);
/// Rows that one step removes.
const ROWS: usize = 1_000;
/// How long a step may take.
const WITHIN: Duration = Duration::from_secs(5);

/// How long things are kept.
#[derive(Clone, Copy, Debug)]
pub struct Ages {
    /// Markers of attempts.
    pub attempts: Duration,
    /// Callers' ids.
    pub ids: Duration,
}

impl Default for Ages {
    fn default() -> Self {
        Ages { attempts: ATTEMPT_AGE, ids: ID_AGE }
    }
}

/// Forgets, for as long as the scope lives.
pub fn forget_outcomes(scope: &Scope, database: Database) {
    drop(scope.spawn("forgetting outcomes", async move {
        let mut forgetting = Forgetting::new(database, Ages::default());
        loop {
            sleep(ROUND / 2 + forgetting.database.jitter(ROUND / 2)).await;
            if let Err(error) = forgetting.round().await {
                tracing::debug!(%error, "outcomes are forgotten later");
            }
        }
    }));
}

/// What has been forgotten, and what may be.
pub struct Forgetting {
    database: Database,
    ages: Ages,
    /// Versions that were committed at a time, oldest first.
    seen: VecDeque<(Instant, Version)>,
    /// The newest version that was committed so long ago that no attempt before it matters.
    settled: Version,
    /// Where to go on: what lies before is gone, but for a scan it would still be in the way.
    attempts_from: Option<Key>,
    expiries_from: Option<Key>,
}

impl Forgetting {
    /// Nothing is known to be old yet.
    #[must_use]
    pub fn new(database: Database, ages: Ages) -> Forgetting {
        Forgetting {
            database,
            ages,
            seen: VecDeque::new(),
            settled: Version::ZERO,
            attempts_from: None,
            expiries_from: None,
        }
    }

    /// Forgets all that is old by now. Answers how many rows went.
    ///
    /// # Errors
    /// As reads and writes have them; what was forgotten until then is.
    pub async fn round(&mut self) -> Result<usize, ClientError> {
        let version = self.database.read_version(WITHIN).await?;
        self.seen.push_back((Instant::now(), version));
        while let Some((at, version)) = self.seen.front()
            && at.elapsed() >= self.ages.attempts
        {
            self.settled = *version;
            self.seen.pop_front();
        }
        let mut rows = 0;
        loop {
            let attempts = self.forget_attempts().await?;
            let ids = self.forget_ids().await?;
            rows += attempts + ids;
            if attempts < ROWS && ids < ROWS {
                return Ok(rows);
            }
            sleep(STEP).await;
        }
    }

    async fn rows(&self, range: &KeyRange) -> Result<Vec<Key>, ClientError> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let deadline = Deadline::after(WITHIN);
        let version = self.database.read_version_by(deadline).await?;
        let chunk = self.database.chunk_at(version, range, ROWS, false, deadline).await?;
        Ok(chunk.items.into_iter().map(|row| row.key).collect())
    }

    /// Removes what nobody asks for any more. To do that twice does no harm, so it needs no marker,
    /// which would have to be removed in its turn.
    async fn clear(&self, mutations: Vec<Mutation>) -> Result<(), ClientError> {
        let commit = Commit { mutations, is_marked: true, ..Commit::default() };
        self.database.commit_once(commit, Deadline::after(WITHIN)).await.map(drop)
    }

    async fn forget_attempts(&mut self) -> Result<usize, ClientError> {
        let mut range = idempotency::attempts_below(self.settled);
        range.from = range.from.max(self.attempts_from.clone().unwrap_or_default());
        let rows = self.rows(&range).await?;
        if let Some(last) = rows.last() {
            let end = last.successor();
            let cleared = KeyRange::new(range.from, end.clone());
            self.clear(vec![Mutation::ClearRange(cleared)]).await?;
            self.attempts_from = Some(end);
        }
        Ok(rows.len())
    }

    async fn forget_ids(&mut self) -> Result<usize, ClientError> {
        let age = u64::try_from(self.ages.ids.as_millis()).unwrap_or(u64::MAX);
        let before = self.database.runtime.unix_ms().saturating_sub(age);
        let mut range = idempotency::expiries_before(before);
        range.from = range.from.max(self.expiries_from.clone().unwrap_or_default());
        let rows = self.rows(&range).await?;
        if let Some(last) = rows.last() {
            let end = last.successor();
            let ids = rows.iter().filter_map(idempotency::id_of_expiry);
            let mut mutations: Vec<Mutation> = ids.map(|key| Mutation::Clear { key }).collect();
            mutations.push(Mutation::ClearRange(KeyRange::new(range.from, end.clone())));
            self.clear(mutations).await?;
            self.expiries_from = Some(end);
        }
        Ok(rows.len())
    }
}
