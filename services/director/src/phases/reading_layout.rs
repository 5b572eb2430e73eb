//! `reading_layout`: what the last epoch was.
//!
//! The read is linearizable and made after this epoch's appointment was applied, so it sees whatever
//! an earlier director managed to record; and since the appointment voids the earlier ones, nothing
//! can be recorded by them any more. **Keeps: a configuration is never replaced by an older one**
//! (invariant 11), **epochs strictly increase** (invariant 1).

use plinth_api::coordinator::{HOLDING, Holding, STATUS};
use plinth_api::{CallError, ErrorCode, Nothing};
use plinth_system_config::BootstrapSource;
use plinth_types::ConfigVersion;
use tokio::time::sleep;

use crate::config::{COORDINATOR_LIMIT, RETRY};
use crate::coordinators::is_refusal;
use crate::fatal::{Fatal, Words};
use crate::reign::Reign;

/// What the coordinators hold.
#[derive(Clone, Debug)]
pub(crate) struct Read {
    pub(crate) holding: Holding,
    /// Where the coordinators had it from.
    pub(crate) source: BootstrapSource,
}

impl Read {
    /// What the coordinators must still hold when this epoch's layout replaces it.
    pub(crate) fn expected(&self) -> Option<ConfigVersion> {
        self.holding.recorded.as_ref().map(|recorded| recorded.config.config_version)
    }
}

/// Waits for as long as no majority of the coordinators answers.
pub(crate) async fn run(reign: &Reign) -> Result<Read, Fatal> {
    let holding = loop {
        let read = reign.coordinators.call(HOLDING, &Nothing {}, reign.epoch, COORDINATOR_LIMIT);
        match read.await {
            Ok(holding) => break holding,
            Err(error) if is_refusal(&error) && !is_not_there_yet(&error) => {
                return Err(Fatal::new(format!("the coordinators refuse: {}", Words(&error))));
            }
            Err(error) => {
                let reason = format!("no coordinator tells the layout: {}", Words(&error));
                reign.stalled(Some(reason));
                sleep(RETRY).await;
            }
        }
    };
    reign.stalled(None);
    check(reign, &holding)?;
    if reign.context.cluster().is_none() {
        reign.context.set_cluster(holding.cluster);
    }
    let source = source(reign, &holding).await;
    Ok(Read { holding, source })
}

/// A coordinator that answers for a group that it has not joined yet knows no holding.
fn is_not_there_yet(error: &CallError) -> bool {
    error.code() == Some(ErrorCode::NotFound)
}

fn check(reign: &Reign, holding: &Holding) -> Result<(), Fatal> {
    let me = reign.context.pid().incarnation;
    match &holding.appointed {
        Some(appointed) if appointed.epoch > reign.epoch => {
            Err(Fatal::superseded(format_args!("epoch {} was appointed", appointed.epoch)))
        }
        Some(appointed) if appointed.epoch == reign.epoch && appointed.pid.incarnation == me => {
            match &holding.recorded {
                Some(recorded) if recorded.config.epoch >= reign.epoch => Err(Fatal::new(format!(
                    "a layout of epoch {} is recorded already",
                    recorded.config.epoch
                ))),
                Some(_) | None => Ok(()),
            }
        }
        Some(_) | None => {
            Err(Fatal::new("the coordinators know nothing of this appointment".to_owned()))
        }
    }
}

/// For people to read, so its lack stops nothing.
async fn source(reign: &Reign, holding: &Holding) -> BootstrapSource {
    let likely =
        if holding.recorded.is_some() { BootstrapSource::Raft } else { BootstrapSource::Default };
    let status = reign.coordinators.call(STATUS, &Nothing {}, reign.epoch, COORDINATOR_LIMIT);
    let Ok(status) = status.await else { return likely };
    let name = serde_json::Value::String(status.bootstrap.source);
    serde_json::from_value(name).unwrap_or(likely)
}
