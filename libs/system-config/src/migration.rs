//! The levels of the written form, and the steps between them.
//!
//! Each level knows only its neighbour below. What is read goes up the chain to the newest level;
//! what is written for a cluster whose older releases still run goes down it. A step works on JSON
//! values, because the types of older levels no longer exist.

use serde_json::{Map, Value};

/// The newest level of the written form that this release reads and writes.
pub const FORMAT_LEVEL: u32 = 4;

/// The level that can say where coordinators answer, and that their membership changes.
pub const MEMBERS_LEVEL: u32 = 4;

/// One level up or down.
struct Step {
    up: fn(&mut Map<String, Value>) -> Result<(), String>,
    down: fn(&mut Map<String, Value>) -> Result<(), String>,
}

/// The step at index n leads from level n to level n + 1 and back.
const STEPS: [Step; FORMAT_LEVEL as usize] = [
    Step { up: from_0_to_1, down: from_1_to_0 },
    Step { up: from_1_to_2, down: from_2_to_1 },
    Step { up: from_2_to_3, down: from_3_to_2 },
    Step { up: from_3_to_4, down: from_4_to_3 },
];

/// Why a body can't be brought from one level to the next.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a configuration can't be brought from format level {from} to level {to}: {reason}")]
pub struct MigrationError {
    /// The level it is at.
    pub from: u32,
    /// The level it should be at.
    pub to: u32,
    /// What stands in the way.
    pub reason: String,
}

/// Brings a configuration that was read at `level` to the newest level.
pub(crate) fn upgrade(config: &mut Value, level: u32) -> Result<(), MigrationError> {
    for (from, step) in (0u32..).zip(&STEPS).skip_while(|(from, _)| *from < level) {
        let to = from + 1;
        object(config).and_then(step.up).map_err(|reason| MigrationError { from, to, reason })?;
    }
    Ok(())
}

/// Brings a configuration of the newest level down to `level`.
pub(crate) fn downgrade(config: &mut Value, level: u32) -> Result<(), MigrationError> {
    for (to, step) in
        (0u32..).zip(&STEPS).skip_while(|(to, _)| *to < level).collect::<Vec<_>>().into_iter().rev()
    {
        let from = to + 1;
        object(config).and_then(step.down).map_err(|reason| MigrationError { from, to, reason })?;
    }
    Ok(())
}

fn object(value: &mut Value) -> Result<&mut Map<String, Value>, String> {
    value.as_object_mut().ok_or_else(|| "it is not an object".to_owned())
}

fn field<'a>(
    map: &'a mut Map<String, Value>,
    name: &str,
) -> Result<&'a mut Map<String, Value>, String> {
    map.get_mut(name).and_then(Value::as_object_mut).ok_or_else(|| format!("it has no {name:?}"))
}

fn rename(map: &mut Map<String, Value>, from: &str, to: &str) -> Result<(), String> {
    let value = map.remove(from).ok_or_else(|| format!("it has no {from:?}"))?;
    map.insert(to.to_owned(), value);
    Ok(())
}

/// Level 0 had no policies, and its layout called the commit proxies `proxies`.
fn from_0_to_1(config: &mut Map<String, Value>) -> Result<(), String> {
    rename(field(config, "layout")?, "proxies", "commit_proxies")?;
    config.insert("policies".to_owned(), level_1_default_policies());
    Ok(())
}

fn from_1_to_0(config: &mut Map<String, Value>) -> Result<(), String> {
    rename(field(config, "layout")?, "commit_proxies", "proxies")?;
    match config.remove("policies") {
        Some(policies) if policies != level_1_default_policies() => {
            Err("level 0 knows no policies but the default ones".to_owned())
        }
        _ => Ok(()),
    }
}

/// Level 1 had no storages that join a team, and no time after which one is lost.
fn from_1_to_2(config: &mut Map<String, Value>) -> Result<(), String> {
    // A configuration without parameters has the default ones.
    if let Some(parameters) = config.get_mut("parameters").and_then(Value::as_object_mut) {
        parameters.insert("storage_lost_ms".to_owned(), LEVEL_2_STORAGE_LOST_MS.into());
    }
    Ok(())
}

fn from_2_to_1(config: &mut Map<String, Value>) -> Result<(), String> {
    let teams = field(config, "layout")?.get("storage_teams").and_then(Value::as_array);
    if teams.into_iter().flatten().any(|team| team.get("joining").is_some()) {
        return Err("level 1 knows no storages that join a team".to_owned());
    }
    let parameters = config.get_mut("parameters").and_then(Value::as_object_mut);
    match parameters.and_then(|parameters| parameters.remove("storage_lost_ms")) {
        Some(lost) if lost != LEVEL_2_STORAGE_LOST_MS => {
            Err("level 1 knows no storage_lost_ms but the default one".to_owned())
        }
        _ => Ok(()),
    }
}

