//! Files of a local cluster: its description, the nodes' configurations, the ends of logs.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::error::LocalError;
use crate::domain::DeviceId;

/// Format of the description.
const FORMAT: u32 = 1;
/// How much of a log's end is read for its last lines.
const TAIL_BYTES: u64 = 16 * 1024;

/// What a cluster has to be found again by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Description {
    format: u32,
    /// Whether the cluster was made, so that its nodes know each other by these ports for ever.
    pub(super) initialised: bool,
    /// The nodes.
    pub(super) nodes: Vec<NodePorts>,
    /// The device that an agent identity is made for.
    pub(super) device: DeviceId,
}

/// A node and its ports on 127.0.0.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodePorts {
    /// The node.
    pub id: u64,
    /// For agents and operators.
    pub client: u16,
    /// For other nodes.
    pub peer: u16,
    /// For metrics and health.
    pub http: u16,
}

impl NodePorts {
    /// Where clients reach it.
    pub fn client_address(&self) -> String {
        format!("127.0.0.1:{}", self.client)
    }

    /// Where other nodes reach it.
    pub fn peer_address(&self) -> String {
        format!("127.0.0.1:{}", self.peer)
    }

    /// Where metrics and health are served.
    pub fn http_address(&self) -> String {
        format!("127.0.0.1:{}", self.http)
    }
}

impl Description {
    pub(super) const fn new(nodes: Vec<NodePorts>, device: DeviceId) -> Self {
        Self { format: FORMAT, initialised: false, nodes, device }
    }

    /// Reads it; `None` if there is none.
    pub(super) fn read(path: &Path) -> Result<Option<Self>, LocalError> {
        let text = match std::fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io(path)(error)),
        };
        let bad = |what: String| LocalError::Description { path: path.to_owned(), what };
        let read: Self = serde_json::from_slice(&text).map_err(|error| bad(error.to_string()))?;
        if read.format != FORMAT {
            return Err(bad(format!("has format {}, this program knows {FORMAT}", read.format)));
        }
        Ok(Some(read))
    }
}

/// Refuses a directory that holds something, but nothing of a cluster.
pub(super) fn check_own(dir: &Path) -> Result<(), LocalError> {
    let ours = ["lock", "pki", "local.json"].iter().any(|name| dir.join(name).exists());
    let mut entries = std::fs::read_dir(dir).map_err(io(dir))?;
    if ours || entries.next().is_none() {
        return Ok(());
    }
    Err(LocalError::Foreign { dir: dir.to_owned() })
}

/// Takes the directory for this process alone, until the file is closed.
pub(super) fn lock(dir: &Path) -> Result<File, LocalError> {
    let path = dir.join("lock");
    let file = OpenOptions::new().create(true).append(true).open(&path).map_err(io(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(LocalError::InUse { dir: dir.to_owned() }),
        Err(TryLockError::Error(error)) => Err(io(&path)(error)),
    }
}

/// An error of a path.
pub(super) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> LocalError + use<> {
    let path = path.to_owned();
    move |source| LocalError::Io { path, source }
}

/// Writes a file so that it is there as a whole or not at all, also after a power cut.
pub(super) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), LocalError> {
    let parent = path.parent().unwrap_or_else(|| Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = parent.join(format!(".{name}.tmp"));
    let mut file = File::create(&temporary).map_err(io(&temporary))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(io(&temporary))?;
    std::fs::rename(&temporary, path).map_err(io(path))?;
    File::open(parent).and_then(|dir| dir.sync_all()).map_err(io(parent))
}

/// A value as JSON, written as [`write_atomically`] does.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<(), LocalError> {
    let json = serde_json::to_vec_pretty(value).map_err(|error| LocalError::Description {
        path: path.to_owned(),
        what: error.to_string(),
    })?;
    write_atomically(path, &json)
}

/// Opens a log to append to.
pub(super) fn open_log(path: &Path) -> Result<File, LocalError> {
    OpenOptions::new().create(true).append(true).open(path).map_err(io(path))
}

/// The last lines of a file, at most `lines`; empty if it can't be read.
pub(super) fn last_lines(path: &Path, lines: usize) -> String {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|mut file| {
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        file.take(TAIL_BYTES).read_to_end(&mut bytes)
    });
    if read.is_err() {
        return String::new();
    }
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<_> = text.lines().collect();
    let skip = all.len().saturating_sub(lines);
    all.into_iter().skip(skip).map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}
