//! A file of checkpoints, to be copied off the server by whoever copies files.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use crate::client::evidence::{Checkpoint, EvidenceError};
use crate::domain::ClusterId;

use super::{CheckpointFileError, Sink};

/// More than the longest line with its newline.
const LINE_BYTES: u64 = 64 * 1024 + 1;

/// What every line begins with.
const BEGINNING: &[u8] = b"{\"format\":\"holdfast audit checkpoint ";

/// The file that checkpoints are appended to.
#[derive(Debug)]
pub(in super::super) struct CheckpointFile {
    path: PathBuf,
    cluster: ClusterId,
    failing: AtomicBool,
}

impl CheckpointFile {
    /// A file of this cluster's checkpoints, which is made if it is missing, and its newest one. Nobody vouches for that one
    /// yet.
    pub(in super::super) fn find(
        path: &Path,
        cluster: ClusterId,
    ) -> Result<(Self, Option<Checkpoint>), CheckpointFileError> {
        let file = Self { path: path.to_owned(), cluster, failing: AtomicBool::new(false) };
        let (_, last) = file.open()?;
        Ok((file, last))
    }

    /// Opens it for appending, without what a crash or a full disk left of a last line.
    fn open(&self) -> Result<(File, Option<Checkpoint>), CheckpointFileError> {
        let opened = self.open_or_make();
        let (mut file, made) = opened.map_err(|source| self.io(source))?;
        // Another process that appends is waited for, not cut off: the next try is a second away.
        file.try_lock().map_err(|error| self.io(error.into()))?;
        if made {
            return Ok((file, None));
        }
        let (tail, length) = read_tail(&mut file).map_err(|source| self.io(source))?;
        let whole =
            tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at.saturating_add(1));
        let (lines, torn) = tail.split_at_checked(whole).unwrap_or_default();
        let last = lines.strip_suffix(b"\n").and_then(|lines| lines.rsplit(|b| *b == b'\n').next());
        let last = last.map(|line| self.read(line)).transpose()?;
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

    fn read(&self, line: &[u8]) -> Result<Checkpoint, CheckpointFileError> {
        let checkpoint = Checkpoint::from_line(line).map_err(|source| self.content(source))?;
        if checkpoint.cluster != self.cluster {
            let (path, found) = (self.path.clone(), checkpoint.cluster);
            return Err(CheckpointFileError::Foreign { path, found });
        }
        Ok(checkpoint)
    }

    fn io(&self, source: std::io::Error) -> CheckpointFileError {
        CheckpointFileError::Io { path: self.path.clone(), source }
    }

    fn content(&self, source: EvidenceError) -> CheckpointFileError {
        CheckpointFileError::Content { path: self.path.clone(), source }
    }
}

impl Sink for CheckpointFile {
    fn path(&self) -> &Path {
        &self.path
    }

    /// The file is opened anew each time, so that it may be moved away.
    fn append(&self, checkpoint: &Checkpoint) -> Result<(), CheckpointFileError> {
        let line = checkpoint.to_line().map_err(|error| self.io(error.into()))?;
        let (mut file, _) = self.open()?;
        file.write_all(line.as_bytes())
            .and_then(|()| file.sync_all())
            .map_err(|source| self.io(source))
    }

    fn failing(&self) -> &AtomicBool {
        &self.failing
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
