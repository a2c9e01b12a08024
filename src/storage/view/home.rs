//! The view's directory.
//!
//! ```text
//! view/CURRENT      format version and number of the generation in use; replaced atomically
//! view/gen-3/       files of the engine, generation 3; and, after an orderly stop, of known.rs
//! view/redo-3       see redo.rs
//! view/CLEAN        left by an orderly stop: the checksum of each of the engine's files, and the state's digest
//! ```
//!
//! A generation is never renamed while the engine has it open. What is not named by `CURRENT` is left over from an
//! interrupted replacement, and removed. The whole directory may be deleted while the node is stopped.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::ViewError;
use super::known::Known;

const CURRENT: &str = "CURRENT";
const CLEAN: &str = "CLEAN";
const KNOWN: &str = "holdfast.known";
const FORMAT: &str = "holdfast-view 1";

/// A view's directory, with the generation in use.
#[derive(Debug, Clone)]
pub(super) struct Home {
    dir: PathBuf,
    generation: u64,
}

/// What an orderly stop left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CleanMark {
    /// Digest of the state.
    pub(super) state_digest: [u8; 32],
}

impl Home {
    /// Opens the directory, or makes one whose generation is new. Removes what an interrupted replacement left.
    pub(super) fn open(dir: &Path) -> Result<Self, ViewError> {
        let dir = dir.to_owned();
        make_dir(&dir).map_err(ViewError::io("make the directory of", &dir))?;
        let path = dir.join(CURRENT);
        let home = match fs::read(&path) {
            Ok(bytes) => {
                let generation = parse_current(&bytes).ok_or(ViewError::Marker(path))?;
                Self { dir, generation }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let home = Self { generation: 1, dir };
                remove_any(&home.engine_dir()).map_err(ViewError::io("remove", &home.dir))?;
                remove_any(&home.redo_path()).map_err(ViewError::io("remove", &home.dir))?;
                home.publish()?;
                home
            }
            Err(error) => return Err(ViewError::io("read", &path)(error)),
        };
        home.remove_leftovers().map_err(ViewError::io("clean up", &home.dir))?;
        Ok(home)
    }

    /// Removes the whole directory.
    pub(super) fn throw_away(dir: &Path) -> Result<(), ViewError> {
        remove_any(dir).map_err(ViewError::io("remove", dir))
    }

    /// The engine's directory.
    pub(super) fn engine_dir(&self) -> PathBuf {
        self.dir.join(format!("gen-{}", self.generation))
    }

    /// The redo file.
    pub(super) fn redo_path(&self) -> PathBuf {
        self.dir.join(format!("redo-{}", self.generation))
    }

    /// The next generation, whose directory does not exist yet.
    pub(super) fn next(&self) -> Result<Self, ViewError> {
        let next = Self { dir: self.dir.clone(), generation: self.generation + 1 };
        remove_any(&next.engine_dir()).map_err(ViewError::io("remove", &self.dir))?;
        Ok(next)
    }

    /// Makes this generation the one in use.
    pub(super) fn publish(&self) -> Result<(), ViewError> {
        let body = format!("{FORMAT}\ngeneration {}\n", self.generation);
        write_sealed(&self.dir, CURRENT, &body)
            .map_err(ViewError::io("write", &self.dir.join(CURRENT)))
    }

    /// Removes the engine's files, once it is closed.
    pub(super) fn remove_engine(&self) -> Result<(), ViewError> {
        remove_any(&self.engine_dir()).map_err(ViewError::io("remove", &self.dir))
    }

    /// Leaves the filter of known keys beside the engine's files, so that the marker's checksums cover it.
    pub(super) fn write_known(&self, known: Option<&Known>) -> Result<(), ViewError> {
        let path = self.engine_dir().join(KNOWN);
        let Some(known) = known else {
            return remove_any(&path).map_err(ViewError::io("remove", &path));
        };
        let written = File::create(&path).and_then(|mut file| file.write_all(&known.encode()));
        written.map_err(ViewError::io("write", &path))
    }

    /// The filter that an orderly stop left. Only for a view whose marker holds. `None` if there is none of this version:
    /// the records have to be read then.
    pub(super) fn read_known(&self) -> Option<Known> {
        let path = self.engine_dir().join(KNOWN);
        let known = fs::read(&path).map_err(|error| error.to_string());
        let known =
            known.and_then(|bytes| Known::decode(&bytes).map_err(|error| error.to_string()));
        known.inspect_err(|error| tracing::info!(error, "no filter of known keys")).ok()
    }

