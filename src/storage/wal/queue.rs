//! What is asked of the log, and the thread that does it: one group at a time, one write and one fdatasync for all that has
//! gathered.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;

use super::format::RECORD_HEADER;
use super::index::{Index, SharedIndex};
use super::recover::Recovered;
use super::types::{Done, LogEntry, Space, Vote, WalError, WalOptions};
use super::writer::{LOOK, Writer};
use crate::fs::Fs;
use crate::state::Position;

/// A group is closed at this size, so that one slow write holds up few.
const GROUP_BYTES: usize = 1024 * 1024;
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
    pub(super) fsyncs: AtomicU64,
    pub(super) written: AtomicU64,
    pub(super) disk: AtomicU64,
    pub(super) low: AtomicBool,
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
                && let Err(error) = writer.tidy()
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

fn job_bytes(job: &Job) -> usize {
    match job {
        Job::Append { entries, .. } => entries
            .iter()
            .map(|entry| entry.payload.bytes().len().saturating_add(RECORD_HEADER))
            .sum(),
        Job::Vote { .. } | Job::Truncate { .. } | Job::Purge { .. } => RECORD_HEADER,
    }
}
