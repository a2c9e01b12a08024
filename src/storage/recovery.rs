//! Opens the view at a node's start, or rebuilds it (I2, I4, I5).
//!
//! A view that can't be opened, that ends before the log begins, or that after an unclean stop is not what its heads
//! describe, is thrown away, and this is said loudly. One that is ahead of the log proves that the log lost
//! entries: the node is refused (I7). Then the newest whole snapshot takes its
//! place, or nothing if the log begins at its beginning; the consensus applies the rest of the log. Nothing is repaired,
//! and a node that lacks too much is refused.

use std::path::{Path, PathBuf};

use super::caught::caught;
use super::snapshot::{SnapshotError, Snapshots};
use super::view::{View, ViewError, ViewOptions};
use crate::fs::Fs;
use crate::state::Position;

/// What the log holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogBounds {
    /// Last entry that was purged from its front.
    pub purged: Option<Position>,
    /// Last entry, or the last one purged.
    pub last: Option<Position>,
    /// Last entry known to be committed.
    pub committed: Option<Position>,
}

/// Why the state can't be had.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// Not even a new view can be made.
    #[error("the view in {path} can't be made anew")]
    View {
        /// Its directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: ViewError,
    },
    /// I7: the view holds entries that the log does not have. Nothing is applied before the log holds it (I2), so the log
    /// has lost them.
    #[error(
        "the log lost entries: it ends at index {log}, and this node has applied entries up to {view}. It may have \
         acknowledged entries that it no longer has, so it must not come back under this id: remove the node from the \
         cluster, and add it with an empty data directory under a new id (docs/operations.md, \"Replace a node\")"
    )]
    LogShortened {
        /// Where the log ends.
        log: u64,
        /// Where the view ends.
        view: u64,
    },
    /// Neither view nor snapshots reach to where the log begins.
    #[error(
        "the state can't be rebuilt: the log begins after index {purged}, and there is no whole view and no whole snapshot \
         that reaches it ({tried} looked at). This node's disk lost data. Do not empty its directory and start it again \
         under this id: remove the node from the cluster, and add it with an empty data directory under a new id \
         (docs/operations.md, \"Replace a node\")"
    )]
    Unrecoverable {
        /// Last index that was purged.
        purged: u64,
        /// Snapshots that were tried, or too old.
        tried: usize,
    },
}

/// Why a view is thrown away.
#[derive(Debug, thiserror::Error)]
enum Unfit {
    #[error("it can't be opened or checked: {0}")]
    Damaged(#[from] ViewError),
    #[error("its engine panicked")]
    Panicked,
    #[error("it ends at {view:?}, which is ahead of the log's end at {log:?}")]
    AheadOfLog { view: Option<Position>, log: Option<Position> },
    #[error("it ends at {view:?}, before the log begins, after {purged:?}")]
    BehindLog { view: Option<Position>, purged: Option<Position> },
}

/// Opens the view in `dir`, or rebuilds it. Blocks; after an unclean stop it reads all records.
///
/// # Errors
/// [`RecoveryError::Unrecoverable`] if neither view nor snapshots with the log give the state; a failed disk.
pub fn open_view<F: Fs>(
    dir: &Path,
    options: ViewOptions,
    bounds: LogBounds,
    snapshots: &Snapshots<F>,
) -> Result<View, RecoveryError> {
    let fails = |source| RecoveryError::View { path: dir.to_owned(), source };
    let opened = caught(|| open_fit(dir, options, bounds, snapshots));
    match opened.unwrap_or(Err(Unfit::Panicked)) {
        Ok(view) => return Ok(view),
        Err(Unfit::AheadOfLog { view, log }) => {
            let last = |at: Option<Position>| at.map_or(0, |at| at.index);
            return Err(RecoveryError::LogShortened { log: last(log), view: last(view) });
        }
        Err(why) => {
            tracing::error!(%why, path = %dir.display(), "the view is thrown away and rebuilt")
        }
    }
    View::throw_away(dir).map_err(fails)?;
    let view = View::open(dir, options).map_err(fails)?;
    rebuild(view, bounds, snapshots)
}

/// A view in memory, for simulations: always rebuilt.
///
/// # Errors
/// As [`open_view`].
pub fn open_view_in_memory<F: Fs>(
    options: ViewOptions,
    bounds: LogBounds,
    snapshots: &Snapshots<F>,
) -> Result<View, RecoveryError> {
    rebuild(View::in_memory_with(options), bounds, snapshots)
}

/// Opens the view if it may be used.
fn open_fit<F: Fs>(
    dir: &Path,
    options: ViewOptions,
    bounds: LogBounds,
    snapshots: &Snapshots<F>,
) -> Result<View, Unfit> {
    let view = View::open(dir, options)?;
    let position = view.durable_position().map_err(ViewError::from)?;
    if index(position) < index(bounds.purged) {
        return Err(Unfit::BehindLog { view: position, purged: bounds.purged });
    }
    // A snapshot from another node may reach further than the log did when the node stopped; it is durable by itself.
    let from_snapshot = snapshots.all().iter().any(|file| file.meta().last == position);
    let same_entry = index(position) != index(bounds.last) || position == bounds.last;
    if (index(position) > index(bounds.last) || !same_entry) && !from_snapshot {
        return Err(Unfit::AheadOfLog { view: position, log: bounds.last });
    }
    // Also one without a position is checked: it may hold records all the same, after damage.
    if !view.opened_clean() {
        if !view.opened_empty() {
            tracing::info!("the view was not closed in order: checking all its records");
        }
        view.verify()?;
    }
    if position.is_none() && bounds.last.is_some() {
        tracing::warn!(path = %dir.display(), "the view begins empty; the log is applied from its beginning");
    }
    Ok(view)
}

/// Fills an empty view from the newest whole snapshot, or leaves it empty if the log has everything.
fn rebuild<F: Fs>(
    view: View,
    bounds: LogBounds,
    snapshots: &Snapshots<F>,
) -> Result<View, RecoveryError> {
    let candidates = snapshots.all();
    for file in &candidates {
        let last = file.meta().last;
        if index(last) < index(bounds.purged) {
            tracing::error!(path = %file.path().display(), "the snapshot ends before the log begins");
            continue;
        }
        match snapshots.install(file, &view) {
            Ok(()) => {
                tracing::warn!(path = %file.path().display(), "the view was rebuilt from a snapshot");
                return Ok(view);
            }
            Err(SnapshotError::View(source)) => {
                return Err(RecoveryError::View { path: file.path().to_owned(), source });
            }
            Err(error) => {
                tracing::error!(%error, "the snapshot can't be used; trying an older one")
            }
        }
    }
    match bounds.purged {
        None => {
            tracing::warn!("the view begins empty; the log is applied from its beginning");
            Ok(view)
        }
        Some(purged) => {
            Err(RecoveryError::Unrecoverable { purged: purged.index, tried: candidates.len() })
        }
    }
}

/// Positions are compared by index: nothing comes before index 0.
fn index(position: Option<Position>) -> Option<u64> {
    position.map(|position| position.index)
}
