//! Snapshots: immutable files that are verified before they get their name (I5).
//!
//! Built from a frozen view, or received from another node, under a temporary name; fsync'ed, read back and checked in
//! full; only then renamed, and the directory fsync'ed. The two newest are kept. None is ever held in memory, changed, or
//! repaired: one that is damaged is reported and passed over.

mod background;
#[cfg(test)]
mod crashes;
mod file;
mod format;
#[cfg(any(test, feature = "fuzzing"))]
pub(super) mod fuzzing;
#[cfg(test)]
mod tests;
mod write;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

pub use file::SnapshotFile;
pub use write::SnapshotReceiver;

use crate::domain::{ClusterId, Timestamp};
use crate::fs::Fs;
use crate::state::{Position, StoreError};
use crate::storage::view::{View, ViewError};

/// Snapshots that are kept.
const KEPT: usize = 2;
const SUFFIX: &str = ".snap";
const TEMPORARY: &str = ".partial";

/// What a snapshot holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotMeta {
    /// Last entry that was applied.
    pub last: Option<Position>,
    /// The membership then, opaque.
    pub membership: Bytes,
    /// The cluster; `None` before the bootstrap.
    pub cluster: Option<ClusterId>,
    /// Number of records, as the heads count them.
    pub records: u64,
    /// Digest of the whole state.
    pub state_digest: [u8; 32],
    /// The state's clock: the time of the newest command in it.
    pub time: Timestamp,
    /// Size of the file in bytes.
    pub bytes: u64,
}

