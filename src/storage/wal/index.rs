//! Where each entry lies, and the newest entries themselves.

use std::collections::VecDeque;
use std::sync::Arc;

use super::segment::{Source, Stored};
use super::types::{LogEntry, Vote, WalError};
use crate::fs::Fs;
use crate::state::Position;

/// One entry's place.
struct Slot<F: Fs> {
    term: u64,
    /// Tells an entry from a later one of the same index.
    serial: u64,
    /// Where it lies on disk; nowhere before it was written.
    stored: Option<Stored<F>>,
}

/// The log in memory: a slot for each entry, and the payloads of the newest.
pub(super) struct Index<F: Fs> {
    pub(super) vote: Option<Vote>,
    pub(super) committed: Option<Position>,
    purged: Option<Position>,
    /// Index of the first slot.
    first: u64,
    slots: VecDeque<Slot<F>>,
    /// The newest entries; the last one belongs to the last slot.
    cache: VecDeque<LogEntry>,
    cache_bytes: usize,
    cache_limit: usize,
    serial: u64,
    /// All entries before this index are on disk.
    durable_to: u64,
}

impl<F: Fs> Index<F> {
    pub(super) fn new(cache_limit: usize) -> Self {
        Self {
            vote: None,
            committed: None,
            purged: None,
            first: 0,
            slots: VecDeque::new(),
            cache: VecDeque::new(),
            cache_bytes: 0,
            cache_limit,
            serial: 0,
            durable_to: 0,
        }
    }

    pub(super) fn purged(&self) -> Option<Position> {
        self.purged
    }

    /// The index that the next entry must have; any, if nothing was ever appended.
    fn next(&self) -> u64 {
        self.first.saturating_add(self.slots.len() as u64)
    }

    pub(super) fn last(&self) -> Option<Position> {
        match self.slots.back() {
            Some(slot) => Some(Position { term: slot.term, index: self.next().saturating_sub(1) }),
            None => self.purged,
        }
    }

    /// Last entry that is durable; the last purged one if there is none. Counts the entries that are here now: one that
    /// was replaced is durable only once its successor is.
    pub(super) fn durable(&self) -> Option<u64> {
        self.durable_to.checked_sub(1)
    }

    /// Whether this very entry is here, or was purged.
    pub(super) fn holds(&self, at: Position) -> bool {
        if self.purged.is_some_and(|purged| at.index <= purged.index) {
            return true;
        }
        let slot = self.slot_of(at.index).and_then(|slot| self.slots.get(slot));
        slot.is_some_and(|slot| slot.term == at.term)
    }

    fn slot_of(&self, index: u64) -> Option<usize> {
        usize::try_from(index.checked_sub(self.first)?).ok().filter(|at| *at < self.slots.len())
    }

    /// Takes entries in before they are written; returns the serial of the first.
    pub(super) fn append(&mut self, entries: &[LogEntry]) -> Result<u64, WalError> {
        // No log gets as far as the last index; a damaged one may say so.
        let due = self.next()..u64::MAX;
        let wrong = entries.iter().enumerate().find_map(|(at, entry)| {
            let expected = due.start.saturating_add(at as u64);
            let fits = entry.id.index == expected && due.contains(&expected);
            (!fits).then_some((entry.id.index, expected))
        });
        if let Some((index, expected)) = wrong {
            let what = format!("entry {index} is appended where {expected} is due");
            return Err(WalError::Invalid { what });
        }
        let serial = self.serial;
        for entry in entries {
            self.push(entry.clone(), None);
        }
        Ok(serial)
    }

    /// Takes an entry in that was read back from disk.
    pub(super) fn restore(&mut self, entry: LogEntry, stored: Stored<F>) -> Result<(), String> {
        if entry.id.index != self.next() || entry.id.index == u64::MAX {
            return Err(format!("entry {} stands where {} should", entry.id.index, self.next()));
        }
        self.push(entry, Some(stored));
        self.durable_to = self.next();
        Ok(())
    }

    fn push(&mut self, entry: LogEntry, stored: Option<Stored<F>>) {
        self.slots.push_back(Slot { term: entry.id.term, serial: self.serial, stored });
        self.serial += 1;
        self.cache_bytes += entry.payload.bytes().len();
        self.cache.push_back(entry);
        self.evict();
    }

