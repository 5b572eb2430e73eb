//! Reads at a version, by shard and over replicas.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use plinth_api::storage::{KeyValue, READ, READ_BATCH_KEYS, RangeRead, ReadAnswer, ReadRequest};
use plinth_api::{CallError, ErrorCode, Target};
use plinth_types::{Key, KeyRange, Pid, Tag, Value, Version};
use tokio::time::{Instant, sleep};

use crate::attempts::{Attempt, Attempts, Deadline};
use crate::key_reads::{Found, KeyRead};
use crate::{ClientError, Database, Read, Topology};

/// The longest that one peer may take before another one is tried.
pub(crate) const PEER: Duration = Duration::from_millis(1_500);
/// How long one replica may take before the next one is asked as well.
const HEDGE: Duration = Duration::from_millis(100);

/// Some of a range, read from one of its ends.
pub(crate) struct Chunk {
    /// The keys that have been read.
    pub(crate) part: KeyRange,
    /// What they hold, ascending or descending.
    pub(crate) items: Vec<KeyValue>,
    /// What is left of the range; none where all of it has been read.
    pub(crate) rest: Option<KeyRange>,
}

/// Why a replica does not answer.
enum Failure {
    /// It has forgotten the version.
    TooOld,
    Other(String),
}

impl Database {
    /// A key's value at a version.
    pub(crate) async fn get_at(
        &self,
        version: Version,
        key: &Key,
        deadline: Deadline,
    ) -> Result<Option<Value>, ClientError> {
        let mut attempts = Attempts::new(&self.followed, deadline);
        loop {
            let (topology, left) = attempts.next().await?;
            match self.try_get(&topology, key, version, left).await? {
                Attempt::Done(value) => return Ok(value),
                Attempt::Again(why) => attempts.failed(why),
            }
        }
    }

    /// Up to `limit` keys of a range at a version, from its end if `reverse`. One shard at a time.
    pub(crate) async fn chunk_at(
        &self,
        version: Version,
        range: &KeyRange,
        limit: usize,
        reverse: bool,
        deadline: Deadline,
    ) -> Result<Chunk, ClientError> {
        let mut attempts = Attempts::new(&self.followed, deadline);
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        loop {
            let (topology, left) = attempts.next().await?;
            let mut shards = topology.live.recorded.shards.within(range);
            let shard = if reverse { shards.last() } else { shards.next() };
            let Some((part, tag)) = shard else {
                return Err(ClientError::NoStorage { key: range.from.clone(), version });
            };
            let read = RangeRead { range: part.clone(), limit, reverse };
            let request = ReadRequest {
                epoch: topology.epoch(),
                version,
                newest: false,
                keys: Vec::new(),
                ranges: vec![read],
            };
            let spread = part.from.as_bytes().last().copied().unwrap_or(0);
            match self.ask_team(&topology, tag, &request, spread, left).await? {
                Attempt::Done(answer) => match answer.ranges.into_iter().next() {
                    Some(answer) => {
                        return Ok(chunk(range, part, answer.items, answer.more, reverse));
                    }
                    None => attempts.failed("a storage answers without the range".to_owned()),
                },
                Attempt::Again(why) => attempts.failed(why),
            }
        }
    }

    /// Values of keys at a version, in order. The storages of each shard are asked at the same time.
    pub(crate) async fn get_many_at(
        &self,
        version: Version,
        keys: &[Key],
        deadline: Deadline,
    ) -> Result<Vec<Option<Value>>, ClientError> {
        let mut values = vec![None; keys.len()];
        let mut missing: Vec<usize> = (0..keys.len()).collect();
        let mut attempts = Attempts::new(&self.followed, deadline);
        while !missing.is_empty() {
            let (topology, left) = attempts.next().await?;
            let mut asked = FuturesUnordered::new();
            for places in by_shard(&topology, keys, &missing, version)? {
                asked.push(self.try_places(&topology, keys, places, version, left));
            }
            let mut failed = None;
            while let Some((places, result)) = asked.next().await {
                match result? {
                    Attempt::Done(found) => {
                        for (place, value) in places.iter().zip(found) {
                            values[*place] = value;
                        }
                        missing.retain(|place| !places.contains(place));
                    }
                    Attempt::Again(why) => failed = Some(why),
                }
            }
            if let Some(why) = failed {
                attempts.failed(why);
            }
        }
        Ok(values)
    }

