//! The write-ahead log: entries, votes and the committed index, in our own segments.
//!
//! Keeps **I1** (a callback comes only after fdatasync; a failed one poisons the log for ever), **I6** (a torn tail is
//! dropped, rot is refused) and the log's half of **I9** (a preallocated reserve). It never interprets an entry.
//!
//! # Format (version 1)
//!
//! A segment `NNNNNNNNNNNNNNNN.log` (its number in hexadecimal) begins with a 512-byte header and holds batches behind
//! it, each at a multiple of 8 bytes. All integers are little-endian. See [`format`] for the bytes.
//!
//! # Why a valid later batch proves an earlier one
//!
//! One batch is under way at a time: batch *n + 1* is written only after the fdatasync of batch *n* has returned. So when
//! recovery meets bytes that are no batch *n*, one of two things is true. Either nothing valid follows: then batch *n* was
//! never acknowledged, since its fdatasync had not returned when the machine stopped, and it is dropped. Or a batch with
//! a higher number follows: then *n* was durable once and the disk has damaged it, and the node refuses to start. Batches
//! carry their segment's random salt, so that no payload can pose as one.
//!
//! A whole batch with a *lower* number behind the end is refused too. Every batch begins where the one before ended, at most
//! one that was not acknowledged lies at the end, recovery begins again at that very place, and a segment is never used twice:
//! whatever was torn, however often, nothing of this log ever began further on. A disk that has written or read the wrong place
//! once can't be trusted with the next entry. What a torn tail leaves holds no whole batch; it is zeroed before anything is
//! appended.
//!
//! # Segments
//!
//! The next segment is made ahead of its use: allocated, header written, file and directory synced. It is the reserve
//! that keeps votes and the entries of elections going on a full disk; while it is missing, [`Space::Low`] asks the layers
//! above to refuse proposals. Each segment begins with a checkpoint of vote, committed index and purge bound, so that
//! older segments can be removed whole.

mod format;
#[cfg(any(test, feature = "fuzzing"))]
pub(super) mod fuzzing;
mod index;
mod queue;
mod recover;
mod segment;
#[cfg(test)]
mod tests;
mod types;
mod writer;

use std::path::Path;
use std::sync::Arc;

use tokio::sync::watch;

pub use types::{Done, LogEntry, Payload, Space, Vote, WalError, WalOptions};

use self::queue::{Job, Shared};
use crate::fs::Fs;
use crate::state::Position;

/// Largest payload of an entry, in bytes: the largest request with room for its envelope.
pub const ENTRY_BYTES: usize = 2 * 1024 * 1024;

/// The write-ahead log. Cloning gives another handle to the same one. One task appends; any number may read.
pub struct Wal<F: Fs>(Arc<Shared<F>>);

impl<F: Fs> Clone for Wal<F> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<F: Fs> Wal<F> {
    /// Opens the log of a directory, or makes an empty one.
    ///
    /// # Errors
    /// [`WalError::Damaged`] if acknowledged bytes are damaged or missing, [`WalError::Gone`], [`WalError::NewerFormat`], or
    /// the disk failed.
    /// Then nothing was changed.
    pub fn open(fs: F, dir: &Path, options: WalOptions) -> Result<Self, WalError> {
        let io = |source| WalError::Io { source };
        fs.create_dir_all(dir).map_err(io)?;
        fs.sync_dir(crate::fs::parent(dir)).map_err(io)?;
        let recovered = recover::recover(&fs, dir, options.cache_bytes)?;
        if let Some((file, offset)) = &recovered.torn {
            tracing::warn!(file = %file.display(), offset, "a torn tail of the log is dropped");
        }
        let empty = recovered.index.vote.is_none() && recovered.index.last().is_none();
        if empty && options.must_exist {
            return Err(WalError::Gone { dir: dir.to_owned() });
        }
        let inline = options.inline;
        let shared = Shared::start(fs, dir, options, recovered)?;
        if !inline {
            queue::spawn(&shared)?;
        }
        Ok(Self(shared))
    }

    /// Last entry that was purged.
    pub fn purged(&self) -> Option<Position> {
        self.0.index.lock().purged()
    }

    /// Last entry that was appended, durable or not; the last purged one if there is none.
    pub fn last(&self) -> Option<Position> {
        self.0.index.lock().last()
    }

    /// The last vote that was saved.
    pub fn vote(&self) -> Option<Vote> {
        self.0.index.lock().vote
    }

