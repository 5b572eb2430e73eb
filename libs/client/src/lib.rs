//! The client of a cluster: follows its layout, reads at a version, commits.
//!
//! [`Database`] knows where everything is by following the director's live layout. A read asks a
//! commit proxy for a read version (one request serves all that wait) and then a storage for the
//! key at exactly that version. A commit is tried again only where it surely had no effect.

mod database;
mod error;
mod read_versions;
mod topology;

pub use database::{Database, Read};
pub use error::ClientError;
pub use topology::{Followed, Topology, follow};
