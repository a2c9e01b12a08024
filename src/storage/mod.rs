//! What a node keeps on disk: the write-ahead log, the view, snapshots and the data directory.
//!
//! Only the log and the snapshots are the truth; the view can always be rebuilt from them.

mod caught;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
pub mod layout;
pub mod recovery;
pub mod snapshot;
pub mod view;
pub mod wal;

pub use caught::panics_are_caught;