    /// The keys in these places, all of one shard, with the places.
    async fn try_places(
        &self,
        topology: &Topology,
        keys: &[Key],
        places: Vec<usize>,
        version: Version,
        left: Duration,
    ) -> (Vec<usize>, Result<Attempt<Vec<Option<Value>>>, ClientError>) {
        let keys: Vec<Key> = places.iter().filter_map(|place| keys.get(*place)).cloned().collect();
        let result = self.try_keys(topology, keys, version, false, left).await;
        let result = result.map(|attempt| match attempt {
            Attempt::Done((_, values)) => Attempt::Done(values),
            Attempt::Again(why) => Attempt::Again(why),
        });
        (places, result)
    }

    pub(crate) async fn try_get(
        &self,
        topology: &Topology,
        key: &Key,
        version: Version,
        left: Duration,
    ) -> Result<Attempt<Option<Value>>, ClientError> {
        let attempt = self.try_key(topology, key, version, false, left).await?;
        Ok(match attempt {
            Attempt::Done(read) => Attempt::Done(read.value),
            Attempt::Again(why) => Attempt::Again(why),
        })
    }

    pub(crate) async fn try_get_newest(
        &self,
        topology: &Topology,
        key: &Key,
        left: Duration,
    ) -> Result<Attempt<Read>, ClientError> {
        match self.try_key(topology, key, Version::ZERO, true, left).await {
            Err(ClientError::TooOld) => Ok(Attempt::Again(ClientError::TooOld.to_string())),
            other => other,
        }
    }

    async fn try_key(
        &self,
        topology: &Topology,
        key: &Key,
        version: Version,
        newest: bool,
        left: Duration,
    ) -> Result<Attempt<Read>, ClientError> {
        let attempt = self.try_keys(topology, vec![key.clone()], version, newest, left).await?;
        Ok(match attempt {
            Attempt::Done((version, values)) => match values.into_iter().next() {
                Some(value) => Attempt::Done(Read { version, value }),
                None => Attempt::Again("a storage answers without a value".to_owned()),
            },
            Attempt::Again(why) => Attempt::Again(why),
        })
    }

    /// Keys of one shard, [`READ_BATCH_KEYS`] at most.
    async fn try_keys(
        &self,
        topology: &Topology,
        keys: Vec<Key>,
        version: Version,
        newest: bool,
        left: Duration,
    ) -> Result<Attempt<Found>, ClientError> {
        let Some(first) = keys.first() else { return Ok(Attempt::Done((version, Vec::new()))) };
        let tag = topology
            .tag_of(first.as_bytes())
            .ok_or_else(|| ClientError::NoStorage { key: first.clone(), version })?;
        let spread = first.as_bytes().last().copied().unwrap_or(0);
        let epoch = topology.epoch();
        let request = ReadRequest { epoch, version, newest, keys, ranges: Vec::new() };
        Ok(match self.ask_team(topology, tag, &request, spread, left).await? {
            Attempt::Done(answer) if answer.values.len() == request.keys.len() => {
                Attempt::Done((answer.version, answer.values))
            }
            Attempt::Done(_) => Attempt::Again("a storage answers without a value".to_owned()),
            Attempt::Again(why) => Attempt::Again(why),
        })
    }

    /// Asks the replicas of a tag, the first by `spread`. One that is slow or gone costs a short
    /// wait, since the next one is asked beside it.
    async fn ask_team(
        &self,
        topology: &Topology,
        tag: Tag,
        request: &ReadRequest,
        spread: u8,
        left: Duration,
    ) -> Result<Attempt<ReadAnswer>, ClientError> {
        let mut replicas: Vec<&Pid> = topology.storages(tag).collect();
        if replicas.is_empty() {
            return Ok(Attempt::Again(format!("no storage of tag {tag} runs")));
        }
        let start = usize::from(spread) % replicas.len();
        replicas.rotate_left(start);
        let mut unasked = replicas.into_iter();
        let mut asked = FuturesUnordered::new();
        let mut last = None;
        let mut all_too_old = true;
        loop {
            if let Some(replica) = unasked.next() {
                asked.push(self.ask_replica(replica, request, left.min(PEER)));
            }
            let hedge = async {
                match unasked.len() {
                    0 => std::future::pending().await,
                    _ => sleep(HEDGE).await,
                }
            };
            tokio::select! {
                biased;
                answer = asked.next() => match answer {
                    Some(Ok(answer)) => return Ok(Attempt::Done(answer)),
                    Some(Err(Failure::TooOld)) => {}
                    Some(Err(Failure::Other(why))) => {
                        all_too_old = false;
                        last = Some(why);
                        // It may have been replaced.
                        self.key_reads.keep_only(&topology.all_storages());
                    }
                    None if all_too_old => return Err(ClientError::TooOld),
                    None => return Ok(Attempt::Again(last.unwrap_or_default())),
                },
                () = hedge => {}
            }
        }
    }

