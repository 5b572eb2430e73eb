//! The checks, on histories that are known to be good or bad.

mod good;
mod lists;
mod others;
mod replay;
