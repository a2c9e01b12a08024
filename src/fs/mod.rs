//! The file system as a trait, so that every fault of a disk can be injected.
//!
//! [`StdFs`] is the machine's; [`sim::SimFs`] lives in memory and knows power cuts, torn writes, rot, full disks and
//! failed fsyncs. Everything durable in `storage` is written against [`Fs`].
//!
//! Nothing here retries, caches or repairs: an error is handed up, with the path in its text and the
//! [`io::ErrorKind`] of its cause ([`io::ErrorKind::StorageFull`] for a full disk).

pub mod sim;
mod std_fs;

use std::io;
use std::path::{Path, PathBuf};

pub use std_fs::{StdFile, StdFs};

/// How to open a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// It must exist; for reading.
    Read,
    /// It must exist; for reading and writing.
    ReadWrite,
    /// It must not exist; made for reading and writing. Its name is durable only after [`Fs::sync_dir`].
    CreateNew,
}

/// A file system. Cloning gives another handle to the same one.
///
/// Every method fails with an [`io::Error`] that names the path.
#[allow(clippy::missing_errors_doc, reason = "one sentence above holds for all of them")]
pub trait Fs: Clone + Send + Sync + 'static {
    /// An open file.
    type File: FsFile;

    /// Opens or makes a file.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Self::File>;
    /// Makes a directory and its missing parents. Durable once each parent is synced.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Removes a file. Durable once its directory is synced.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes a directory with all that is in it.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Gives a file or directory another name, replacing a file of that name. Atomic; durable once the directory is
    /// synced. Both names should be in one directory: across two it isn't atomic at a power cut.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// The names in a directory, sorted. A name that is no UTF-8 is an error.
    fn read_dir(&self, path: &Path) -> io::Result<Vec<String>>;
    /// Whether there is such a file or directory.
    fn exists(&self, path: &Path) -> io::Result<bool>;
    /// Length of a file in bytes.
    fn file_len(&self, path: &Path) -> io::Result<u64>;
    /// Bytes that may still be written to the file system that holds `path`.
    fn available_bytes(&self, path: &Path) -> io::Result<u64>;
}

/// An open file. All positions and lengths are in bytes.
#[allow(clippy::missing_errors_doc, reason = "an I/O error that names the path, for all of them")]
#[allow(clippy::len_without_is_empty, reason = "a file's length is I/O and may fail")]
pub trait FsFile: Send + Sync + 'static {
    /// Fills the whole buffer from `offset`; a file that ends before is [`io::ErrorKind::UnexpectedEof`].
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes the whole buffer at `offset`.
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()>;
    /// Cuts the file, or lengthens it by zeros that hold no space.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Makes the file at least `len` long with the space for it taken now.
    fn allocate(&self, len: u64) -> io::Result<()>;
    /// fdatasync: the bytes, and the length if it grew. After an error the bytes are to be taken for lost: a second
    /// call may well return `Ok`.
    fn sync_data(&self) -> io::Result<()>;
    /// fsync: as [`FsFile::sync_data`], and all metadata.
    fn sync_all(&self) -> io::Result<()>;
    /// Length.
    fn len(&self) -> io::Result<u64>;
    /// Takes an exclusive lock that lasts until the file is closed. `false` if somebody else has it.
    fn try_lock_exclusive(&self) -> io::Result<bool>;
}

/// Writes a small file so that after a power cut there is either the old one or the new one: temporary name, fsync,
/// rename, directory fsync.
///
/// # Errors
/// If any step fails; the old file is then still there, or the new one is but may not be durable.
pub fn write_atomically<F: Fs>(fs: &F, path: &Path, contents: &[u8]) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = PathBuf::from(temporary);
    if fs.exists(&temporary)? {
        fs.remove_file(&temporary)?;
    }
    let file = fs.open(&temporary, OpenMode::CreateNew)?;
    file.write_at(contents, 0)?;
    file.sync_all()?;
    drop(file);
    fs.rename(&temporary, path)?;
    fs.sync_dir(parent(path))
}

/// Reads a whole file.
///
/// # Errors
/// If it can't be read.
pub fn read_file<F: Fs>(fs: &F, path: &Path) -> io::Result<Vec<u8>> {
    let file = fs.open(path, OpenMode::Read)?;
    let len = usize::try_from(file.len()?)
        .map_err(|_| with_path(path, "read", io::ErrorKind::FileTooLarge.into()))?;
    let mut contents = vec![0; len];
    file.read_at(&mut contents, 0)?;
    Ok(contents)
}

/// The directory that holds `path`; `.` for a bare name.
pub fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) => Path::new("."),
        None => path,
    }
}

/// The same error with what was tried on which path in front, and the same kind.
fn with_path(path: &Path, doing: &'static str, source: io::Error) -> io::Error {
    io::Error::new(source.kind(), PathError { doing, path: path.to_owned(), source })
}

/// An I/O error and where it happened.
#[derive(Debug, thiserror::Error)]
#[error("{doing} {}: {source}", path.display())]
struct PathError {
    doing: &'static str,
    path: PathBuf,
    source: io::Error,
}
