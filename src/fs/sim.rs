//! A disk in memory that can be cut off, torn, filled, flipped and made to lie.
//!
//! What it models, so that a test can be as nasty as a real disk:
//! - **Names apart from contents.** A new, removed or renamed name lasts only once its directory is synced. At a power
//!   cut any subset of the un-synced changes of names survives; a rename is one change.
//! - **Sectors.** At a power cut each 512-byte sector written since the last sync holds, independently, what was last
//!   synced or any of the contents it had since. So does the length.
//! - **Failed fsync.** It says EIO once; as on Linux the bytes stay readable, count as clean, and a second fsync says
//!   `Ok` although they are not on the disk.
//! - **Full disk.** A budget of bytes; the length of a file counts, allocated or written.
//! - **Power cut.** From the n-th mutating operation on everything fails; then [`SimFs::crash`] gives the disk as it
//!   may look after the reboot. [`SimFs::restart`] is the death of the process alone: nothing is lost.
//!
//! Deterministic: the same calls and seeds give the same disk. It never touches the machine's file system.

mod disk;
mod nodes;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use self::disk::{Disk, errno};
use super::{Fs, FsFile, OpenMode, with_path};

/// Bytes that reach the disk all together or not at all.
pub const SECTOR: usize = 512;

/// What of the un-synced changes survives a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Survivors {
    /// Nothing: exactly what was synced.
    None,
    /// Everything, as if all had been synced in time.
    All,
    /// Each sector, length and name on its own, by this seed.
    Random(u64),
}

impl From<u64> for Survivors {
    fn from(seed: u64) -> Self {
        Self::Random(seed)
    }
}

/// A simulated disk. Cloning gives another handle to the same one.
#[derive(Debug, Clone, Default)]
pub struct SimFs(Arc<Mutex<Disk>>);

/// A file of [`SimFs`].
#[derive(Debug)]
pub struct SimFile {
    disk: Arc<Mutex<Disk>>,
    node: u64,
    handle: u64,
    path: PathBuf,
    writable: bool,
}

impl SimFs {
    /// An empty disk without limits or faults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Mutating operations so far: writes, syncs, and changes of lengths and names.
    pub fn operations(&self) -> u64 {
        self.0.lock().operations
    }

    /// Cuts the power at the `n`-th mutating operation from the beginning (counted from 0), before it does anything.
    pub fn power_cut_at(&self, n: u64) {
        self.0.lock().faults.power_cut_at = Some(n);
    }

    /// Cuts the power now.
    pub fn power_cut(&self) {
        self.0.lock().dead = true;
    }

    /// The disk after the power came back. Takes nothing from this one, so that several outcomes can be tried; handles
    /// to this one go on seeing this one.
    pub fn crash(&self, survivors: impl Into<Survivors>) -> Self {
        Self(Arc::new(Mutex::new(self.0.lock().crash(survivors.into()))))
    }

    /// The disk after the process died and another one starts: all faults are gone, nothing else is.
    pub fn restart(&self) -> Self {
        Self(Arc::new(Mutex::new(self.0.lock().restart())))
    }

