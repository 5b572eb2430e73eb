//! What the services say while a seed runs, for a person who replays it.

use std::env;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

/// The variable with the filter, such as `info` or `plinth_director=debug`.
const VARIABLE: &str = "PLINTH_SIMULATION_LOG";

/// Prints what the services log, at simulated times, if the environment asks for it. It changes
/// nothing of what happens.
pub fn log_if_asked() {
    let Ok(filter) = env::var(VARIABLE) else { return };
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(filter))
        .with_timer(SimulatedTime)
        .with_ansi(false)
        .finish();
    // Only a second call in one process is refused, and changes nothing.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

struct SimulatedTime;

impl FormatTime for SimulatedTime {
    fn format_time(&self, writer: &mut Writer<'_>) -> std::fmt::Result {
        let time = tokio::runtime::Handle::try_current().ok().and_then(|_| turmoil::sim_elapsed());
        match time {
            Some(time) => write!(writer, "{:>9.3}", time.as_secs_f64()),
            None => write!(writer, "        -"),
        }
    }
}
