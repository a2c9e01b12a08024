//! What the view, its writer and its exports share, and the writer's work itself.
//!
//! Locks are taken in this order: `drain`, `overlays`, `control`; `engine` and `exports` alone or after `drain`. Neither
//! `overlays` nor `control` is ever held across I/O.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex, RwLock};

use super::engine::{Engine, EngineError, EngineWrite};
use super::frozen::Export;
use super::home::Home;
use super::overlay::{Changes, Overlay, Overlays};
use super::record::{engine_key, seal, unseal};
use super::{ViewOptions, pack, redo};
use crate::fs::{Fs as _, StdFs, parent};
use crate::state::{StoreError, Table};

/// Engine writes made between two looks at the exports, and at the room.
const CHUNK: usize = 256;
/// Bytes of them. One more write may be larger.
const CHUNK_BYTES: usize = 256 * 1024;
/// Room that the engine gets for them before: it writes whole pages, several times, and is ahead of its file by a segment or two.
const RESERVE_BYTES: u64 = 4 << 20;
/// Bytes on disk that are left free beside what an overlay takes there.
const SPARE_BYTES: u64 = 4 << 20;
/// How many times its size an overlay may take on disk: once in the redo file, the rest in the engine.
const AMPLIFICATION: u64 = 3;
/// How often room is looked at while there is too little.
const LOOK: Duration = Duration::from_secs(1);

/// Why an overlay is not in the engine.
enum Unwritten {
    /// The disk is full; the engine was not touched.
    NoRoom,
    /// The engine can't be relied on any more.
    Failed(StoreError),
}

impl From<StoreError> for Unwritten {
    fn from(error: StoreError) -> Self {
        Self::Failed(error)
    }
}

impl From<EngineError> for Unwritten {
    fn from(error: EngineError) -> Self {
        Self::Failed(error.into())
    }
}

/// The parts of a view.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) options: ViewOptions,
    /// Where it is on disk; `None` for a view in memory.
    pub(super) home: Option<Mutex<Home>>,
    /// `None` once closed.
    pub(super) engine: RwLock<Option<Box<dyn Engine>>>,
    pub(super) overlays: RwLock<Overlays>,
    pub(super) control: Mutex<Control>,
    /// The writer waits here.
    pub(super) wake: Condvar,
    /// Commits and flushes wait here.
    pub(super) progress: Condvar,
    pub(super) exports: Mutex<Vec<Arc<Export>>>,
    /// Held by whoever writes to the engine, or replaces it.
    pub(super) drain: Mutex<()>,
}

/// Numbers that the writer and the committers agree by.
#[derive(Debug, Default)]
pub(super) struct Control {
    /// Memory that all overlays take.
    pub(super) bytes: usize,
    /// Memory that the active overlay takes.
    pub(super) active_bytes: usize,
    /// When the active overlay got its first change.
    pub(super) active_since: Option<Instant>,
    /// Whether frozen overlays wait.
    pub(super) frozen: bool,
    /// Commits so far.
    pub(super) commits: u64,
    /// Commits that are in the engine, flushed.
    pub(super) flushed: u64,
    /// Commits that somebody waits for.
    pub(super) wanted: u64,
    /// Whether the disk has too little room for what waits (I9): sled would not survive a failed write.
    pub(super) starved: bool,
    /// Why nothing works any more.
    pub(super) failure: Option<String>,
    /// Whether it was closed in order.
    pub(super) closed: bool,
    pub(super) stopping: bool,
    /// Tests hold the writer back by it.
    pub(super) held: bool,
}

impl Control {
    /// Refuses if the view has failed.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        match &self.failure {
            Some(failure) => Err(StoreError::Engine(format!("the view has stopped: {failure}"))),
            None if self.closed => Err(StoreError::Closed),
            None => Ok(()),
        }
    }

    fn due_in(&self, options: &ViewOptions, now: Instant) -> Option<Duration> {
        if self.held || self.failure.is_some() {
            return None;
        }
        let urgent = self.frozen
            || self.active_bytes >= options.flush_bytes
            || self.bytes > options.overlay_bytes;
        if urgent || self.wanted > self.flushed {
            return Some(Duration::ZERO);
        }
        let since = self.active_since?;
        Some(options.overlay_age.saturating_sub(now.saturating_duration_since(since)))
    }
}

impl Inner {
    /// The engine in its slot.
    pub(super) fn opened(slot: Option<&dyn Engine>) -> Result<&dyn Engine, StoreError> {
        slot.ok_or(StoreError::Closed)
    }

