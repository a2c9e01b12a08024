//! What this device has to deliver, on its disk until a server has it for certain.
//!
//! ```text
//! LOCK                            locked while an agent uses the spool
//! escrows/<number>.sealed         sealed keys that wait for their receipts, oldest first
//! refused/<number>.sealed         sealed keys that the servers will never take; nothing was encrypted with them
//! receipts/<volume>.<version>.json  receipts, as `holdfast receipt verify` reads them
//! report.pending                  the newest compliance report that was not delivered
//! ```
//!
//! What it promises:
//! - When [`Spool::put_escrow`] returns, a power cut takes nothing away: temporary name, fsync, rename, fsync of the
//!   directory.
//! - A sealed key is never dropped, expired or overwritten. It goes when its receipt is durable; one that was refused
//!   goes when a later key of its volume has a receipt. A full spool takes no new key instead.
//! - The keys of a volume are delivered in the order in which they were made: only the oldest is offered.
//! - Of reports only the newest is kept.
//! - It holds sealed bytes only. There is no plaintext in it to be found.
//! - A sealed key that is damaged, of another device, or of a later version is left where it is, named, and never sent. Of a
//!   report only this device's next one is left, as ever.

mod entry;
mod error;
mod read;
#[cfg(all(test, feature = "server"))]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use holdfast_proto::v1;

pub use entry::{SpooledEscrow, SpooledReport};
pub use error::{Damage, SpoolError};

use crate::client::{Receipt, SealedEscrow};
use crate::domain::{DeviceId, KeyVersion, Timestamp, VolumeId};
use crate::fs::{Fs, FsFile, OpenMode, write_atomically};

/// Most sealed keys that may wait, refused ones among them: a device has at most 64 volumes.
pub const ESCROWS: usize = 256;
/// Most bytes of sealed keys that may wait. They are held in memory too, and an agent is to stay small.
pub const ESCROW_BYTES: u64 = 4 * 1024 * 1024;

const LOCK_FILE: &str = "LOCK";
const ESCROW_DIR: &str = "escrows";
const REFUSED_DIR: &str = "refused";
const RECEIPT_DIR: &str = "receipts";
const REPORT_FILE: &str = "report.pending";
const SEALED: &str = ".sealed";

/// A file of the spool that is of no use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedFile {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub damage: Damage,
}

/// The spool of one device. One process has it at a time.
#[derive(Debug)]
pub struct Spool<F: Fs> {
    fs: F,
    dir: PathBuf,
    device: DeviceId,
    waiting: BTreeMap<u64, SpooledEscrow>,
    refused: BTreeMap<u64, SpooledEscrow>,
    /// Bytes of the files of both.
    bytes: u64,
    report: Option<SpooledReport>,
    damaged: Vec<DamagedFile>,
    next_number: u64,
    next_report: u64,
    /// Why nothing more is taken.
    broken: Option<String>,
    _lock: F::File,
}

impl<F: Fs> Spool<F> {
    /// Opens the spool of a device, or makes it.
    ///
    /// # Errors
    /// If another process has it, or the disk can't be read or written. A single file that is of no use is no error: it
    /// stands among [`Spool::damaged`].
    pub fn open(fs: F, dir: &Path, device: DeviceId) -> Result<Self, SpoolError> {
        fs.create_dir_all(dir)?;
        let lock = lock(&fs, dir)?;
        for name in [ESCROW_DIR, REFUSED_DIR, RECEIPT_DIR] {
            fs.create_dir_all(&dir.join(name))?;
        }
        fs.sync_dir(dir)?;
        fs.sync_dir(crate::fs::parent(dir))?;
        let mut spool = Self {
            fs,
            dir: dir.to_owned(),
            device,
            waiting: BTreeMap::new(),
            refused: BTreeMap::new(),
            bytes: 0,
            report: None,
            damaged: Vec::new(),
            next_number: 1,
            next_report: 1,
            broken: None,
            _lock: lock,
        };
        spool.waiting = spool.read_escrows(ESCROW_DIR)?;
        spool.refused = spool.read_escrows(REFUSED_DIR)?;
        // Set aside, and the power went before the other file was removed.
        let twice = spool.refused.keys().filter(|number| spool.waiting.contains_key(number));
        let twice: Vec<u64> = twice.copied().collect();
        spool.remove(ESCROW_DIR, &twice);
        spool.read_report()?;
        spool.sweep(dir)?;
        spool.sweep(&dir.join(RECEIPT_DIR))?;
        Ok(spool)
    }

    /// The device whose spool it is.
    pub const fn device(&self) -> DeviceId {
        self.device
    }

    /// Files that are of no use, as they were found when the spool was opened.
    pub fn damaged(&self) -> &[DamagedFile] {
        &self.damaged
    }

    /// All sealed keys that wait, oldest first.
    pub fn waiting(&self) -> impl Iterator<Item = &SpooledEscrow> {
        self.waiting.values()
    }

