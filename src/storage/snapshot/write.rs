//! Writes snapshot files: from a frozen view, or from another node's chunks.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use sha2::{Digest as _, Sha256};

use super::{SnapshotError, SnapshotFile, Snapshots, format};
use crate::fs::{Fs, FsFile, OpenMode};
use crate::state::{Digest, Heads, Table};
use crate::storage::view::Frozen;

/// Bytes gathered before a write to the file.
const BUFFER: usize = 1024 * 1024;
/// Bytes written before they are brought to disk. All at once at the end, they would stand between the log and the disk.
const SYNC_BYTES: u64 = 1024 * 1024;
/// Longest pause after bytes were brought to disk.
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// A file that is written front to back.
struct Out<T> {
    file: T,
    offset: u64,
    buffer: Vec<u8>,
    sha256: Sha256,
}

impl<T: FsFile> Out<T> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        self.sha256.update(bytes);
        self.put_unsummed(bytes)
    }

    fn put_unsummed(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= BUFFER { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> Result<(), SnapshotError> {
        self.file.write_at(&self.buffer, self.offset).map_err(SnapshotError::Io)?;
        let before = self.offset;
        self.offset += self.buffer.len() as u64;
        self.buffer.clear();
        let started = Instant::now();
        sync_piece(&self.file, before, self.offset)?;
        pause(started.elapsed().min(LONGEST_PAUSE));
        Ok(())
    }

    fn finish(mut self) -> Result<(), SnapshotError> {
        self.write()?;
        self.file.sync_all().map_err(SnapshotError::Io)
    }
}

/// The disk is left to the log for as long as it was taken from it.
#[allow(clippy::disallowed_methods, reason = "it waits for nothing; it only goes slower")]
fn pause(time: Duration) {
    if !crate::turns::simulated() {
        std::thread::sleep(time);
    }
}

/// Brings what was written to disk whenever a piece is complete.
fn sync_piece(file: &impl FsFile, before: u64, after: u64) -> Result<(), SnapshotError> {
    if before / SYNC_BYTES == after / SYNC_BYTES {
        return Ok(());
    }
    file.sync_data().map_err(SnapshotError::Io)
}

/// Writes all records of a frozen view to a new file and brings it to disk. Gives the SHA-256 that its trailer names.
pub(super) fn write_frozen<F: Fs>(
    fs: &F,
    path: &Path,
    frozen: Frozen,
) -> Result<[u8; 32], SnapshotError> {
    let file = fs.open(path, OpenMode::CreateNew).map_err(SnapshotError::Io)?;
    let mut out = Out { file, offset: 0, buffer: Vec::new(), sha256: Sha256::new() };
    let heads = frozen.heads().cloned().unwrap_or_default();
    out.put(&format::header(&heads.encode()).ok_or(SnapshotError::TooLarge)?)?;
    let (mut sum, mut records) = (Digest::ZERO, 0);
    let mut body = BytesMut::with_capacity(format::BLOCK_BYTES * 2);
    for record in frozen {
        let record = record?;
        let (table, (key, value)) = &record;
        if *table != Table::Meta {
            sum.add(Digest::of_record(*table, key, value));
            records += 1;
        }
        let room = body.len() + key.len() + value.len();
        if room > format::MAX_BLOCK_BYTES - 1024 {
            return Err(SnapshotError::TooLarge);
        }
        format::push_record(&mut body, &record).ok_or(SnapshotError::TooLarge)?;
        if body.len() >= format::BLOCK_BYTES {
            out.put(&format::block(&body).ok_or(SnapshotError::TooLarge)?)?;
            body.clear();
        }
    }
    if !body.is_empty() {
        out.put(&format::block(&body).ok_or(SnapshotError::TooLarge)?)?;
    }
    check_heads(path, &heads, sum, records)?;
    let start = format::trailer_start(records, sum.to_bytes());
    out.sha256.update(&start);
    let sha256: [u8; 32] = std::mem::take(&mut out.sha256).finalize().into();
    out.put_unsummed(&format::trailer(start, &sha256))?;
    out.finish()?;
    Ok(sha256)
}

/// A view whose records don't match its heads gives no snapshot (I4).
fn check_heads(path: &Path, heads: &Heads, sum: Digest, records: u64) -> Result<(), SnapshotError> {
    if (heads.sum, heads.records) == (sum, records) {
        return Ok(());
    }
    Err(SnapshotError::damaged(
        path,
        "the records of the view are not those that its heads describe",
    ))
}

/// Takes in a snapshot. If dropped unfinished, the temporary file goes away.
pub struct SnapshotReceiver<F: Fs> {
    snapshots: Snapshots<F>,
    path: PathBuf,
    file: Option<F::File>,
    offset: u64,
}

impl<F: Fs> std::fmt::Debug for SnapshotReceiver<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SnapshotReceiver")
            .field("path", &self.path)
            .field("offset", &self.offset)
            .finish()
    }
}

impl<F: Fs> SnapshotReceiver<F> {
    pub(super) fn new(snapshots: Snapshots<F>, path: PathBuf) -> Result<Self, SnapshotError> {
        let file = snapshots.fs.open(&path, OpenMode::CreateNew).map_err(SnapshotError::Io)?;
        Ok(Self { snapshots, path, file: Some(file), offset: 0 })
    }

    /// Writes the next bytes. Blocks.
    ///
    /// # Errors
    /// [`SnapshotError::OutOfOrder`] if they are not the next; a failed write.
    pub fn write_chunk(&mut self, offset: u64, data: &[u8]) -> Result<(), SnapshotError> {
        if offset != self.offset {
            return Err(SnapshotError::OutOfOrder { expected: self.offset, got: offset });
        }
        if let Some(file) = &self.file {
            file.write_at(data, offset).map_err(SnapshotError::Io)?;
            sync_piece(file, offset, offset + data.len() as u64)?;
        }
        self.offset += data.len() as u64;
        Ok(())
    }

    /// Brings the file to disk, reads it back, checks everything and gives it its name. Blocks.
    ///
    /// # Errors
    /// [`SnapshotError::Damaged`] if it is not whole; a failed file operation.
    pub fn finish(mut self) -> Result<SnapshotFile<F>, SnapshotError> {
        if let Some(file) = self.file.take() {
            file.sync_all().map_err(SnapshotError::Io)?;
        }
        let file = self.snapshots.verified(&self.path)?;
        self.snapshots.publish(&self.path, &file)
    }
}

impl<F: Fs> Drop for SnapshotReceiver<F> {
    fn drop(&mut self) {
        drop(self.file.take());
        let fs = &self.snapshots.fs;
        // After a rename there is nothing left; what can't be removed now goes at the next open.
        if fs.exists(&self.path).unwrap_or(false)
            && let Err(error) = fs.remove_file(&self.path)
        {
            tracing::warn!(%error, "an unfinished snapshot can't be removed now");
        }
    }
}
