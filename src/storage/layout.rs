//! The data directory: who may use it, and what lies where in it.
//!
//! ```text
//! LOCK         locked while a process uses the directory
//! FORMAT       version of the layout
//! IDENTITY     cluster, node and incarnation (I7)
//! JOINED       there once the node has taken part in the cluster, so that its log isn't empty (I7); JOINED.ready before
//! wal/ view/ snapshots/
//! ```
//!
//! The small files are text with a checksum in the last line. Each is written under a temporary name, synced, renamed,
//! and its directory synced. Nothing here reads or repairs what is in the sub-directories.

use std::io;
use std::path::{Path, PathBuf};

use crate::domain::{ClusterId, Incarnation, NodeId};
use crate::fs::{self, Fs, FsFile, OpenMode};

/// Version of the layout that this program writes, and the newest that it reads.
pub const FORMAT: u32 = 1;

const LOCK_FILE: &str = "LOCK";
const FORMAT_FILE: &str = "FORMAT";
const IDENTITY_FILE: &str = "IDENTITY";
const JOINED_FILE: &str = "JOINED";
/// The note before it holds. Giving it its name takes no room, so a disk that is full by then ends no server (I9).
const READY_FILE: &str = "JOINED.ready";
const DIRECTORIES: [&str; 3] = ["wal", "view", "snapshots"];
/// What may lie in a directory whose making was cut short, or in a fresh file system.
const UNFINISHED: [&str; 5] = [LOCK_FILE, FORMAT_FILE, "FORMAT.tmp", "IDENTITY.tmp", "lost+found"];

/// Whose directory the configuration says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpectedIdentity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
}

/// Whose directory it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
    /// This life of the directory; minted when it was made.
    pub incarnation: Incarnation,
}

/// The data directory can't be used. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// Another process has it.
    #[error("{} is in use by another process: stop that one first", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// It belongs to another cluster.
    #[error(
        "{} belongs to cluster {found}, and the configuration says {expected}: correct one of them; never copy a data \
         directory to another cluster", path.display()
    )]
    AnotherCluster {
        /// The directory.
        path: PathBuf,
        /// The cluster in its identity.
        found: ClusterId,
        /// The configured cluster.
        expected: ClusterId,
    },
    /// It belongs to another node.
    #[error(
        "{} belongs to node {found}, and the configuration says {expected}: correct one of them; never give a data \
         directory to another node", path.display()
    )]
    AnotherNode {
        /// The directory.
        path: PathBuf,
        /// The node in its identity.
        found: NodeId,
        /// The configured node.
        expected: NodeId,
    },
    /// A newer version wrote it.
    #[error("{} has layout version {found}; this program reads up to {FORMAT}: start the newer version", path.display())]
    NewerFormat {
        /// The directory.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// There are files, but no identity.
    #[error(
        "{} is not empty ({example:?} is in it) and has no IDENTITY: name an empty directory. If this node's IDENTITY \
         was lost, replace the node by one with a fresh node id", path.display()
    )]
    NoIdentity {
        /// The directory.
        path: PathBuf,
        /// One of the names in it.
        example: String,
    },
    /// One of the small files is damaged.
    #[error("{} is damaged: {what}. Restore the file, or replace the node by one with a fresh node id", file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
    /// The disk failed.
    #[error("the data directory can't be read or written: {0}")]
    Io(#[from] io::Error),
}

/// The note that a node has been a member: from then on an empty log means a lost one (I7). Holds no lock.
#[derive(Debug)]
pub struct Joined<F> {
    fs: F,
    file: PathBuf,
    ready: PathBuf,
    incarnation: Incarnation,
}