    /// The sealed keys that may be sent now: of each volume the oldest.
    pub fn next_escrows(&self) -> impl Iterator<Item = &SpooledEscrow> {
        let mut seen = BTreeSet::new();
        self.waiting.values().filter(move |entry| seen.insert(entry.sealed.volume()))
    }

    /// Sealed keys that the servers refused for good.
    pub fn refused(&self) -> impl Iterator<Item = &SpooledEscrow> {
        self.refused.values()
    }

    /// The report that waits.
    pub const fn report(&self) -> Option<&SpooledReport> {
        self.report.as_ref()
    }

    /// Why the spool takes nothing more until the agent is started again, if it is so.
    pub fn broken(&self) -> Option<&str> {
        self.broken.as_deref()
    }

    /// Takes a sealed key. It is durable when this returns, and may be sent from then on.
    ///
    /// # Errors
    /// If it is of another device or not the next version of its volume's key, the spool is full, or the disk doesn't take it.
    pub fn put_escrow(&mut self, sealed: &SealedEscrow, now: Timestamp) -> Result<u64, SpoolError> {
        if sealed.device() != self.device {
            return Err(SpoolError::ForeignDevice(sealed.device()));
        }
        let volume = sealed.volume();
        let before = self.waiting.values().rev().find(|entry| entry.sealed.volume() == volume);
        if let Some(before) = before.map(|entry| &entry.sealed) {
            if before.cluster() != sealed.cluster() {
                return Err(SpoolError::ForeignCluster(sealed.cluster()));
            }
            if before.version() >= sealed.version() {
                return Err(SpoolError::NotTheNext { volume, waiting: before.version() });
            }
        }
        let bytes = SpooledEscrow::encode(sealed, now);
        let total = self.bytes.saturating_add(length(&bytes));
        self.check_room(total)?;
        let number = self.next_number;
        self.write(&self.escrow_path(ESCROW_DIR, number), &bytes)?;
        self.next_number = number.saturating_add(1);
        self.bytes = total;
        self.waiting.insert(number, SpooledEscrow { number, made_at: now, sealed: sealed.clone() });
        Ok(number)
    }

    fn check_room(&self, bytes: u64) -> Result<(), SpoolError> {
        let entries = self.waiting.len().saturating_add(self.refused.len());
        if entries >= ESCROWS {
            return Err(SpoolError::Full { what: format!("{ESCROWS} sealed keys wait") });
        }
        if bytes > ESCROW_BYTES {
            let what =
                format!("sealed keys may take {ESCROW_BYTES} bytes, and this is one too many");
            return Err(SpoolError::Full { what });
        }
        Ok(())
    }

    /// Keeps the receipt of an entry, and lets the entry go. The receipt is durable when this returns; an entry that can't be
    /// removed is delivered once more, and gets the same receipt.
    ///
    /// # Errors
    /// If there is no such entry, the receipt is for another key, or the disk doesn't take it: then the entry still waits.
    pub fn delivered(&mut self, number: u64, receipt: &Receipt) -> Result<(), SpoolError> {
        let entry = self.waiting.get(&number).ok_or(SpoolError::NoSuchEntry(number))?;
        if !entry.sealed.is_answered_by(receipt) {
            return Err(SpoolError::ForeignReceipt(number));
        }
        let (volume, version) = (entry.sealed.volume(), entry.sealed.version());
        let text = receipt.to_file().map_err(io::Error::other)?;
        self.write(&self.receipt_path(volume, version), text.as_bytes())?;
        let superseded: Vec<u64> = self
            .refused
            .values()
            .filter(|entry| entry.sealed.volume() == volume)
            .map(|entry| entry.number)
            .collect();
        self.remove(ESCROW_DIR, &[number]);
        self.remove(REFUSED_DIR, &superseded);
        Ok(())
    }

    /// Sets an entry aside that the servers will never take. Nothing was encrypted with its key, as there was no receipt.
    ///
    /// # Errors
    /// If there is no such entry, or the disk doesn't take the change: then the entry still waits.
    pub fn set_aside(&mut self, number: u64) -> Result<(), SpoolError> {
        let entry = self.waiting.get(&number).cloned().ok_or(SpoolError::NoSuchEntry(number))?;
        let bytes = SpooledEscrow::encode(&entry.sealed, entry.made_at);
        // Written anew and not renamed: a name that changes its directory may be in neither after a power cut.
        self.write(&self.escrow_path(REFUSED_DIR, number), &bytes)?;
        self.refused.insert(number, entry);
        self.bytes = self.bytes.saturating_add(length(&bytes));
        self.remove(ESCROW_DIR, &[number]);
        // It must not be sent again, whether its file could be removed or not.
        self.waiting.remove(&number);
        Ok(())
    }

    /// The receipt for a version of a volume's key, as its file has it; `None` if there is none.
    ///
    /// # Errors
    /// If it can't be read.
    pub fn receipt(
        &self,
        volume: VolumeId,
        version: KeyVersion,
    ) -> Result<Option<Vec<u8>>, SpoolError> {
        let path = self.receipt_path(volume, version);
        if self.fs.exists(&path)? { Ok(Some(self.read_small(&path)?)) } else { Ok(None) }
    }

