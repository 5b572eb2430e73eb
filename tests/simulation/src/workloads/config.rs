//! Watches the configuration, which never goes back.

use std::time::Duration;

use plinth_api::{Endpoint, Nothing};
use plinth_system_config::SystemConfig;
use plinth_types::ServiceRef;

use crate::history::Told;
use crate::scene::Scene;

/// The longest pause between two looks.
const PAUSE: Duration = Duration::from_millis(600);

pub(crate) const CONFIG: Endpoint<Nothing, SystemConfig<ServiceRef>> = Endpoint::get("/v1/config");

pub(crate) async fn run(scene: Scene) {
    while scene.is_working() {
        // Without an answer nothing is seen.
        let _ = look(&scene).await;
        scene.pause(PAUSE).await;
    }
}

/// Looks once.
pub(crate) async fn look(scene: &Scene) -> anyhow::Result<()> {
    let began = scene.history.moment();
    let config = scene.any_gateway().ask(&CONFIG).await?;
    let ended = scene.history.moment();
    let (stamp, parameters) = (config.stamp(), config.parameters);
    scene.history.record().configs.push(Told { stamp, parameters, began, ended });
    Ok(())
}
