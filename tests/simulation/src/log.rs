//! What the services say while a seed runs: for a person who replays it, and for findings, where a
//! service itself finds an invariant broken.

use std::env;
use std::fmt;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::{EnvFilter, Registry};

use crate::findings::Findings;

/// The variable with the filter, such as `info` or `plinth_director=debug`.
const VARIABLE: &str = "PLINTH_SIMULATION_LOG";
/// What services log when they find an invariant broken.
const BROKEN: &str = "an invariant is broken";

/// Prints what the services log, at simulated times, if the environment asks for it. It changes
/// nothing of what happens.
pub fn log_if_asked() {
    watch(&Findings::default());
}

/// The same, and reports the invariants that services find broken.
pub(crate) fn watch(findings: &Findings) {
    let printed = env::var(VARIABLE).ok().map(|filter| {
        tracing_subscriber::fmt::layer()
            .with_timer(SimulatedTime)
            .with_ansi(false)
            .with_filter(EnvFilter::new(filter))
    });
    let watcher = Watcher(findings.clone()).with_filter(LevelFilter::ERROR);
    let subscriber = Registry::default().with(watcher).with(printed);
    // Only a second call in one process is refused, and changes nothing.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

struct Watcher(Findings);

impl<S: Subscriber> Layer<S> for Watcher {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if *event.metadata().level() == Level::ERROR {
            let mut text = Text::default();
            event.record(&mut text);
            if text.0.contains(BROKEN) {
                self.0.report("found by a service", text.0);
            }
        }
    }
}

#[derive(Default)]
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.push_str(&format!("{field}={value:?} "));
    }
}

struct SimulatedTime;

impl FormatTime for SimulatedTime {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        match crate::findings::now() {
            Some(time) => write!(writer, "{:>9.3}", time.as_secs_f64()),
            None => write!(writer, "        -"),
        }
    }
}