    /// The versions of a volume's key that there are receipts for, ascending.
    ///
    /// # Errors
    /// If the directory can't be read.
    pub fn receipts_of(&self, volume: VolumeId) -> Result<Vec<KeyVersion>, SpoolError> {
        let prefix = format!("{volume}.");
        let mut versions: Vec<KeyVersion> = self
            .fs
            .read_dir(&self.dir.join(RECEIPT_DIR))?
            .iter()
            .filter_map(|name| name.strip_prefix(&prefix)?.strip_suffix(".json")?.parse().ok())
            .map(KeyVersion::new)
            .collect();
        versions.sort_unstable();
        Ok(versions)
    }

    /// Takes a report in the place of the one that waits. Durable when this returns.
    ///
    /// # Errors
    /// If it is of another device, or the disk doesn't take it: then the one that waited still does.
    pub fn put_report(
        &mut self,
        request: v1::ReportComplianceRequest,
        now: Timestamp,
    ) -> Result<u64, SpoolError> {
        let device: DeviceId = request.device_id.parse()?;
        if device != self.device {
            return Err(SpoolError::ForeignDevice(device));
        }
        let number = self.next_report;
        let report = SpooledReport { number, made_at: now, request };
        self.write(&self.dir.join(REPORT_FILE), &report.encode())?;
        self.next_report = number.saturating_add(1);
        self.report = Some(report);
        Ok(number)
    }

    /// Lets a report go that a server has. A newer one that came meanwhile stays.
    pub fn report_delivered(&mut self, number: u64) {
        if self.report.as_ref().is_none_or(|report| report.number != number) {
            return;
        }
        let path = self.dir.join(REPORT_FILE);
        let removed = self.fs.remove_file(&path).and_then(|()| self.fs.sync_dir(&self.dir));
        if let Err(error) = removed {
            // It would be delivered once more after a start: the same state of the device, and nothing else.
            tracing::warn!(%error, "a report that was delivered can't be removed from the spool");
        }
        self.report = None;
    }

    fn escrow_path(&self, dir: &str, number: u64) -> PathBuf {
        self.dir.join(dir).join(format!("{number:016x}{SEALED}"))
    }

    fn receipt_path(&self, volume: VolumeId, version: KeyVersion) -> PathBuf {
        self.dir.join(RECEIPT_DIR).join(format!("{volume}.{version}.json"))
    }

    fn whole(&self) -> Result<(), SpoolError> {
        match &self.broken {
            Some(why) => Err(SpoolError::Broken(why.clone())),
            None => Ok(()),
        }
    }

    fn write(&mut self, path: &Path, bytes: &[u8]) -> Result<(), SpoolError> {
        self.whole()?;
        let written = write_atomically(&self.fs, path, bytes);
        written.map_err(|error| self.failed(error))
    }

    /// A disk that is full or read-only has taken nothing, and may change its mind. After any other failure nobody knows.
    fn failed(&mut self, error: io::Error) -> SpoolError {
        let passes = matches!(
            error.kind(),
            io::ErrorKind::StorageFull
                | io::ErrorKind::QuotaExceeded
                | io::ErrorKind::ReadOnlyFilesystem
                | io::ErrorKind::PermissionDenied
        );
        if !passes {
            self.broken = Some(error.to_string());
        }
        SpoolError::Io(error)
    }

    /// Removes entries that nobody needs any more. One that can't be removed stays an entry.
    fn remove(&mut self, dir: &str, numbers: &[u64]) {
        for number in numbers {
            let path = self.escrow_path(dir, *number);
            let removed = self
                .fs
                .file_len(&path)
                .and_then(|length| self.fs.remove_file(&path).map(|()| length));
            match removed {
                Ok(length) => {
                    let entries =
                        if dir == ESCROW_DIR { &mut self.waiting } else { &mut self.refused };
                    entries.remove(number);
                    self.bytes = self.bytes.saturating_sub(length);
                }
                Err(error) => {
                    tracing::warn!(%error, "an entry that is done with stays in the spool")
                }
            }
        }
        if numbers.is_empty() {
            return;
        }
        // If the names come back after a power cut, the entries are delivered once more.
        if let Err(error) = self.fs.sync_dir(&self.dir.join(dir)) {
            tracing::warn!(%error, "the spool's directory can't be synced");
        }
    }
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

fn lock<F: Fs>(fs: &F, dir: &Path) -> Result<F::File, SpoolError> {
    let path = dir.join(LOCK_FILE);
    let file = match fs.open(&path, OpenMode::CreateNew) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs.open(&path, OpenMode::ReadWrite)?
        }
        opened => opened?,
    };
    if file.try_lock_exclusive()? {
        Ok(file)
    } else {
        Err(SpoolError::InUse { path: dir.to_owned() })
    }
}