/// Why there is no snapshot.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// A file operation failed. The error names the path.
    #[error("a snapshot's file can't be read or written")]
    Io(#[source] io::Error),
    /// The file is not what was once written.
    #[error("snapshot {path} is damaged: {what}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
    /// The thread that makes snapshots could not be started, or panicked.
    #[error("the thread that makes snapshots {0}")]
    Thread(&'static str),
    /// A record is too large for the format.
    #[error("a record is too large for a snapshot")]
    TooLarge,
    /// A chunk came at another place than the end of the one before.
    #[error("a chunk came for offset {got}, expected {expected}")]
    OutOfOrder {
        /// Where it should have gone.
        expected: u64,
        /// Where it came for.
        got: u64,
    },
    /// The view failed.
    #[error("the view failed")]
    View(#[from] ViewError),
}

impl SnapshotError {
    fn damaged(path: &Path, what: &'static str) -> Self {
        Self::Damaged { path: path.to_owned(), what }
    }
}

impl From<StoreError> for SnapshotError {
    fn from(error: StoreError) -> Self {
        Self::View(error.into())
    }
}

/// The snapshots of a node.
#[derive(Debug)]
pub struct Snapshots<F: Fs> {
    fs: F,
    dir: PathBuf,
    /// Newest first.
    files: Arc<Mutex<Vec<SnapshotFile<F>>>>,
    temporary: Arc<AtomicU64>,
}

impl<F: Fs> Clone for Snapshots<F> {
    fn clone(&self) -> Self {
        Self {
            fs: self.fs.clone(),
            dir: self.dir.clone(),
            files: Arc::clone(&self.files),
            temporary: Arc::clone(&self.temporary),
        }
    }
}

impl<F: Fs> Snapshots<F> {
    /// Opens the directory, or makes it. Removes what an interrupted build or transfer left. A file that is damaged is
    /// reported and passed over, but stays.
    ///
    /// # Errors
    /// If a file operation fails.
    pub fn open(fs: F, dir: &Path) -> Result<Self, SnapshotError> {
        let names = || -> io::Result<Vec<String>> {
            fs.create_dir_all(dir)?;
            fs.sync_dir(crate::fs::parent(dir))?;
            fs.read_dir(dir)
        };
        let mut files = Vec::new();
        for name in names().map_err(SnapshotError::Io)? {
            let path = dir.join(&name);
            if name.ends_with(TEMPORARY) {
                fs.remove_file(&path).map_err(SnapshotError::Io)?;
            } else if name.ends_with(SUFFIX) {
                match SnapshotFile::open(&fs, &path) {
                    Ok(file) => files.push(file),
                    Err(error) => tracing::error!(%error, "a snapshot is passed over"),
                }
            }
        }
        files.sort_by_key(|file| std::cmp::Reverse(order(file.meta().last)));
        let dir = dir.to_owned();
        Ok(Self { fs, dir, files: Arc::new(Mutex::new(files)), temporary: Arc::default() })
    }

    /// The newest one.
    pub fn current(&self) -> Option<SnapshotFile<F>> {
        self.files.lock().first().cloned()
    }

    /// Bytes that may still be written to the file system of the snapshots.
    ///
    /// # Errors
    /// If it can't be asked.
    pub fn free_bytes(&self) -> io::Result<u64> {
        self.fs.available_bytes(&self.dir)
    }

    /// All that look whole, the newest first.
    pub fn all(&self) -> Vec<SnapshotFile<F>> {
        self.files.lock().clone()
    }

    /// Takes a snapshot of `view` while commits go on, and publishes it once the view on disk has reached it. Blocks.
    ///
    /// # Errors
    /// If the view or a file operation fails, or what was read back is not what was written. There is no new snapshot
    /// then, and the older ones stay.
    pub fn build(&self, view: &View) -> Result<SnapshotFile<F>, SnapshotError> {
        let path = self.temporary_path("build");
        let frozen = view.freeze()?;
        let built = background::run(|| {
            let sha256 = write::write_frozen(&self.fs, &path, frozen)?;
            let file = SnapshotFile::open(&self.fs, &path)?;
            file.verify_bytes(&sha256)?;
            Ok(file)
        });
        let file = self.kept_or_removed(&path, built)?;
        let reached = view.flush().map_err(SnapshotError::from).and_then(|()| {
            let position = view.durable_position()?;
            if order(position) < order(file.meta().last) {
                return Err(SnapshotError::damaged(&path, "the view went back behind it"));
            }
            Ok(())
        });
        self.kept_or_removed(&path, reached)?;
        let published = self.publish(&path, &file);
        self.kept_or_removed(&path, published)
    }

    /// Takes in a snapshot from another node, chunk by chunk.
    ///
    /// # Errors
    /// If the temporary file can't be made.
    pub fn receiver(&self) -> Result<SnapshotReceiver<F>, SnapshotError> {
        SnapshotReceiver::new(self.clone(), self.temporary_path("receive"))
    }

    /// Replaces all records of `view` by those of `file`, checking everything on the way; afterwards `file` is the current
    /// one. Blocks; nothing may be committed meanwhile.
    ///
    /// # Errors
    /// If the file is damaged or the view fails. The view keeps its records then. A file that turns out to be damaged is
    /// no longer offered.
    pub fn install(&self, file: &SnapshotFile<F>, view: &View) -> Result<(), SnapshotError> {
        let installed = file.records().and_then(|records| view.reset_from(records));
        if matches!(installed, Err(SnapshotError::Damaged { .. })) {
            self.files.lock().retain(|kept| kept.path() != file.path());
        }
        installed?;
        let mut files = self.files.lock();
        files.retain(|kept| kept.path() != file.path());
        files.insert(0, file.clone());
        Ok(())
    }

    /// Takes a published file out of use and removes it, because it turned out to be damaged. A newer one of the same
    /// name stays.
    pub fn discard(&self, file: &SnapshotFile<F>) {
        let replaced = {
            let mut files = self.files.lock();
            files.retain(|kept| !kept.is(file));
            files.iter().any(|kept| kept.path() == file.path())
        };
        if !replaced && let Err(error) = self.fs.remove_file(file.path()) {
            tracing::warn!(%error, "a damaged snapshot can't be removed");
        }
    }

    fn temporary_path(&self, purpose: &str) -> PathBuf {
        let number = self.temporary.fetch_add(1, Ordering::Relaxed);
        self.dir.join(format!("{purpose}-{number}{TEMPORARY}"))
    }

    /// Reads a finished file back.
    fn verified(&self, path: &Path) -> Result<SnapshotFile<F>, SnapshotError> {
        let file = SnapshotFile::open(&self.fs, path)?;
        file.verify()?;
        Ok(file)
    }

    /// Gives a verified file its name, and removes what is no longer kept.
    fn publish(
        &self,
        temporary: &Path,
        file: &SnapshotFile<F>,
    ) -> Result<SnapshotFile<F>, SnapshotError> {
        let meta = file.meta();
        let (term, index) = meta.last.map_or((0, 0), |last| (last.term, last.index));
        let digest = hex::encode(meta.state_digest.first_chunk::<8>().unwrap_or(&[0; 8]));
        let path = self.dir.join(format!("{term:020}-{index:020}-{digest}{SUFFIX}"));
        self.fs.rename(temporary, &path).map_err(SnapshotError::Io)?;
        self.fs.sync_dir(&self.dir).map_err(SnapshotError::Io)?;
        let file = SnapshotFile::open(&self.fs, &path)?;
        let dropped = {
            let mut files = self.files.lock();
            files.retain(|kept| kept.path() != path);
            files.push(file.clone());
            files.sort_by_key(|file| std::cmp::Reverse(order(file.meta().last)));
            let keep = files.len().min(KEPT);
            files.split_off(keep)
        };
        for old in dropped {
            if let Err(error) = self.fs.remove_file(old.path()) {
                tracing::warn!(%error, "an old snapshot can't be removed");
            }
        }
        Ok(file)
    }

    /// Removes a temporary file after an error.
    fn kept_or_removed<T>(
        &self,
        path: &Path,
        result: Result<T, SnapshotError>,
    ) -> Result<T, SnapshotError> {
        if result.is_err()
            && self.fs.exists(path).unwrap_or(false)
            && let Err(error) = self.fs.remove_file(path)
        {
            tracing::warn!(%error, "an unfinished snapshot can't be removed now");
        }
        result
    }
}

/// Snapshots and states are ordered by index; nothing applied comes first.
fn order(position: Option<Position>) -> Option<(u64, u64)> {
    position.map(|position| (position.index, position.term))
}
