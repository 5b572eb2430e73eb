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
        let began = scene.history.moment();
        if let Ok(config) = scene.any_gateway().ask(&CONFIG).await {
            let ended = scene.history.moment();
            scene.history.record().configs.push(Told { stamp: config.stamp(), began, ended });
            // Nobody has changed any.
            if config.parameters != scene.parameters {
                scene.findings.report("config_identity", format!("{:?}", config.parameters));
                return;
            }
        }
        scene.pause(PAUSE).await;
    }
}
