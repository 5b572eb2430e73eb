//! What must hold of a history, one check a module, each a pure function of what was seen.

pub mod bank;
pub mod lists;
pub mod real_time;
pub mod registers;
pub mod replay;
pub mod ring;
pub mod sets;
