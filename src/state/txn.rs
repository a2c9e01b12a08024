//! One batch on top of a store: reads see the batch's own changes, and the store sees them all at once or not at all.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;

use super::query::Source;
use super::records::keys;
use super::{Digest, Heads, Record, Store, StoreError, Table, WriteSet};

/// A record that the batch has read or changed.
#[derive(Debug)]
struct Cell {
    /// What the store holds.
    stored: Stored,
    /// What the batch has made of it; `None` within if it removed it.
    changed: Option<Option<Bytes>>,
}

/// A record as the store holds it.
#[derive(Debug)]
enum Stored {
    /// It was read, or is known not to be there.
    Read(Option<Bytes>),
    /// It was not read, but this is its digest.
    Unread(Digest),
}

impl Cell {
    fn current(&self) -> Option<&Bytes> {
        match (&self.changed, &self.stored) {
            (Some(value), _) => value.as_ref(),
            (None, Stored::Read(value)) => value.as_ref(),
            // A record is left unread only when it is removed.
            (None, Stored::Unread(_)) => None,
        }
    }
}

/// A batch that was not committed yet.
#[derive(Debug)]
pub(super) struct Txn<'a, S> {
    store: &'a S,
    cells: BTreeMap<(Table, Bytes), Cell>,
}

impl<'a, S: Store> Txn<'a, S> {
    /// An empty batch.
    pub(super) const fn new(store: &'a S) -> Self {
        Self { store, cells: BTreeMap::new() }
    }

    /// The value of a record, which stays in memory until the end of the batch.
    pub(super) fn get(&mut self, table: Table, key: &Bytes) -> Result<Option<Bytes>, StoreError> {
        Ok(self.cell(table, key)?.current().cloned())
    }

    /// Writes a record.
    pub(super) fn put(
        &mut self,
        table: Table,
        key: &Bytes,
        value: Bytes,
    ) -> Result<(), StoreError> {
        self.cell(table, key)?.changed = Some(Some(value));
        Ok(())
    }

    /// Writes a record that is known not to be in the store, without asking it. Of the sequential tables that follows from
    /// the heads, of others from an earlier read.
    pub(super) fn insert(&mut self, table: Table, key: Bytes, value: Bytes) {
        let changed = Some(Some(value));
        self.cells
            .entry((table, key))
            .and_modify(|cell| cell.changed.clone_from(&changed))
            .or_insert(Cell { stored: Stored::Read(None), changed });
    }

    /// Removes a record.
    pub(super) fn remove(&mut self, table: Table, key: &Bytes) -> Result<(), StoreError> {
        self.cell(table, key)?.changed = Some(None);
        Ok(())
    }

    /// Removes a record whose digest is known, without reading it.
    pub(super) fn remove_known(&mut self, table: Table, key: Bytes, digest: Digest) {
        let unread = Cell { stored: Stored::Unread(digest), changed: None };
        self.cells.entry((table, key)).or_insert(unread).changed = Some(None);
    }

    fn cell(&mut self, table: Table, key: &Bytes) -> Result<&mut Cell, StoreError> {
        use std::collections::btree_map::Entry;
        match self.cells.entry((table, key.clone())) {
            Entry::Occupied(cell) => Ok(cell.into_mut()),
            Entry::Vacant(empty) => {
                let stored = self.store.get(table, key)?;
                Ok(empty.insert(Cell { stored: Stored::Read(stored), changed: None }))
            }
        }
    }

    /// Brings sum and count of `heads` up to date, and commits all changes with them. Each changed record is hashed once,
    /// however often the batch changed it.
    pub(super) fn commit(self, heads: &mut Heads) -> Result<(), StoreError> {
        let mut changes = WriteSet::default();
        for ((table, key), cell) in self.cells {
            let Some(value) = cell.changed else { continue };
            let old = match &cell.stored {
                Stored::Read(old) if *old == value => continue,
                Stored::Read(old) => old.as_ref().map(|old| Digest::of_record(table, &key, old)),
                Stored::Unread(digest) => Some(*digest),
            };
            if let Some(old) = old {
                heads.sum.remove(old);
                heads.records = heads.records.checked_sub(1).ok_or_else(|| {
                    let what = "there are more records than it counts".to_owned();
                    StoreError::Corrupt { table: Table::Meta, what }
                })?;
            }
            if let Some(new) = &value {
                heads.sum.add(Digest::of_record(table, &key, new));
                heads.records += 1;
            }
            changes.0.insert((table, key), value);
        }
        let key = (Table::Meta, Bytes::from_static(keys::HEADS));
        changes.0.insert(key, Some(heads.encode()));
        self.store.commit(changes)
    }
}

