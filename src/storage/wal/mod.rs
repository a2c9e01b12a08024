//! The write-ahead log (signatures; bodies follow).

mod types;

use std::marker::PhantomData;
use std::path::Path;
use std::sync::Arc;

pub use types::{Done, LogEntry, Payload, Space, Vote, WalError, WalOptions};

use crate::fs::Fs;
use crate::state::Position;

/// The write-ahead log. Cloning gives another handle to the same one.
#[derive(Clone)]
pub struct Wal<F: Fs>(PhantomData<F>);

#[allow(missing_docs, clippy::missing_errors_doc, unused_variables, reason = "bodies follow")]
impl<F: Fs> Wal<F> {
    pub fn open(fs: F, dir: &Path, options: WalOptions) -> Result<Self, WalError> {
        Err(WalError::Closed)
    }
    pub fn purged(&self) -> Option<Position> {
        None
    }
    pub fn last(&self) -> Option<Position> {
        None
    }
    pub fn vote(&self) -> Option<Vote> {
        None
    }
    pub fn committed(&self) -> Option<Position> {
        None
    }
    pub fn durable_index(&self) -> Option<u64> {
        None
    }
    pub fn subscribe_durable(&self) -> tokio::sync::watch::Receiver<Option<u64>> {
        tokio::sync::watch::channel(None).1
    }
    pub fn append(&self, entries: Vec<LogEntry>, done: Done) -> Result<(), WalError> {
        Err(WalError::Closed)
    }
    pub fn save_vote(&self, vote: Vote, done: Done) -> Result<(), WalError> {
        Err(WalError::Closed)
    }
    pub fn save_committed(&self, committed: Option<Position>) -> Result<(), WalError> {
        Err(WalError::Closed)
    }
    pub fn truncate_after(&self, last: Option<Position>, done: Done) {}
    pub fn purge(&self, upto: Position, done: Done) {}
    pub fn read(&self, from: u64, to: u64, max_bytes: usize) -> Result<Vec<LogEntry>, WalError> {
        Err(WalError::Closed)
    }
    pub fn disk_bytes(&self) -> u64 {
        0
    }
    pub fn space(&self) -> Space {
        Space::Low
    }
    pub fn failure(&self) -> Option<Arc<WalError>> {
        None
    }
    pub fn close(self) {}
}