    /// Drops the oldest cached entries beyond the limit, but none that is not on disk yet.
    fn evict(&mut self) {
        while self.cache_bytes > self.cache_limit && self.cache.len() > 1 {
            let oldest = self.slots.len() - self.cache.len();
            if self.slots.get(oldest).is_none_or(|slot| slot.stored.is_none()) {
                return;
            }
            if let Some(entry) = self.cache.pop_front() {
                self.cache_bytes -= entry.payload.bytes().len();
            }
        }
    }

    /// Notes where an entry was written, unless it was removed or replaced meanwhile.
    pub(super) fn written(&mut self, index: u64, serial: u64, stored: Stored<F>) {
        if let Some(slot) = self.slot_of(index).and_then(|at| self.slots.get_mut(at))
            && slot.serial == serial
        {
            slot.stored = Some(stored);
            // Entries are written in order, so all before this one are on disk too.
            self.durable_to = self.durable_to.max(index.saturating_add(1));
        }
        self.evict();
    }

    pub(super) fn truncate_after(&mut self, last: Option<Position>) -> Result<(), WalError> {
        let keep_next = last.map_or(0, |last| last.index.saturating_add(1));
        if self.purged.is_some_and(|purged| keep_next <= purged.index) {
            let what = "entries that were purged can't be truncated".to_owned();
            return Err(WalError::Invalid { what });
        }
        while self.next() > keep_next && self.slots.pop_back().is_some() {
            if let Some(entry) = self.cache.pop_back() {
                self.cache_bytes -= entry.payload.bytes().len();
            }
        }
        if self.slots.is_empty() {
            // Only in recovery does an empty index begin further on than what is cut: see `begin_after`.
            self.first = self.first.min(keep_next);
        }
        self.durable_to = self.durable_to.min(keep_next);
        Ok(())
    }

    pub(super) fn purge(&mut self, upto: Position) {
        if self.purged.is_some_and(|purged| purged.index >= upto.index) {
            return;
        }
        self.purged = Some(upto);
        while self.first <= upto.index && self.slots.pop_front().is_some() {
            self.first += 1;
            if self.cache.len() > self.slots.len()
                && let Some(entry) = self.cache.pop_front()
            {
                self.cache_bytes -= entry.payload.bytes().len();
            }
        }
        self.first = self.first.max(upto.index.saturating_add(1));
        // What was purged lies in a snapshot, which is durable by itself.
        self.durable_to = self.durable_to.max(upto.index.saturating_add(1));
    }

    /// Makes an empty index begin after `last`, whose entries lie in segments that are gone.
    pub(super) fn begin_after(&mut self, last: Position) {
        self.first = last.index.saturating_add(1);
    }

    /// Entries of a range, from memory or as places on disk.
    pub(super) fn find(&self, from: u64, to: u64, max_bytes: usize) -> Vec<Source<F>> {
        let mut found = Vec::new();
        let mut bytes = 0usize;
        let from = from.max(self.first);
        let cached_from = self.slots.len() - self.cache.len();
        for index in from..to.min(self.next()) {
            let Some(at) = self.slot_of(index) else { break };
            let source = match at.checked_sub(cached_from).and_then(|at| self.cache.get(at)) {
                Some(entry) => Source::Memory(entry.clone()),
                None => match self.slots.get(at) {
                    Some(Slot { term, stored: Some(stored), .. }) => {
                        Source::Disk(stored.clone(), Position { term: *term, index })
                    }
                    _ => break,
                },
            };
            bytes = bytes.saturating_add(source.bytes());
            if !found.is_empty() && bytes > max_bytes {
                break;
            }
            found.push(source);
        }
        found
    }

    /// The state that a new segment begins with.
    pub(super) fn checkpoint(&self) -> (Option<Vote>, Option<Position>, Option<Position>) {
        (self.vote, self.committed, self.purged)
    }
}

/// An index shared by appender, readers and writer. Locked for moments only, never across I/O.
pub(super) type SharedIndex<F> = Arc<parking_lot::Mutex<Index<F>>>;
