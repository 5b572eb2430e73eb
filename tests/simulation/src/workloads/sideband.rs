//! Sideband: who is told of a commit by another way sees it.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::scene::Scene;
use crate::user::Fate;

/// The key that is written and read.
pub(crate) const KEY: &str = "sideband";
/// The longest pause between two writes.
const PAUSE: Duration = Duration::from_millis(30);
/// How long the reader waits for news before it looks whether the run goes on.
const LOOK: Duration = Duration::from_millis(200);

pub(crate) async fn run(scene: Scene) {
    let (told, news) = mpsc::channel(1);
    tokio::join!(write(scene.clone(), told), read(scene, news));
}

async fn write(scene: Scene, told: mpsc::Sender<u64>) {
    let mut number = 0;
    while scene.is_working() {
        number += 1;
        let gateway = scene.any_gateway();
        if let Fate::Committed(_) =
            scene.history.put(&gateway, KEY, format!("{number} by sideband")).await
        {
            // A reader that is slow misses some, and one that has ended needs none.
            let _ = told.try_send(number);
        }
        scene.pause(PAUSE).await;
    }
}

async fn read(scene: Scene, mut news: mpsc::Receiver<u64>) {
    while scene.is_working() {
        let Ok(Some(number)) = timeout(LOOK, news.recv()).await else { continue };
        let Some(value) = scene.history.get(&scene.any_gateway(), KEY).await else { continue };
        let text = value.map(|value| String::from_utf8_lossy(&value).into_owned());
        let seen = text.as_deref().and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
        if seen.is_none_or(|seen| seen < number) {
            let seen = format!("write {number} was acknowledged, and then {text:?} was read");
            scene.findings.report("sideband", seen);
            return;
        }
    }
}
