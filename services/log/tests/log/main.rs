//! The log: its machine against a naive one, its fences, power loss, and the whole service over
//! HTTP.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod crashes;
mod fences;
mod fixture;
mod members;
mod model;
mod replaying;
mod service;
