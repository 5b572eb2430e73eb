//! Ranges of keys as queries name them, answered a page at a time.

use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use plinth_api::gateway::{Item, Page};
use plinth_client::{RangeOptions, Transaction};
use plinth_service::{Failure, Json};
use plinth_types::{KEY_LIMIT, Key, KeyRange, SYSTEM_KEYSPACE, VALUE_LIMIT, Version};
use serde::{Deserialize, Serialize};

use crate::execute::{ANSWER_BYTES, DEFAULT_ROWS, MAX_ROWS, failed, invalid, prefix_range};
use crate::keys::decoded;
use crate::values::with_version;

/// Where a page ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Cursor {
    version: Version,
    rest: KeyRange,
    reverse: bool,
}

impl Cursor {
    fn to_text(&self) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).unwrap_or_default())
    }

    fn from_text(text: &str) -> Result<Cursor, Failure> {
        let wrong = || invalid("cursor", "the cursor is none that a page was answered with");
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| wrong())?;
        serde_json::from_slice(&bytes).map_err(|_| wrong())
    }
}

/// Which of the parameters that name a range a query has.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Given {
    pub(crate) prefix: bool,
    pub(crate) from: bool,
    pub(crate) to: bool,
}

/// How much of the range is wanted, and how.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wanted<'a> {
    pub(crate) limit: Option<u32>,
    pub(crate) reverse: bool,
    pub(crate) cursor: Option<&'a str>,
}

/// A page that is of the right form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listing {
    pub(crate) range: KeyRange,
    reverse: bool,
    rows: usize,
    /// The version that the first page was read at.
    pub(crate) version: Option<Version>,
}

impl Listing {
    /// `query` is the raw one: keys are any bytes.
    pub(crate) fn new(query: &str, given: Given, wanted: Wanted<'_>) -> Result<Listing, Failure> {
        let limit = wanted.limit.unwrap_or(DEFAULT_ROWS);
        if !(1..=MAX_ROWS).contains(&limit) {
            return Err(invalid("limit", format!("limit must be 1 to {MAX_ROWS}, not {limit}")));
        }
        let rows = usize::try_from(limit).unwrap_or(usize::MAX);
        match wanted.cursor {
            Some(text) => {
                let Cursor { version, rest, reverse } = Cursor::from_text(text)?;
                Ok(Listing { range: rest, reverse, rows, version: Some(version) })
            }
            None => {
                let (range, reverse) = (listed(query, given)?, wanted.reverse);
                Ok(Listing { range, reverse, rows, version: None })
            }
        }
    }

    /// Bytes of keys and values that the page has at most, about.
    pub(crate) fn most_bytes(&self) -> usize {
        most_bytes(self.rows)
    }

    /// Reads the page, as the transaction sees it.
    pub(crate) async fn page(self, transaction: &Transaction) -> Result<Response, Failure> {
        let Listing { range, reverse, rows, version: _ } = self;
        // One more than are wanted, to tell whether there are more.
        let options = RangeOptions {
            limit: rows + 1,
            limit_bytes: ANSWER_BYTES,
            reverse,
            ..RangeOptions::default()
        };
        let found = transaction.get_range(&range, options).await.map_err(failed)?;
        let version = transaction.read_version().await.map_err(failed)?;
        let mut items: Vec<Item> =
            found.items.into_iter().map(|item| Item { key: item.key, value: item.value }).collect();
        let more = found.more;
        items.truncate(rows);
        let cursor = items.last().filter(|_| more).map(|last| {
            let rest = if reverse {
                KeyRange { from: range.from.clone(), to: Some(last.key.clone()) }
            } else {
                KeyRange { from: last.key.successor(), to: range.to.clone() }
            };
            Cursor { version, rest, reverse }.to_text()
        });
        Ok(with_version(Json(Page { items, cursor, version }).into_response(), version))
    }
}

/// Bytes of keys and values that so many of a range have at most, about.
pub(crate) fn most_bytes(rows: usize) -> usize {
    rows.saturating_mul(KEY_LIMIT + VALUE_LIMIT).min(ANSWER_BYTES)
}

/// The range that a query names; its keys are any bytes, so they are taken from the raw query.
pub(crate) fn listed(query: &str, given: Given) -> Result<KeyRange, Failure> {
    let raw = |name: &str, given: bool| {
        if !given {
            return None;
        }
        query.split('&').find_map(|pair| {
            let (of, value) = pair.split_once('=').unwrap_or((pair, ""));
            (of == name).then(|| decoded(&value.replace('+', " ")))
        })
    };
    let Given { prefix, from, to } = given;
    let range = match (raw("prefix", prefix), raw("from", from), raw("to", to)) {
        (Some(prefix), None, None) => prefix_range(&prefix),
        (None, from, to) => KeyRange {
            from: from.unwrap_or_default(),
            to: Some(to.unwrap_or(Key::from_static(SYSTEM_KEYSPACE))),
        },
        (Some(_), _, _) => return Err(invalid("prefix", "give either a prefix, or from and to")),
    };
    if range.to.as_ref().is_some_and(|to| *to < range.from) {
        return Err(invalid("to", "the range ends before it begins"));
    }
    Ok(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(query: &str) -> Given {
        let has = |name: &str| query.split('&').any(|pair| pair.starts_with(name));
        Given { prefix: has("prefix"), from: has("from"), to: has("to") }
    }

    #[test]
    fn ranges_are_of_any_bytes() {
        let range = |from: &[u8], to: &[u8]| KeyRange::new(Key::from(from), Key::from(to));
        for (query, expected) in [
            ("prefix=a/", range(b"a/", b"a0")),
            ("prefix=%fe%ff", range(b"\xfe\xff", b"\xff")),
            ("from=a+b&to=c%2Bd", range(b"a b", b"c+d")),
            ("limit=3", range(b"", b"\xff")),
            ("from=x", range(b"x", b"\xff")),
            ("to=x&reverse=true", range(b"", b"x")),
        ] {
            assert_eq!(listed(query, given(query)).expect(query), expected, "{query}");
        }
        for wrong in ["prefix=a&from=b", "from=b&to=a"] {
            assert!(listed(wrong, given(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_cursor_is_taken_as_it_was_given_and_nothing_else() {
        let rest = KeyRange { from: Key::from(&b"\xfe"[..]), to: None };
        let cursor = Cursor { version: Version(7), rest: rest.clone(), reverse: true };
        let text = cursor.to_text();
        assert_eq!(Cursor::from_text(&text).expect("a cursor"), cursor);
        for wrong in ["", "x", "e30"] {
            assert!(Cursor::from_text(wrong).is_err(), "{wrong}");
        }
        let wanted = Wanted { limit: Some(9), reverse: false, cursor: Some(&text) };
        let listing = Listing::new("prefix=a", given("prefix=a"), wanted).expect("a page");
        let expected = Listing { range: rest, reverse: true, rows: 9, version: Some(Version(7)) };
        assert_eq!(listing, expected, "the cursor decides");
    }

    #[test]
    fn pages_have_a_row_at_least_and_ten_thousand_at_most() {
        for (limit, is_valid) in [(0, false), (1, true), (MAX_ROWS, true), (MAX_ROWS + 1, false)] {
            let wanted = Wanted { limit: Some(limit), ..Wanted::default() };
            let listing = Listing::new("", Given::default(), wanted);
            assert_eq!(listing.is_ok(), is_valid, "{limit}");
        }
    }
}
