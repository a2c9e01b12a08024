//! Writes what is asked for, one group at a time: one write and one fdatasync for all that has gathered.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;

use super::format::{BatchBuilder, RECORD_HEADER, SEGMENT_HEADER, SegmentHeader};
use super::index::{Index, SharedIndex};
use super::recover::{Recovered, Used};
use super::segment::{Segment, Stored};
use super::types::{Done, LogEntry, Space, Vote, WalError, WalOptions};
use crate::fs::{Fs, FsFile};
use crate::planted::{self, Plant};
use crate::state::Position;

/// A group is closed at this size, so that one slow write holds up few.
const GROUP_BYTES: usize = 1024 * 1024;
/// How often room is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// One thing to write.
pub(super) enum Job {
    Append { entries: Vec<LogEntry>, serial: u64, done: Done },
    Vote { vote: Vote, done: Done },
    Truncate { last: Option<Position>, done: Done },
    Purge { upto: Position, done: Done },
}

/// Numbers for metrics.
#[derive(Default)]
pub(super) struct Counters {
    fsyncs: AtomicU64,
    written: AtomicU64,
    disk: AtomicU64,
    low: AtomicBool,
}

impl Counters {
    pub(super) fn fsyncs(&self) -> u64 {
        self.fsyncs.load(Ordering::Relaxed)
    }

    pub(super) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    pub(super) fn disk_bytes(&self) -> u64 {
        self.disk.load(Ordering::Relaxed)
    }

    pub(super) fn space(&self) -> Space {
        if self.low.load(Ordering::Relaxed) { Space::Low } else { Space::Plenty }
    }
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    closed: bool,
}

/// What all handles share with the writer.
pub(super) struct Shared<F: Fs> {
    pub(super) index: SharedIndex<F>,
    pub(super) durable: watch::Sender<Option<u64>>,
    pub(super) failure: OnceLock<Arc<WalError>>,
    pub(super) counters: Arc<Counters>,
    queue: Mutex<Queue>,
    wake: Condvar,
    writer: Mutex<Option<Writer<F>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    inline: bool,
}

impl<F: Fs> Shared<F> {
    pub(super) fn start(
        fs: F,
        dir: &Path,
        options: WalOptions,
        found: Recovered<F>,
    ) -> Result<Arc<Self>, WalError> {
        let inline = options.inline;
        let counters = Arc::new(Counters::default());
        let durable = found.index.durable();
        let (writer, index) = Writer::new(fs, dir, options, found, counters.clone())?;
        Ok(Arc::new(Self {
            index,
            durable: watch::Sender::new(durable),
            failure: OnceLock::new(),
            counters,
            queue: Mutex::default(),
            wake: Condvar::new(),
            writer: Mutex::new(Some(writer)),
            thread: Mutex::new(None),
            inline,
        }))
    }

    /// Whether the log still takes anything.
    pub(super) fn check(&self) -> Result<(), WalError> {
        if let Some(failure) = self.failure.get() {
            return Err(WalError::Poisoned(failure.clone()));
        }
        if self.queue.lock().closed { Err(WalError::Closed) } else { Ok(()) }
    }

    /// Changes the index and queues the job under one lock, so that both happen in the same order.
    pub(super) fn submit(
        &self,
        change: impl FnOnce(&mut Index<F>) -> Result<Job, WalError>,
    ) -> Result<(), WalError> {
        {
            let mut index = self.index.lock();
            let mut queue = self.queue.lock();
            // Asked again under the lock: the writer may have ended since, and nobody would call `done`.
            if queue.closed {
                return Err(WalError::Closed);
            }
            queue.jobs.push_back(change(&mut index)?);
            drop(queue);
            self.tell_durable(&index);
        }
        if self.inline {
            self.run_pending();
        } else {
            self.wake.notify_one();
        }
        Ok(())
    }

    /// Called with the index locked, so that an older value never overwrites a newer one. It goes back when entries are
    /// cut off: those that take their places aren't durable because the old ones were (I2).
    fn tell_durable(&self, index: &Index<F>) {
        let now = index.durable();
        self.durable.send_if_modified(|known| std::mem::replace(known, now) != now);
    }

    /// Runs what is queued on the caller's thread.
    fn run_pending(&self) {
        let mut writer = self.writer.lock();
        let jobs = std::mem::take(&mut self.queue.lock().jobs);
        if let Some(writer) = writer.as_mut().filter(|_| !jobs.is_empty()) {
            self.run(writer, jobs);
        }
    }

