//! Three coordinators on loopback, each on a disk of its own; directors, foremen and storages are
//! played by the tests.

#![expect(clippy::unwrap_used, reason = "a test fails where it panics")]

mod members;
mod played;
mod raising;
mod scenarios;
mod world;
