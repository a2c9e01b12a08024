//! Writes groups of jobs as batches into segments, makes the reserve, and removes what is purged.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::format::{BatchBuilder, SEGMENT_HEADER, SegmentHeader};
use super::index::SharedIndex;
use super::queue::{Counters, Job};
use super::recover::{Recovered, Used};
use super::segment::{Segment, Stored};
use super::types::{Vote, WalError, WalOptions};
use crate::fs::{Fs, FsFile};
use crate::planted::{self, Plant};
use crate::state::Position;

/// How often room is looked at.
pub(super) const LOOK: Duration = Duration::from_secs(1);

/// Brings a batch to disk. Never twice: after a failed one the second proves nothing (I1).
fn sync(file: &impl FsFile) -> std::io::Result<()> {
    match file.sync_data() {
        Err(_) if planted::is(Plant::FsyncAgain) => file.sync_data(),
        synced => synced,
    }
}

/// Where an entry of a batch comes to lie.
struct Placed {
    index: u64,
    serial: u64,
    offset: usize,
    length: usize,
}

/// Owns the segments. Only one thread has it.
pub(super) struct Writer<F: Fs> {
    fs: F,
    dir: PathBuf,
    segment_bytes: u64,
    index: SharedIndex<F>,
    counters: Arc<Counters>,
    segments: VecDeque<Used<F>>,
    reserve: Option<Segment<F>>,
    next_segment: u64,
    next_batch: u64,
    /// When room was last looked at.
    looked: Instant,
    builder: BatchBuilder,
    /// The log with all that was handed to the disk.
    state: Written,
}

/// The state of the log as it is written: what a new segment begins with.
#[derive(Clone, Copy)]
struct Written {
    vote: Option<Vote>,
    committed: Option<Position>,
    purged: Option<Position>,
    last: Option<Position>,
}

impl<F: Fs> Writer<F> {
    pub(super) fn new(
        fs: F,
        dir: &Path,
        options: WalOptions,
        found: Recovered<F>,
        counters: Arc<Counters>,
    ) -> Result<(Self, SharedIndex<F>), WalError> {
        let io = |source| WalError::Io { source };
        // From the last one down, each for itself: a power cut must leave no gap in the numbers.
        for path in found.unused.iter().rev() {
            fs.remove_file(path).map_err(io)?;
            fs.sync_dir(dir).map_err(io)?;
        }
        // What was read may have survived in memory only, if the process died and the machine did not. After a failed
        // fsync the kernel takes such bytes for written, so only writing them again brings them to disk.
        if let Some(used) = found.segments.last() {
            if let Some((start, batch)) = &found.last_batch {
                used.segment.file.write_at(batch, *start).map_err(io)?;
            }
            // What a torn tail left would be told at each start until it is written over; and the next torn one is easier
            // to judge among zeros.
            if used.left > 0 {
                used.segment.file.write_at(&vec![0; used.left], used.end).map_err(io)?;
            }
            used.segment.file.sync_all().map_err(io)?;
            fs.sync_dir(dir).map_err(io)?;
        }
        let (vote, committed, purged) = found.index.checkpoint();
        let last = found.index.last();
        let removed = found.unused.len() as u64;
        let disk: u64 = found.segments.iter().map(|used| used.end - SEGMENT_HEADER as u64).sum();
        counters.disk.store(disk, Ordering::Relaxed);
        let index = Arc::new(Mutex::new(found.index));
        let mut writer = Self {
            fs,
            dir: dir.to_owned(),
            segment_bytes: options
                .segment_bytes
                .clamp(WalOptions::MIN_SEGMENT_BYTES, u64::from(u32::MAX)),
            index: index.clone(),
            counters,
            segments: found.segments.into(),
            reserve: None,
            next_segment: found.next_segment - removed,
            next_batch: found.next_batch,
            looked: Instant::now(),
            builder: BatchBuilder::new(),
            state: Written { vote, committed, purged, last },
        };
        if writer.segments.is_empty() {
            let segment = writer.create()?;
            writer.segments.push_back(Used::empty(Arc::new(segment)));
        }
        writer.look_for_room()?;
        Ok((writer, index))
    }

