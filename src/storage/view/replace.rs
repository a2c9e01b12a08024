//! Replaces all records at once: how a snapshot becomes the view, under the handle that readers share.
//!
//! The new engine is built beside the old one and checked; then `CURRENT` names it, and it takes the old one's place. A
//! crash before leaves the old view, a crash after leaves the new one. Nothing is held in memory but a piece.

use bytes::Bytes;

use super::check::matches;
use super::engine::{Engine, EngineWrite, MemoryEngine};
use super::home::Home;
use super::inner::{packed, plain, sequential};
use super::known::Known;
use super::overlay::Overlays;
use super::sled_engine::SledEngine;
use super::{HEADS_KEY, View, ViewError, ViewRecord, decode_heads, pack};
use crate::state::{Digest, Heads, StoreError, Table};

/// Bytes written to the new engine at once.
const PIECE: usize = 4 * 1024 * 1024;

impl View {
    /// Replaces all records by `records`, which come by table and key, ascending, the heads among them. Commits and
    /// flushes must not go on meanwhile; reads may, and see the old records until the end. Running exports end with an
    /// error.
    ///
    /// # Errors
    /// Whatever `records` fails with, [`ViewError::Digest`] if they do not match their heads, or a failed engine; the old
    /// records stay in all these cases.
    pub fn reset_from<E: From<ViewError>>(
        &self,
        records: impl Iterator<Item = Result<ViewRecord, E>>,
    ) -> Result<(), E> {
        let drain = self.inner.drain.lock();
        let old_home = self.inner.home.as_ref().map(|home| home.lock().clone());
        let new_home = old_home.as_ref().map(Home::next).transpose()?;
        let engine: Box<dyn Engine> = match &new_home {
            Some(home) => Box::new(
                SledEngine::open(&home.engine_dir(), self.inner.options.cache_bytes)
                    .map_err(ViewError::from)?,
            ),
            None => Box::new(MemoryEngine::default()),
        };
        let known = match load(engine.as_ref(), records) {
            Ok(known) => known,
            Err(error) => {
                discard(engine, new_home.as_ref());
                return Err(error);
            }
        };
        if let Some(home) = &new_home {
            home.publish()?;
        }
        let old = {
            let mut overlays = self.inner.overlays.write();
            let epoch = overlays.epoch + 1;
            *overlays = Overlays { epoch, known: Some(known), ..Overlays::default() };
            let mut control = self.inner.control.lock();
            control.bytes = 0;
            control.active_bytes = 0;
            control.active_since = None;
            control.frozen = false;
            control.flushed = control.commits;
            self.inner.progress.notify_all();
            drop(control);
            for export in self.inner.exports.lock().iter() {
                export.abandon("the view was replaced");
            }
            if let (Some(slot), Some(home)) = (&self.inner.home, &new_home) {
                *slot.lock() = home.clone();
            }
            self.inner.engine.write().replace(engine)
        };
        drop(drain);
        if let Some(old) = old {
            discard(old, old_home.as_ref());
        }
        Ok(())
    }
}

/// Closes an engine that is no longer wanted and removes its files. What fails here is cleaned up at the next open.
fn discard(engine: Box<dyn Engine>, home: Option<&Home>) {
    let closed = engine.close().map_err(ViewError::from);
    let removed = home.map_or(Ok(()), Home::remove_engine);
    if let Err(error) = closed.and(removed) {
        tracing::warn!(%error, "an old engine of the view can't be removed now");
    }
}

fn load<E: From<ViewError>>(
    engine: &dyn Engine,
    records: impl Iterator<Item = Result<ViewRecord, E>>,
) -> Result<Known, E> {
    let mut loader = Loader {
        engine,
        known: Known::default(),
        writes: Vec::new(),
        bytes: 0,
        block: None,
        last: None,
        sum: Digest::ZERO,
        records: 0,
        heads: Heads::default(),
    };
    for record in records {
        loader.take(record?)?;
    }
    Ok(loader.finish()?)
}

/// Fills an empty engine.
struct Loader<'a> {
    engine: &'a dyn Engine,
    known: Known,
    writes: Vec<EngineWrite>,
    bytes: usize,
    /// The block that is being filled.
    block: Option<(Table, u64, pack::Block)>,
    last: Option<(Table, Bytes)>,
    sum: Digest,
    records: u64,
    heads: Heads,
}

impl Loader<'_> {
    fn take(&mut self, (table, (key, value)): ViewRecord) -> Result<(), ViewError> {
        let this = (table, key.clone());
        if self.last.as_ref().is_some_and(|last| *last >= this) {
            return Err(
                StoreError::Corrupt { table, what: "records are out of order".to_owned() }.into()
            );
        }
        self.last = Some(this);
        if table == Table::Meta {
            if key == HEADS_KEY {
                self.heads = decode_heads(&value)?;
            }
        } else {
            self.sum.add(Digest::of_record(table, &key, &value));
            self.records += 1;
        }
        if !table.is_sequential() {
            self.known.note(table, &key);
            return self.write(plain(table, &key, Some(&value)));
        }
        let number = sequential(table, &key)?;
        let start = pack::block_start(number);
        if self.block.as_ref().is_some_and(|(of, at, _)| (*of, *at) != (table, start)) {
            self.write_block()?;
        }
        let (_, _, block) = self.block.get_or_insert_with(|| (table, start, pack::Block::new()));
        block.insert(number, value);
        Ok(())
    }

    fn write(&mut self, write: EngineWrite) -> Result<(), ViewError> {
        self.bytes += write.0.len() + write.1.as_ref().map_or(0, Bytes::len);
        self.writes.push(write);
        if self.bytes >= PIECE {
            self.engine.apply(&std::mem::take(&mut self.writes))?;
            self.bytes = 0;
        }
        Ok(())
    }

    fn write_block(&mut self) -> Result<(), ViewError> {
        match self.block.take() {
            Some((table, start, block)) => self.write(packed(table, start, &block)?),
            None => Ok(()),
        }
    }

    fn finish(mut self) -> Result<Known, ViewError> {
        self.write_block()?;
        matches(self.heads.sum, self.heads.records, self.sum, self.records)?;
        self.engine.apply(&self.writes)?;
        self.engine.flush()?;
        Ok(self.known)
    }
}