    /// The last committed position that was saved.
    pub fn committed(&self) -> Option<Position> {
        self.0.index.lock().committed
    }

    /// Last entry that is durable; the last purged one if there is none.
    pub fn durable_index(&self) -> Option<u64> {
        *self.0.durable.borrow()
    }

    /// Tells when [`Wal::durable_index`] changes.
    pub fn subscribe_durable(&self) -> watch::Receiver<Option<u64>> {
        self.0.durable.subscribe()
    }

    /// Appends entries that follow the last one without a gap. They can be read when this returns; `done` is called when
    /// they are durable.
    ///
    /// # Errors
    /// [`WalError::Invalid`] for a gap or an entry above [`ENTRY_BYTES`], which changes nothing; [`WalError::Poisoned`]
    /// or [`WalError::Closed`]. Then `done` is not called.
    pub fn append(&self, entries: Vec<LogEntry>, done: Done) -> Result<(), WalError> {
        self.0.check()?;
        if let Some(large) = entries.iter().find(|entry| entry.payload.bytes().len() > ENTRY_BYTES)
        {
            let what = format!("entry {} has more than {ENTRY_BYTES} bytes", large.id.index);
            return Err(WalError::Invalid { what });
        }
        self.0.submit(move |index| {
            let serial = index.append(&entries)?;
            Ok(Job::Append { entries, serial, done })
        })
    }

    /// Saves a vote. `done` is called when it is durable, and with it everything that was asked for before.
    ///
    /// # Errors
    /// [`WalError::Poisoned`] or [`WalError::Closed`]. Then `done` is not called.
    pub fn save_vote(&self, vote: Vote, done: Done) -> Result<(), WalError> {
        self.0.check()?;
        self.0.submit(move |index| {
            index.vote = Some(vote);
            Ok(Job::Vote { vote, done })
        })
    }

    /// Saves the committed position. It becomes durable with whatever is written next: losing it costs only a longer
    /// replay.
    ///
    /// # Errors
    /// [`WalError::Poisoned`] or [`WalError::Closed`].
    pub fn save_committed(&self, committed: Option<Position>) -> Result<(), WalError> {
        self.0.check()?;
        self.0.index.lock().committed = committed;
        Ok(())
    }

    /// Removes all entries after `last`.
    ///
    /// # Errors
    /// [`WalError::Invalid`] if they were purged; [`WalError::Poisoned`] or [`WalError::Closed`]. Then `done` is not called.
    pub fn truncate_after(&self, last: Option<Position>, done: Done) -> Result<(), WalError> {
        self.0.check()?;
        self.0.submit(move |index| {
            index.truncate_after(last)?;
            Ok(Job::Truncate { last, done })
        })
    }

    /// Forgets all entries up to and with `upto`, which may lie beyond the last one.
    ///
    /// # Errors
    /// [`WalError::Poisoned`] or [`WalError::Closed`]. Then `done` is not called.
    pub fn purge(&self, upto: Position, done: Done) -> Result<(), WalError> {
        self.0.check()?;
        self.0.submit(move |index| {
            index.purge(upto);
            Ok(Job::Purge { upto, done })
        })
    }

    /// Entries from index `from` to before `to`, as many as fit into `max_bytes` of payload, but at least one if there is
    /// one. Entries that were purged or are not there yet are left out at either end.
    ///
    /// # Errors
    /// [`WalError::Damaged`] if what is read back is not what was written; or the disk failed.
    pub fn read(&self, from: u64, to: u64, max_bytes: usize) -> Result<Vec<LogEntry>, WalError> {
        let found = self.0.index.lock().find(from, to, max_bytes);
        found.into_iter().map(segment::load).collect()
    }

    /// Bytes of the log in use on disk, without the reserve.
    pub fn disk_bytes(&self) -> u64 {
        self.0.counters.disk_bytes()
    }

    /// Successful fdatasync calls since the log was opened.
    pub fn fsyncs(&self) -> u64 {
        self.0.counters.fsyncs()
    }

    /// Bytes written since the log was opened.
    pub fn written_bytes(&self) -> u64 {
        self.0.counters.written()
    }

    /// Whether there is room for proposals.
    pub fn space(&self) -> Space {
        self.0.counters.space()
    }

    /// Why the log takes nothing any more; set for ever.
    pub fn failure(&self) -> Option<Arc<WalError>> {
        self.0.failure.get().cloned()
    }

    /// Writes what was asked for before, and takes nothing any more. Waits for the writer.
    pub fn close(&self) {
        self.0.close();
    }
}
