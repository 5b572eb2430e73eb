//! Watches: who watches a key is told of a value that is another one than it has seen, and that is
//! committed. What was told goes into the history, where it must be what the key had at that version
//! ([`crate::invariants::watches_tell_what_is`]).

use std::time::Duration;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use futures::future::join_all;
use tokio::time::{Instant, sleep};

use crate::history::Sight;
use crate::scene::Scene;
use crate::user::{Fate, Gateway};

/// The key that is watched.
pub(crate) const KEY: &str = "watched";
/// How many watch it.
const WATCHERS: usize = 3;
/// The longest pause between two writes.
const PAUSE: Duration = Duration::from_millis(150);
/// The longest that a watch waits.
const WAIT: Duration = Duration::from_millis(1_500);
/// Where nothing is broken, a watch tells of a commit within so long.
const PROMPT: Duration = Duration::from_secs(2);

pub(crate) async fn run(scene: Scene) {
    tokio::join!(write(scene.clone()), join_all((0..WATCHERS).map(|_| watch(scene.clone()))));
}

async fn write(scene: Scene) {
    let mut number = 0;
    while scene.is_working() {
        number += 1;
        scene.history.put(&scene.any_gateway(), KEY, format!("{number} to be watched")).await;
        scene.pause(PAUSE).await;
    }
}

async fn watch(scene: Scene) {
    let mut seen: Option<Bytes> = None;
    while scene.is_working() {
        let wait = WAIT / 10 * u32::try_from(scene.below(11)).unwrap_or(0);
        match scene.any_gateway().watch(KEY, seen.as_ref(), wait).await {
            Ok(told) => {
                let value = told.value.map(|value| value.0);
                if told.changed == (value == seen) {
                    let seen = format!(
                        "a watch of what has {seen:?} tells {value:?}, changed: {}",
                        told.changed
                    );
                    scene.findings.report("watches", seen);
                    return;
                }
                scene.history.record().sights.push(Sight {
                    key: KEY.to_owned(),
                    value: value.clone(),
                    version: told.version,
                });
                // What was told is committed: whoever reads after that sees it.
                if let Ok((version, _)) = scene.any_gateway().get(KEY).await
                    && version < told.version
                {
                    let seen = format!("told of version {}, then read at {version}", told.version);
                    scene.findings.report("watches", seen);
                    return;
                }
                seen = value;
            }
            Err(_) => scene.pause(PAUSE).await,
        }
    }
}

/// Where nothing is broken, a watch fires soon after a commit.
pub(crate) async fn fires(scene: &Scene, gateway: &Gateway) -> anyhow::Result<()> {
    let before = scene.history.get(gateway, KEY).await.context("a read is not answered")?;
    let value = format!("to be watched at {}", scene.history.moment());
    let write = async {
        sleep(PAUSE).await;
        let fate = scene.history.put(&scene.any_gateway(), KEY, value.clone()).await;
        (fate, Instant::now())
    };
    let watch = async {
        let told = gateway.watch(KEY, before.as_ref(), 2 * PROMPT).await;
        (told, Instant::now())
    };
    let ((fate, written), (told, heard)) = tokio::join!(write, watch);
    ensure!(matches!(fate, Fate::Committed(_)), "a write is {fate:?}");
    let told = told?.value.map(|value| value.0);
    let late = heard.saturating_duration_since(written);
    ensure!(
        told.as_deref() == Some(value.as_bytes()) && late < PROMPT,
        "{value:?} was written, and {late:?} after its commit a watch told {told:?}"
    );
    Ok(())
}