    /// Runs the writer until the view stops or fails.
    pub(super) fn run_writer(&self) {
        loop {
            {
                let mut control = self.control.lock();
                loop {
                    if control.stopping || control.failure.is_some() {
                        return;
                    }
                    match control.due_in(&self.options, Instant::now()) {
                        Some(Duration::ZERO) => break,
                        Some(rest) => {
                            let _timed_out = self.wake.wait_for(&mut control, rest);
                        }
                        None => self.wake.wait(&mut control),
                    }
                }
            }
            if self.wait_for_disk() {
                continue;
            }
            if let Err(error) = self.write_out() {
                tracing::error!(%error, "the view can't be written any more");
                return;
            }
        }
    }

    /// If the disk has too little room for what is to be written, waits a moment and says so.
    fn wait_for_disk(&self) -> bool {
        let Some(home) = &self.home else { return false };
        let path = home.lock().redo_path();
        let mut control = self.control.lock();
        let needed = (control.bytes as u64).saturating_mul(AMPLIFICATION) + SPARE_BYTES;
        // If the room can't be asked for, the write itself shows what is wrong.
        let free = StdFs.available_bytes(parent(&path)).unwrap_or(u64::MAX);
        self.note_starved(&mut control, free < needed);
        if control.starved {
            let _timed_out = self.wake.wait_for(&mut control, LOOK);
        }
        control.starved
    }

    fn note_starved(&self, control: &mut Control, starved: bool) {
        if control.starved != starved {
            tracing::warn!(starved, "room on disk for the view");
            control.starved = starved;
            self.progress.notify_all();
        }
    }

    /// Brings all commits so far to the engine and flushes it. A failure poisons the view; on a full disk what is left
    /// stays in memory.
    pub(super) fn write_out(&self) -> Result<(), StoreError> {
        let _drain = self.drain.lock();
        self.control.lock().check()?;
        let commits = self.freeze_locked(&mut self.overlays.write());
        loop {
            let oldest = self.overlays.read().frozen.front().cloned();
            let Some(overlay) = oldest else { break };
            match self.write_overlay(&overlay) {
                Ok(()) => {}
                Err(Unwritten::NoRoom) => {
                    self.note_starved(&mut self.control.lock(), true);
                    return Ok(());
                }
                Err(Unwritten::Failed(error)) => {
                    self.poison(&error);
                    return Err(error);
                }
            }
            let more = {
                let mut overlays = self.overlays.write();
                overlays.frozen.pop_front();
                !overlays.frozen.is_empty()
            };
            let mut control = self.control.lock();
            control.bytes = control.bytes.saturating_sub(overlay.bytes());
            control.flushed = overlay.commits;
            control.frozen = more;
            self.progress.notify_all();
        }
        // A commit without changes leaves no overlay behind.
        let mut control = self.control.lock();
        control.flushed = control.flushed.max(commits);
        self.progress.notify_all();
        Ok(())
    }

    /// Freezes the active overlay, and says how many commits are frozen or written by now.
    pub(super) fn freeze_locked(&self, overlays: &mut Overlays) -> u64 {
        let mut control = self.control.lock();
        overlays.freeze(control.commits);
        control.active_bytes = 0;
        control.active_since = None;
        control.frozen = !overlays.frozen.is_empty();
        control.commits
    }

    /// Refuses everything from now on: it is closed in order.
    pub(super) fn refuse_all(&self) {
        self.control.lock().closed = true;
        self.progress.notify_all();
        self.wake.notify_all();
    }

    /// Makes everything fail from now on.
    pub(super) fn poison(&self, error: &StoreError) {
        let mut control = self.control.lock();
        control.failure.get_or_insert_with(|| error.to_string());
        self.progress.notify_all();
        self.wake.notify_all();
    }

    fn write_overlay(&self, overlay: &Overlay) -> Result<(), Unwritten> {
        let slot = self.engine.read();
        let engine = Self::opened(slot.as_deref())?;
        let writes = engine_writes(engine, overlay)?;
        let redo = self.home.as_ref().map(|home| home.lock().redo_path());
        if let Some(path) = &redo {
            write_redo(path, &writes)?;
        }
        for chunk in pieces(&writes) {
            // Whoever fills the disk from here on finds this room taken. What is written already is written again later: the overlay is
            // what is read until all of it is there.
            if !engine.reserve(RESERVE_BYTES)? {
                return Err(Unwritten::NoRoom);
            }
            let exports = self.exports.lock().clone();
            for export in exports {
                export.before_write(engine, overlay.epoch, chunk)?;
            }
            engine.apply(chunk)?;
        }
        engine.flush()?;
        if let Some(path) = &redo {
            redo::remove(path).map_err(|error| {
                StoreError::Engine(format!("the view's redo file can't be removed: {error}"))
            })?;
        }
        Ok(())
    }
}