impl<S: Store> Source for Txn<'_, S> {
    fn value(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        match self.cells.get(&(table, Bytes::copy_from_slice(key))) {
            Some(cell) => Ok(cell.current().cloned()),
            None => self.store.get(table, key),
        }
    }

    fn range(
        &self,
        table: Table,
        prefix: &[u8],
        from: &[u8],
        limit: usize,
    ) -> Result<Vec<Record>, StoreError> {
        let start = (table, Bytes::copy_from_slice(prefix.max(from)));
        let mine: Vec<(&Bytes, &Option<Bytes>)> = self
            .cells
            .range((Bound::Included(start), Bound::Unbounded))
            .take_while(|((of, key), _)| *of == table && key.starts_with(prefix))
            .filter_map(|((_, key), cell)| cell.changed.as_ref().map(|value| (key, value)))
            .collect();
        if mine.is_empty() {
            return self.store.scan(table, prefix, from, limit);
        }
        // Whatever the batch removed is missing from what the store gives, so ask for as much more.
        let removed = mine.iter().filter(|(_, value)| value.is_none()).count();
        let stored = self.store.scan(table, prefix, from, limit.saturating_add(removed))?;
        let mut merged: BTreeMap<Bytes, Bytes> = stored.into_iter().collect();
        for (key, value) in mine {
            match value {
                Some(value) => merged.insert(key.clone(), value.clone()),
                None => merged.remove(key),
            };
        }
        Ok(merged.into_iter().take(limit).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::MemoryStore;

    fn bytes(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    fn stored(records: &[(&str, &str)]) -> (MemoryStore, Heads) {
        let store = MemoryStore::default();
        let mut heads = Heads::default();
        let mut txn = Txn::new(&store);
        for (key, value) in records {
            txn.put(Table::Grants, &bytes(key), bytes(value)).unwrap();
        }
        txn.commit(&mut heads).unwrap();
        (store, heads)
    }

    #[test]
    fn a_scan_sees_what_the_batch_wrote_and_not_what_it_removed() {
        let (store, _) = stored(&[("a1", "1"), ("a2", "2"), ("a4", "4"), ("b1", "5")]);
        let mut txn = Txn::new(&store);
        txn.remove(Table::Grants, &bytes("a1")).unwrap();
        txn.put(Table::Grants, &bytes("a3"), bytes("3")).unwrap();
        txn.put(Table::Grants, &bytes("a2"), bytes("two")).unwrap();
        let found = txn.range(Table::Grants, b"a", &[], 2).unwrap();
        assert_eq!(found, [(bytes("a2"), bytes("two")), (bytes("a3"), bytes("3"))]);
        let found = txn.range(Table::Grants, b"a", b"a3", 9).unwrap();
        assert_eq!(found, [(bytes("a3"), bytes("3")), (bytes("a4"), bytes("4"))]);
        assert_eq!(txn.value(Table::Grants, b"a1").unwrap(), None);
    }

    #[test]
    fn the_sum_follows_changes_removals_and_writes_that_change_nothing() {
        let (store, mut heads) = stored(&[("a", "1"), ("b", "2"), ("c", "3")]);
        let mut txn = Txn::new(&store);
        txn.put(Table::Grants, &bytes("a"), bytes("x")).unwrap();
        txn.put(Table::Grants, &bytes("a"), bytes("10")).unwrap();
        txn.put(Table::Grants, &bytes("b"), bytes("2")).unwrap();
        txn.remove(Table::Grants, &bytes("c")).unwrap();
        txn.put(Table::Grants, &bytes("d"), bytes("4")).unwrap();
        txn.remove(Table::Grants, &bytes("d")).unwrap();
        txn.commit(&mut heads).unwrap();
        assert_eq!(Digest::recount(store.records()), (heads.sum, heads.records));
        assert_eq!(heads.records, 2);
        assert_eq!(Heads::load(&store).unwrap(), heads);
    }
}
