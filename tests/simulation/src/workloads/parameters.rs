//! Changes parameters at random, sound values and unsound ones. What the cluster then tells is judged
//! by [`crate::invariants::config_identity`].

use std::collections::BTreeMap;
use std::time::Duration;

use http::HeaderValue;
use plinth_api::config::{ConfigPatch, PATCH_CONFIG, ParameterChanges, PatchState};
use plinth_api::{CallError, Client, ErrorCode, Target};
use plinth_system_config::{Parameters, Stamp, SystemConfig};
use plinth_types::ServiceRef;

use super::CONFIG;
use crate::history::{Change, ChangeFate};
use crate::scene::Scene;

/// The longest pause between two changes.
const PAUSE: Duration = Duration::from_millis(2_500);
/// How long a change may take: longer than every limit on its way.
const PATIENCE: Duration = Duration::from_secs(25);

/// What is set, and to what.
const CHOICES: [(&str, &[u64]); 14] = [
    ("logs", &[2, 3, 4, 5]),
    ("replication", &[2, 3]),
    ("commit_proxies", &[1, 2, 3]),
    ("resolvers", &[1, 2, 3]),
    ("failure_timeout_ms", &[400, 700, 1_000]),
    ("rejoin_grace_ms", &[0, 200, 500]),
    ("start_grace_ms", &[1_000, 5_000]),
    ("peer_timeout_ms", &[700, 1_000, 2_000]),
    ("system_transaction_timeout_ms", &[5_000, 10_000]),
    ("window_versions", &[3_000_000, 5_000_000, 8_000_000]),
    ("storage_lost_ms", &[20_000, 30_000]),
    // These can't be.
    ("logs", &[0, 1_000]),
    ("replication", &[6, 7]),
    ("colour", &[7]),
];

pub(crate) async fn run(scene: Scene) {
    let peers = Client::new(scene.peers.clone());
    while scene.is_working() {
        scene.pause(PAUSE).await;
        let gateway = scene.any_gateway();
        let Ok(config) = gateway.ask(&CONFIG).await else { continue };
        let mut asked = BTreeMap::new();
        for _ in 0..=scene.below(2) {
            let (name, values) = CHOICES[scene.below(CHOICES.len())];
            asked.insert(name.to_owned(), values[scene.below(values.len())]);
        }
        let tag = HeaderValue::try_from(format!("\"{}\"", config.config_version));
        let Ok(tag) = tag else { continue };
        let patch = ConfigPatch { parameters: ParameterChanges(asked.clone()) };
        let target = Target::address(gateway.address());
        let path = PATCH_CONFIG.path;
        let answer = peers.conditional(&target, &PATCH_CONFIG, path, &tag, &patch, PATIENCE).await;
        let ended = scene.history.moment();
        let sound = after(&config.parameters, &asked);
        let stamp = Stamp { config_version: config.config_version.next(), ..config.stamp() };
        let fate = match answer {
            Ok(answer) => {
                let made = answer.body;
                if sound.as_ref() != Some(&made.parameters) {
                    let what = format!("{asked:?} after {:?} made {made:?}", config.parameters);
                    scene.findings.report("config_changes", what);
                    return;
                }
                match made.state {
                    PatchState::Durable => {
                        let (epoch, config_version) = (made.epoch, made.config_version);
                        ChangeFate::Durable(Stamp { epoch, config_version }, made.parameters)
                    }
                    PatchState::Recorded => ChangeFate::Recorded(stamp, made.parameters),
                    PatchState::DryRun | PatchState::Unchanged => ChangeFate::Refused,
                }
            }
            Err(error) => match refusal(&scene, &config, &asked, sound, stamp, &error) {
                Some(fate) => fate,
                None => return,
            },
        };
        scene.history.record().changes.push(Change { ended, fate });
    }
}

/// What a change leaves behind that was not acknowledged. None where a sound one is told to be wrong.
fn refusal(
    scene: &Scene,
    config: &SystemConfig<ServiceRef>,
    asked: &BTreeMap<String, u64>,
    sound: Option<Parameters>,
    stamp: Stamp,
    error: &CallError,
) -> Option<ChangeFate> {
    if error.code() == Some(ErrorCode::InvalidRequest) && sound.is_some() {
        let what = format!("{asked:?} after {:?}: {error}", config.parameters);
        scene.findings.report("config_changes", what);
        return None;
    }
    match sound {
        Some(parameters) if !error.had_no_effect() => Some(ChangeFate::Unknown(stamp, parameters)),
        _ => Some(ChangeFate::Refused),
    }
}

/// The parameters after a change; none where it can't be.
fn after(before: &Parameters, asked: &BTreeMap<String, u64>) -> Option<Parameters> {
    let mut json = serde_json::to_value(before).ok()?;
    let fields = json.as_object_mut()?;
    for (name, value) in asked {
        *fields.get_mut(name)? = (*value).into();
    }
    let after: Parameters = serde_json::from_value(json).ok()?;
    // On no more than five nodes.
    (after.problems().is_empty() && after.replication <= 3).then_some(after)
}