    fn create(&mut self) -> Result<Segment<F>, WalError> {
        let length = self.segment_bytes;
        let header =
            SegmentHeader { number: self.next_segment, salt: crate::turns::draw(), length };
        let segment = Segment::create(&self.fs, &self.dir, header, self.segment_bytes)?;
        self.next_segment += 1;
        Ok(segment)
    }

    /// Makes the reserve if it is missing, and notes whether there is room (I9).
    ///
    /// A full disk is no error; anything else is: after a failed fsync of the directory a second one proves nothing (I1).
    fn look_for_room(&mut self) -> Result<(), WalError> {
        self.looked = Instant::now();
        let mut free = self.fs.available_bytes(&self.dir).unwrap_or(0);
        // A full disk is not tried again and again: a segment would be made and removed each time.
        if self.reserve.is_none() && free >= self.segment_bytes {
            match self.create() {
                Ok(segment) => self.reserve = Some(segment),
                Err(error @ WalError::Full { .. }) => {
                    tracing::warn!(%error, "no reserve could be made for the log");
                }
                Err(error) => return Err(error),
            }
            free = self.fs.available_bytes(&self.dir).unwrap_or(0);
        }
        let low = self.reserve.is_none() || free < self.segment_bytes;
        if self.counters.low.swap(low, Ordering::Relaxed) != low {
            tracing::warn!(low, free_bytes = free, "room for the log");
        }
        Ok(())
    }

    /// Writes a group as one batch and makes it durable.
    pub(super) fn write(
        &mut self,
        group: &[Job],
        committed: Option<Position>,
    ) -> Result<(), WalError> {
        let mut builder = std::mem::replace(&mut self.builder, BatchBuilder::new());
        builder.clear();
        let before = self.state;
        let placed = self.fill(&mut builder, group, committed);
        let result = self.write_batch(&mut builder, &placed, before);
        self.builder = builder;
        result
    }

    fn fill(
        &mut self,
        builder: &mut BatchBuilder,
        group: &[Job],
        committed: Option<Position>,
    ) -> Vec<Placed> {
        let mut placed = Vec::new();
        for job in group {
            match job {
                Job::Append { entries, serial, .. } => {
                    for (entry, serial) in entries.iter().zip(*serial..) {
                        let offset = builder.entry(entry);
                        let length = entry.payload.bytes().len();
                        placed.push(Placed { index: entry.id.index, serial, offset, length });
                        self.state.last = Some(entry.id);
                    }
                }
                Job::Vote { vote, .. } => {
                    builder.vote(vote);
                    self.state.vote = Some(*vote);
                }
                Job::Truncate { last, .. } => {
                    builder.truncate_after(*last);
                    self.state.last = last.or(self.state.purged);
                }
                Job::Purge { upto, .. } => {
                    builder.purge(*upto);
                    self.state.purged = self.state.purged.max(Some(*upto));
                    self.state.last = self
                        .state
                        .last
                        .filter(|last| last.index > upto.index)
                        .or(self.state.purged);
                }
            }
        }
        // Never ahead of what is written: a committed position without its entry would be no use.
        let covered =
            committed.filter(|at| self.state.last.is_some_and(|last| at.index <= last.index));
        if let Some(at) = covered.filter(|at| Some(*at) != self.state.committed) {
            builder.committed(at);
            self.state.committed = Some(at);
        }
        placed
    }