impl<F: Fs> Joined<F> {
    /// Makes it, durably.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn note(&self) -> Result<(), LayoutError> {
        if self.is_noted()? {
            return Ok(());
        }
        self.fs.rename(&self.ready, &self.file)?;
        Ok(self.fs.sync_dir(fs::parent(&self.file))?)
    }

    /// Takes the room for it.
    fn prepare(&self) -> Result<(), LayoutError> {
        if self.fs.exists(&self.file)? || self.fs.exists(&self.ready)? {
            return Ok(());
        }
        let text = with_checksum(format!("incarnation {}\n", self.incarnation));
        Ok(fs::write_atomically(&self.fs, &self.ready, &text)?)
    }

    /// Whether this node has ever been a member of the cluster.
    ///
    /// # Errors
    /// If the marker can't be read, is damaged, or stems from another incarnation.
    pub fn is_noted(&self) -> Result<bool, LayoutError> {
        if !self.fs.exists(&self.file)? {
            return Ok(false);
        }
        let text = read_checked(&self.fs, &self.file)?;
        let incarnation = field(&text, "incarnation");
        if incarnation == Some(self.incarnation) {
            Ok(true)
        } else {
            Err(LayoutError::Damaged {
                file: self.file.clone(),
                what: "it is of another incarnation",
            })
        }
    }
}

/// A data directory that this process holds. The lock goes when it is dropped.
#[derive(Debug)]
pub struct DataDir<F: Fs> {
    fs: F,
    path: PathBuf,
    identity: Identity,
    _lock: F::File,
}

impl<F: Fs> DataDir<F> {
    /// Locks the directory and checks that it is this node's; makes it if it is empty or absent.
    ///
    /// # Errors
    /// [`LayoutError`], which says what to do.
    pub fn open_or_create(
        fs: F,
        path: &Path,
        expected: ExpectedIdentity,
    ) -> Result<Self, LayoutError> {
        Self::open_or_create_with(
            fs,
            path,
            expected,
            || Incarnation::new(crate::turns::draw_uuid()),
        )
    }

    /// The same, with the source of a new directory's incarnation given, for simulation.
    ///
    /// # Errors
    /// [`LayoutError`], which says what to do.
    pub fn open_or_create_with(
        fs: F,
        path: &Path,
        expected: ExpectedIdentity,
        mint: impl FnOnce() -> Incarnation,
    ) -> Result<Self, LayoutError> {
        if !fs.exists(path)? {
            fs.create_dir_all(path)?;
            fs.sync_dir(fs::parent(path))?;
        }
        let names = fs.read_dir(path)?;
        let known = names.iter().any(|name| name == IDENTITY_FILE);
        let stranger = names.iter().find(|name| !UNFINISHED.contains(&name.as_str()));
        if let Some(example) = stranger.filter(|_| !known) {
            return Err(LayoutError::NoIdentity {
                path: path.to_owned(),
                example: example.clone(),
            });
        }
        let lock = lock(&fs, path)?;
        check_format(&fs, path, known)?;
        let identity = if fs.exists(&path.join(IDENTITY_FILE))? {
            read_identity(&fs, path, expected)?
        } else {
            let identity =
                Identity { cluster: expected.cluster, node: expected.node, incarnation: mint() };
            fs::write_atomically(&fs, &path.join(FORMAT_FILE), &format_text())?;
            fs::write_atomically(&fs, &path.join(IDENTITY_FILE), &identity_text(&identity))?;
            identity
        };
        for name in DIRECTORIES {
            fs.create_dir_all(&path.join(name))?;
        }
        fs.sync_dir(path)?;
        let directory = Self { fs, path: path.to_owned(), identity, _lock: lock };
        directory.joined().prepare()?;
        Ok(directory)
    }

    /// Whose it is.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The log's directory.
    pub fn wal(&self) -> PathBuf {
        self.path.join("wal")
    }

    /// The view's directory.
    pub fn view(&self) -> PathBuf {
        self.path.join("view")
    }

    /// The snapshots' directory.
    pub fn snapshots(&self) -> PathBuf {
        self.path.join("snapshots")
    }

