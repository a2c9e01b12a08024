//! The applied state on disk, behind an overlay in memory: a view that can always be rebuilt (I3, I4, I8).
//!
//! A commit goes to the overlay and is visible at once. A background thread freezes the overlay (5 s old, or a size) and
//! brings it to the engine, the applied position with it, all or nothing. Reads look into the overlays first. When the
//! overlays outgrow their cap, commits wait. Nothing durable depends on this room: log and snapshots can rebuild it, so
//! whatever looks damaged is refused here and thrown away by [`super::recovery`]. It never repairs, never guesses, and
//! never reads the log.

mod check;
mod engine;
mod frozen;
#[cfg(any(test, feature = "fuzzing"))]
pub(super) mod fuzzing;
mod home;
mod inner;
mod known;
mod overlay;
mod pack;
mod read;
mod record;
mod redo;
mod replace;
mod sled_engine;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

pub use frozen::Frozen;

use crate::state::{Heads, Position, Record, Store, StoreError, Table, WriteSet};
use engine::{Engine, EngineError, MemoryEngine};
use frozen::Export;
use home::{CleanMark, Home};
use inner::{Control, Inner};
use known::Known;
use overlay::Overlays;
use sled_engine::SledEngine;

/// Key of the heads in [`Table::Meta`].
const HEADS_KEY: &[u8] = Heads::record_key().1;

/// A record with its table.
pub type ViewRecord = (Table, Record);

/// Sizes and times of a view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ViewOptions {
    /// Memory of what is not yet in the engine, in bytes; above it commits wait.
    pub overlay_bytes: usize,
    /// Size of the active overlay, in bytes, at which it is written to the engine.
    pub flush_bytes: usize,
    /// Age at which it is written whatever its size.
    pub overlay_age: Duration,
    /// Memory of the engine's cache, in bytes.
    pub cache_bytes: u64,
}

impl Default for ViewOptions {
    fn default() -> Self {
        Self {
            overlay_bytes: 64 * 1024 * 1024,
            flush_bytes: 1024 * 1024,
            overlay_age: Duration::from_secs(5),
            cache_bytes: 128 * 1024 * 1024,
        }
    }
}

/// Why a view can't be opened, checked or replaced. None is fatal for the node as long as the view can be rebuilt.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// The engine or a record failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file operation failed.
    #[error("can't {what} {path}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The marker of the format is damaged, or of another version.
    #[error("{0} is damaged or of another format version")]
    Marker(PathBuf),
    /// The engine's files are not those that an orderly stop left.
    #[error("files of {0} changed after the view was closed")]
    Changed(PathBuf),
    /// The records are not those that the heads describe (I4).
    #[error(
        "the records do not match the heads: found {found_records} with digest {found_digest}, expected \
         {expected_records} with digest {expected_digest}"
    )]
    Digest {
        /// Records counted.
        found_records: u64,
        /// Their digest, in hexadecimal.
        found_digest: String,
        /// Records that the heads say.
        expected_records: u64,
        /// The digest that the heads say.
        expected_digest: String,
    },
}

impl ViewError {
    fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }
}

impl From<EngineError> for ViewError {
    fn from(error: EngineError) -> Self {
        Self::Store(error.into())
    }
}

/// The applied state. Shared by its readers behind an `Arc`; one writer.
#[derive(Debug)]
pub struct View {
    inner: Arc<Inner>,
    writer: Mutex<Option<JoinHandle<()>>>,
    opened_clean: bool,
    opened_empty: bool,
}

impl View {
    /// Opens the view in `dir`, or makes an empty one. Does not check its records: see [`View::opened_clean`] and
    /// [`View::verify`].
    ///
    /// # Errors
    /// If it is damaged or of another format, or a file operation fails. A view that was written by a killed process is no
    /// error.
    pub fn open(dir: &Path, options: ViewOptions) -> Result<Self, ViewError> {
        let home = Home::open(dir)?;
        let mark = home.take_clean()?;
        let engine = Box::new(SledEngine::open(&home.engine_dir(), options.cache_bytes)?);
        let redo_path = home.redo_path();
        let redo = redo::read(&redo_path).map_err(ViewError::io("read", &redo_path))?;
        if let Some(writes) = redo {
            engine.apply(&writes)?;
            engine.flush()?;
        }
        if redo_path.exists() {
            redo::remove(&redo_path).map_err(ViewError::io("remove", &redo_path))?;
        }
        let known = match &mark {
            Some(_) => home.read_known(),
            None if engine.range(&[], None, 1)?.is_empty() => Some(Known::default()),
            None => None,
        };
        let (sure, empty) = (known.is_some(), mark.is_none() && known.is_some());
        let mut view = Self::start(options, Some(home), engine, known)?;
        let heads = view.engine_heads()?;
        view.opened_empty = empty;
        view.opened_clean = mark.is_some_and(|mark| {
            sure && mark.state_digest == heads.as_ref().map(Heads::state_digest).unwrap_or_default()
        });
        Ok(view)
    }

