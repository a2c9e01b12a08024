//! What the view needs of an ordered key-value engine, and the one in memory.
//!
//! An engine is never trusted: values carry their own checksums, a batch is made atomic by a redo file beside the
//! engine, and the whole can be thrown away.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;

use bytes::Bytes;
use parking_lot::RwLock;

use crate::state::StoreError;

/// A change of the engine: put, or with `None` removal.
pub(super) type EngineWrite = (Bytes, Option<Bytes>);

/// A failed engine, in its own words.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct EngineError(pub(super) String);

impl From<EngineError> for StoreError {
    fn from(error: EngineError) -> Self {
        Self::Engine(error.0)
    }
}

/// An ordered map of bytes. One writer, many readers.
pub(super) trait Engine: fmt::Debug + Send + Sync {
    /// The value of `key`.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError>;

    /// The first `limit` pairs at or after `from` and before `end`, ascending. Writes meanwhile may or may not be seen.
    fn range(
        &self,
        from: &[u8],
        end: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, EngineError>;

    /// Sets room on disk aside for writes that take so many bytes. False if there is too little; nothing was written then.
    fn reserve(&self, bytes: u64) -> Result<bool, EngineError>;

    /// Makes the changes in order. Not atomic.
    fn apply(&self, writes: &[EngineWrite]) -> Result<(), EngineError>;

    /// What was applied survives the end of the process. It need not survive a power loss.
    fn flush(&self) -> Result<(), EngineError>;

    /// Flushes and lets go of all files: none is written any more after return.
    fn close(self: Box<Self>) -> Result<(), EngineError>;
}

/// An engine in memory, for simulations and tests.
#[derive(Debug, Default)]
pub(super) struct MemoryEngine(RwLock<BTreeMap<Bytes, Bytes>>);

impl Engine for MemoryEngine {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        Ok(self.0.read().get(key).cloned())
    }

    fn range(
        &self,
        from: &[u8],
        end: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, EngineError> {
        if end.is_some_and(|end| end <= from) {
            return Ok(Vec::new());
        }
        let records = self.0.read();
        let end = end.map_or(Bound::Unbounded, Bound::Excluded);
        let range = records.range::<[u8], _>((Bound::Included(from), end)).take(limit);
        Ok(range.map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn reserve(&self, _bytes: u64) -> Result<bool, EngineError> {
        Ok(true)
    }

    fn apply(&self, writes: &[EngineWrite]) -> Result<(), EngineError> {
        let mut records = self.0.write();
        for (key, value) in writes {
            match value {
                Some(value) => records.insert(key.clone(), value.clone()),
                None => records.remove(key),
            };
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), EngineError> {
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<(), EngineError> {
        Ok(())
    }
}
