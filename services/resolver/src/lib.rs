//! The resolver: decides which transactions of a key range conflict.
//!
//! Batches form one chain, from the sequencer; they are decided in its order, whatever order they
//! come in. Each transaction is held against what was written since it read, then against the
//! winners before it in its batch; a winner's writes enter the history. A read below the window, or
//! below the epoch's first version, can't be judged and is too old; a transaction that reads
//! nothing is never refused. A batch that comes again gets the verdicts it got.
//!
//! With several resolvers each sees its part of the keys, and the proxy takes the least verdict. A
//! winner here may lose elsewhere: its writes then cause conflicts that need not be, never the
//! opposite.
//!
//! Caveats: a read of a wide range costs as much as there are boundaries in it. The history is in
//! memory alone and dies with the epoch; the next epoch's first version is so far above that
//! nothing read before can be mistaken for judged.

mod config;
pub mod conflict_set;
mod driver;
mod http;
mod machine;

pub use config::{Config, Limits};
pub use machine::{Decision, Refusal, Resolver, Ticket};
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
