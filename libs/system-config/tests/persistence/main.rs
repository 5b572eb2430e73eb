//! What the library promises, seen from outside.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod arbitrary;
mod bootstrap_exhaustive;
mod bootstrap_members;
mod bootstrap_rebuild;
mod bootstrap_table;
mod change;
mod codec;
mod golden;
mod members;
mod raising;
mod rows;
mod samples;
mod standing;
mod validation;
