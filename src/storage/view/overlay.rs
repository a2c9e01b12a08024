//! What is committed but not yet in the engine (I3).
//!
//! Commits go to the active overlay. Freezing makes it immutable and puts it in the queue of those that the writer brings
//! to the engine, oldest first. A newer overlay hides an older one, and all of them hide the engine. Nothing here does I/O.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use super::known::Known;
use crate::state::{Table, WriteSet};

/// What a record in an overlay costs beside its bytes: nodes of two trees and their fill.
const RECORD_OVERHEAD: usize = 128;

/// Changes of one table; `None` hides a record.
pub(super) type Changes = BTreeMap<Bytes, Option<Bytes>>;

/// Changes of some commits, coalesced.
#[derive(Debug, Default)]
pub(super) struct Overlay {
    tables: BTreeMap<Table, Changes>,
    bytes: usize,
    /// How many overlays had been frozen when this one was, itself included; 0 while it is active.
    pub(super) epoch: u64,
    /// Number of the last commit that it holds.
    pub(super) commits: u64,
}

impl Overlay {
    /// Takes up a commit; a later change of a record replaces an earlier one.
    pub(super) fn merge(&mut self, changes: WriteSet) {
        for ((table, key), value) in changes.0 {
            let key_bytes = key.len();
            self.bytes += key_bytes + RECORD_OVERHEAD + value.as_ref().map_or(0, Bytes::len);
            let replaced = self.tables.entry(table).or_default().insert(key, value);
            if let Some(old) = replaced {
                let old = key_bytes + RECORD_OVERHEAD + old.as_ref().map_or(0, Bytes::len);
                self.bytes = self.bytes.saturating_sub(old);
            }
        }
    }

    /// What it says about a record: nothing, that it is removed, or its value.
    pub(super) fn get(&self, table: Table, key: &[u8]) -> Option<Option<Bytes>> {
        self.tables.get(&table)?.get(key).cloned()
    }

    /// Memory that it takes, roughly.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether it holds nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// Its changes by table, in order.
    pub(super) const fn tables(&self) -> &BTreeMap<Table, Changes> {
        &self.tables
    }

    /// Its changes of a table from `from` on, ascending.
    pub(super) fn changes<'a>(
        &'a self,
        table: Table,
        from: Bound<&'a [u8]>,
    ) -> impl Iterator<Item = (&'a Bytes, &'a Option<Bytes>)> {
        let changes = self.tables.get(&table);
        changes.into_iter().flat_map(move |map| map.range::<[u8], _>((from, Bound::Unbounded)))
    }
}

/// The active overlay and those that wait to be written.
#[derive(Debug, Default)]
pub(super) struct Overlays {
    pub(super) active: Overlay,
    /// Oldest first. The writer removes one once it is in the engine.
    pub(super) frozen: VecDeque<Arc<Overlay>>,
    /// Overlays frozen so far. While it stays, the engine changes only by what the frozen ones say anyhow.
    pub(super) epoch: u64,
    /// Key ids that are in an overlay or in the engine; `None` while that is not known.
    pub(super) known: Option<Known>,
}

impl Overlays {
    /// Takes up a commit.
    pub(super) fn take_up(&mut self, changes: WriteSet) {
        if let Some(known) = &mut self.known {
            let written = changes.0.iter().filter(|(_, value)| value.is_some());
            written.for_each(|((table, key), _)| known.note(*table, key));
        }
        self.active.merge(changes);
    }

    /// Whether any record begins with `prefix`, as far as that is known without asking the engine; `false` is certain.
    pub(super) fn may_hold(&self, table: Table, prefix: &[u8]) -> bool {
        self.known.as_ref().is_none_or(|known| known.may_hold(table, prefix))
    }

    /// Freezes the active overlay, if it holds anything.
    pub(super) fn freeze(&mut self, commits: u64) {
        if self.active.is_empty() {
            return;
        }
        self.epoch += 1;
        let mut overlay = std::mem::take(&mut self.active);
        overlay.epoch = self.epoch;
        overlay.commits = commits;
        self.frozen.push_back(Arc::new(overlay));
    }

    /// What the overlays say about a record, the newest first.
    pub(super) fn get(&self, table: Table, key: &[u8]) -> Option<Option<Bytes>> {
        let frozen = || self.frozen.iter().rev().find_map(|overlay| overlay.get(table, key));
        self.active.get(table, key).or_else(frozen)
    }

    /// The changes of records that begin with `prefix`, from `start` on: of each overlay the first `limit`. Beyond the
    /// bound that is returned there may be more.
    pub(super) fn capture(
        &self,
        table: Table,
        prefix: &[u8],
        start: &[u8],
        limit: usize,
    ) -> (Changes, Option<Bytes>) {
        let mut captured = Changes::new();
        let mut bound: Option<Bytes> = None;
        let frozen = self.frozen.iter().map(Arc::as_ref);
        for overlay in frozen.chain([&self.active]) {
            let changes = overlay.changes(table, Bound::Included(start));
            let mut taken = 0;
            for (key, value) in changes.take_while(|(key, _)| key.starts_with(prefix)).take(limit) {
                taken += 1;
                captured.insert(key.clone(), value.clone());
                if taken == limit && bound.as_ref().is_none_or(|bound| key < bound) {
                    bound = Some(key.clone());
                }
            }
        }
        (captured, bound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(table: Table, key: &'static str, value: Option<&'static str>) -> WriteSet {
        WriteSet([((table, key.into()), value.map(Bytes::from))].into())
    }

    #[test]
    fn repeated_writes_of_a_record_are_coalesced() {
        let mut overlay = Overlay::default();
        overlay.merge(set(Table::Keys, "a", Some("long value")));
        let once = overlay.bytes();
        for _ in 0..10 {
            overlay.merge(set(Table::Keys, "a", Some("long value")));
        }
        assert_eq!(overlay.bytes(), once);
        overlay.merge(set(Table::Keys, "a", None));
        assert_eq!(overlay.bytes(), once - "long value".len());
        assert_eq!(overlay.get(Table::Keys, b"a"), Some(None));
    }

    #[test]
    fn a_newer_overlay_hides_an_older_one() {
        let mut overlays = Overlays::default();
        overlays.active.merge(set(Table::Keys, "a", Some("1")));
        overlays.freeze(1);
        overlays.active.merge(set(Table::Keys, "a", Some("2")));
        overlays.freeze(2);
        assert_eq!(overlays.get(Table::Keys, b"a"), Some(Some("2".into())));
        overlays.active.merge(set(Table::Keys, "a", None));
        assert_eq!(overlays.get(Table::Keys, b"a"), Some(None));
        let (captured, bound) = overlays.capture(Table::Keys, b"", b"", 5);
        assert_eq!((captured.len(), captured["a".as_bytes()].clone(), bound), (1, None, None));
    }
}
