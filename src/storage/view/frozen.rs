//! A consistent export of the view while commits and the writer go on.
//!
//! Freezing keeps the overlays of that moment (they are immutable) and registers an export. Engine iterators are no
//! snapshots, so from then on the writer, before it changes an engine key that the export has not passed yet, leaves the
//! old value in the export's undo map. No write ever waits for an export: an export whose undo map outgrows its limit is
//! abandoned instead, and says so.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::engine::{Engine, EngineError, EngineWrite};
use super::inner::Inner;
use super::overlay::{Changes, Overlay};
use super::pack;
use super::record::{split_key, unseal};
use super::{HEADS_KEY, ViewRecord};
use crate::state::{Heads, StoreError, Table};

/// Engine pairs read at once.
const PAGE: usize = 128;
/// Memory that an undo map may take before its export is abandoned.
const UNDO_BYTES: usize = 256 * 1024 * 1024;
/// What an entry of an undo map costs beside its bytes.
const UNDO_OVERHEAD: usize = 128;

/// What the writer knows of a running export.
#[derive(Debug)]
pub(super) struct Export {
    /// Overlays frozen up to this one are part of the export.
    epoch: u64,
    state: Mutex<ExportState>,
}

#[derive(Debug)]
struct ExportState {
    /// Engine keys below it are exported; `None` at the end.
    cursor: Option<Bytes>,
    /// What engine keys at or after the cursor held when the export began.
    undo: BTreeMap<Bytes, Option<Bytes>>,
    undo_bytes: usize,
    abandoned: Option<&'static str>,
}

impl Export {
    pub(super) fn new(epoch: u64) -> Self {
        let state = ExportState {
            cursor: Some(Bytes::new()),
            undo: BTreeMap::new(),
            undo_bytes: 0,
            abandoned: None,
        };
        Self { epoch, state: Mutex::new(state) }
    }

    /// Keeps what the export still needs before `writes` of the overlay numbered `epoch` change the engine.
    pub(super) fn before_write(
        &self,
        engine: &dyn Engine,
        epoch: u64,
        writes: &[EngineWrite],
    ) -> Result<(), EngineError> {
        if epoch <= self.epoch {
            return Ok(());
        }
        let mut state = self.state.lock();
        for (key, _) in writes {
            let passed = state.cursor.as_ref().is_none_or(|cursor| key < cursor);
            if passed || state.abandoned.is_some() || state.undo.contains_key(key) {
                continue;
            }
            let old = engine.get(key)?;
            state.undo_bytes += key.len() + old.as_ref().map_or(0, Bytes::len) + UNDO_OVERHEAD;
            state.undo.insert(key.clone(), old);
            if state.undo_bytes > UNDO_BYTES {
                state.undo.clear();
                state.abandoned = Some("too much was written meanwhile");
            }
        }
        Ok(())
    }

    /// Ends the export, because what it reads from goes away.
    pub(super) fn abandon(&self, why: &'static str) {
        let mut state = self.state.lock();
        state.undo.clear();
        state.abandoned = Some(why);
    }

    /// Pairs of the engine as they were when the export began, and the engine key that they reach up to (all, if none).
    fn next_page(&self, engine: &dyn Engine) -> Result<Option<Page>, StoreError> {
        let Some(cursor) = self.state.lock().cursor.clone() else { return Ok(None) };
        let pairs = engine.range(&cursor, None, PAGE)?;
        let last = if pairs.len() < PAGE { None } else { pairs.last().map(|(key, _)| key.clone()) };
        let mut pairs: BTreeMap<Bytes, Bytes> = pairs.into_iter().collect();
        let mut state = self.state.lock();
        if let Some(why) = state.abandoned {
            return Err(StoreError::Abandoned(why));
        }
        let cursor: Option<Bytes> = last.as_ref().map(|last| [last, &[0][..]].concat().into());
        let rest = match &cursor {
            Some(cursor) => state.undo.split_off(cursor),
            None => BTreeMap::new(),
        };
        state.cursor = cursor;
        for (key, old) in std::mem::replace(&mut state.undo, rest) {
            state.undo_bytes = state
                .undo_bytes
                .saturating_sub(key.len() + old.as_ref().map_or(0, Bytes::len) + UNDO_OVERHEAD);
            match old {
                Some(old) => pairs.insert(key, old),
                None => pairs.remove(&key),
            };
        }
        Ok(Some(Page { pairs, last }))
    }
}

/// Consecutive engine pairs.
struct Page {
    pairs: BTreeMap<Bytes, Bytes>,
    /// The engine key that the page reaches up to, itself included; `None` at the end.
    last: Option<Bytes>,
}

/// All records as of one moment, by table and key, while commits go on. Ends after an error.
#[derive(Debug)]
pub struct Frozen {
    inner: Arc<Inner>,
    /// Oldest first.
    overlays: Vec<Arc<Overlay>>,
    export: Arc<Export>,
    heads: Option<Heads>,
    ready: VecDeque<ViewRecord>,
    /// The last record up to which all was given out, as an engine key.
    passed: Bound<(Table, Bytes)>,
    ended: bool,
}

