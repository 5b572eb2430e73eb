//! Changes of the configuration: the same on a gateway, a coordinator and the director.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use plinth_system_config::{ChangeError, Changed, LevelError, Parameters, Proposal, Recorded};
use plinth_types::{ConfigVersion, Epoch, NodeId};
use serde::{Deserialize, Serialize};
use utoipa::openapi::schema::{AdditionalProperties, ObjectBuilder, Schema};
use utoipa::openapi::{KnownFormat, RefOr, SchemaFormat, Type};

use crate::{Endpoint, ErrorCode, Problem};

/// Parameters by name, with the values that they are to have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ParameterChanges(pub BTreeMap<String, u64>);

impl utoipa::PartialSchema for ParameterChanges {
    fn schema() -> RefOr<Schema> {
        let mut object = ObjectBuilder::new()
            .description(Some("Parameters by name, with the values that they are to have."))
            .min_properties(Some(1))
            .additional_properties(Some(AdditionalProperties::FreeForm(false)));
        // Bounds are said exactly as far as every number of JSON can say them.
        let bound = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        for parameter in Parameters::default().all() {
            let value = ObjectBuilder::new()
                .schema_type(Type::Integer)
                .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)))
                .minimum(Some(bound(parameter.least)))
                .maximum(Some(bound(parameter.most)));
            object = object.property(parameter.name, value);
        }
        object.into()
    }
}

impl utoipa::ToSchema for ParameterChanges {}

/// `PATCH /v1/config`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ConfigPatch {
    /// The parameters that are to be others. What is not named stays.
    pub parameters: ParameterChanges,
}

/// How a change is asked for.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, utoipa::IntoParams)]
pub struct PatchQuery {
    /// Only say what would be done.
    #[serde(default)]
    #[param(required = false)]
    pub dry_run: bool,
}

impl PatchQuery {
    /// An endpoint's path with this query.
    #[must_use]
    pub fn path<Req, Resp>(self, endpoint: &Endpoint<Req, Resp>) -> Cow<'static, str> {
        let path = endpoint.path;
        if self.dry_run { format!("{path}?dry_run=true").into() } else { path.into() }
    }
}

/// How far a change has come when it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PatchState {
    /// It would be made.
    DryRun,
    /// All is so already.
    Unchanged,
    /// The coordinators have it and no epoch is ready: it is in force from the next one on, and in
    /// storage once that one is ready.
    Recorded,
    /// The coordinators, the logs and a majority of the storages that hold the configuration have it
    /// on disk.
    Durable,
}

/// What became of a change of the configuration, whatever it changes.
pub trait Outcome {
    /// How far it has come.
    fn state(&self) -> PatchState;
    /// The number of the configuration that is in force, or, of a dry run, would be changed: the ETag.
    fn config_version(&self) -> ConfigVersion;
}

/// All answers say both in fields of these names.
macro_rules! outcome {
    ($answer:ty) => {
        impl $crate::config::Outcome for $answer {
            fn state(&self) -> $crate::config::PatchState {
                self.state
            }
            fn config_version(&self) -> plinth_types::ConfigVersion {
                self.config_version
            }
        }
    };
}
pub(crate) use outcome;

outcome!(ConfigPatched);
outcome!(LevelRaised);

/// What became of a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ConfigPatched {
    /// How far it has come.
    pub state: PatchState,
    /// The number of the configuration that is in force, or, of a dry run, would be changed: the ETag.
    pub config_version: ConfigVersion,
    /// The epoch that the change was made in.
    pub epoch: Epoch,
    /// What is another, each with how it takes effect.
    pub changed: Vec<Changed>,
    /// Whether the change begins an epoch, for a moment without commits.
    pub begins_epoch: bool,
    /// Every parameter as it is after the change.
    pub parameters: Parameters,
}

impl ConfigPatched {
    /// The answer to a change that may be made.
    #[must_use]
    pub fn new(
        proposal: Proposal,
        state: PatchState,
        config_version: ConfigVersion,
        epoch: Epoch,
    ) -> ConfigPatched {
        let begins_epoch = proposal.begins_epoch() || state == PatchState::Recorded;
        let Proposal { parameters, changed } = proposal;
        ConfigPatched { state, config_version, epoch, changed, begins_epoch, parameters }
    }
}

/// Everything that is wrong with a change, as a problem that names the first field.
#[must_use]
pub fn refused(errors: &[ChangeError]) -> Problem {
    let is_unsatisfiable = errors.iter().all(ChangeError::is_unsatisfiable);
    let code = if is_unsatisfiable { ErrorCode::Unsatisfiable } else { ErrorCode::InvalidRequest };
    let words: Vec<String> = errors.iter().map(ToString::to_string).collect();
    let problem = Problem::new(code, words.join("; "));
    let name = errors.iter().find_map(ChangeError::name);
    let field = name.map_or_else(|| "parameters".to_owned(), |name| format!("parameters.{name}"));
    problem.with("field", field)
}

/// `PUT /v1/format_level`: raises the level that the configuration is written at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RaiseLevel {
    /// The level. Never below the one that is.
    pub level: u32,
    /// Nodes that may be silent: none of them ever comes back with a release that does not read the
    /// level. All others must report that they read it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub without: BTreeSet<NodeId>,
}

impl RaiseLevel {
    /// What it does, for people.
    #[must_use]
    pub fn describe(&self, before: &Recorded) -> String {
        format!("format level from {} to {}", before.config.format_level, self.level)
    }

    /// What has become of it, in the configuration that is in force or would be changed.
    #[must_use]
    pub fn answer(
        &self,
        state: PatchState,
        before: &Recorded,
        config_version: ConfigVersion,
        epoch: Epoch,
    ) -> LevelRaised {
        let from = before.config.format_level;
        LevelRaised { state, config_version, epoch, from, level: self.level }
    }
}

/// What became of the raising of the format level.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LevelRaised {
    /// How far it has come.
    pub state: PatchState,
    /// The number of the configuration that is in force, or, of a dry run, would be changed: the ETag.
    pub config_version: ConfigVersion,
    /// The epoch that the change was made in.
    pub epoch: Epoch,
    /// The level before.
    pub from: u32,
    /// The level, or, of a dry run, what it would be.
    pub level: u32,
}

/// Why the format level can't be raised so, as a problem.
#[must_use]
pub fn level_refused(error: &LevelError) -> Problem {
    let (code, field) = match error {
        LevelError::UnknownNode(_) => (ErrorCode::NotFound, "without"),
        LevelError::Back { .. }
        | LevelError::Unknown(_)
        | LevelError::Unreadable { .. }
        | LevelError::NotNow(_)
        | LevelError::Unwritable { .. } => (ErrorCode::Unsatisfiable, "level"),
    };
    Problem::new(code, error.to_string()).with("field", field)
}

/// `PUT /v1/format_level`, with `If-Match`.
pub const RAISE_LEVEL: Endpoint<RaiseLevel, LevelRaised> = Endpoint::put("/v1/format_level");
/// `PATCH /v1/config`, with `If-Match`.
pub const PATCH_CONFIG: Endpoint<ConfigPatch, ConfigPatched> = Endpoint::patch("/v1/config");
