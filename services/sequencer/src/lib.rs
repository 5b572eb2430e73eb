//! The sequencer: one an epoch, hands out commit versions and knows the latest committed one.
//!
//! Versions advance by a monotonic clock, 1,000,000 a second, by at least 1 and at most 5,000,000
//! at a time, so that a window can be counted in versions; no safety rests on the clock. Each
//! answer names the version before it: all batches of an epoch, whichever proxy they come from,
//! form one chain that begins at (RV, first version). A repeated request gets the answer it got,
//! so that a lost reply leaves no hole in the chain.
//!
//! Invariants: no version is handed out twice; none of an epoch reaches those of the next, which
//! start a gap above what any log can have acknowledged; the latest committed version never goes
//! back, and was handed out.
//!
//! It has no state that survives it and takes part in nothing but one epoch at a time. Whether the
//! epoch is still the latest it can't know: a proxy asks the logs, see the commit proxy.

mod config;
mod driver;
mod http;
mod machine;

pub use config::{Config, Limits};
pub use machine::{Refusal, Sequencer};
use plinth_service::{Exit, Host};

use crate::driver::Handle;

/// What the endpoints look like.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    http::routes().openapi()
}

/// Serves until it is asked to stop.
pub async fn serve(host: Host, config: Config) -> Exit {
    let context = host.context();
    let (handle, events) = Handle::new();
    let routes = http::routes().with_state(handle);
    context.set_state("standby");
    if let Some(foreman) = config.foreman {
        plinth_service::announce(&context, foreman, None);
    }
    let main = {
        let context = context.clone();
        async move {
            let drive = driver::drive(context.clone(), config.limits, events);
            tokio::select! {
                biased;
                () = context.stopping() => Exit::clean(),
                () = drive => Exit::clean(),
            }
        }
    };
    host.run(routes, main).await
}
