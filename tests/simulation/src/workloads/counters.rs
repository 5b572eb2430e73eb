//! Increment: each user counts in a key of its own. What it reads is never less than what was
//! acknowledged, and never more than what it asked for.

use std::time::Duration;

use crate::scene::Scene;
use crate::user::Fate;

/// How many users.
pub(crate) const USERS: usize = 2;
/// The longest pause between two operations.
const PAUSE: Duration = Duration::from_millis(30);

pub(crate) fn key(user: usize) -> String {
    format!("counter/{user}")
}

pub(crate) async fn run(scene: Scene, user: usize) {
    let key = key(user);
    let (mut acknowledged, mut unknown, mut attempts) = (0_u64, 0_u64, 0_u64);
    while scene.is_working() {
        if let Some(value) = scene.history.get(&scene.any_gateway(), &key).await {
            // A count, and the attempt that wrote it, which makes every value another one.
            let text = value.map(|value| String::from_utf8_lossy(&value).into_owned());
            let count = text.as_deref().map_or(Some(0), parse);
            let range = acknowledged..=acknowledged + unknown;
            match count {
                Some(count) if range.contains(&count) => {
                    (acknowledged, unknown) = (count, 0);
                    attempts += 1;
                    let value = format!("{} of user {user} attempt {attempts}", count + 1);
                    match scene.history.put(&scene.any_gateway(), &key, value).await {
                        Fate::Committed(_) => acknowledged = count + 1,
                        Fate::Unknown(_) => unknown = 1,
                        Fate::NotCommitted(_) => {}
                    }
                }
                _ => {
                    let seen = format!("{key} is {text:?}, and must be within {range:?}");
                    scene.findings.report("increment", seen);
                    return;
                }
            }
        }
        scene.pause(PAUSE).await;
    }
}

fn parse(text: &str) -> Option<u64> {
    text.split(' ').next()?.parse().ok()
}
