//! Small things with files, and waiting without a runtime.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;

/// What lies in a directory, in order of names. Empty if it can't be read.
pub fn entries(dir: &Path) -> Vec<PathBuf> {
    let Ok(read) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut found: Vec<_> = read.filter_map(|entry| Some(entry.ok()?.path())).collect();
    found.sort();
    found
}

/// All files below a directory.
pub fn all_below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for path in entries(dir) {
        match std::fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_dir() => found.extend(all_below(&path)),
            Ok(meta) if meta.is_file() => found.push(path),
            Ok(_) | Err(_) => {}
        }
    }
    found
}

/// Writes a file and syncs it.
///
/// # Errors
/// If it can't be written.
pub fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let name = || path.display().to_string();
    let mut file = File::create(path).with_context(name)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).with_context(name)
}

/// Writes to a file of the kernel, which is not to be synced.
///
/// # Errors
/// If it can't be written.
pub fn poke(path: &Path, text: &str) -> anyhow::Result<()> {
    let name = || path.display().to_string();
    let mut file = File::options().write(true).open(path).with_context(name)?;
    file.write_all(text.as_bytes()).with_context(name)
}

/// Looks at a condition until it holds or the time is over; whether it holds. For the time without a runtime.
pub fn wait_until(limit: Duration, condition: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    while !condition() {
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
    true
}
