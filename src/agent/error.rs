//! Why something with a volume failed, in the terms of whoever has to do something about it.

use std::path::PathBuf;
use std::time::Duration;

use crate::domain::ProtectorId;

use super::volume::{Obstacle, Unsupported};

/// Why something with a volume failed. Says what would help; never holds any of a secret.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// The system's program is not installed.
    #[error("{} can't be started: {source}; install the package cryptsetup-bin, or name the program in the configuration", path.display())]
    ToolMissing {
        /// The program.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The system's program is too old.
    #[error("{} is version {found}; {needed} or newer is needed: upgrade the package cryptsetup-bin", path.display())]
    ToolTooOld {
        /// The program.
        path: PathBuf,
        /// Its version.
        found: String,
        /// The oldest that would do.
        needed: &'static str,
    },
    /// The system's program did not end in time, and was killed. What it was to do may have been done.
    #[error("cryptsetup did not {what} within {} s and was killed; is the disk failing?", after.as_secs_f32())]
    ToolHung {
        /// What it was to do.
        what: &'static str,
        /// How long it had.
        after: Duration,
    },
    /// The system's program said something that makes no sense.
    #[error("cryptsetup was to {what} and answered what can't be understood: {why}")]
    ToolGarbled {
        /// What it was to do.
        what: &'static str,
        /// What is wrong with the answer.
        why: String,
    },
    /// The system's program failed for a reason that its exit code does not tell.
    #[error("cryptsetup could not {what} (exit code {code}){}", colon(said))]
    ToolFailed {
        /// What it was to do.
        what: &'static str,
        /// Its exit code; -1 if a signal ended it.
        code: i32,
        /// The beginning of what it said, for a person.
        said: String,
    },
    /// The system's program ran out of memory.
    #[error("cryptsetup ran out of memory when it was to {what}: free some, then try again")]
    OutOfMemory {
        /// What it was to do.
        what: &'static str,
    },
    /// The passphrase, key file or key opens no slot of the volume.
    #[error("the secret given does not open {}: check it (if it is right, its key slot is damaged)", path.display())]
    WrongSecret {
        /// The volume.
        path: PathBuf,
    },
    /// A recovery key does not open the slot that it was put into.
    #[error("the recovery key {id} does not open its slot of {}: a new one has to be escrowed", path.display())]
    NotProven {
        /// The key.
        id: ProtectorId,
        /// The volume.
        path: PathBuf,
    },
    /// The volume is not there, or may not be opened.
    #[error("{} is not there (any more), or may not be opened", path.display())]
    Unreachable {
        /// The volume.
        path: PathBuf,
    },
    /// Something else uses the volume.
    #[error("{} is in use by something else: try again when that has ended", path.display())]
    Busy {
        /// The volume.
        path: PathBuf,
    },
    /// The volume is of a kind that can't be protected.
    #[error("{}: {why}", path.display())]
    Unsupported {
        /// The volume.
        path: PathBuf,
        /// Why.
        why: Unsupported,
    },
    /// The header is damaged.
    #[error("the header of {} is damaged: restore it from a backup (cryptsetup luksHeaderRestore) before anything else", path.display())]
    Damaged {
        /// The volume.
        path: PathBuf,
    },
    /// The volume can't be encrypted in place as it is.
    #[error("{}: {obstacle}", path.display())]
    Obstacle {
        /// The volume.
        path: PathBuf,
        /// Why.
        obstacle: Obstacle,
    },
    /// This can't be done in the state that the volume is in.
    #[error("{} is {is}: nothing was changed", path.display())]
    WrongState {
        /// The volume.
        path: PathBuf,
        /// What it is.
        is: &'static str,
    },
    /// All key slots are used, or there is no room for another one.
    #[error("no key slot of {} is free: remove one that nobody needs (cryptsetup luksKillSlot)", path.display())]
    NoFreeSlot {
        /// The volume.
        path: PathBuf,
    },
    /// All tokens are used.
    #[error("{} has as many tokens as fit: remove one that nobody needs (cryptsetup token remove)", path.display())]
    NoFreeToken {
        /// The volume.
        path: PathBuf,
    },
    /// The agent put no such key into the volume.
    #[error("{} has no recovery key {id} of ours", path.display())]
    NotOurs {
        /// The key.
        id: ProtectorId,
        /// The volume.
        path: PathBuf,
    },
    /// A key may be removed only when another one is proven to open the volume.
    #[error("the recovery key {id} of {} stays: {why}", path.display())]
    Kept {
        /// The key that was to be removed.
        id: ProtectorId,
        /// The volume.
        path: PathBuf,
        /// What is missing.
        why: &'static str,
    },
    /// What was begun under this name was begun on another volume.
    #[error("an encryption that was begun on {} can't be finished, since that is another volume now: attach the right one, or remove {} if it is lost", path.display(), directory.display())]
    Leftover {
        /// The volume.
        path: PathBuf,
        /// What was kept of it.
        directory: PathBuf,
    },
    /// A recovery key of another system's format.
    #[error("the recovery key is not one of LUKS2: nothing was changed")]
    WrongKind,
    /// The machine's files can't be read or written.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
}

impl VolumeError {
    pub(super) fn io(what: impl Into<String>, source: std::io::Error) -> Self {
        Self::Io { what: what.into(), source }
    }
}

fn colon(said: &str) -> String {
    if said.is_empty() { String::new() } else { format!(": {said}") }
}