    /// The number of bytes that fit; `None` for no limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.0.lock().faults.capacity = bytes;
    }

    /// Bytes in use.
    pub fn used_bytes(&self) -> u64 {
        self.0.lock().used()
    }

    /// The `n`-th sync from now (1 is the next one) fails with EIO and loses what it should have saved.
    pub fn fail_sync(&self, n: u64) {
        self.0.lock().faults.fail_sync = Some(n);
    }

    /// The `n`-th write from now (1 is the next one) fails with EIO and writes nothing.
    pub fn fail_write(&self, n: u64) {
        self.0.lock().faults.fail_write = Some(n);
    }

    /// The `n`-th write from now (1 is the next one) writes only its first `bytes` bytes, and the power goes.
    pub fn tear_write(&self, n: u64, bytes: usize) {
        self.0.lock().faults.tear_write = Some((n, bytes));
    }

    /// Takes back what [`Self::fail_sync`], [`Self::fail_write`] and [`Self::tear_write`] have set and has not come yet.
    pub fn disarm(&self) {
        let mut inner = self.0.lock();
        (inner.faults.fail_sync, inner.faults.fail_write) = (None, None);
        inner.faults.tear_write = None;
    }

    /// Syncs say `Ok` and do nothing: a lying disk, or a program that forgets to sync.
    pub fn lying_sync(&self, lying: bool) {
        self.0.lock().faults.lying_sync = lying;
    }

    /// Syncs done so far, successful or not.
    pub fn syncs(&self) -> u64 {
        self.0.lock().syncs
    }

    /// Syncs that failed by [`Self::fail_sync`].
    pub fn failed_syncs(&self) -> u64 {
        self.0.lock().failed_syncs
    }

    /// Whether the power went within a write, by [`Self::tear_write`].
    pub fn torn(&self) -> bool {
        self.0.lock().torn
    }

    /// Rot: flips one bit of a file, in the cache and on the disk.
    ///
    /// # Errors
    /// If there is no such file or byte.
    pub fn flip_bit(&self, path: &Path, offset: u64, bit: u8) -> io::Result<()> {
        self.0.lock().flip_bit(path, offset, bit).map_err(|e| with_path(path, "flip a bit of", e))
    }

    fn run<T>(
        &self,
        path: &Path,
        doing: &'static str,
        f: impl FnOnce(&mut Disk) -> io::Result<T>,
    ) -> io::Result<T> {
        f(&mut self.0.lock()).map_err(|e| with_path(path, doing, e))
    }
}

impl Fs for SimFs {
    type File = SimFile;

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<SimFile> {
        let (node, handle) = self.run(path, "open", |disk| disk.open(path, mode))?;
        Ok(SimFile {
            disk: Arc::clone(&self.0),
            node,
            handle,
            path: path.to_owned(),
            writable: mode != OpenMode::Read,
        })
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.run(path, "create directory", |disk| disk.create_dir_all(path))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.run(path, "remove", |disk| disk.remove(path, false))
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.run(path, "remove directory", |disk| disk.remove(path, true))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.run(from, "rename", |disk| disk.rename(from, to))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.run(path, "sync directory", |disk| disk.sync_dir(path))
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<String>> {
        self.run(path, "list directory", |disk| disk.read_dir(path))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.run(path, "look for", |disk| disk.exists(path))
    }

    fn file_len(&self, path: &Path) -> io::Result<u64> {
        self.run(path, "measure", |disk| disk.file_len(path))
    }

    fn available_bytes(&self, path: &Path) -> io::Result<u64> {
        self.run(path, "ask for the free space of", |disk| disk.available())
    }
}

impl SimFile {
    fn run<T>(
        &self,
        doing: &'static str,
        f: impl FnOnce(&mut Disk) -> io::Result<T>,
    ) -> io::Result<T> {
        f(&mut self.disk.lock()).map_err(|e| with_path(&self.path, doing, e))
    }

    fn check_writable(&self) -> io::Result<()> {
        if self.writable { Ok(()) } else { Err(errno(rustix::io::Errno::BADF)) }
    }
}

impl FsFile for SimFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.run("read", |disk| disk.read(self.node, buf, offset))
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.run("write", |disk| {
            self.check_writable()?;
            disk.write(self.node, buf, offset)
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.run("set the length of", |disk| {
            self.check_writable()?;
            disk.set_len(self.node, len)
        })
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.run("allocate", |disk| {
            self.check_writable()?;
            disk.allocate(self.node, len)
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.run("fdatasync", |disk| disk.sync_file(self.node))
    }

    fn sync_all(&self) -> io::Result<()> {
        self.run("fsync", |disk| disk.sync_file(self.node))
    }

    fn len(&self) -> io::Result<u64> {
        self.run("measure", |disk| disk.len_of(self.node))
    }

    fn try_lock_exclusive(&self) -> io::Result<bool> {
        self.run("lock", |disk| disk.lock(self.node, self.handle))
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        self.disk.lock().unlock(self.node, self.handle);
    }
}
