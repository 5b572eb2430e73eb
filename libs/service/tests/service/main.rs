//! A small service, hosted on loopback, seen from outside.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod about;
mod along;
mod announcing;
mod callers;
mod directory;
mod endings;
mod fixture;
mod monitoring;
mod problems;
mod transport;
