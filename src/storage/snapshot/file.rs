//! A snapshot file: its meta data, its bytes for sending, and the verified stream of its records.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Buf, Bytes};
use sha2::{Digest as _, Sha256};

use super::format::{
    self, CHECKSUM_BYTES, HEADER_BYTES, MAX_BLOCK_BYTES, MAX_HEADS_BYTES, TRAILER_BYTES,
};
use super::{SnapshotError, SnapshotMeta};
use crate::fs::{Fs, FsFile, OpenMode};
use crate::state::{Digest, Heads, Table};
use crate::storage::view::ViewRecord;

/// The end of a file that its SHA-256 does not cover: the SHA-256 itself, and the trailer's checksum.
const SUMS_BYTES: usize = 32 + CHECKSUM_BYTES;
/// Bytes read at once.
const READ_BYTES: usize = 256 * 1024;

/// A published snapshot. Cheap to clone; stays readable after a newer one replaced it.
pub struct SnapshotFile<F: Fs>(Arc<Inner<F>>);

struct Inner<F: Fs> {
    file: F::File,
    path: PathBuf,
    meta: SnapshotMeta,
}

impl<F: Fs> Clone for SnapshotFile<F> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<F: Fs> std::fmt::Debug for SnapshotFile<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SnapshotFile")
            .field("path", &self.0.path)
            .field("meta", &self.0.meta)
            .finish()
    }
}

impl<F: Fs> SnapshotFile<F> {
    /// Opens a file and checks its header and that its trailer is whole; the records are checked when they are read.
    pub(super) fn open(fs: &F, path: &Path) -> Result<Self, SnapshotError> {
        let file = fs.open(path, OpenMode::Read).map_err(SnapshotError::Io)?;
        let bytes = file.len().map_err(SnapshotError::Io)?;
        let damaged = |what| SnapshotError::damaged(path, what);
        let (heads, _) = read_header(&file, bytes, path)?;
        let at =
            bytes.checked_sub(TRAILER_BYTES as u64).ok_or_else(|| damaged("it is too short"))?;
        let trailer = read(&file, at, TRAILER_BYTES)?;
        if trailer.first() != Some(&format::TRAILER) || format::unsummed(trailer).is_none() {
            return Err(damaged("it has no trailer: it is cut off or changed"));
        }
        let heads = Heads::decode(&heads).map_err(|_| damaged("its heads can't be decoded"))?;
        let meta = SnapshotMeta {
            last: heads.position,
            state_digest: heads.state_digest(),
            membership: heads.membership,
            cluster: heads.cluster,
            records: heads.records,
            time: heads.time,
            bytes,
        };
        Ok(Self(Arc::new(Inner { file, path: path.to_owned(), meta })))
    }

    /// Whether both are the same open file.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// What it holds.
    pub fn meta(&self) -> &SnapshotMeta {
        &self.0.meta
    }

