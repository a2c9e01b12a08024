//! Encrypts a volume in place.
//!
//! cryptsetup begins it by making the header in a file of its own, copying the first 16 MiB of the data to the end of the volume, and
//! then writing the header over them. Killed within that last write, it leaves a volume that is neither: so the file lies in a directory of
//! ours, with a note of what it is for, until the header is proven.
//!
//! From then on the header says everything. It has room for one key until the encryption is complete, and for no token: the key is
//! the recovery key, and the header's label names it.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::ext::{FileSystem, SUPERBLOCK_AT, SUPERBLOCK_BYTES};
use super::header::{self, Content};
use super::metadata::{Conversion, MovedHead};
use super::token::{label, mark};
use super::tool::NewHeader;
use super::{Luks2, Seen};
use crate::agent::VolumeError;
use crate::agent::volume::{
    EncryptionPlan, KeyName, Obstacle, Progress, Proof, Settled, UnlockSecret, Unsupported,
};
use crate::domain::{KeyVersion, ProtectorId, ProtectorKind, RecoveryKey, VolumeId};
use crate::fs::{Fs as _, StdFs, read_file, write_atomically};

/// The note beside a header that is being made.
const NOTE: &str = "begin.json";
/// How much is compared at a time.
const CHUNK: usize = 1024 * 1024;

/// What a header is being made for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Note {
    pub(super) path: PathBuf,
    /// UUID of the file system, by which its copy at the end of the volume is known.
    pub(super) file_system: String,
    pub(super) volume: VolumeId,
    pub(super) key: ProtectorId,
    pub(super) version: KeyVersion,
    /// Of a header that is being removed again: where the beginning of the data lies, and how long it is.
    pub(super) back: Option<(u64, u64)>,
}

/// A header that is being made or removed, and its directory.
pub(super) struct Attempt {
    directory: PathBuf,
    note: Note,
}

impl Attempt {
    fn plan(&self) -> EncryptionPlan {
        let key = KeyName { id: self.note.key, version: self.note.version };
        EncryptionPlan { volume: self.note.volume, key }
    }

    /// The file that cryptsetup makes the header in.
    fn header(&self) -> PathBuf {
        self.directory.join(format!("LUKS2-temp-{}.new", self.note.volume))
    }
}

impl Luks2 {
    pub(super) async fn begin(
        &self,
        path: &Path,
        plan: &EncryptionPlan,
        key: &RecoveryKey,
    ) -> Result<Proof, VolumeError> {
        if key.kind() != ProtectorKind::Luks2RecoveryKey {
            return Err(VolumeError::WrongKind);
        }
        self.tool.check().await?;
        self.settle_attempts(path).await?;
        let seen = self.look(path).await?;
        let file_system = plain(&seen)?;
        let path = &seen.disk.path;
        let note = Note {
            path: path.clone(),
            file_system: hex::encode(file_system.uuid),
            volume: plan.volume,
            key: plan.key.id,
            version: plan.key.version,
            back: None,
        };
        let attempt = self.attempt(note).await?;
        let label = label(plan.key);
        let header = NewHeader {
            volume: plan.volume,
            subsystem: &label,
            iterations: mark(plan.key.id),
            directory: &attempt.directory,
        };
        if let Err(error) = self.tool.begin_encryption(path, &header, key).await {
            // What was done is seen from the volume. If that can't be read either, it is settled at the next start.
            drop(self.settle_attempts(path).await);
            return Err(error);
        }
        let proof = self.prove_key(path, key, plan.key).await?;
        self.end(attempt).await?;
        Ok(proof)
    }

