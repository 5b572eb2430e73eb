//! A load generator for key-value stores over HTTP/1.1: the same requests, paced and measured alike,
//! for Plinth's gateway and for etcd's HTTP/JSON gateway.
//!
//! [`Load`] says what to send and [`drive`] sends it. In a *closed* loop every connection sends its
//! next request once the last one is answered. In an *open* loop requests have times at which they
//! are due, and latency counts from there: a server that stalls is charged for everything that waited
//! behind the stall.
//!
//! All of it runs on one task queue of the caller's runtime, and [`Report`] tells how much processor
//! time the generator itself took, so that it can be told from the servers'.

mod cpu;
mod driver;
mod load;
mod protocol;
mod recorder;
mod report;
mod workload;

pub use cpu::CpuMeter;
pub use driver::{Driving, drive, start};
pub use load::{Amount, Keys, Load, LoadError, Mix, Operation, Pace};
pub use protocol::{Protocol, Request, Verdict};
pub use report::{Distribution, OperationReport, Report};