    /// Its size in bytes.
    pub fn bytes(&self) -> u64 {
        self.0.meta.bytes
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// At most `length` bytes from `offset`; fewer at the end.
    ///
    /// # Errors
    /// If they can't be read.
    pub fn read_chunk(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let rest = usize::try_from(self.bytes().saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut chunk = vec![0; length.min(rest)];
        self.0.file.read_at(&mut chunk, offset)?;
        Ok(chunk)
    }

    /// All records, each block verified before its first record is given out, the whole before the end.
    pub(super) fn records(&self) -> Result<Records<F>, SnapshotError> {
        let (_, header) = read_header(&self.0.file, self.bytes(), &self.0.path)?;
        let mut sha256 = Sha256::new();
        sha256.update(&header);
        Ok(Records {
            file: self.clone(),
            offset: header.len() as u64,
            sha256,
            sum: Digest::ZERO,
            records: 0,
            heads: None,
            ready: VecDeque::new(),
            ended: false,
        })
    }

    /// Reads all of it and checks everything that it says about itself (I4, I5).
    ///
    /// # Errors
    /// [`SnapshotError::Damaged`] if anything is wrong.
    pub fn verify(&self) -> Result<(), SnapshotError> {
        self.records()?.try_for_each(|record| record.map(|_| ()))
    }

    /// Reads all of it, and checks that it is, byte for byte, what was written with this SHA-256. Its records need no second
    /// look then.
    ///
    /// # Errors
    /// [`SnapshotError::Damaged`] if it is not.
    pub(super) fn verify_bytes(&self, written: &[u8; 32]) -> Result<(), SnapshotError> {
        let damaged = |what| SnapshotError::damaged(&self.0.path, what);
        let mut sha256 = Sha256::new();
        let end = self.bytes().saturating_sub(SUMS_BYTES as u64);
        let mut offset = 0;
        while offset < end {
            let rest = usize::try_from(end - offset).unwrap_or(READ_BYTES);
            let piece = read(&self.0.file, offset, rest.min(READ_BYTES))?;
            sha256.update(&piece);
            offset += piece.len() as u64;
        }
        let sums = read(&self.0.file, end, SUMS_BYTES)?;
        if sha256.finalize()[..] != written[..] || !sums.starts_with(written) {
            return Err(damaged("what was read back is not what was written"));
        }
        Ok(())
    }

    /// [`Self::verify`] at a low priority, while requests are served.
    ///
    /// # Errors
    /// As [`Self::verify`], or if there is no thread for it.
    pub fn verify_behind(&self) -> Result<(), SnapshotError> {
        super::background::run(|| self.verify())
    }
}

/// The heads, and all bytes of the header.
fn read_header(
    file: &impl FsFile,
    bytes: u64,
    path: &Path,
) -> Result<(Bytes, Bytes), SnapshotError> {
    let damaged = |what| SnapshotError::damaged(path, what);
    if bytes < (HEADER_BYTES + TRAILER_BYTES) as u64 {
        return Err(damaged("it is too short"));
    }
    let mut start = read(file, 0, HEADER_BYTES)?;
    if !start.starts_with(format::MAGIC) {
        return Err(damaged("it is no snapshot"));
    }
    start.advance(format::MAGIC.len());
    let version = start.get_u32_le();
    if version != format::VERSION {
        return Err(damaged("its format version is unknown, or its header is changed"));
    }
    let heads = start.get_u32_le() as usize;
    let length = HEADER_BYTES + heads + CHECKSUM_BYTES;
    if heads > MAX_HEADS_BYTES || length as u64 > bytes {
        return Err(damaged("the length of its heads is impossible"));
    }
    let header = read(file, 0, length)?;
    let body = format::unsummed(header.clone()).ok_or_else(|| damaged("its header is changed"))?;
    Ok((body.slice(HEADER_BYTES..), header))
}

fn read(file: &impl FsFile, offset: u64, length: usize) -> Result<Bytes, SnapshotError> {
    let mut bytes = vec![0; length];
    file.read_at(&mut bytes, offset).map_err(SnapshotError::Io)?;
    Ok(bytes.into())
}

/// The records of a snapshot file. After an error, or if it was not read to its end, nothing of it may be believed.
pub(super) struct Records<F: Fs> {
    file: SnapshotFile<F>,
    offset: u64,
    sha256: Sha256,
    sum: Digest,
    records: u64,
    heads: Option<Bytes>,
    ready: VecDeque<ViewRecord>,
    ended: bool,
}

impl<F: Fs> Records<F> {
    fn damaged(&self, what: &'static str) -> SnapshotError {
        SnapshotError::damaged(&self.file.0.path, what)
    }

    /// Reads the next block; false at the end.
    fn fill(&mut self) -> Result<bool, SnapshotError> {
        let left = self.file.bytes().saturating_sub(self.offset);
        if left == TRAILER_BYTES as u64 {
            return self.finish().map(|()| false);
        }
        if left < TRAILER_BYTES as u64 {
            return Err(self.damaged("a block reaches into the trailer"));
        }
        let mut start = read(&self.file.0.file, self.offset, 5)?;
        let (kind, body) = (start.get_u8(), start.get_u32_le() as usize);
        let length = 5 + body + CHECKSUM_BYTES;
        let fits = length as u64 + TRAILER_BYTES as u64 <= left;
        if kind != format::BLOCK || body > MAX_BLOCK_BYTES || !fits {
            return Err(self.damaged("the start of a block is changed"));
        }
        let piece = read(&self.file.0.file, self.offset, length)?;
        self.sha256.update(&piece);
        self.offset += length as u64;
        let body = format::unsummed(piece).ok_or_else(|| self.damaged("a block is changed"))?;
        let records = format::records(body.slice(5..));
        let records = records.ok_or_else(|| self.damaged("a block can't be decoded"))?;
        for (table, (key, value)) in &records {
            if *table != Table::Meta {
                self.sum.add(Digest::of_record(*table, key, value));
                self.records += 1;
            } else if (*table, key.as_ref()) == Heads::record_key() {
                self.heads = Some(value.clone());
            }
        }
        self.ready.extend(records);
        Ok(true)
    }

    /// Checks the trailer against what was read.
    fn finish(&mut self) -> Result<(), SnapshotError> {
        let trailer = read(&self.file.0.file, self.offset, TRAILER_BYTES)?;
        let body =
            format::unsummed(trailer).ok_or_else(|| self.damaged("its trailer is changed"))?;
        let expected = format::trailer_start(self.records, self.sum.to_bytes());
        if !body.starts_with(&expected) {
            return Err(self.damaged("its records are not those that the trailer describes"));
        }
        self.sha256.update(&expected);
        let sha256 = std::mem::take(&mut self.sha256).finalize();
        if body.get(expected.len()..) != Some(&sha256[..]) {
            return Err(self.damaged("its SHA-256 does not match"));
        }
        let heads = match self.heads.as_deref().map(Heads::decode) {
            None => Heads::default(),
            Some(Ok(heads)) => heads,
            Some(Err(_)) => return Err(self.damaged("its heads can't be decoded")),
        };
        if (heads.sum, heads.records) != (self.sum, self.records) {
            return Err(self.damaged("its records are not those that its heads describe"));
        }
        if heads.state_digest() != self.file.meta().state_digest {
            return Err(self.damaged("the heads in its header are not those of its records"));
        }
        Ok(())
    }
}

impl<F: Fs> Iterator for Records<F> {
    type Item = Result<ViewRecord, SnapshotError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.ended {
            if let Some(record) = self.ready.pop_front() {
                return Some(Ok(record));
            }
            match self.fill() {
                Ok(more) => self.ended = !more,
                Err(error) => {
                    self.ended = true;
                    return Some(Err(error));
                }
            }
        }
        None
    }
}