    pub(super) async fn resume(
        &self,
        path: &Path,
        unlock: &UnlockSecret,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<(), VolumeError> {
        self.settle_attempts(path).await?;
        if !self.is_encrypting(path).await? {
            // It may have been killed after its last write: only the tokens are missing then.
            return self.settle_volume(path).await.map(drop);
        }
        let seen = self.look(path).await?;
        let path = &seen.disk.path;
        if seen.disk.is_file && !seen.disk.users.is_empty() {
            // cryptsetup can't know of the loop device, or what is mounted from it.
            return Err(VolumeError::Busy { path: path.clone() });
        }
        // Tries the key, and finishes the piece that a killed encryption was at; it may have been the last.
        self.tool.repair(path, unlock).await?;
        if self.is_encrypting(path).await? {
            let volume = self.opened(path).await?;
            if volume.metadata.finished().is_some() {
                self.finish(&volume).await?;
            } else {
                self.tool.resume_encryption(path, seen.disk.is_file, unlock, progress).await?;
            }
        }
        if self.is_encrypting(path).await? {
            let why = "it says that it is done, and the header that it is not".to_owned();
            return Err(VolumeError::ToolGarbled { what: "encrypt the volume", why });
        }
        self.settle_volume(path).await.map(drop)
    }

    async fn is_encrypting(&self, path: &Path) -> Result<bool, VolumeError> {
        let volume = self.opened(path).await?;
        match volume.metadata.conversion() {
            None => Ok(false),
            Some(Conversion::Encryption) => Ok(true),
            Some(Conversion::Other) => Err(VolumeError::Unsupported {
                path: volume.disk.path,
                why: Unsupported::Conversion,
            }),
        }
    }

    /// Makes the directory and its note, both durable before anything happens to the volume.
    pub(super) async fn attempt(&self, note: Note) -> Result<Attempt, VolumeError> {
        let directory = self.options.work_dir.join(note.volume.to_string());
        let (above, inside) = (self.options.work_dir.clone(), directory.clone());
        let json = serde_json::to_vec(&note).map_err(io::Error::other);
        let make = move || {
            DirBuilder::new().recursive(true).mode(0o700).create(&inside)?;
            write_atomically(&StdFs, &inside.join(NOTE), &json?)?;
            StdFs.sync_dir(&above)
        };
        self.blocking(&directory, make).await?;
        Ok(Attempt { directory, note })
    }

    pub(super) async fn end(&self, attempt: Attempt) -> Result<(), VolumeError> {
        let above = self.options.work_dir.clone();
        let inside = attempt.directory.clone();
        let remove = move || {
            StdFs.remove_dir_all(&inside)?;
            StdFs.sync_dir(&above)
        };
        self.blocking(&attempt.directory, remove).await
    }

    /// Finishes or takes back what was being begun on this volume when the agent or cryptsetup ended.
    pub(super) async fn settle_attempts(&self, path: &Path) -> Result<Vec<Settled>, VolumeError> {
        let (work_dir, of) = (self.options.work_dir.clone(), path.to_owned());
        let find = move || attempts(&work_dir, &of.canonicalize()?);
        let mut settled = Vec::new();
        for attempt in self.blocking(path, find).await? {
            settled.extend(self.settle_attempt(&attempt).await?);
            self.end(attempt).await?;
        }
        Ok(settled)
    }

    async fn settle_attempt(&self, attempt: &Attempt) -> Result<Option<Settled>, VolumeError> {
        let never_begun = Ok(Some(Settled::NeverBegun(attempt.plan())));
        let saved = attempt.header();
        let head = match attempt.note.back {
            Some((offset, bytes)) => MovedHead { offset, bytes },
            // Not begun, or complete: cryptsetup removes the file last.
            None if !saved.exists() => return Ok(None),
            None => match self.head_of(&saved).await? {
                Some(head) => head,
                None => return never_begun,
            },
        };
        let note = attempt.note.clone();
        let look = move || compare(&File::open(&note.path)?, head, &note.file_system);
        let path = &attempt.note.path;
        match self.blocking(path, look).await? {
            Head::Intact => never_begun,
            Head::Copied if attempt.note.back.is_some() => {
                let is_file = self.look(path).await?.disk.is_file;
                self.put_back(path, head, is_file).await?;
                never_begun
            }
            Head::Copied => {
                self.tool.restore_header(path, &saved).await?;
                Ok(Some(Settled::Begun(attempt.plan())))
            }
            // Another disk goes by this name now, or worse. Nothing is written, and nothing forgotten.
            Head::Foreign => Err(VolumeError::Leftover {
                path: path.clone(),
                directory: attempt.directory.clone(),
            }),
        }
    }

    /// Where a header that was being made says that the beginning of the data lies. `None`, if it was not complete: then nothing has
    /// been written over the volume.
    async fn head_of(&self, saved: &Path) -> Result<Option<MovedHead>, VolumeError> {
        match self.tool.metadata(saved).await {
            // It is not yet a header.
            Err(VolumeError::ToolFailed { .. }) => Ok(None),
            // It says that the volume is being encrypted only after the beginning of the data was copied.
            Ok(metadata) => Ok(metadata.moved_head().filter(|_| metadata.conversion().is_some())),
            Err(error) => Err(error),
        }
    }
}

/// The file system of a volume that can be encrypted in place.
fn plain(seen: &Seen) -> Result<FileSystem, VolumeError> {
    let path = seen.disk.path.clone();
    let file_system = match &seen.content {
        Content::Luks2(_) | Content::DamagedLuks2 => {
            return Err(VolumeError::WrongState { path, is: "encrypted already" });
        }
        Content::Luks1 => return Err(VolumeError::Unsupported { path, why: Unsupported::Luks1 }),
        Content::BitLocker => {
            return Err(VolumeError::Unsupported { path, why: Unsupported::BitLocker });
        }
        Content::Ext(file_system) => Some(*file_system),
        Content::Other => None,
    };
    match (seen.obstacle(), file_system) {
        (None, Some(file_system)) => Ok(file_system),
        (obstacle, _) => {
            Err(VolumeError::Obstacle { path, obstacle: obstacle.unwrap_or(Obstacle::FileSystem) })
        }
    }
}

/// The file system that begins at `at`.
pub(super) fn file_system_at(volume: &File, at: u64) -> io::Result<Option<FileSystem>> {
    let superblock = header::read(volume, at.saturating_add(SUPERBLOCK_AT), SUPERBLOCK_BYTES)?;
    Ok(FileSystem::read(&superblock))
}

/// The attempts of a volume.
fn attempts(work_dir: &Path, path: &Path) -> io::Result<Vec<Attempt>> {
    if !StdFs.exists(work_dir)? {
        return Ok(Vec::new());
    }
    let mut attempts = Vec::new();
    for name in StdFs.read_dir(work_dir)? {
        let directory = work_dir.join(name);
        let file = directory.join(NOTE);
        // Without its note nothing was begun; whoever tries again with the same id makes it anew.
        if !StdFs.exists(&file)? {
            continue;
        }
        let note: Note = serde_json::from_slice(&read_file(&StdFs, &file)?)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        if note.path == path {
            attempts.push(Attempt { directory, note });
        }
    }
    Ok(attempts)
}

/// What the beginning of a volume is, compared with the copy at its end.
#[derive(Debug, PartialEq, Eq)]
enum Head {
    /// The same: nothing was written over it.
    Intact,
    /// Something else, and the copy is that of the file system.
    Copied,
    /// There is no such copy.
    Foreign,
}

fn compare(volume: &File, head: MovedHead, file_system: &str) -> io::Result<Head> {
    let copied = file_system_at(volume, head.offset)?;
    if copied.is_none_or(|copied| hex::encode(copied.uuid) != file_system) {
        return Ok(Head::Foreign);
    }
    let mut at = 0_u64;
    while at < head.bytes {
        let here = header::read(volume, at, CHUNK)?;
        let there = header::read(volume, head.offset.saturating_add(at), CHUNK)?;
        let rest = usize::try_from(head.bytes.saturating_sub(at)).unwrap_or(CHUNK).min(CHUNK);
        if here.get(..rest) != there.get(..rest) {
            return Ok(Head::Copied);
        }
        at = at.saturating_add(CHUNK as u64);
    }
    Ok(Head::Intact)
}
