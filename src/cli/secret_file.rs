//! A file for a secret: made before the secret is asked for, so that nothing is disclosed that has no place to go.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::exit::CliError;

/// An empty file that is for its owner alone.
pub(super) struct SecretFile {
    path: PathBuf,
    file: File,
}

impl SecretFile {
    /// Makes it; it must not exist.
    pub(super) fn create(path: &Path) -> Result<Self, CliError> {
        let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        match file {
            Ok(file) => Ok(Self { path: path.to_owned(), file }),
            Err(error) => Err(CliError::usage(format!(
                "{}: {error}; nothing was asked for and nothing disclosed",
                path.display()
            ))),
        }
    }

    /// Writes the secret, and says where it is.
    pub(super) fn write(mut self, bytes: &[u8]) -> Result<String, CliError> {
        let written = self.file.write_all(bytes).and_then(|()| self.file.sync_all());
        match written {
            Ok(()) => Ok(format!("the key package is in {}", self.path.display())),
            Err(error) => Err(CliError::failed(format!(
                "the key above is disclosed, its key package is not saved: {}: {error}; disclose it again with another file",
                self.path.display()
            ))),
        }
    }

    /// Takes the empty file away again; what to tell the caller if it stays.
    pub(super) fn discard(self) -> Option<String> {
        let removed = std::fs::remove_file(&self.path);
        removed.err().map(|error| format!("{} stays behind, empty: {error}", self.path.display()))
    }
}