    /// An empty view in memory, for simulations: without a thread, it does the writer's work within commits.
    #[must_use]
    pub fn in_memory() -> Self {
        Self::in_memory_with(ViewOptions::default())
    }

    /// Like [`View::in_memory`], with other sizes.
    #[must_use]
    pub fn in_memory_with(options: ViewOptions) -> Self {
        let engine = Box::new(MemoryEngine::default());
        let inner = Self::parts(options, None, engine, Some(Known::default()));
        Self { inner, writer: Mutex::new(None), opened_clean: true, opened_empty: true }
    }

    /// Removes the view in `dir`, if there is one.
    ///
    /// # Errors
    /// If a file can't be removed.
    pub fn throw_away(dir: &Path) -> Result<(), ViewError> {
        Home::throw_away(dir)
    }

    /// Whether an orderly stop left the view, its files are those that the stop left, and so its records need no check.
    pub const fn opened_clean(&self) -> bool {
        self.opened_clean
    }

    /// Whether there was nothing in it: it is new, or its files were deleted.
    pub const fn opened_empty(&self) -> bool {
        self.opened_empty
    }

    /// Waits until all commits so far are in the engine, and the engine has flushed.
    ///
    /// # Errors
    /// If the view has failed, or the disk has no room.
    pub fn flush(&self) -> Result<(), StoreError> {
        if self.writer.lock().is_none() {
            return self.inner.write_out();
        }
        let mut control = self.inner.control.lock();
        let target = control.commits;
        control.wanted = control.wanted.max(target);
        self.inner.wake.notify_all();
        while control.flushed < target {
            control.check()?;
            if control.starved {
                return Err(StoreError::NoRoom);
            }
            self.inner.progress.wait(&mut control);
        }
        control.check()
    }

    /// Whether the disk has too little room for what waits to be written. It waits in memory meanwhile.
    pub fn starved(&self) -> bool {
        self.inner.control.lock().starved
    }

    /// The applied position that the engine holds, flushed or about to be: what a restart finds at least after
    /// [`View::flush`].
    ///
    /// # Errors
    /// If the engine fails or the record is damaged.
    pub fn durable_position(&self) -> Result<Option<Position>, StoreError> {
        Ok(self.engine_heads()?.and_then(|heads| heads.position))
    }

    /// All records as of now, while commits go on and are brought to the engine. No commit waits for it; should more than
    /// 256 MiB of what it still has to read be overwritten meanwhile, it ends with an error instead.
    ///
    /// # Errors
    /// If the engine fails or a record is damaged.
    pub fn freeze(&self) -> Result<Frozen, StoreError> {
        let mut overlays = self.inner.overlays.write();
        self.inner.freeze_locked(&mut overlays);
        let export = Arc::new(Export::new(overlays.epoch));
        self.inner.exports.lock().push(Arc::clone(&export));
        let captured = overlays.frozen.iter().cloned().collect();
        drop(overlays);
        self.inner.wake.notify_all();
        Frozen::new(Arc::clone(&self.inner), captured, export)
    }

    /// Memory that commits which are not yet in the engine take, in bytes.
    pub fn overlay_bytes(&self) -> u64 {
        self.inner.control.lock().bytes as u64
    }

    /// Whether a commit would go on without waiting.
    pub fn has_room(&self) -> bool {
        let control = self.inner.control.lock();
        control.bytes <= self.inner.options.overlay_bytes
    }

    /// Waits until a commit would go on without waiting.
    ///
    /// # Errors
    /// If the view has failed.
    pub fn wait_for_room(&self) -> Result<(), StoreError> {
        let inline = self.writer.lock().is_none();
        if inline && !self.has_room() {
            return self.inner.write_out();
        }
        let mut control = self.inner.control.lock();
        control.check()?;
        while control.bytes > self.inner.options.overlay_bytes {
            self.inner.wake.notify_all();
            self.inner.progress.wait(&mut control);
            control.check()?;
        }
        Ok(())
    }