    /// The writer's thread: takes what has gathered, until the log is closed and nothing is left.
    fn work(&self, mut writer: Writer<F>) {
        loop {
            let jobs = {
                let mut queue = self.queue.lock();
                if queue.jobs.is_empty() && !queue.closed {
                    self.wake.wait_for(&mut queue, LOOK);
                }
                if queue.jobs.is_empty() && queue.closed {
                    break;
                }
                std::mem::take(&mut queue.jobs)
            };
            if !jobs.is_empty() {
                self.run(&mut writer, jobs);
            } else if self.failure.get().is_none()
                && let Err(error) = writer.look_for_room()
            {
                self.poison(error);
            }
        }
        self.finish(&mut writer);
    }

    fn run(&self, writer: &mut Writer<F>, mut jobs: VecDeque<Job>) {
        while !jobs.is_empty() {
            let mut group = Vec::new();
            let mut bytes = 0;
            while let Some(job) = jobs.pop_front() {
                bytes += job_bytes(&job);
                group.push(job);
                if bytes >= GROUP_BYTES {
                    break;
                }
            }
            self.write_group(writer, group);
        }
    }

    fn write_group(&self, writer: &mut Writer<F>, group: Vec<Job>) {
        let result = match self.failure.get() {
            Some(failure) => Err(failure.clone()),
            None => {
                let committed = self.index.lock().committed;
                writer.write(&group, committed).map_err(|error| self.poison(error))
            }
        };
        if result.is_ok() {
            self.tell_durable(&self.index.lock());
        }
        for job in group {
            let (Job::Append { done, .. }
            | Job::Vote { done, .. }
            | Job::Truncate { done, .. }
            | Job::Purge { done, .. }) = job;
            done(result.clone());
        }
        if result.is_ok()
            && let Err(error) = writer.tidy()
        {
            self.poison(error);
        }
    }

    /// I1: after a failed write or fsync nobody knows what is on disk; nothing is tried again.
    fn poison(&self, error: WalError) -> Arc<WalError> {
        let error = self.failure.get_or_init(|| {
            tracing::error!(%error, "the log failed; the node stops");
            Arc::new(error)
        });
        error.clone()
    }

    fn finish(&self, writer: &mut Writer<F>) {
        if self.failure.get().is_none()
            && let Err(error) = writer.close()
        {
            self.poison(error);
        }
    }

    pub(super) fn close(&self) {
        let first = !std::mem::replace(&mut self.queue.lock().closed, true);
        self.wake.notify_all();
        let thread = self.thread.lock().take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the log's writer panicked");
        }
        if self.inline && first {
            let mut writer = self.writer.lock().take();
            if let Some(writer) = writer.as_mut() {
                self.finish(writer);
            }
        }
    }
}

/// Starts the writer's thread. It ends when the log is closed.
pub(super) fn spawn<F: Fs>(shared: &Arc<Shared<F>>) -> Result<(), WalError> {
    let Some(writer) = shared.writer.lock().take() else { return Ok(()) };
    let worker = shared.clone();
    let thread = std::thread::Builder::new()
        .name("wal".to_owned())
        .spawn(move || worker.work(writer))
        .map_err(|source| WalError::Io { source })?;
    *shared.thread.lock() = Some(thread);
    Ok(())
}

/// Brings a batch to disk. Never twice: after a failed one the second proves nothing (I1).
fn sync(file: &impl FsFile) -> std::io::Result<()> {
    match file.sync_data() {
        Err(_) if planted::is(Plant::FsyncAgain) => file.sync_data(),
        synced => synced,
    }
}

fn job_bytes(job: &Job) -> usize {
    match job {
        Job::Append { entries, .. } => entries
            .iter()
            .map(|entry| entry.payload.bytes().len().saturating_add(RECORD_HEADER))
            .sum(),
        Job::Vote { .. } | Job::Truncate { .. } | Job::Purge { .. } => RECORD_HEADER,
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
struct Writer<F: Fs> {
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
    fn new(
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
    fn write(&mut self, group: &[Job], committed: Option<Position>) -> Result<(), WalError> {
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

    /// After a group: makes the next reserve, and removes segments that hold nothing but purged entries.
    fn tidy(&mut self) -> Result<(), WalError> {
        if self.reserve.is_none() || self.looked.elapsed() >= LOOK {
            self.look_for_room()?;
        }
        let Some(purged) = self.state.purged else { return Ok(()) };
        let io = |source| WalError::Io { source };
        while self.segments.len() > 1
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
    fn close(&mut self) -> Result<(), WalError> {
        let mut builder = BatchBuilder::new();
        builder.closed();
        let before = self.state;
        self.write_batch(&mut builder, &[], before)
    }
}
