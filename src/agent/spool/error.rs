//! Why the spool can't take or give something.

use std::io;
use std::path::PathBuf;

use crate::domain::{ClusterId, DeviceId, FieldError, KeyVersion, VolumeId};

/// The spool can't do what was asked. Nothing that it held before is lost or changed.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// Another process has it.
    #[error("{} is in use by another process: only one agent may run", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The disk said no. [`io::ErrorKind::StorageFull`] and a read-only file system pass; the spool goes on after them.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// A write or a sync failed before, so nobody knows what is on the disk. Nothing more is taken until the agent has
    /// started again and looked.
    #[error("the spool takes nothing more until the agent is started again: {0}")]
    Broken(String),
    /// It is full, and nothing in it may be thrown away.
    #[error(
        "the spool is full: {what}; nothing is dropped from it, so no new key is made until a server has taken some"
    )]
    Full {
        /// Which limit was reached.
        what: String,
    },
    /// The escrow is of another device.
    #[error("the escrow is of the device {0}, and the spool is not")]
    ForeignDevice(DeviceId),
    /// The escrow is for another cluster than one that waits.
    #[error(
        "the escrow is for the cluster {0}, and another one of this volume waits for another cluster"
    )]
    ForeignCluster(ClusterId),
    /// An escrow of this volume and of this version or a later one waits already.
    #[error("version {waiting} of the key of volume {volume} waits already")]
    NotTheNext {
        /// The volume.
        volume: VolumeId,
        /// The newest version that waits.
        waiting: KeyVersion,
    },
    /// It is no entry that waits.
    #[error("no entry {0} waits in the spool")]
    NoSuchEntry(u64),
    /// The receipt is for another key than the entry's.
    #[error("the receipt is not for the key of entry {0}")]
    ForeignReceipt(u64),
    /// A field is not well-formed.
    #[error(transparent)]
    Field(#[from] FieldError),
}

/// Why a file of the spool is of no use. It stays where it is, and is never sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// It can't be read.
    #[error("it can't be read: {0}")]
    Unreadable(String),
    /// It is no file of a spool.
    #[error("it is no entry of a spool")]
    NoEntry,
    /// A later version of the agent wrote it.
    #[error("it has format {0}, which this version doesn't know: a later version wrote it")]
    Newer(u16),
    /// Its bytes are not those that were written.
    #[error("its checksum doesn't hold: the disk has changed it")]
    Rotten,
    /// It says something that no agent writes.
    #[error("it is not well-formed: {0}")]
    Malformed(String),
    /// It is of another device: the spool was copied from another machine.
    #[error("it is of the device {0}: the spool was copied from another machine")]
    ForeignDevice(DeviceId),
}
