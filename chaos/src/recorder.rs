//! Writes the history of a run: one event a line, in the order of the calls, fsync'ed at a short interval.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::history::{Event, Micros};

/// How long what was recorded may lie in the page cache only.
const SYNC_INTERVAL: Duration = Duration::from_millis(50);

/// The history of a run while it is written. Shared by all who record.
///
/// An event is with the kernel when [`Recorder::record`] returns, and on the disk a moment later: the history outlives this
/// process, and of a crash of the machine at most its last moment.
#[derive(Debug)]
pub struct Recorder {
    began: Instant,
    path: PathBuf,
    file: Arc<Mutex<Output>>,
    stop: Mutex<Option<(Sender<()>, JoinHandle<()>)>>,
}

#[derive(Debug)]
struct Output {
    file: File,
    dirty: bool,
    /// The first failure. What comes after it is worth nothing.
    failed: Option<String>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every value behind these locks is whole between two statements.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Output {
    fn write(&mut self, line: &[u8]) {
        if self.failed.is_none() {
            match self.file.write_all(line) {
                Ok(()) => self.dirty = true,
                Err(error) => self.failed = Some(format!("write: {error}")),
            }
        }
    }

    /// A copy of the descriptor if there is something to sync: nobody who records waits for the disk.
    fn take_dirty(&mut self) -> Option<std::io::Result<File>> {
        std::mem::take(&mut self.dirty).then(|| self.file.try_clone())
    }
}

fn sync(output: &Mutex<Output>) {
    let Some(file) = locked(output).take_dirty() else { return };
    if let Err(error) = file.and_then(|file| file.sync_data()) {
        locked(output).failed.get_or_insert_with(|| format!("fsync: {error}"));
    }
}

impl Recorder {
    /// Makes a new history. The run's clock begins now.
    ///
    /// # Errors
    /// If the file is there already or can't be made.
    pub fn create(path: &Path) -> anyhow::Result<Arc<Self>> {
        let file = OpenOptions::new().append(true).create_new(true).open(path);
        let file = file.with_context(|| format!("making {}", path.display()))?;
        let output = Arc::new(Mutex::new(Output { file, dirty: false, failed: None }));
        let (stop, stopped) = channel();
        let synced = Arc::clone(&output);
        let thread = std::thread::Builder::new().name("history".to_owned()).spawn(move || {
            while stopped.recv_timeout(SYNC_INTERVAL) == Err(RecvTimeoutError::Timeout) {
                sync(&synced);
            }
        });
        let thread = thread.context("a thread for the history")?;
        Ok(Arc::new(Self {
            began: Instant::now(),
            path: path.to_owned(),
            file: output,
            stop: Mutex::new(Some((stop, thread))),
        }))
    }

    /// Microseconds since the run began.
    pub fn now(&self) -> Micros {
        Micros::try_from(self.began.elapsed().as_micros()).unwrap_or(Micros::MAX)
    }

    /// A moment as microseconds since the run began.
    pub fn at(&self, moment: Instant) -> Micros {
        let elapsed = moment.saturating_duration_since(self.began).as_micros();
        Micros::try_from(elapsed).unwrap_or(Micros::MAX)
    }

    /// Writes an event down. A failure is told by [`Recorder::finish`], which a run that counts must come to.
    pub fn record(&self, event: &Event) {
        let line = serde_json::to_vec(event).map(|mut line| {
            line.push(b'\n');
            line
        });
        let mut output = locked(&self.file);
        match line {
            Ok(line) => output.write(&line),
            Err(error) => {
                output.failed.get_or_insert_with(|| error.to_string());
            }
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Syncs what was recorded. More may follow.
    ///
    /// # Errors
    /// If any event so far was not written down for good.
    pub fn finish(&self) -> anyhow::Result<()> {
        if let Some((stop, thread)) = locked(&self.stop).take() {
            drop(stop);
            if thread.join().is_err() {
                anyhow::bail!("the thread that syncs the history panicked");
            }
        }
        sync(&self.file);
        match &locked(&self.file).failed {
            None => Ok(()),
            Some(why) => anyhow::bail!("{} is not whole: {why}", self.path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_on_file_in_order_one_a_line_and_an_old_history_is_never_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("history.jsonl");
        let recorder = Recorder::create(&path).unwrap();
        for name in ["warm-up", "faults"] {
            let at = recorder.now();
            recorder.record(&Event::Phase { at, name: name.to_owned() });
        }
        // Before anything is finished: the file is as good as the process that wrote it.
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<Event> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let [Event::Phase { at: first, name }, Event::Phase { at: second, .. }] = &lines[..] else {
            panic!("{text}")
        };
        assert!(first <= second && name == "warm-up", "{text}");
        recorder.finish().unwrap();
        assert!(Recorder::create(&path).unwrap_err().to_string().contains("history.jsonl"));
    }

    #[test]
    fn a_history_that_could_not_be_written_is_told_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let recorder = Recorder::create(&dir.path().join("history.jsonl")).unwrap();
        locked(&recorder.file).file = File::open("/dev/null").unwrap();
        recorder.record(&Event::End { at: 0 });
        assert!(recorder.finish().unwrap_err().to_string().contains("not whole"));
    }
}
