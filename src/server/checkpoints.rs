//! Signed checkpoints of the audit chain in a file: what, copied off the servers, shows that their chain was rewritten.
//!
//! A line is appended and synced when the chain has grown by so many records, and within a minute if it has grown at all.
//! At least once: what could not be written is tried again, and after a restart the file says where it stands.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::client::evidence::{Checkpoint, EvidenceError};
use crate::crypto::NodeSigner;
use crate::domain::ClusterId;
use crate::service::{Context, SignedCheckpoint, local_checkpoint};

use super::node::ServerNode;

/// How often the chain is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How long a record may wait for a checkpoint.
const INTERVAL: Duration = Duration::from_secs(60);
/// More than the longest line with its newline.
const LINE_BYTES: u64 = 64 * 1024 + 1;

/// What every line begins with.
const BEGINNING: &[u8] = b"{\"format\":\"holdfast audit checkpoint ";

/// Why the file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointFileError {
    /// The system refuses.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Its last line is no checkpoint: it is some other file.
    #[error("{}: its last line is no checkpoint: {source}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: EvidenceError,
    },
    /// It is another cluster's.
    #[error("{}: it has the checkpoints of cluster {found}", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        found: ClusterId,
    },
}

/// The file that checkpoints are appended to.
#[derive(Debug)]
pub(super) struct CheckpointFile {
    path: PathBuf,
    cluster: ClusterId,
    failing: AtomicBool,
}

impl CheckpointFile {
    /// A file of this cluster's checkpoints, which is made if it is missing, and the record that its newest checkpoint is
    /// about; 0 if there is none.
    pub(super) fn find(
        path: &Path,
        cluster: ClusterId,
    ) -> Result<(Self, u64), CheckpointFileError> {
        let file = Self { path: path.to_owned(), cluster, failing: AtomicBool::new(false) };
        let (_, last) = file.open()?;
        Ok((file, last))
    }

    /// Whether the newest checkpoint could not be written.
    pub(super) fn failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    /// Appends a checkpoint and brings it to disk. The file is opened anew each time, so that it may be moved away.
    pub(super) fn append(&self, checkpoint: &Checkpoint) -> Result<(), CheckpointFileError> {
        let line = checkpoint.to_line().map_err(|error| self.io(error.into()))?;
        let (mut file, _) = self.open()?;
        file.write_all(line.as_bytes())
            .and_then(|()| file.sync_all())
            .map_err(|source| self.io(source))
    }

    /// Opens it for appending, without what a crash or a full disk left of a last line.
    fn open(&self) -> Result<(File, u64), CheckpointFileError> {
        let opened = self.open_or_make();
        let (mut file, made) = opened.map_err(|source| self.io(source))?;
        // Another process that appends is waited for, not cut off: the next try is a second away.
        file.try_lock().map_err(|error| self.io(error.into()))?;
        if made {
            return Ok((file, 0));
        }
        let (tail, length) = read_tail(&mut file).map_err(|source| self.io(source))?;
        let whole =
            tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at.saturating_add(1));
        let (lines, torn) = tail.split_at_checked(whole).unwrap_or_default();
        let last = lines.strip_suffix(b"\n").and_then(|lines| lines.rsplit(|b| *b == b'\n').next());
        let last = last.map_or(Ok(0), |line| self.sequence_of(line))?;
        if !torn.starts_with(BEGINNING) && !BEGINNING.starts_with(torn) {
            // Not ours to cut off.
            return Err(self.content(EvidenceError::CutLine));
        }
        if !torn.is_empty() {
            tracing::warn!(path = %self.path.display(), "a torn last checkpoint is cut off");
            let torn = u64::try_from(torn.len()).unwrap_or(0);
            file.set_len(length.saturating_sub(torn)).map_err(|source| self.io(source))?;
        }
        file.seek(SeekFrom::End(0)).map_err(|source| self.io(source))?;
        Ok((file, last))
    }

    /// The file, and whether it was made just now.
    fn open_or_make(&self) -> std::io::Result<(File, bool)> {
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        match options.open(&self.path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let file = options.create_new(true).mode(0o640).open(&self.path)?;
                let parent = self.path.parent().unwrap_or(Path::new("/"));
                File::open(parent)?.sync_all()?;
                Ok((file, true))
            }
            opened => opened.map(|file| (file, false)),
        }
    }

    fn sequence_of(&self, line: &[u8]) -> Result<u64, CheckpointFileError> {
        let checkpoint = Checkpoint::from_line(line).map_err(|source| self.content(source))?;
        if checkpoint.cluster != self.cluster {
            let (path, found) = (self.path.clone(), checkpoint.cluster);
            return Err(CheckpointFileError::Foreign { path, found });
        }
        Ok(checkpoint.facts.head.sequence)
    }

    fn io(&self, source: std::io::Error) -> CheckpointFileError {
        CheckpointFileError::Io { path: self.path.clone(), source }
    }

    fn content(&self, source: EvidenceError) -> CheckpointFileError {
        CheckpointFileError::Content { path: self.path.clone(), source }
    }
}

/// The end of a file, long enough for a whole line and a torn one, and the file's length.
fn read_tail(file: &mut File) -> std::io::Result<(Vec<u8>, u64)> {
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LINE_BYTES.saturating_mul(2))))?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail)?;
    Ok((tail, length))
}

/// When a checkpoint is due.
#[derive(Debug)]
struct Pace {
    records: u64,
    last: u64,
    written: Instant,
}

impl Pace {
    fn is_due(&self, head: u64, now: Instant) -> bool {
        let grown = head.saturating_sub(self.last);
        grown >= self.records || (grown > 0 && now.duration_since(self.written) >= INTERVAL)
    }
}

/// Writes a checkpoint after every so many records, and within a minute after any; for ever. The newest in the file is
/// about record `last`.
pub(super) async fn keep<N: ServerNode>(
    context: Arc<Context<N>>,
    signer: watch::Receiver<Arc<NodeSigner>>,
    file: Arc<CheckpointFile>,
    last: u64,
    records: u64,
) {
    let mut pace = Pace { records, last, written: Instant::now() };
    let mut tick = tokio::time::interval(LOOK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let newest = Arc::clone(&signer.borrow());
        let signed = match local_checkpoint(&context, &newest) {
            Ok(Some(signed)) => signed,
            Ok(None) => continue,
            Err(error) => {
                tracing::error!(%error, "the head of the audit chain can't be read");
                if let crate::service::ServiceError::Store(fault) = &error {
                    context.report_fault(fault);
                }
                return;
            }
        };
        let head = signed.facts.head.sequence;
        let now = Instant::now();
        if !pace.is_due(head, now) {
            continue;
        }
        let SignedCheckpoint { cluster, facts, node, signature, signer_chain } = signed;
        let checkpoint = Checkpoint { cluster, facts, node, signature, signer_chain };
        let writing = Arc::clone(&file);
        let written = crate::turns::blocking(move || writing.append(&checkpoint)).await;
        let Ok(written) = written else { return };
        report(&file, written.as_ref().err());
        if written.is_ok() {
            pace = Pace { last: head, written: now, ..pace };
        }
    }
}

/// Says once that it fails, and once that it works again.
fn report(file: &CheckpointFile, error: Option<&CheckpointFileError>) {
    let failed_before = file.failing.swap(error.is_some(), Ordering::Relaxed);
    match error {
        Some(error) if !failed_before => {
            tracing::error!(%error, "checkpoints of the audit chain can't be written; they are tried again");
        }
        None if failed_before => tracing::info!("checkpoints of the audit chain are written again"),
        Some(_) | None => {}
    }
}

#[cfg(test)]
mod tests;
