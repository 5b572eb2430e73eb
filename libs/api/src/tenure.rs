//! Whose epoch a component serves: the fence that every request of an epoch passes first.

use plinth_types::{Epoch, Incarnation};

use crate::{ErrorCode, Problem};

/// The epoch that a component serves, and the director that assigned it. Epochs only go up, and an
/// epoch belongs to one director: so a leftover director can't take back what its successor holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tenure {
    epoch: Epoch,
    director: Option<Incarnation>,
}

/// What an accepted assignment means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// A new epoch begins.
    Anew,
    /// The same director repeats itself.
    Again,
}

/// A request that is not of the epoch served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TenureError {
    /// Its epoch is over.
    #[error("epoch {asked} is over: epoch {serving} is served; read the layout again")]
    Over {
        /// The request's epoch.
        asked: Epoch,
        /// The epoch served.
        serving: Epoch,
    },
    /// Its epoch has not begun here.
    #[error("epoch {asked} has not begun here: epoch {serving} is served; ask again shortly")]
    NotBegun {
        /// The request's epoch.
        asked: Epoch,
        /// The epoch served; 0 before the first.
        serving: Epoch,
    },
    /// Another director holds the epoch.
    #[error("epoch {epoch} belongs to director {holder} and not to {asked}")]
    OtherDirector {
        /// The epoch.
        epoch: Epoch,
        /// Who asks.
        asked: Incarnation,
        /// Who holds it.
        holder: Incarnation,
    },
}

impl From<TenureError> for Problem {
    fn from(error: TenureError) -> Problem {
        let code = match error {
            TenureError::Over { .. } => ErrorCode::StaleEpoch,
            TenureError::NotBegun { .. } => ErrorCode::NotReady,
            TenureError::OtherDirector { .. } => ErrorCode::Superseded,
        };
        let problem = Problem::new(code, error.to_string());
        match error {
            TenureError::Over { serving, .. } => problem.with_latest_epoch(serving),
            TenureError::NotBegun { .. } | TenureError::OtherDirector { .. } => problem,
        }
    }
}

impl Tenure {
    /// The epoch served; 0 before the first.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Takes up an epoch for a director.
    ///
    /// # Errors
    /// The epoch is lower than the one served, or the same and another director's; nothing changes.
    pub fn take(&mut self, epoch: Epoch, director: Incarnation) -> Result<Taken, TenureError> {
        match self.director {
            Some(_) if epoch == self.epoch => self.holds(epoch, director).map(|()| Taken::Again),
            _ if epoch <= self.epoch => {
                Err(TenureError::Over { asked: epoch, serving: self.epoch })
            }
            _ => {
                *self = Tenure { epoch, director: Some(director) };
                Ok(Taken::Anew)
            }
        }
    }

    /// Checks that a request is of the epoch served.
    ///
    /// # Errors
    /// It is of another epoch.
    pub fn serves(&self, epoch: Epoch) -> Result<(), TenureError> {
        match epoch.cmp(&self.epoch) {
            std::cmp::Ordering::Less => {
                Err(TenureError::Over { asked: epoch, serving: self.epoch })
            }
            std::cmp::Ordering::Equal if self.director.is_some() => Ok(()),
            std::cmp::Ordering::Equal | std::cmp::Ordering::Greater => {
                Err(TenureError::NotBegun { asked: epoch, serving: self.epoch })
            }
        }
    }

    /// Checks that an order is of the epoch served and of its director.
    ///
    /// # Errors
    /// It is of another epoch, or another director's.
    pub fn holds(&self, epoch: Epoch, director: Incarnation) -> Result<(), TenureError> {
        self.serves(epoch)?;
        match self.director {
            Some(holder) if holder != director => {
                Err(TenureError::OtherDirector { epoch, asked: director, holder })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Incarnation = Incarnation(1);
    const SECOND: Incarnation = Incarnation(2);

    #[test]
    fn epochs_only_go_up_and_belong_to_one_director() {
        let mut tenure = Tenure::default();
        assert!(matches!(tenure.serves(Epoch(0)), Err(TenureError::NotBegun { .. })));
        assert!(matches!(tenure.take(Epoch(0), FIRST), Err(TenureError::Over { .. })));
        assert_eq!(tenure.take(Epoch(3), FIRST), Ok(Taken::Anew));
        assert_eq!(tenure.take(Epoch(3), FIRST), Ok(Taken::Again));
        assert!(matches!(tenure.take(Epoch(3), SECOND), Err(TenureError::OtherDirector { .. })));
        assert!(matches!(tenure.take(Epoch(2), FIRST), Err(TenureError::Over { .. })));
        assert_eq!(tenure.take(Epoch(4), SECOND), Ok(Taken::Anew));
        assert!(matches!(tenure.holds(Epoch(3), FIRST), Err(TenureError::Over { .. })));
        assert!(matches!(tenure.holds(Epoch(4), FIRST), Err(TenureError::OtherDirector { .. })));
        assert_eq!(tenure.holds(Epoch(4), SECOND), Ok(()));
        assert!(matches!(tenure.serves(Epoch(5)), Err(TenureError::NotBegun { .. })));
    }
}
