//! How much of users' bodies is held at a time. A body counts until its request has been answered:
//! what it was parsed into is as large.

use std::sync::{Arc, Mutex, PoisonError};

use plinth_api::ErrorCode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{BODY_BUDGET, Failure, SMALL_BODY};

/// What is counted together, in bytes.
const UNIT: usize = 1 << 10;

/// What a service's users may send at a time. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Budget(Arc<Semaphore>);

impl Budget {
    pub(crate) fn new() -> Budget {
        Budget(Arc::new(Semaphore::new(BODY_BUDGET / UNIT)))
    }

    /// Nothing is held yet.
    pub(crate) fn share(&self) -> Share {
        Share { budget: self.clone(), held: Arc::default() }
    }
}

/// What one request holds, until the last clone goes.
#[derive(Clone, Debug)]
pub(crate) struct Share {
    budget: Budget,
    held: Arc<Mutex<Option<OwnedSemaphorePermit>>>,
}

impl Share {
    /// Holds so many bytes at least.
    ///
    /// # Errors
    /// `overloaded`: others hold too much.
    pub(crate) fn hold(&self, bytes: usize) -> Result<(), Failure> {
        if bytes <= SMALL_BODY {
            return Ok(());
        }
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let has = held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let missing = u32::try_from(bytes.div_ceil(UNIT).saturating_sub(has)).unwrap_or(u32::MAX);
        let Ok(more) = Arc::clone(&self.budget.0).try_acquire_many_owned(missing) else {
            let detail = format!(
                "the requests that are under way here hold {BODY_BUDGET} bytes of bodies, which is \
                 all there is room for: try again shortly"
            );
            return Err(Failure::new(ErrorCode::Overloaded, detail));
        };
        match held.as_mut() {
            Some(held) => held.merge(more),
            None => *held = Some(more),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BODY_LIMIT;

    #[test]
    fn large_bodies_share_what_there_is_and_small_ones_need_none_of_it() {
        let budget = Budget::new();
        let full: Vec<Share> = (0..BODY_BUDGET / BODY_LIMIT).map(|_| budget.share()).collect();
        for share in &full {
            share.hold(BODY_LIMIT / 2).expect("room");
            share.hold(BODY_LIMIT).expect("room, of which half is held already");
            share.hold(BODY_LIMIT / 4).expect("less than is held");
        }
        let late = budget.share();
        assert_eq!(
            late.hold(SMALL_BODY + 1).map_err(|failure| failure.0.code),
            Err(ErrorCode::Overloaded)
        );
        late.hold(SMALL_BODY).expect("small ones are not counted");
        drop(full);
        late.hold(BODY_LIMIT).expect("room again");
    }
}
