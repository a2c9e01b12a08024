//! Reads: the active overlay, then the frozen ones, then the engine.
//!
//! The engine is read without a lock on the overlays. That is right for a scan as long as no overlay was frozen
//! meanwhile: the writer then changes only what the captured overlays hide. Otherwise the scan starts again, which takes a
//! whole overlay's worth of commits each time.

use std::collections::VecDeque;

use bytes::Bytes;

use super::engine::Engine;
use super::frozen::unpack;
use super::inner::{Inner, stored_block};
use super::overlay::Changes;
use super::record::{engine_key, unseal};
use super::{ViewRecord, pack};
use crate::state::{Record, StoreError, Table};

/// Most engine pairs read at once.
const PAGE: usize = 256;

impl Inner {
    /// See [`crate::state::Store::get`].
    pub(super) fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.control.lock().check()?;
        {
            let overlays = self.overlays.read();
            if let Some(value) = overlays.get(table, key) {
                return Ok(value);
            }
            if !overlays.may_hold(table, key) {
                return Ok(None);
            }
        }
        let slot = self.engine.read();
        let engine = Self::opened(slot.as_deref())?;
        if !table.is_sequential() {
            let key = engine_key(table, key);
            let Some(stored) = engine.get(&key)? else { return Ok(None) };
            return unseal(&key, &stored).map(Some);
        }
        match pack::sequence(key) {
            Some(number) => Ok(stored_block(engine, table, number)?.remove(&number)),
            None => Ok(None),
        }
    }

    /// See [`crate::state::Store::scan`].
    pub(super) fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        from: &[u8],
        limit: usize,
    ) -> Result<Vec<Record>, StoreError> {
        self.control.lock().check()?;
        let start = prefix.max(from);
        if limit == 0 || !start.starts_with(prefix) {
            return Ok(Vec::new());
        }
        let mut changes = limit.saturating_add(64);
        loop {
            let ((captured, bound), epoch) = {
                let overlays = self.overlays.read();
                if !overlays.may_hold(table, prefix) {
                    return Ok(Vec::new());
                }
                (overlays.capture(table, prefix, start, changes), overlays.epoch)
            };
            let wanted = Wanted { table, prefix, start, limit };
            let (records, exhausted) = {
                let slot = self.engine.read();
                wanted.merge(Self::opened(slot.as_deref())?, captured, bound.as_ref())?
            };
            if self.overlays.read().epoch != epoch {
                continue;
            }
            if !exhausted {
                return Ok(records);
            }
            // Too many of the changes were removals: look at more of them.
            changes = changes.saturating_mul(4);
        }
    }
}

/// What a scan asks for.
struct Wanted<'a> {
    table: Table,
    prefix: &'a [u8],
    start: &'a [u8],
    limit: usize,
}

impl Wanted<'_> {
    /// Merges changes over the engine. The flag says that the answer is too short because the changes are known up to
    /// `bound` only.
    fn merge(
        &self,
        engine: &dyn Engine,
        captured: Changes,
        bound: Option<&Bytes>,
    ) -> Result<(Vec<Record>, bool), StoreError> {
        let mut records = Vec::new();
        let mut stored = Cursor::new(engine, self);
        let mut ahead = stored.next()?;
        let mut captured = captured.into_iter().peekable();
        while records.len() < self.limit {
            let change_first = match (captured.peek(), &ahead) {
                (None, None) => return Ok((records, bound.is_some())),
                (Some((changed, _)), Some((key, _))) => changed <= key,
                (changed, _) => changed.is_some(),
            };
            let key = if change_first {
                captured.peek().map(|(key, _)| key.clone())
            } else {
                ahead.as_ref().map(|(key, _)| key.clone())
            };
            if bound.zip(key.as_ref()).is_some_and(|(bound, key)| key > bound) {
                return Ok((records, true));
            }
            if !change_first {
                records.extend(ahead.take());
                ahead = stored.next()?;
                continue;
            }
            if let Some((key, value)) = captured.next() {
                if ahead.as_ref().is_some_and(|(hidden, _)| *hidden == key) {
                    ahead = stored.next()?;
                }
                records.extend(value.map(|value| (key, value)));
            }
        }
        Ok((records, false))
    }
}

/// The records of the engine that a scan asks for, ascending.
struct Cursor<'a> {
    engine: &'a dyn Engine,
    wanted: &'a Wanted<'a>,
    /// Where the next page begins; `None` at the end.
    next: Option<Bytes>,
    /// Where the last page ends, so that the engine copies nothing that is not wanted.
    end: Option<Bytes>,
    page: usize,
    ready: VecDeque<Record>,
}

impl<'a> Cursor<'a> {
    fn new(engine: &'a dyn Engine, wanted: &'a Wanted<'a>) -> Self {
        let (table, start) = (wanted.table, wanted.start);
        let next = if table.is_sequential() {
            pack::sequence_at_or_after(start).map(|number| pack::block_key(table, number))
        } else {
            Some(engine_key(table, start))
        };
        let first = if table.is_sequential() { wanted.limit / 64 + 2 } else { wanted.limit + 8 };
        // A block is keyed by its first record, which may lie before a prefix that the block's later records have.
        let end = if table.is_sequential() { &[] } else { wanted.prefix };
        let end = successor(&engine_key(table, end));
        Self { engine, wanted, next, end, page: first.clamp(1, PAGE), ready: VecDeque::new() }
    }

    fn next(&mut self) -> Result<Option<Record>, StoreError> {
        while self.ready.is_empty() {
            let Some(from) = self.next.take() else { return Ok(None) };
            let pairs = self.engine.range(&from, self.end.as_deref(), self.page)?;
            if pairs.len() == self.page {
                self.next = pairs.last().map(|(key, _)| [key, &[0][..]].concat().into());
            }
            self.page = PAGE;
            for (key, stored) in pairs {
                if key.first() != Some(&self.wanted.table.tag()) {
                    self.next = None;
                    break;
                }
                let records = unpack(&key, &stored)?;
                self.take(records);
            }
        }
        Ok(self.ready.pop_front())
    }

    fn take(&mut self, records: Vec<ViewRecord>) {
        for (_, (key, value)) in records {
            if *key < *self.wanted.start {
                continue;
            }
            if key.starts_with(self.wanted.prefix) {
                self.ready.push_back((key, value));
            } else {
                self.next = None;
                return;
            }
        }
    }
}

/// The least key above every key that begins with `prefix`; `None` if there is none.
fn successor(prefix: &[u8]) -> Option<Bytes> {
    let (at, last) = prefix.iter().enumerate().rfind(|(_, byte)| **byte < u8::MAX)?;
    let mut end = prefix.get(..at)?.to_vec();
    end.push(last.wrapping_add(1));
    Some(end.into())
}

#[cfg(test)]
mod tests {
    use super::successor;

    #[test]
    fn the_end_of_a_prefix_is_the_least_key_above_all_that_begin_with_it() {
        assert_eq!(successor(&[1, 2]).as_deref(), Some(&[1, 3][..]));
        assert_eq!(successor(&[1, 0xff, 0xff]).as_deref(), Some(&[2][..]));
        assert_eq!(successor(&[0xff, 0xff]), None);
        assert_eq!(successor(&[]), None);
    }
}
