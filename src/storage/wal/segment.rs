//! Segment files, and reading entries back from them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::format::{RECORD_HEADER, Record, SEGMENT_HEADER, SegmentHeader, record_at};
use super::types::{LogEntry, WalError};
use crate::fs::{Fs, FsFile as _, OpenMode};
use crate::state::Position;

/// An open segment.
pub(super) struct Segment<F: Fs> {
    pub(super) header: SegmentHeader,
    pub(super) file: F::File,
    pub(super) path: PathBuf,
}

pub(super) fn path_of(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:016x}.log"))
}

/// The number in a segment's name.
pub(super) fn number_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".log").filter(|digits| digits.len() == 16)?;
    u64::from_str_radix(digits, 16).ok()
}

impl<F: Fs> Segment<F> {
    /// Makes a segment that is ready for use: allocated, header and name durable.
    pub(super) fn create(
        fs: &F,
        dir: &Path,
        header: SegmentHeader,
        bytes: u64,
    ) -> Result<Self, WalError> {
        let path = path_of(dir, header.number);
        let io = |source| WalError::Io { source };
        if fs.exists(&path).map_err(io)? {
            // Left behind by an attempt that failed; it was never used.
            fs.remove_file(&path).map_err(io)?;
        }
        let file = fs.open(&path, OpenMode::CreateNew).map_err(io)?;
        let made = file
            .allocate(bytes)
            .and_then(|()| file.write_at(&header.encode(), 0))
            .and_then(|()| file.sync_all())
            .and_then(|()| fs.sync_dir(dir));
        match made {
            Ok(()) => Ok(Self { header, file, path }),
            Err(source) => {
                // On a full disk the space has to be given back; the first error is the one that counts.
                drop(fs.remove_file(&path));
                let full = matches!(
                    source.kind(),
                    std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded
                );
                Err(if full {
                    WalError::Full { dir: dir.to_owned() }
                } else {
                    WalError::Io { source }
                })
            }
        }
    }

    pub(super) fn damaged(&self, offset: u64, what: impl Into<String>) -> WalError {
        WalError::Damaged { file: self.path.clone(), offset, what: what.into() }
    }
}

/// Where an entry's record lies.
pub(super) struct Stored<F: Fs> {
    pub(super) segment: Arc<Segment<F>>,
    /// Where the record begins in the file.
    pub(super) offset: u32,
    /// Bytes of the payload.
    pub(super) length: u32,
}

impl<F: Fs> Clone for Stored<F> {
    fn clone(&self) -> Self {
        Self { segment: self.segment.clone(), offset: self.offset, length: self.length }
    }
}

/// An entry in memory, or its place on disk.
pub(super) enum Source<F: Fs> {
    Memory(LogEntry),
    Disk(Stored<F>, Position),
}

impl<F: Fs> Source<F> {
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Memory(entry) => entry.payload.bytes().len(),
            Self::Disk(stored, _) => usize::try_from(stored.length).unwrap_or(usize::MAX),
        }
    }
}

/// The entry itself, checked if it comes from disk.
pub(super) fn load<F: Fs>(source: Source<F>) -> Result<LogEntry, WalError> {
    let (stored, id) = match source {
        Source::Memory(entry) => return Ok(entry),
        Source::Disk(stored, id) => (stored, id),
    };
    let length = RECORD_HEADER.saturating_add(usize::try_from(stored.length).unwrap_or(usize::MAX));
    let mut bytes = vec![0; length];
    let offset = u64::from(stored.offset);
    stored.segment.file.read_at(&mut bytes, offset).map_err(|source| WalError::Io { source })?;
    match record_at(&Bytes::from(bytes)) {
        Ok((Record::Entry(entry), _)) if entry.id == id => Ok(entry),
        Ok(_) => Err(stored.segment.damaged(offset, "another record stands where an entry should")),
        Err(what) => Err(stored.segment.damaged(offset, what)),
    }
}

/// Reads a segment's header; `Err` tells what is wrong with it.
pub(super) fn read_header(bytes: &[u8]) -> Result<(SegmentHeader, u32), &'static str> {
    SegmentHeader::decode(bytes.get(..SEGMENT_HEADER).unwrap_or(bytes))
}