    /// Brings everything to the engine, closes it and leaves the marker of an orderly stop. The view refuses everything
    /// afterwards. Without it, the next open has to check all records.
    ///
    /// # Errors
    /// If the view has failed, or a file operation fails; there is no marker then.
    pub fn close_clean(&self) -> Result<(), ViewError> {
        self.flush()?;
        let heads = self.engine_heads()?;
        let drain = self.inner.drain.lock();
        let engine = self.inner.engine.write().take();
        let known = self.inner.overlays.write().known.take();
        self.inner.refuse_all();
        drop(drain);
        self.stop_writer();
        let Some(engine) = engine else { return Ok(()) };
        engine.close()?;
        if let Some(home) = &self.inner.home {
            let state_digest = heads.as_ref().map(Heads::state_digest).unwrap_or_default();
            let home = home.lock().clone();
            home.write_known(known.as_ref())?;
            home.mark_clean(&CleanMark { state_digest })?;
        }
        Ok(())
    }

    /// The heads that the engine holds.
    fn engine_heads(&self) -> Result<Option<Heads>, StoreError> {
        let slot = self.inner.engine.read();
        let engine = Inner::opened(slot.as_deref())?;
        heads_in(engine)
    }

    fn parts(
        options: ViewOptions,
        home: Option<Home>,
        engine: Box<dyn Engine>,
        known: Option<Known>,
    ) -> Arc<Inner> {
        Arc::new(Inner {
            options,
            home: home.map(Mutex::new),
            engine: RwLock::new(Some(engine)),
            overlays: RwLock::new(Overlays { known, ..Overlays::default() }),
            control: Mutex::new(Control::default()),
            wake: parking_lot::Condvar::new(),
            progress: parking_lot::Condvar::new(),
            exports: Mutex::default(),
            drain: Mutex::new(()),
        })
    }

    fn start(
        options: ViewOptions,
        home: Option<Home>,
        engine: Box<dyn Engine>,
        known: Option<Known>,
    ) -> Result<Self, ViewError> {
        let inner = Self::parts(options, home, engine, known);
        let shared = Arc::clone(&inner);
        let writer = std::thread::Builder::new()
            .name("view-writer".to_owned())
            .spawn(move || shared.run_writer())
            .map_err(ViewError::io("start the writer of", Path::new("the view")))?;
        Ok(Self {
            inner,
            writer: Mutex::new(Some(writer)),
            opened_clean: false,
            opened_empty: false,
        })
    }

    fn stop_writer(&self) {
        self.inner.control.lock().stopping = true;
        self.inner.wake.notify_all();
        let writer = self.writer.lock().take();
        if writer.is_some_and(|writer| writer.join().is_err()) {
            tracing::error!("the view's writer panicked");
        }
    }
}

impl Store for View {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.inner.get(table, key)
    }

    fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        from: &[u8],
        limit: usize,
    ) -> Result<Vec<Record>, StoreError> {
        self.inner.scan(table, prefix, from, limit)
    }

    fn commit(&self, changes: WriteSet) -> Result<(), StoreError> {
        for (table, key) in changes.0.keys().filter(|(table, _)| table.is_sequential()) {
            inner::sequential(*table, key)?;
        }
        self.wait_for_room()?;
        let mut overlays = self.inner.overlays.write();
        let before = overlays.active.bytes();
        overlays.take_up(changes);
        let after = overlays.active.bytes();
        let mut control = self.inner.control.lock();
        control.check()?;
        control.commits += 1;
        control.active_bytes = after;
        control.bytes = (control.bytes + after).saturating_sub(before);
        if control.active_since.is_none() {
            control.active_since = Some(Instant::now());
            self.inner.wake.notify_all();
        }
        let full = after >= self.inner.options.flush_bytes;
        if full {
            self.inner.wake.notify_all();
        }
        drop((control, overlays));
        if full && self.writer.lock().is_none() { self.inner.write_out() } else { Ok(()) }
    }
}

impl Drop for View {
    /// Stops the writer. What is not in the engine yet is left to the log.
    fn drop(&mut self) {
        self.stop_writer();
    }
}

/// The heads that an engine holds.
fn heads_in(engine: &dyn Engine) -> Result<Option<Heads>, StoreError> {
    let (table, key) = Heads::record_key();
    let key = record::engine_key(table, key);
    let Some(stored) = engine.get(&key)? else { return Ok(None) };
    decode_heads(&record::unseal(&key, &stored)?).map(Some)
}

/// The heads from their record.
fn decode_heads(value: &[u8]) -> Result<Heads, StoreError> {
    Heads::decode(value).map_err(|error| StoreError::Corrupt {
        table: Table::Meta,
        what: format!("heads: {error}"),
    })
}