impl Frozen {
    pub(super) fn new(
        inner: Arc<Inner>,
        overlays: Vec<Arc<Overlay>>,
        export: Arc<Export>,
    ) -> Result<Self, StoreError> {
        let mut frozen = Self {
            inner,
            overlays,
            export,
            heads: None,
            ready: VecDeque::new(),
            passed: Bound::Unbounded,
            ended: false,
        };
        // Table::Meta comes first, so the heads are in what is read first.
        while frozen.ready.iter().all(|(table, _)| *table == Table::Meta) && frozen.fill()? {}
        let mut meta = frozen.ready.iter().take_while(|(table, _)| *table == Table::Meta);
        if let Some((_, (_, value))) = meta.find(|(_, (key, _))| key == HEADS_KEY) {
            frozen.heads = Some(super::decode_heads(value)?);
        }
        Ok(frozen)
    }

    /// The applied heads as of that moment; `None` if nothing was ever applied.
    pub const fn heads(&self) -> Option<&Heads> {
        self.heads.as_ref()
    }

    /// Reads on; false at the end.
    fn fill(&mut self) -> Result<bool, StoreError> {
        let page = {
            let slot = self.inner.engine.read();
            let engine = Inner::opened(slot.as_deref())?;
            self.export.next_page(engine)?
        };
        let Some(page) = page else { return Ok(false) };
        let upto = page.last.as_ref().map(last_record).transpose()?;
        let mut records: BTreeMap<(Table, Bytes), Bytes> = BTreeMap::new();
        for (key, stored) in &page.pairs {
            for (table, (key, value)) in unpack(key, stored)? {
                records.insert((table, key), value);
            }
        }
        for overlay in &self.overlays {
            for (table, changes) in overlay.tables() {
                self.overlay_table(*table, changes, upto.as_ref(), &mut records);
            }
        }
        self.ready.extend(records.into_iter().map(|((table, key), value)| (table, (key, value))));
        if let Some(upto) = upto {
            self.passed = Bound::Excluded(upto);
        }
        Ok(true)
    }

    /// Puts the changes between what is passed and `upto` over `records`.
    fn overlay_table(
        &self,
        table: Table,
        changes: &Changes,
        upto: Option<&(Table, Bytes)>,
        records: &mut BTreeMap<(Table, Bytes), Bytes>,
    ) {
        let from = match &self.passed {
            Bound::Excluded((passed, _)) if *passed > table => return,
            Bound::Excluded((passed, key)) if *passed == table => Bound::Excluded(key.as_ref()),
            _ => Bound::Unbounded,
        };
        let range = changes.range::<[u8], _>((from, Bound::Unbounded));
        for (key, value) in range {
            if upto.is_some_and(|(last, last_key)| (table, key) > (*last, last_key)) {
                break;
            }
            match value {
                Some(value) => records.insert((table, key.clone()), value.clone()),
                None => records.remove(&(table, key.clone())),
            };
        }
    }
}

impl Iterator for Frozen {
    type Item = Result<ViewRecord, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.ended {
            if let Some(record) = self.ready.pop_front() {
                return Some(Ok(record));
            }
            match self.fill() {
                Ok(more) => self.ended = !more,
                Err(error) => {
                    self.ended = true;
                    return Some(Err(error));
                }
            }
        }
        None
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        self.inner.exports.lock().retain(|export| !Arc::ptr_eq(export, &self.export));
    }
}

/// The records of an engine pair.
pub(super) fn unpack(key: &Bytes, stored: &Bytes) -> Result<Vec<ViewRecord>, StoreError> {
    let payload = unseal(key, stored)?;
    let (table, rest) = split_key(key)?;
    if !table.is_sequential() {
        return Ok(vec![(table, (rest, payload))]);
    }
    let start = pack::sequence(&rest).filter(|start| pack::block_start(*start) == *start);
    let start = start.ok_or_else(|| StoreError::Corrupt {
        table,
        what: "a block's key is no first number of a block".to_owned(),
    })?;
    let block = pack::decode(table, start, payload)?;
    let record = |(number, value): (u64, Bytes)| {
        (table, (Bytes::copy_from_slice(&number.to_be_bytes()), value))
    };
    Ok(block.into_iter().map(record).collect())
}

/// The last record that may be in the pair of an engine key.
fn last_record(key: &Bytes) -> Result<(Table, Bytes), StoreError> {
    let (table, rest) = split_key(key)?;
    match pack::sequence(&rest).filter(|_| table.is_sequential()) {
        Some(start) => Ok((table, Bytes::copy_from_slice(&pack::block_end(start).to_be_bytes()))),
        None => Ok((table, rest)),
    }
}
