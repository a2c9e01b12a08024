//! sled as an engine.
//!
//! sled's batches take a lock that is shared by every sled in the process and held until the whole batch is in, so a
//! batch of some MiB would stop all reads for up to a second. So records go in one by one, and [`super::redo`] makes
//! the whole atomic. sled may panic on damaged files; a panic is caught and becomes an error. Its `flush` survives the
//! end of the process, but no power loss: nothing durable depends on this room.

use std::fs::File;
use std::ops::Bound;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::engine::{Engine, EngineError, EngineWrite};
use crate::storage::caught::caught;

/// An open sled.
#[derive(Debug)]
pub(super) struct SledEngine {
    db: sled::Db,
    dir: PathBuf,
}

impl SledEngine {
    /// Opens the sled in `dir`, or makes one.
    pub(super) fn open(dir: &Path, cache_bytes: u64) -> Result<Self, EngineError> {
        let open = || {
            sled::Config::new()
                .path(dir)
                .cache_capacity(cache_bytes)
                .flush_every_ms(None)
                .mode(sled::Mode::HighThroughput)
                .use_compression(false)
                .print_profile_on_drop(false)
                .open()
        };
        let db = guarded("open", open)?;
        Ok(Self { db, dir: dir.to_owned() })
    }
}

impl Engine for SledEngine {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        let value = guarded("get", || self.db.get(key))?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
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
        guarded("range", || {
            let copy = |bytes: &sled::IVec| Bytes::copy_from_slice(bytes);
            let end = end.map_or(Bound::Unbounded, Bound::Excluded);
            let range = self.db.range::<&[u8], _>((Bound::Included(from), end)).take(limit);
            range.map(|pair| pair.map(|(key, value)| (copy(&key), copy(&value)))).collect()
        })
    }

    fn apply(&self, writes: &[EngineWrite]) -> Result<(), EngineError> {
        guarded("write", || {
            for (key, value) in writes {
                match value {
                    Some(value) => self.db.insert(key, value.as_ref())?,
                    None => self.db.remove(key)?,
                };
            }
            Ok(())
        })
    }

    fn flush(&self) -> Result<(), EngineError> {
        guarded("flush", || self.db.flush()).map(|_bytes| ())
    }

    fn close(self: Box<Self>) -> Result<(), EngineError> {
        self.flush()?;
        let Self { db, dir } = *self;
        guarded("close", || {
            drop(db);
            Ok(())
        })?;
        // sled's own threads may outlive the handle for a moment, and hold the lock until they are done writing.
        let released = File::open(dir.join("db")).and_then(|file| file.lock());
        released.map_err(|error| EngineError(format!("sled close failed: {error}")))
    }
}

/// Runs a call into sled; an error or a panic becomes an [`EngineError`].
fn guarded<T>(what: &str, call: impl FnOnce() -> sled::Result<T>) -> Result<T, EngineError> {
    match caught(call) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(EngineError(format!("sled {what} failed: {error}"))),
        Err(panic) => Err(EngineError(format!("sled {what} panicked: {}", panic_text(&*panic)))),
    }
}

/// What a panic said.
fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
