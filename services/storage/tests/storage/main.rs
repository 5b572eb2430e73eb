//! The storage from outside: its streams against a full history, and the service over HTTP with
//! faked logs.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod copies;
mod fixture;
mod model;
mod newcomers;
mod service;
