//! Three coordinators on loopback, each on a disk of its own; directors, foremen and storages are
//! played by the tests.

mod played;
mod scenarios;
mod world;
