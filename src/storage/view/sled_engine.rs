//! sled as an engine.
//!
//! sled's batches take a lock that is shared by every sled in the process and held until the whole batch is in, so a
//! batch of some MiB would stop all reads for up to a second. So records go in one by one, and [`super::redo`] makes
//! the whole atomic. sled does not survive a write for which the disk has no room: nothing can be read from it any more, so its
//! file gets the room before. sled may panic on damaged files; a panic is caught and becomes an error. Its `flush` survives the
//! end of the process, but no power loss: nothing durable depends on this room.

use std::fs::File;
use std::ops::Bound;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use super::engine::{Engine, EngineError, EngineWrite};
use crate::storage::caught::caught;

/// sled's file, in its directory.
const DATA: &str = "db";

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

    /// What could be set aside of room that did not suffice stays: it is sled's, and counts at the next try.
    fn reserve(&self, bytes: u64) -> Result<bool, EngineError> {
        let allocated = File::options().write(true).open(self.dir.join(DATA)).and_then(|file| {
            let end = file.metadata()?.len();
            Ok(fallocate(&file, FallocateFlags::KEEP_SIZE, end, bytes))
        });
        match allocated {
            Ok(Ok(())) => Ok(true),
            Ok(Err(Errno::NOSPC | Errno::DQUOT)) => Ok(false),
            // Some file systems can't; then the room that was seen before has to do.
            Ok(Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL)) => Ok(true),
            Ok(Err(errno)) => Err(EngineError(format!("room for sled can't be made: {errno}"))),
            Err(error) => Err(EngineError(format!("room for sled can't be made: {error}"))),
        }
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
        let released = File::open(dir.join(DATA)).and_then(|file| file.lock());
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn i9_room_that_is_set_aside_is_sleds_own_and_seen_by_nobody_in_its_length() {
        let dir = tempfile::tempdir().unwrap();
        let engine = SledEngine::open(dir.path(), 1 << 20).unwrap();
        engine.flush().unwrap();
        let file = || std::fs::metadata(dir.path().join(DATA)).unwrap();
        let length = file().len();
        assert!(engine.reserve(8 << 20).unwrap());
        assert_eq!(file().len(), length);
        assert!(file().blocks() * 512 >= 8 << 20, "{} blocks", file().blocks());
        engine.apply(&[(Bytes::from_static(b"key"), Some(Bytes::from_static(b"value")))]).unwrap();
        Box::new(engine).close().unwrap();
        let engine = SledEngine::open(dir.path(), 1 << 20).unwrap();
        assert_eq!(engine.get(b"key").unwrap().as_deref(), Some(&b"value"[..]));
    }
}
