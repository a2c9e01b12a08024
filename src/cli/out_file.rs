//! A result in a file that is there in full or not at all, and that takes no other file's place.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::exit::{CliError, Exit};

/// A file that is being written under another name.
pub(super) struct OutFile {
    path: PathBuf,
    file: NamedTempFile,
}

impl OutFile {
    /// Makes room for it, before anything is asked for; it must not exist.
    pub(super) fn create(path: &Path) -> Result<Self, CliError> {
        refuse_existing(path)?;
        let file = NamedTempFile::new_in(directory_of(path));
        let file = file.map_err(|error| CliError::usage(format!("{}: {error}", path.display())))?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// Writes it and gives it its name.
    pub(super) fn write(mut self, bytes: &[u8]) -> Result<(), CliError> {
        let path = self.path;
        let failed = |error| CliError::failed(format!("{}: {error}", path.display()));
        self.file.write_all(bytes).map_err(failed)?;
        self.file.as_file().sync_all().map_err(failed)?;
        self.file.persist_noclobber(&path).map_err(|error| failed(error.error))?;
        sync_directory(&path).map_err(failed)
    }
}

/// Says so if the name is taken.
pub(super) fn refuse_existing(path: &Path) -> Result<(), CliError> {
    match std::fs::symlink_metadata(path) {
        Ok(_) => {
            let what = format!("{} exists; nothing is overwritten", path.display());
            Err(CliError::new(Exit::Conflict, what))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(CliError::usage(format!("{}: {error}", path.display()))),
    }
}

/// Makes a new name in a directory durable.
pub(super) fn sync_directory(path: &Path) -> std::io::Result<()> {
    File::open(directory_of(path))?.sync_all()
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_its_name_only_when_it_is_whole_and_never_replaces_another() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        let begun = OutFile::create(&path).unwrap();
        assert!(!path.exists());
        begun.write(b"all of it").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"all of it");
        let taken = OutFile::create(&path).err().unwrap();
        assert_eq!(taken.exit(), Exit::Conflict);
        // Also if somebody makes it meanwhile.
        let late = dir.path().join("late");
        let begun = OutFile::create(&late).unwrap();
        std::fs::File::create(&late).unwrap();
        assert!(begun.write(b"mine").is_err());
        assert_eq!(std::fs::read(&late).unwrap(), b"");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "nothing stays behind");
        let nowhere = OutFile::create(&dir.path().join("none/out")).err().unwrap();
        assert_eq!(nowhere.exit(), Exit::Usage);
    }
}
