//! StatusDuringOutage: a gateway that lives tells the cluster's status, whatever else is broken.

use std::time::Duration;

use crate::scene::Scene;

/// The longest pause between two looks.
const PAUSE: Duration = Duration::from_millis(500);
/// The longest that a status may take: a gateway asks up to three coordinators and a director.
const LIMIT: Duration = Duration::from_secs(5);
/// The time that a gateway has to come back after it was disturbed.
const COMEBACK: Duration = Duration::from_secs(5);

pub(crate) async fn run(scene: Scene, gateway: usize) {
    let (node, gateway) = scene.gateways[gateway].clone();
    while scene.is_working() {
        let asked = scene.now();
        let answer = gateway.status().await;
        let took = scene.now().saturating_sub(asked);
        let excused = scene.weather.disturbed(&node, asked.saturating_sub(COMEBACK));
        match answer {
            Ok(status) => {
                let director = status.coordinator.and_then(|coordinator| coordinator.director);
                if let Some(director) = director {
                    let mut record = scene.history.record();
                    let named = record.directors.entry(director.epoch).or_default();
                    named.insert(director.pid.incarnation, director.service.to_string());
                }
                if took > LIMIT && !excused {
                    let seen = format!("{node}'s gateway took {took:?} for its status");
                    scene.findings.report("status_during_outage", seen);
                    return;
                }
            }
            Err(error) if !excused => {
                let seen =
                    format!("{node}'s gateway, asked at {asked:?}, gives no status: {error}");
                scene.findings.report("status_during_outage", seen);
                return;
            }
            Err(_) => {}
        }
        scene.pause(PAUSE).await;
    }
}
