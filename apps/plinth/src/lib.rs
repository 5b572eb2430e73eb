//! Under construction.

pub mod jaeger;
