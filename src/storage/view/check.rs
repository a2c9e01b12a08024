//! The check of all records against the heads (I4).
//!
//! The digest is a sum, so that ranges of keys can be summed up in any order, and in parallel.

use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

use super::engine::Engine;
use super::frozen::unpack;
use super::inner::Inner;
use super::known::Known;
use super::{View, ViewError, heads_in};
use crate::state::{Digest, StoreError, Table};

/// Most threads that a check uses.
const THREADS: usize = 4;
/// Ranges that a table of evenly spread keys is cut into.
const CUTS: u8 = 8;
/// Engine pairs read at once.
const PAGE: usize = 512;

/// Sum and number of records.
type Count = (Digest, u64);

impl View {
    /// Checks every record's checksum, and that all of them together are what the heads describe. Reads the engine only,
    /// so call it before the first commit. On the way it learns which key ids there are.
    ///
    /// # Errors
    /// [`ViewError::Digest`] if records are missing, changed or too many; any other if one is damaged or can't be read.
    pub fn verify(&self) -> Result<(), ViewError> {
        let slot = self.inner.engine.read();
        let engine = Inner::opened(slot.as_deref())?;
        let known = Mutex::new(Known::default());
        let (sum, records) = recount(engine, &known)?;
        let heads = heads_in(engine)?.unwrap_or_default();
        matches(heads.sum, heads.records, sum, records)?;
        drop(slot);
        self.inner.overlays.write().known = Some(known.into_inner());
        Ok(())
    }
}

/// Compares what the heads say with what was counted.
pub(super) fn matches(
    expected: Digest,
    expected_records: u64,
    found: Digest,
    found_records: u64,
) -> Result<(), ViewError> {
    if (expected, expected_records) == (found, found_records) {
        return Ok(());
    }
    Err(ViewError::Digest {
        found_records,
        found_digest: hex::encode(found.to_bytes()),
        expected_records,
        expected_digest: hex::encode(expected.to_bytes()),
    })
}

/// Sums up all records of an engine, and notes its key ids.
fn recount(engine: &dyn Engine, known: &Mutex<Known>) -> Result<Count, StoreError> {
    let ranges = ranges();
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get).min(THREADS);
    let next = AtomicUsize::new(0);
    let work = || -> Result<Count, StoreError> {
        let mut total = (Digest::ZERO, 0);
        while let Some((from, to)) = ranges.get(next.fetch_add(1, Ordering::Relaxed)) {
            let (sum, records) = recount_range(engine, from, to.as_ref(), known)?;
            total.0.add(sum);
            total.1 += records;
        }
        Ok(total)
    };
    let counts: Vec<Result<Count, StoreError>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let panicked = || Err(StoreError::Engine("the check of the view panicked".to_owned()));
        workers.into_iter().map(|worker| worker.join().unwrap_or_else(|_| panicked())).collect()
    });
    let mut total = (Digest::ZERO, 0);
    for count in counts {
        let (sum, records) = count?;
        total.0.add(sum);
        total.1 += records;
    }
    Ok(total)
}

/// The whole key space in parts of roughly equal size: what is unknown is covered too.
fn ranges() -> Vec<(Bytes, Option<Bytes>)> {
    let mut cuts = vec![Bytes::new()];
    for table in Table::ALL.into_iter().filter(|table| *table != Table::Meta) {
        cuts.push(vec![table.tag()].into());
        if !table.is_sequential() {
            cuts.extend(
                (1..CUTS).map(|cut| Bytes::from(vec![table.tag(), cut * (255 / CUTS + 1)])),
            );
        }
    }
    let ends = cuts.iter().skip(1).cloned().map(Some).chain([None]);
    cuts.clone().into_iter().zip(ends).collect()
}

fn recount_range(
    engine: &dyn Engine,
    from: &Bytes,
    to: Option<&Bytes>,
    known: &Mutex<Known>,
) -> Result<Count, StoreError> {
    let mut total = (Digest::ZERO, 0);
    let mut next = from.clone();
    loop {
        let pairs = engine.range(&next, None, PAGE)?;
        let more = pairs.len() == PAGE;
        for (key, stored) in &pairs {
            if to.is_some_and(|to| key >= to) {
                return Ok(total);
            }
            for (table, (key, value)) in unpack(key, stored)? {
                known.lock().note(table, &key);
                if table != Table::Meta {
                    total.0.add(Digest::of_record(table, &key, &value));
                    total.1 += 1;
                }
            }
        }
        match pairs.last() {
            Some((last, _)) if more => next = [last, &[0][..]].concat().into(),
            _ => return Ok(total),
        }
    }
}
