//! Keys named by their place among others.

use plinth_types::{Key, KeyRange};

/// Names a key by its place: so many keys from where `key` is or would be.
///
/// The base is the last key that is less than `key`, or, with `or_equal`, less than or equal to it;
/// the selector names the key `offset` places after the base, before it where `offset` is negative.
/// Before the first key of users it stays at the empty key, after the last one at `\xff`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySelector {
    /// Where to begin.
    pub key: Key,
    /// Whether the base may be the key itself.
    pub or_equal: bool,
    /// How many keys further.
    pub offset: i32,
}

impl KeySelector {
    /// The last key less than `key`.
    #[must_use]
    pub fn last_less_than(key: Key) -> KeySelector {
        KeySelector { key, or_equal: false, offset: 0 }
    }

    /// The last key less than or equal to `key`.
    #[must_use]
    pub fn last_less_or_equal(key: Key) -> KeySelector {
        KeySelector { key, or_equal: true, offset: 0 }
    }

    /// The first key greater than `key`.
    #[must_use]
    pub fn first_greater_than(key: Key) -> KeySelector {
        KeySelector { key, or_equal: true, offset: 1 }
    }

    /// The first key greater than or equal to `key`.
    #[must_use]
    pub fn first_greater_or_equal(key: Key) -> KeySelector {
        KeySelector { key, or_equal: false, offset: 1 }
    }

    /// The key so many places further.
    #[must_use]
    pub fn plus(self, places: i32) -> KeySelector {
        KeySelector { offset: self.offset.saturating_add(places), ..self }
    }

    /// Where to look among the keys of `all`: in which range, from which end, and for which key
    /// counted from 1.
    pub(crate) fn search(&self, all: &KeyRange) -> (KeyRange, bool, usize) {
        let border = if self.or_equal { self.key.successor() } else { self.key.clone() };
        let border = border.max(all.from.clone());
        let border = all.to.clone().map_or(border.clone(), |to| border.min(to));
        let count = |places: u32| usize::try_from(places).unwrap_or(usize::MAX);
        if self.offset > 0 {
            let range = KeyRange { from: border, to: all.to.clone() };
            (range, false, count(self.offset.unsigned_abs()))
        } else {
            let range = KeyRange { from: all.from.clone(), to: Some(border) };
            (range, true, count(self.offset.unsigned_abs().saturating_add(1)))
        }
    }
}
