//! The storage from outside: its streams against a full history, and the service over HTTP with
//! faked logs.

mod fixture;
mod model;
mod service;
