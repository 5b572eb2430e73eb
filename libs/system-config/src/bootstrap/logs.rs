//! Whether logs show that a configuration is the newest that was ever in force.
//!
//! Two facts of the protocol make it possible without the storages:
//!
//! - a configuration is kept by *every* log of its epoch before anything is committed under it. So a
//!   log of the epoch whose own newest is this one shows that its epoch had none after it;
//! - the next epoch begins with locks, which a log keeps durably, on at least one log of each tag. So
//!   where *every* log of some tag was never locked by a later epoch, no later epoch came so far.

use plinth_types::{Epoch, ServiceRef, StoreId, Tag};

use super::{Inputs, Keeper, Kept, Known, Manifest, Missing, refound};
use crate::{LogEntry, Recorded};

/// Whether it is shown. `recorded` must be the newest configuration that anybody has.
pub(super) fn show_newest(inputs: &Inputs, recorded: &Recorded) -> bool {
    let layout = &recorded.config.layout;
    let mut tags = layout.storage_teams.iter().map(|team| team.tag);
    let is_shown = tags.any(|tag| {
        let mut logs = layout.logs_of(tag).peekable();
        logs.peek().is_some() && logs.all(|log| vouches(inputs, log.store, recorded))
    });
    // A storage that was told of a later epoch contradicts them: something is not as it should be.
    is_shown && later(inputs, recorded).next().is_none()
}

/// The logs that have not answered, if their answers could still show it.
pub(super) fn that_may_show_newest(inputs: &Inputs, recorded: &Recorded) -> Vec<Missing> {
    let layout = &recorded.config.layout;
    let is_unheard =
        |log: &&LogEntry<ServiceRef>| refound::is_unheard(inputs, &log.service, log.store);
    let may_show = |tag: &Tag| {
        let mut logs = layout.logs_of(*tag);
        logs.all(|log| is_unheard(&log) || vouches(inputs, log.store, recorded))
    };
    let Some(tag) = layout.storage_teams.iter().map(|team| team.tag).find(may_show) else {
        return Vec::new();
    };
    let keeper = |log: &LogEntry<ServiceRef>| {
        Missing::Worker(Keeper { service: log.service.clone(), store: log.store })
    };
    layout.logs_of(tag).filter(is_unheard).map(keeper).collect()
}

/// Whether a log of the configuration's layout has answered, keeps a configuration that can be read,
/// and was never locked by a later epoch.
pub(super) fn vouches(inputs: &Inputs, store: StoreId, recorded: &Recorded) -> bool {
    let kept = inputs.workers.get(&store).map(|worker| &worker.kept);
    let is_readable = matches!(
        kept,
        Some(Known::Has(Kept::Readable(kept)))
            if kept.config.cluster_id == inputs.cluster_id && kept.stamp() <= recorded.stamp()
    );
    let mut manifests = inputs.own_manifests().filter(|manifest| manifest.store == store);
    let held = manifests.next().and_then(|manifest| manifest.held.as_ref());
    is_readable && held.is_some_and(|held| held.epoch <= recorded.config.layout.epoch)
}

/// The workers that have taken part in an epoch after the configuration's.
pub(super) fn later<'a>(
    inputs: &'a Inputs,
    recorded: &Recorded,
) -> impl Iterator<Item = (&'a Manifest, Epoch)> {
    let epoch = recorded.config.epoch;
    inputs.own_manifests().filter_map(move |manifest| {
        let latest = manifest.held.as_ref()?.epoch;
        (latest > epoch).then_some((manifest, latest))
    })
}
