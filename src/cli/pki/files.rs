//! Files of the PKI: made with their mode, synced, never overwritten.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::crypto::{RootKey, system_rng};

use super::PkiError;

/// Mode of what everybody may read.
pub(super) const PUBLIC: u32 = 0o644;
/// Mode of a private key.
pub(super) const PRIVATE: u32 = 0o600;
/// Mode of the root key file, which is never written again.
const READ_ONLY: u32 = 0o400;

/// Makes a new root key and writes it to a file that only its owner may read.
///
/// # Errors
/// If the file exists, or can't be written.
pub fn write_root_key(path: &Path) -> Result<(), PkiError> {
    let text = RootKey::generate(&mut system_rng()).expose_file_text();
    write_new(path, text.as_bytes(), READ_ONLY)
}

pub(super) fn io(path: &Path, what: &'static str) -> impl FnOnce(std::io::Error) -> PkiError {
    let path = path.to_owned();
    move |source| PkiError::Io { path, what, source }
}

/// Writes a new file; it has its mode from the start, so that there is no moment when others could open it.
pub(super) fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<(), PkiError> {
    let opened = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let mut file = opened.map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => PkiError::Exists(path.to_owned()),
        _ => io(path, "can't be created")(error),
    })?;
    file.write_all(bytes).map_err(io(path, "can't be written"))?;
    file.sync_all().map_err(io(path, "can't be synced"))?;
    sync_directory(&parent(path))
}

/// Writes a new file for its owner alone.
pub(in crate::cli) fn write_private(path: &Path, bytes: &[u8]) -> Result<(), PkiError> {
    write_new(path, bytes, PRIVATE)
}

fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        Some(_) | None => PathBuf::from("."),
    }
}

fn sync_directory(path: &Path) -> Result<(), PkiError> {
    let directory = File::open(path).map_err(io(path, "can't be opened"))?;
    directory.sync_all().map_err(io(path, "can't be synced"))
}

/// Makes a directory for its owner alone, unless it is there.
pub(in crate::cli) fn create_private_dir(path: &Path) -> Result<(), PkiError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(io(path, "can't be created"))?;
    sync_directory(&parent(path))
}

/// Reads a private key, whose file must be for its owner alone.
pub(in crate::cli) fn read_private(path: &Path) -> Result<Zeroizing<String>, PkiError> {
    let metadata = std::fs::metadata(path).map_err(io(path, "can't be read"))?;
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(PkiError::KeyMode { path: path.to_owned(), mode });
    }
    let text = std::fs::read_to_string(path).map_err(io(path, "can't be read"))?;
    Ok(Zeroizing::new(text))
}