    /// Writes the marker of an orderly stop. The engine must be closed: its files are brought to disk and summed up.
    pub(super) fn mark_clean(&self, mark: &CleanMark) -> Result<(), ViewError> {
        let error = |error| ViewError::io("mark as clean", &self.dir)(error);
        let files = sum_files(&self.engine_dir(), true).map_err(error)?;
        let body = format!("{FORMAT}\nstate {}\n{files}", hex::encode(mark.state_digest));
        write_sealed(&self.dir, CLEAN, &body).map_err(error)
    }

    /// Takes the marker of an orderly stop away, and gives it back if it holds: `None` after any other stop.
    ///
    /// # Errors
    /// [`ViewError::Changed`] if the engine's files are not those that were closed.
    pub(super) fn take_clean(&self) -> Result<Option<CleanMark>, ViewError> {
        let path = self.dir.join(CLEAN);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(ViewError::io("read", &path)(error)),
        };
        let Some((mark, files)) = parse_clean(&bytes) else {
            self.remove_clean()?;
            return Ok(None);
        };
        let error = ViewError::io("sum up", &self.dir);
        if sum_files(&self.engine_dir(), false).map_err(error)? != files {
            return Err(ViewError::Changed(self.dir.clone()));
        }
        self.remove_clean()?;
        Ok(Some(mark))
    }

    /// The marker must never come back after a power loss: the directory is synced too.
    fn remove_clean(&self) -> Result<(), ViewError> {
        let remove = || {
            fs::remove_file(self.dir.join(CLEAN))?;
            sync_dir(&self.dir)
        };
        remove().map_err(ViewError::io("remove the clean marker of", &self.dir))
    }

    fn remove_leftovers(&self) -> io::Result<()> {
        let keep =
            [self.engine_dir(), self.redo_path(), self.dir.join(CURRENT), self.dir.join(CLEAN)];
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            if !keep.contains(&path) {
                remove_any(&path)?;
            }
        }
        Ok(())
    }
}

/// Makes the directory and makes its name durable.
fn make_dir(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    dir.parent().map_or(Ok(()), sync_dir)
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    File::open(dir)?.sync_all()
}

fn remove_any(path: &Path) -> io::Result<()> {
    let gone = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    gone.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

/// Replaces a file by `body` and its checksum, atomically and durably.
fn write_sealed(dir: &Path, name: &str, body: &str) -> io::Result<()> {
    let temporary = dir.join(format!("{name}.tmp"));
    let mut file = File::create(&temporary)?;
    file.write_all(body.as_bytes())?;
    file.write_all(format!("crc32c {:08x}\n", crc32c::crc32c(body.as_bytes())).as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, dir.join(name))?;
    sync_dir(dir)
}

/// The body of such a file, if its checksum holds.
fn open_sealed(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (body, sum) = text.split_at_checked(text.rfind("crc32c ")?)?;
    (sum == format!("crc32c {:08x}\n", crc32c::crc32c(body.as_bytes()))).then_some(body)
}

fn parse_current(bytes: &[u8]) -> Option<u64> {
    let rest = open_sealed(bytes)?.strip_prefix(FORMAT)?.strip_prefix("\ngeneration ")?;
    rest.strip_suffix('\n')?.parse().ok()
}

fn parse_clean(bytes: &[u8]) -> Option<(CleanMark, &str)> {
    let rest = open_sealed(bytes)?.strip_prefix(FORMAT)?.strip_prefix("\nstate ")?;
    let (digest, files) = rest.split_once('\n')?;
    let mut state_digest = [0; 32];
    hex::decode_to_slice(digest, &mut state_digest).ok()?;
    Some((CleanMark { state_digest }, files))
}

/// A line for each file under `dir`: checksum, length, path. With `sync`, each is brought to disk first.
fn sum_files(dir: &Path, sync: bool) -> io::Result<String> {
    let mut paths = Vec::new();
    list(dir, sync, &mut paths)?;
    paths.sort();
    let mut lines = String::new();
    let mut buffer = vec![0; 1 << 20];
    for path in paths {
        let mut file = File::open(&path)?;
        if sync {
            file.sync_all()?;
        }
        let (mut sum, mut length) = (0, 0_u64);
        loop {
            let read = file.read(&mut buffer)?;
            let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else { break };
            sum = crc32c::crc32c_append(sum, bytes);
            length += read as u64;
        }
        let name = path.strip_prefix(dir).unwrap_or(&path).display();
        lines.push_str(&format!("{sum:08x} {length} {name}\n"));
    }
    Ok(lines)
}

fn list(dir: &Path, sync: bool, paths: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            list(&path, sync, paths)?;
        } else {
            paths.push(path);
        }
    }
    if sync { sync_dir(dir) } else { Ok(()) }
}