/// Level 2 had no orders about nodes. Where there are none, level 3 is written the same.
const fn from_2_to_3(_: &mut Map<String, Value>) -> Result<(), String> {
    Ok(())
}

fn from_3_to_2(config: &mut Map<String, Value>) -> Result<(), String> {
    let nodes = config.get("nodes").and_then(Value::as_object);
    let mut entries = nodes.into_iter().flatten();
    match entries.find(|(_, entry)| entry.get("standing").is_some()) {
        Some((node, _)) => Err(format!("level 2 knows no orders about nodes, and {node} has one")),
        None => Ok(()),
    }
}

/// Level 3 named coordinators without their addresses, and one membership alone. Where there is no
/// more to say, level 4 is written the same.
const fn from_3_to_4(_: &mut Map<String, Value>) -> Result<(), String> {
    Ok(())
}

fn from_4_to_3(config: &mut Map<String, Value>) -> Result<(), String> {
    if config.get("next_coordinators").is_some() {
        return Err("level 3 knows no changes of the coordinators' membership".to_owned());
    }
    let mut members = config.get("coordinators").and_then(Value::as_array).into_iter().flatten();
    match members.find(|member| member.get("address").is_some()) {
        Some(member) => {
            let service = member.get("service").and_then(Value::as_str).unwrap_or("one");
            Err(format!("level 3 knows no addresses of coordinators, and {service} has one"))
        }
        None => Ok(()),
    }
}

/// Spelled out, as are the default policies of level 1.
const LEVEL_2_STORAGE_LOST_MS: u64 = 30_000;

/// Spelled out, because a level's meaning must not follow later changes of a type's defaults.
fn level_1_default_policies() -> Value {
    serde_json::json!({ "spread": "zone" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn up_and_down_again_is_the_same() {
        let old = json!({"layout": {"proxies": ["a"]}, "parameters": {}, "format_level": 0});
        let mut config = old.clone();
        upgrade(&mut config, 0).unwrap();
        assert_eq!(
            config,
            json!({
                "layout": {"commit_proxies": ["a"]},
                "parameters": {"storage_lost_ms": 30_000},
                "format_level": 0,
                "policies": {"spread": "zone"},
            })
        );
        downgrade(&mut config, 0).unwrap();
        assert_eq!(config, old);
    }

    #[test]
    fn the_newest_level_is_left_alone() {
        let mut config = json!({"anything": 1});
        upgrade(&mut config, FORMAT_LEVEL).unwrap();
        downgrade(&mut config, FORMAT_LEVEL).unwrap();
        assert_eq!(config, json!({"anything": 1}));
    }

    #[test]
    fn what_an_old_level_cannot_say_is_refused() {
        let mut config = json!({"layout": {"commit_proxies": []}, "policies": {"spread": "rack"}, "parameters": {}});
        let error = downgrade(&mut config, 0).unwrap_err();
        assert_eq!((error.from, error.to), (1, 0));
        let layout = json!({"storage_teams": [{"tag": 1, "members": [], "joining": [{}]}]});
        for config in [
            json!({"layout": layout, "parameters": {"storage_lost_ms": 30_000}}),
            json!({"layout": {}, "parameters": {"storage_lost_ms": 1_000}}),
        ] {
            let error = downgrade(&mut config.clone(), 1).unwrap_err();
            assert_eq!((error.from, error.to), (2, 1), "{config}");
        }
        let nodes =
            json!({"node-1": {"zone": "a"}, "node-2": {"zone": "b", "standing": "draining"}});
        let error = downgrade(&mut json!({"nodes": nodes}), 2).unwrap_err();
        assert_eq!((error.from, error.to), (3, 2), "{error}");
        for (config, words) in [
            (json!({"coordinators": [], "next_coordinators": [{}]}), "no changes"),
            (json!({"coordinators": [{"service": "a", "address": "b:1"}]}), "a has one"),
        ] {
            let error = downgrade(&mut config.clone(), 3).unwrap_err();
            assert_eq!((error.from, error.to), (4, 3), "{config}");
            assert!(error.to_string().contains(words), "{error}");
        }
        assert!(upgrade(&mut json!({}), 0).is_err());
        assert!(upgrade(&mut json!([]), 0).is_err());
    }
}