    /// `before` is the state without what is in the batch: a new segment begins with it, and the batch follows.
    fn write_batch(
        &mut self,
        builder: &mut BatchBuilder,
        placed: &[Placed],
        before: Written,
    ) -> Result<(), WalError> {
        let needed = builder.bytes();
        if !self.fits(needed)? {
            self.roll(needed, before)?;
        }
        let Some(used) = self.segments.back_mut() else { return Err(WalError::Closed) };
        let start = used.end;
        let batch = builder.finish(self.next_batch, used.segment.header.salt);
        let io = |source| WalError::Io { source };
        used.segment.file.write_at(batch, start).map_err(io)?;
        let unsynced = planted::is(Plant::LogUnsynced) && !placed.is_empty()
            || planted::is(Plant::VoteUnsynced) && self.state.vote != before.vote;
        if !unsynced {
            sync(&used.segment.file).map_err(io)?;
        }
        used.end += batch.len() as u64;
        self.next_batch += 1;
        self.counters.fsyncs.fetch_add(1, Ordering::Relaxed);
        self.counters.written.fetch_add(batch.len() as u64, Ordering::Relaxed);
        self.counters.disk.fetch_add(batch.len() as u64, Ordering::Relaxed);
        let mut index = self.index.lock();
        for entry in placed {
            used.highest = used.highest.max(Some(entry.index));
            let offset =
                u32::try_from(start.saturating_add(entry.offset as u64)).unwrap_or(u32::MAX);
            let length = u32::try_from(entry.length).unwrap_or(u32::MAX);
            index.written(
                entry.index,
                entry.serial,
                Stored { segment: used.segment.clone(), offset, length },
            );
        }
        Ok(())
    }

    fn fits(&self, needed: u64) -> Result<bool, WalError> {
        let Some(used) = self.segments.back() else { return Ok(false) };
        let length = used.segment.file.len().map_err(|source| WalError::Io { source })?;
        Ok(used.end.saturating_add(needed) <= length)
    }

    /// Begins the next segment with a checkpoint, so that older ones can be removed whole.
    fn roll(&mut self, needed: u64, before: Written) -> Result<(), WalError> {
        let segment = match self.reserve.take() {
            Some(segment) => segment,
            None => self.create()?,
        };
        let io = |source| WalError::Io { source };
        let mut checkpoint = BatchBuilder::new();
        before.vote.iter().for_each(|vote| checkpoint.vote(vote));
        before.committed.iter().for_each(|at| checkpoint.committed(*at));
        before.purged.iter().for_each(|at| checkpoint.purge(*at));
        let highest = self.segments.iter().filter_map(|used| used.highest).max();
        if let Some(highest) = highest {
            checkpoint.last(before.last, highest);
        }
        let room =
            (SEGMENT_HEADER as u64).saturating_add(checkpoint.bytes()).saturating_add(needed);
        if room > u64::from(u32::MAX) {
            let what = format!("a batch of {needed} bytes fits into no segment");
            return Err(WalError::Invalid { what });
        }
        if room > segment.file.len().map_err(io)? {
            segment.file.allocate(room).map_err(io)?;
            segment.file.sync_all().map_err(io)?;
        }
        self.segments.push_back(Used::empty(Arc::new(segment)));
        if !checkpoint.is_empty() {
            self.write_batch(&mut checkpoint, &[], before)?;
        }
        Ok(())
    }

    /// After a group, and while there is nothing to write: makes the next reserve, and removes the oldest segment if it holds
    /// nothing but purged entries. One at a time: each costs a sync of the directory, and the next group waits for it.
    pub(super) fn tidy(&mut self) -> Result<(), WalError> {
        if self.reserve.is_none() || self.looked.elapsed() >= LOOK {
            self.look_for_room()?;
        }
        let Some(purged) = self.state.purged else { return Ok(()) };
        let io = |source| WalError::Io { source };
        if self.segments.len() > 1
            && let Some(oldest) = self.segments.front()
            && oldest.highest.is_none_or(|highest| highest <= purged.index)
        {
            self.fs.remove_file(&oldest.segment.path).map_err(io)?;
            let bytes = oldest.end - SEGMENT_HEADER as u64;
            let disk = self.counters.disk.load(Ordering::Relaxed);
            self.counters.disk.store(disk.saturating_sub(bytes), Ordering::Relaxed);
            self.segments.pop_front();
            // Each for itself: a power cut must leave no gap in the numbers.
            self.fs.sync_dir(&self.dir).map_err(io)?;
        }
        Ok(())
    }

    /// Writes that the log was closed in order: damage to the last batch before it can't pass for a torn tail then.
    pub(super) fn close(&mut self) -> Result<(), WalError> {
        let mut builder = BatchBuilder::new();
        builder.closed();
        let before = self.state;
        self.write_batch(&mut builder, &[], before)
    }
}
