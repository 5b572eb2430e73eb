//! The wire: what services say to each other and to the world, one module a service, and the typed
//! client that says it. No I/O: the client is generic over a `tower::Service`.

mod call;
mod error;
mod tenure;

pub mod commit_proxy;
pub mod common;
pub mod config;
pub mod coordinator;
pub mod director;
pub mod foreman;
pub mod gateway;
pub mod log;
pub mod members;
pub mod nodes;
pub mod resolver;
pub mod sequencer;
pub mod storage;

pub use call::{
    Answered, CallError, Client, Endpoint, HEADER_CLUSTER, HEADER_EPOCH, HEADER_FROM,
    HEADER_INCARNATION, HEADER_REQUEST_ID, HEADER_SECRET, HEADER_SERVED_BY, HEADER_VERSION,
    Nothing, Route, Target, TimeLimit, TransportError,
};
pub use error::{ErrorCode, Outcome, Problem};
pub use tenure::{Taken, Tenure, TenureError};
