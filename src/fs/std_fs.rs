//! The machine's file system.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, FlockOperation};
use rustix::io::Errno;

use super::{Fs, FsFile, OpenMode, with_path};

/// Zeros written at a time where a file system knows no fallocate.
const ZEROS: usize = 1 << 20;

/// The machine's file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct StdFs;

/// A file of [`StdFs`].
#[derive(Debug)]
pub struct StdFile {
    file: File,
    path: PathBuf,
}

impl Fs for StdFs {
    type File = StdFile;

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<StdFile> {
        let mut options = File::options();
        options.read(true);
        match mode {
            OpenMode::Read => {}
            OpenMode::ReadWrite => {
                options.write(true);
            }
            OpenMode::CreateNew => {
                options.write(true).create_new(true);
            }
        }
        let file = options.open(path).map_err(|e| with_path(path, "open", e))?;
        Ok(StdFile { file, path: path.to_owned() })
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path).map_err(|e| with_path(path, "create directory", e))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path).map_err(|e| with_path(path, "remove", e))
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path).map_err(|e| with_path(path, "remove directory", e))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to).map_err(|e| with_path(from, "rename", e))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)
            .and_then(|directory| directory.sync_all())
            .map_err(|e| with_path(path, "sync directory", e))
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<String>> {
        let list = || {
            let mut names = Vec::new();
            for entry in fs::read_dir(path)? {
                let name = entry?.file_name().into_string().map_err(|name| {
                    io::Error::new(io::ErrorKind::InvalidData, format!("{name:?} is no UTF-8"))
                })?;
                names.push(name);
            }
            names.sort_unstable();
            Ok(names)
        };
        list().map_err(|e| with_path(path, "list directory", e))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        path.try_exists().map_err(|e| with_path(path, "look for", e))
    }

    fn file_len(&self, path: &Path) -> io::Result<u64> {
        fs::metadata(path).map(|m| m.len()).map_err(|e| with_path(path, "measure", e))
    }

    fn available_bytes(&self, path: &Path) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(path)
            .map_err(|e| with_path(path, "ask for the free space of", e.into()))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

impl StdFile {
    fn error(&self, doing: &'static str, source: io::Error) -> io::Error {
        with_path(&self.path, doing, source)
    }

    /// What fallocate promises, where it isn't known: takes the space by writing zeros behind the end.
    fn write_zeros(&self, len: u64) -> io::Result<()> {
        let zeros = vec![0; ZEROS];
        let mut at = self.file.metadata()?.len();
        while at < len {
            let step = usize::try_from(len - at).map_or(ZEROS, |left| left.min(ZEROS));
            self.file.write_all_at(zeros.get(..step).unwrap_or(&zeros), at)?;
            at += step as u64;
        }
        Ok(())
    }
}

impl FsFile for StdFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buf, offset).map_err(|e| self.error("read", e))
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(buf, offset).map_err(|e| self.error("write", e))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len).map_err(|e| self.error("set the length of", e))
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        loop {
            return match rustix::fs::fallocate(&self.file, FallocateFlags::empty(), 0, len) {
                Ok(()) => Ok(()),
                Err(Errno::INTR) => continue,
                Err(Errno::OPNOTSUPP) => {
                    self.write_zeros(len).map_err(|e| self.error("allocate", e))
                }
                Err(e) => Err(self.error("allocate", e.into())),
            };
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data().map_err(|e| self.error("fdatasync", e))
    }

    fn sync_all(&self) -> io::Result<()> {
        self.file.sync_all().map_err(|e| self.error("fsync", e))
    }

    fn len(&self) -> io::Result<u64> {
        self.file.metadata().map(|m| m.len()).map_err(|e| self.error("measure", e))
    }

    fn try_lock_exclusive(&self) -> io::Result<bool> {
        match rustix::fs::flock(&self.file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(true),
            Err(Errno::WOULDBLOCK) => Ok(false),
            Err(e) => Err(self.error("lock", e.into())),
        }
    }
}