    async fn ask_replica(
        &self,
        replica: &Pid,
        request: &ReadRequest,
        limit: Duration,
    ) -> Result<ReadAnswer, Failure> {
        let target = Target::from(replica);
        let answer = if request.ranges.is_empty() {
            self.ask_for_keys(&target, request, limit).await
        } else {
            self.peers.call(&target, &READ, request, Some(request.epoch), limit).await
        };
        answer.map_err(|error| match error.code() {
            Some(ErrorCode::TransactionTooOld) => Failure::TooOld,
            _ => Failure::Other(error.to_string()),
        })
    }

    /// Asks together with whoever asks the same storage. Who must wait for a version longer than
    /// others can be kept waiting asks again, alone.
    async fn ask_for_keys(
        &self,
        storage: &Target,
        request: &ReadRequest,
        limit: Duration,
    ) -> Result<ReadAnswer, CallError> {
        let ReadRequest { epoch, version, newest, keys, ranges: _ } = request.clone();
        let read = KeyRead { epoch, version, newest, keys };
        let started = Instant::now();
        match self.key_reads.get(storage, read, limit).await {
            Ok((version, values)) => Ok(ReadAnswer { version, values, ranges: Vec::new() }),
            Err(error) if error.code() == Some(ErrorCode::FutureVersion) => {
                let left = limit.saturating_sub(started.elapsed());
                self.peers.call(storage, &READ, request, Some(epoch), left).await
            }
            Err(error) => Err(error),
        }
    }
}

/// Places of keys by shard, so many in each as one request may have.
fn by_shard(
    topology: &Topology,
    keys: &[Key],
    places: &[usize],
    version: Version,
) -> Result<Vec<Vec<usize>>, ClientError> {
    let mut shards: BTreeMap<Tag, Vec<usize>> = BTreeMap::new();
    for place in places {
        let Some(key) = keys.get(*place) else { continue };
        let tag = topology.tag_of(key.as_bytes());
        let tag = tag.ok_or_else(|| ClientError::NoStorage { key: key.clone(), version })?;
        shards.entry(tag).or_default().push(*place);
    }
    let parts = shards.values().flat_map(|places| places.chunks(READ_BATCH_KEYS));
    Ok(parts.map(<[usize]>::to_vec).collect())
}

/// What one answer says of a range: `shard` is the part of it that was asked for.
fn chunk(
    range: &KeyRange,
    shard: KeyRange,
    items: Vec<KeyValue>,
    more: bool,
    reverse: bool,
) -> Chunk {
    let mut part = shard;
    if more && let Some(last) = items.last() {
        if reverse {
            part.from = last.key.clone();
        } else {
            part.to = Some(last.key.successor());
        }
    }
    let rest = if reverse {
        KeyRange { from: range.from.clone(), to: Some(part.from.clone()) }
    } else {
        match &part.to {
            Some(to) => KeyRange { from: to.clone(), to: range.to.clone() },
            None => return Chunk { part, items, rest: None },
        }
    };
    Chunk { part, items, rest: Some(rest).filter(|rest| !rest.is_empty()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(from: &str, to: Option<&str>) -> KeyRange {
        KeyRange { from: from.into(), to: to.map(Key::from) }
    }

    #[test]
    fn what_is_left_begins_where_the_answer_ends() {
        let items = || vec![KeyValue { key: "m".into(), value: "v".into() }];
        let whole = range("a", None);
        let first = chunk(&whole, range("a", Some("p")), items(), false, false);
        assert_eq!((first.part, first.rest), (range("a", Some("p")), Some(range("p", None))));
        let cut = chunk(&whole, range("a", Some("p")), items(), true, false);
        assert_eq!((cut.part, cut.rest), (range("a", Some("m\0")), Some(range("m\0", None))));
        let last = chunk(&whole, range("p", None), items(), false, true);
        assert_eq!((last.part, last.rest), (range("p", None), Some(range("a", Some("p")))));
        let cut = chunk(&whole, range("a", Some("p")), items(), true, true);
        assert_eq!((cut.part, cut.rest), (range("m", Some("p")), Some(range("a", Some("m")))));
        assert!(chunk(&whole, whole.clone(), items(), false, false).rest.is_none());
        assert!(chunk(&whole, whole.clone(), items(), false, true).rest.is_none());
    }
}
