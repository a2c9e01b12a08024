//! Checkpoints that wait for the collector, on disk: neither a restart nor a collector that is away skips one.
//!
//! A directory with a file for each, named by a number that only grows: `NNNNNNNNNNNNNNNNNNNN.waiting`. The newest that was
//! handed over stays as `.sent`, so that a restart knows where it stands. Nothing but this process writes there.

use std::collections::VecDeque;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::client::evidence::Checkpoint;
use crate::domain::{ClusterId, Timestamp};
use crate::fs::{StdFs, parent, write_atomically};

use super::super::checkpoints::{CheckpointFileError, Sink};

/// Most checkpoints that wait: a week at one a minute.
const MOST: usize = 10_000;
/// More than the longest line.
const LINE_BYTES: u64 = 64 * 1024;

const LOCK: &str = "lock";
const WAITING: &str = "waiting";
const SENT: &str = "sent";
const DAMAGED: &str = "damaged";

/// One that waits.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    number: u64,
    /// When it was signed.
    signed: Timestamp,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    /// The newest that was handed over.
    sent: Option<u64>,
    /// Number of the next one.
    next: u64,
}

/// Keeps the directory for this process, for as long as it is.
#[derive(Debug)]
pub(super) struct Lock(#[expect(dead_code, reason = "its end is what it is for")] File);

/// The directory.
#[derive(Debug)]
pub(in super::super) struct Spool {
    dir: PathBuf,
    cluster: ClusterId,
    /// Most that wait.
    pub(super) most: usize,
    queue: Mutex<Queue>,
    /// How many wait.
    count: watch::Sender<usize>,
    failing: AtomicBool,
    replaced: AtomicU64,
    lock: Mutex<Option<Lock>>,
}

impl Spool {
    /// The spool of this cluster's checkpoints, which is made if it is missing, and its newest checkpoint, handed over or not.
    pub(in super::super) fn find(
        dir: &Path,
        cluster: ClusterId,
    ) -> Result<(Self, Option<Checkpoint>), CheckpointFileError> {
        make(dir).map_err(|source| io(dir, source))?;
        let lock = lock(&dir.join(LOCK))?;
        let spool = Self {
            dir: dir.to_owned(),
            cluster,
            most: MOST,
            queue: Mutex::default(),
            count: watch::Sender::new(0),
            failing: AtomicBool::new(false),
            replaced: AtomicU64::new(0),
            lock: Mutex::new(Some(lock)),
        };
        let (waiting, sent) = spool.list()?;
        let mut newest = None;
        let mut queue = Queue { next: 1, ..Queue::default() };
        if let Some(number) = sent {
            newest = Some(spool.read(&spool.path_of(number, SENT))?);
            queue.sent = Some(number);
            queue.next = number.saturating_add(1);
        }
        for number in waiting {
            if let Some(checkpoint) = spool.load(number)? {
                queue.waiting.push_back(Waiting { number, signed: checkpoint.facts.time });
                newest = Some(checkpoint);
            }
            queue.next = queue.next.max(number.saturating_add(1));
        }
        spool.count.send_replace(queue.waiting.len());
        *spool.queue.lock() = queue;
        Ok((spool, newest))
    }

    /// Numbers of those that wait, ascending, and of the newest that was handed over. What a crash left unfinished goes.
    fn list(&self) -> Result<(Vec<u64>, Option<u64>), CheckpointFileError> {
        let failed = |source| io(&self.dir, source);
        let (mut waiting, mut sent) = (Vec::new(), Vec::new());
        for entry in std::fs::read_dir(&self.dir).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let (stem, kind) = name.rsplit_once('.').unwrap_or((name, ""));
            let number = stem.parse::<u64>().ok().filter(|_| stem.len() == 20);
            match (number, kind) {
                (Some(number), WAITING) => waiting.push(number),
                (Some(number), SENT) => sent.push((number, path)),
                (Some(_), DAMAGED) => {}
                (None, "") if stem == LOCK => {}
                (None, "tmp") => std::fs::remove_file(&path).map_err(|source| io(&path, source))?,
                _ => {
                    let what = "no file of a spool: give the spool a directory of its own";
                    return Err(io(&path, std::io::Error::other(what)));
                }
            }
        }
        waiting.sort_unstable();
        sent.sort_unstable();
        let newest = sent.pop();
        for (_, path) in sent {
            remove(&path)?;
        }
        Ok((waiting, newest.map(|(number, _)| number)))
    }

    fn path_of(&self, number: u64, kind: &str) -> PathBuf {
        self.dir.join(format!("{number:020}.{kind}"))
    }

    fn read(&self, path: &Path) -> Result<Checkpoint, CheckpointFileError> {
        let mut line = Vec::new();
        File::open(path)
            .and_then(|file| file.take(LINE_BYTES.saturating_add(2)).read_to_end(&mut line))
            .map_err(|source| io(path, source))?;
        let line = line.strip_suffix(b"\n").unwrap_or(&line);
        let checkpoint = Checkpoint::from_line(line)
            .map_err(|source| CheckpointFileError::Content { path: path.to_owned(), source })?;
        if checkpoint.cluster != self.cluster {
            let (path, found) = (path.to_owned(), checkpoint.cluster);
            return Err(CheckpointFileError::Foreign { path, found });
        }
        Ok(checkpoint)
    }

    /// One that waits; `None`, and a word in the log, if there is none any more: it was taken away, or is damaged.
    fn load(&self, number: u64) -> Result<Option<Checkpoint>, CheckpointFileError> {
        let path = self.path_of(number, WAITING);
        match self.read(&path) {
            Ok(checkpoint) => Ok(Some(checkpoint)),
            Err(CheckpointFileError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
                tracing::error!(path = %path.display(), "a checkpoint that waited for the collector was taken away");
                Ok(None)
            }
            Err(error @ CheckpointFileError::Content { .. }) => {
                tracing::error!(%error, "a checkpoint that waits for the collector is damaged; it is put aside");
                let aside = self.path_of(number, DAMAGED);
                std::fs::rename(&path, &aside).map_err(|source| io(&path, source))?;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The oldest that wait, at most so many, with their numbers.
    pub(super) fn oldest(
        &self,
        most: usize,
    ) -> Result<Vec<(u64, Checkpoint)>, CheckpointFileError> {
        let numbers: Vec<u64> =
            self.queue.lock().waiting.iter().take(most).map(|one| one.number).collect();
        let mut found = Vec::with_capacity(numbers.len());
        for number in numbers {
            match self.load(number)? {
                Some(checkpoint) => found.push((number, checkpoint)),
                None => self.forget(&[number]),
            }
        }
        Ok(found)
    }

    /// Notes that those were handed over. Until it has returned they may be handed over again.
    pub(super) fn handed_over(&self, numbers: &[u64]) -> Result<(), CheckpointFileError> {
        let Some(newest) = numbers.iter().copied().max() else { return Ok(()) };
        let (from, to) = (self.path_of(newest, WAITING), self.path_of(newest, SENT));
        std::fs::rename(&from, &to).map_err(|source| io(&from, source))?;
        let before = self.queue.lock().sent.replace(newest);
        for number in numbers.iter().filter(|number| **number != newest) {
            remove(&self.path_of(*number, WAITING))?;
        }
        if let Some(before) = before {
            remove(&self.path_of(before, SENT))?;
        }
        self.forget(numbers);
        Ok(())
    }

    fn forget(&self, numbers: &[u64]) {
        let mut queue = self.queue.lock();
        queue.waiting.retain(|one| !numbers.contains(&one.number));
        self.count.send_replace(queue.waiting.len());
    }

    /// Gives the lock to whoever empties the spool: a server that has ended is no longer in the way of the next one, whoever still
    /// looks at its numbers.
    pub(super) fn give_lock(&self) -> Option<Lock> {
        self.lock.lock().take()
    }

    /// How many wait, now and later.
    pub(super) fn count(&self) -> watch::Receiver<usize> {
        self.count.subscribe()
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        *self.count.borrow()
    }

    /// When the oldest that waits was signed.
    pub(super) fn oldest_signed(&self) -> Option<Timestamp> {
        self.queue.lock().waiting.front().map(|one| one.signed)
    }

    /// How many gave their place to a newer one since the start, for want of room.
    pub(super) fn replaced(&self) -> u64 {
        self.replaced.load(Ordering::Relaxed)
    }
}

impl Sink for Spool {
    fn path(&self) -> &Path {
        &self.dir
    }

    /// If too many wait already, the newest of them goes: the one that is added vouches for all that it vouched for.
    fn append(&self, checkpoint: &Checkpoint) -> Result<(), CheckpointFileError> {
        let number = {
            let mut queue = self.queue.lock();
            let number = queue.next;
            queue.next = number.saturating_add(1);
            number
        };
        let path = self.path_of(number, WAITING);
        let line = checkpoint.to_line().map_err(|error| io(&path, error.into()))?;
        // Not under the lock: whoever wants a number from it waits for no disk.
        write_atomically(&StdFs, &path, line.as_bytes()).map_err(|source| io(&path, source))?;
        let gone = {
            let mut queue = self.queue.lock();
            let full = queue.waiting.len() >= self.most;
            let gone = full.then(|| queue.waiting.pop_back()).flatten();
            queue.waiting.push_back(Waiting { number, signed: checkpoint.facts.time });
            self.count.send_replace(queue.waiting.len());
            gone
        };
        if let Some(gone) = gone {
            self.replaced.fetch_add(1, Ordering::Relaxed);
            remove(&self.path_of(gone.number, WAITING))?;
        }
        Ok(())
    }

    fn failing(&self) -> &AtomicBool {
        &self.failing
    }
}

/// Makes the directory, whose own place must exist.
fn make(dir: &Path) -> std::io::Result<()> {
    match DirBuilder::new().mode(0o750).create(dir) {
        Ok(()) => File::open(parent(dir))?.sync_all(),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

fn lock(path: &Path) -> Result<Lock, CheckpointFileError> {
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(false).open(path);
    let file = file.map_err(|source| io(path, source))?;
    file.try_lock().map_err(|error| io(path, error.into()))?;
    Ok(Lock(file))
}

/// Removes a file that may be gone already.
fn remove(path: &Path) -> Result<(), CheckpointFileError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(io(path, error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn io(path: &Path, source: std::io::Error) -> CheckpointFileError {
    CheckpointFileError::Io { path: path.to_owned(), source }
}