    /// The note that this node has been a member.
    pub fn joined(&self) -> Joined<F> {
        Joined {
            fs: self.fs.clone(),
            file: self.path.join(JOINED_FILE),
            ready: self.path.join(READY_FILE),
            incarnation: self.identity.incarnation,
        }
    }
}

fn lock<F: Fs>(fs: &F, path: &Path) -> Result<F::File, LayoutError> {
    let file = path.join(LOCK_FILE);
    let lock = match fs.open(&file, OpenMode::CreateNew) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            fs.open(&file, OpenMode::ReadWrite)?
        }
        opened => opened?,
    };
    if lock.try_lock_exclusive()? {
        Ok(lock)
    } else {
        Err(LayoutError::InUse { path: path.to_owned() })
    }
}

fn check_format<F: Fs>(fs: &F, path: &Path, must_exist: bool) -> Result<(), LayoutError> {
    let file = path.join(FORMAT_FILE);
    if !fs.exists(&file)? {
        let missing = LayoutError::Damaged { file, what: "it is missing" };
        return if must_exist { Err(missing) } else { Ok(()) };
    }
    let text = read_checked(fs, &file)?;
    match field::<u32>(&text, "version") {
        Some(1..=FORMAT) => Ok(()),
        Some(found) if found > FORMAT => {
            Err(LayoutError::NewerFormat { path: path.to_owned(), found })
        }
        _ => Err(LayoutError::Damaged { file, what: "it names no version" }),
    }
}

fn read_identity<F: Fs>(
    fs: &F,
    path: &Path,
    expected: ExpectedIdentity,
) -> Result<Identity, LayoutError> {
    let file = path.join(IDENTITY_FILE);
    let text = read_checked(fs, &file)?;
    let parsed = (field(&text, "cluster"), field(&text, "node"), field(&text, "incarnation"));
    let (Some(cluster), Some(node), Some(incarnation)) = parsed else {
        return Err(LayoutError::Damaged { file, what: "a line is missing or malformed" });
    };
    let identity = Identity { cluster, node: NodeId::new(node), incarnation };
    if identity.cluster != expected.cluster {
        return Err(LayoutError::AnotherCluster {
            path: path.to_owned(),
            found: identity.cluster,
            expected: expected.cluster,
        });
    }
    if identity.node != expected.node {
        return Err(LayoutError::AnotherNode {
            path: path.to_owned(),
            found: identity.node,
            expected: expected.node,
        });
    }
    Ok(identity)
}

fn format_text() -> Vec<u8> {
    with_checksum(format!("version {FORMAT}\n"))
}

fn identity_text(identity: &Identity) -> Vec<u8> {
    with_checksum(format!(
        "cluster {}\nnode {}\nincarnation {}\n",
        identity.cluster, identity.node, identity.incarnation
    ))
}

fn with_checksum(mut text: String) -> Vec<u8> {
    let checksum = crc32c::crc32c(text.as_bytes());
    text.push_str(&format!("crc32c {checksum:08x}\n"));
    text.into_bytes()
}

fn read_checked<F: Fs>(fs: &F, file: &Path) -> Result<String, LayoutError> {
    let damaged = |what| LayoutError::Damaged { file: file.to_owned(), what };
    let contents = fs::read_file(fs, file)?;
    let text = String::from_utf8(contents).map_err(|_| damaged("it is no text"))?;
    let body = text.rfind("crc32c ").and_then(|at| text.get(..at)).unwrap_or_default().to_owned();
    if with_checksum(body.clone()) == text.as_bytes() {
        Ok(body)
    } else {
        Err(damaged("its checksum is wrong"))
    }
}

/// A file with the checksum that its text should have.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn mended(contents: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(contents);
    let body = text.rfind("crc32c ").and_then(|at| text.get(..at)).unwrap_or_default();
    with_checksum(body.to_owned())
}

/// The value of the line `name value`.
fn field<T: std::str::FromStr>(text: &str, name: &str) -> Option<T> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}