/// The writes in order, in pieces that the engine gets room for.
fn pieces(writes: &[EngineWrite]) -> impl Iterator<Item = &[EngineWrite]> {
    let mut rest = writes;
    std::iter::from_fn(move || {
        let mut bytes = 0usize;
        let fits = rest.iter().take(CHUNK).take_while(|(key, value)| {
            let before = bytes;
            bytes += key.len() + value.as_ref().map_or(0, Bytes::len);
            before < CHUNK_BYTES
        });
        let (piece, left) = rest.split_at(fits.count());
        rest = left;
        (!piece.is_empty()).then_some(piece)
    })
}

fn write_redo(path: &Path, writes: &[EngineWrite]) -> Result<(), Unwritten> {
    let Err(error) = redo::write(path, writes) else { return Ok(()) };
    // One that was not written to its end counts for nothing; removed, it gives its room back.
    if error.kind() == io::ErrorKind::StorageFull && redo::remove(path).is_ok() {
        return Err(Unwritten::NoRoom);
    }
    let what = format!("the view's redo file can't be written: {error}");
    Err(Unwritten::Failed(StoreError::Engine(what)))
}

/// What brings an overlay to the engine: sorted, the records about the state itself last.
pub(super) fn engine_writes(
    engine: &dyn Engine,
    overlay: &Overlay,
) -> Result<Vec<EngineWrite>, StoreError> {
    let mut writes = Vec::new();
    for (table, changes) in overlay.tables() {
        if table.is_sequential() {
            pack_changes(engine, *table, changes, &mut writes)?;
        } else if *table != Table::Meta {
            writes.extend(changes.iter().map(|(key, value)| plain(*table, key, value.as_ref())));
        }
    }
    if let Some(changes) = overlay.tables().get(&Table::Meta) {
        writes.extend(changes.iter().map(|(key, value)| plain(Table::Meta, key, value.as_ref())));
    }
    Ok(writes)
}

/// The engine write of an unpacked record.
pub(super) fn plain(table: Table, key: &[u8], value: Option<&Bytes>) -> EngineWrite {
    let key = engine_key(table, key);
    let value = value.map(|value| seal(&key, value));
    (key, value)
}

/// The engine write of a block; one without records is removed.
pub(super) fn packed(
    table: Table,
    start: u64,
    block: &pack::Block,
) -> Result<EngineWrite, StoreError> {
    let key = pack::block_key(table, start);
    let value = if block.is_empty() { None } else { Some(seal(&key, &pack::encode(block)?)) };
    Ok((key, value))
}

fn pack_changes(
    engine: &dyn Engine,
    table: Table,
    changes: &Changes,
    writes: &mut Vec<EngineWrite>,
) -> Result<(), StoreError> {
    let mut open: Option<(u64, pack::Block)> = None;
    for (key, value) in changes {
        let number = sequential(table, key)?;
        let start = pack::block_start(number);
        if open.as_ref().is_none_or(|(opened, _)| *opened != start) {
            if let Some((start, block)) = open.take() {
                writes.push(packed(table, start, &block)?);
            }
            open = Some((start, stored_block(engine, table, start)?));
        }
        if let Some((_, block)) = &mut open {
            match value {
                Some(value) => block.insert(number, value.clone()),
                None => block.remove(&number),
            };
        }
    }
    if let Some((start, block)) = open {
        writes.push(packed(table, start, &block)?);
    }
    Ok(())
}

/// The number that a key of a sequential table stands for.
pub(super) fn sequential(table: Table, key: &[u8]) -> Result<u64, StoreError> {
    pack::sequence(key).ok_or_else(|| StoreError::Corrupt {
        table,
        what: "a sequential table's key must have eight bytes".to_owned(),
    })
}

/// The block that holds `number`, as the engine has it.
pub(super) fn stored_block(
    engine: &dyn Engine,
    table: Table,
    number: u64,
) -> Result<pack::Block, StoreError> {
    let key = pack::block_key(table, number);
    match engine.get(&key).map_err(|EngineError(what)| StoreError::Engine(what))? {
        Some(stored) => pack::decode(table, pack::block_start(number), unseal(&key, &stored)?),
        None => Ok(pack::Block::new()),
    }
}
