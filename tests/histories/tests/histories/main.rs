//! The checks, on histories that are known to be good or bad.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod good;
mod lists;
mod others;
mod replay;
