//! Several users read and write the same few keys through any gateway.

use std::time::Duration;

use crate::scene::Scene;

/// How many users.
pub(crate) const USERS: usize = 4;
/// How many keys they share.
const KEYS: usize = 4;
/// The longest pause between two operations.
const PAUSE: Duration = Duration::from_millis(40);

pub(crate) fn keys() -> Vec<String> {
    (0..KEYS).map(|number| format!("register/{number}")).collect()
}

pub(crate) async fn run(scene: Scene, user: usize) {
    let keys = keys();
    let mut writes = 0_u64;
    while scene.is_working() {
        let key = &keys[scene.below(KEYS)];
        let gateway = scene.any_gateway();
        if scene.below(2) == 0 {
            writes += 1;
            let value = format!("user {user} write {writes}");
            scene.history.put(&gateway, key, value).await;
        } else {
            scene.history.get(&gateway, key).await;
        }
        scene.pause(PAUSE).await;
    }
}
