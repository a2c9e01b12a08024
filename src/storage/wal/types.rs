//! What the log keeps and how it is set up.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use crate::state::Position;

/// What an entry carries. The bytes mean nothing to the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// Nothing: a new leader's first entry.
    Blank,
    /// A command of the state machine.
    Command(Bytes),
    /// A membership of the cluster.
    Membership(Bytes),
}

impl Payload {
    /// Its bytes; none for [`Payload::Blank`].
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Blank => &[],
            Self::Command(bytes) | Self::Membership(bytes) => bytes,
        }
    }

    /// Copies its bytes out of a larger buffer, so that the buffer's memory can go.
    pub(super) fn detach(&mut self) {
        if let Self::Command(bytes) | Self::Membership(bytes) = self {
            *bytes = Bytes::copy_from_slice(bytes);
        }
    }
}

/// An entry of the Raft log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// Where it stands.
    pub id: Position,
    /// What it carries.
    pub payload: Payload,
}

/// A Raft vote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vote {
    /// The term voted in.
    pub term: u64,
    /// For which node, if for any.
    pub voted_for: Option<u64>,
    /// Whether a quorum has granted it: its node leads the term.
    pub committed: bool,
}

/// Whether the disk has room. See the module documentation for what is accepted when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Space {
    /// The next segment is preallocated, and there is room behind it.
    Plenty,
    /// Refuse proposals and appends: what is left is for votes and the entries that elections write.
    Low,
}

/// How a log is set up.
#[derive(Debug, Clone)]
pub struct WalOptions {
    /// Length of a segment file in bytes, at least [`WalOptions::MIN_SEGMENT_BYTES`], below 4 GiB. A batch that needs
    /// more gets a longer segment.
    pub segment_bytes: u64,
    /// Payload bytes of recent entries held in memory. Entries that aren't durable yet are held in any case.
    pub cache_bytes: usize,
    /// There must be something in it already; an empty one is [`WalError::Gone`].
    pub must_exist: bool,
    /// No thread: everything is done, and `Done` called, before a method returns; or, in a simulation of slow disks, a little
    /// later (`crate::turns`). For simulation.
    pub inline: bool,
}

impl WalOptions {
    /// The shortest segment, in bytes.
    pub const MIN_SEGMENT_BYTES: u64 = 2048;
}

impl Default for WalOptions {
    fn default() -> Self {
        Self { segment_bytes: 32 << 20, cache_bytes: 64 << 20, must_exist: false, inline: false }
    }
}

/// Called once, with the result, when what was asked for is durable. It runs on the writer's thread: it must not wait.
pub type Done = Box<dyn FnOnce(Result<(), Arc<WalError>>) + Send>;

/// The log failed or can't be trusted.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    /// The disk failed. The log is poisoned: what was not acknowledged may or may not be on disk.
    #[error(
        "the log's disk failed: {source}. After a failed write or fsync nobody knows what is on the disk, so nothing is tried \
         again. Check the disk before this server is started again (docs/operations.md, \"At 3 a.m.\")"
    )]
    Io {
        /// Its cause, which names the file.
        #[source]
        source: std::io::Error,
    },
    /// No room is left, not even in the reserve.
    #[error("the disk is full: free some space on the file system of {}, then start the node again", dir.display())]
    Full {
        /// The log's directory.
        dir: PathBuf,
    },
    /// Bytes that were acknowledged are damaged or missing. Nothing was changed on disk.
    #[error(
        "the log is damaged: {what} (file {}, offset {offset}). Entries that this node acknowledged may be lost, so it \
         must not come back under its node id. Keep the directory for analysis, remove the node from the cluster, and \
         add it anew with an empty data directory and a fresh node id",
        file.display()
    )]
    Damaged {
        /// Which file.
        file: PathBuf,
        /// Where in it, in bytes.
        offset: u64,
        /// What is wrong there.
        what: String,
    },
    /// There is no log where one must be. Nothing was changed on disk.
    #[error("there is no log in {}", dir.display())]
    Gone {
        /// The log's directory.
        dir: PathBuf,
    },
    /// Written by a newer version of this program.
    #[error("{} has log format {found}; this version reads up to {known}: start the newer version", file.display())]
    NewerFormat {
        /// Which file.
        file: PathBuf,
        /// Its format.
        found: u32,
        /// The newest known format.
        known: u32,
    },
    /// The caller asked for what can't be: a gap in the log, an entry that is too large. Nothing was changed.
    #[error("bad use of the log: {what}")]
    Invalid {
        /// What is wrong with it.
        what: String,
    },
    /// The log was closed.
    #[error("the log is closed")]
    Closed,
    /// The log failed earlier, and takes nothing any more.
    #[error("the log failed earlier: {0}")]
    Poisoned(#[source] Arc<WalError>),
}
