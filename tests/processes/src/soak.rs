//! A soak: writers keep a ledger of what they were told, while the cluster's processes are killed,
//! frozen, wiped and all killed at once, at random. At the end the ledger is held against what is
//! there.

pub mod chaos;
pub mod ledger;
pub mod writer;

use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use anyhow::Context as _;

/// What the parts of a soak share.
#[derive(Debug)]
pub struct Shared {
    gateways: RwLock<Vec<String>>,
}

impl Shared {
    /// For writers that begin with these gateways.
    #[must_use]
    pub fn new(gateways: &[String]) -> Shared {
        Shared { gateways: RwLock::new(gateways.to_vec()) }
    }

    /// Where writers may ask now.
    #[must_use]
    pub fn gateways(&self) -> Vec<String> {
        self.gateways.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// After everything was started again.
    pub fn moved(&self, gateways: &[String]) {
        let mut held = self.gateways.write().unwrap_or_else(PoisonError::into_inner);
        gateways.clone_into(&mut held);
    }
}

/// How long a soak lasts, and the seed of what happens in it: `PLINTH_SOAK_SECONDS` (20), and
/// `PLINTH_SOAK_SEED` (any). The seed gives what is done to whom; not when a process hears of it.
///
/// # Errors
/// A variable is not a number.
pub fn settings() -> anyhow::Result<(Duration, u64)> {
    let number = |name: &str| {
        let Some(text) = std::env::var_os(name) else { return Ok(None) };
        let number = text.to_str().and_then(|text| text.parse::<u64>().ok());
        number.map(Some).with_context(|| format!("{name}={} is no number", text.display()))
    };
    let seconds = number("PLINTH_SOAK_SECONDS")?.unwrap_or(20);
    let seed = number("PLINTH_SOAK_SEED")?.unwrap_or_else(rand::random);
    Ok((Duration::from_secs(seconds), seed))
}
