//! Files of the data directory, as a disk or another node gives them back.
//!
//! Bytes are tried as they are, and once more with their checksums mended: rot is found by a checksum, and behind it only what
//! a faulty or hostile writer made.

use std::path::Path;

use crate::domain::NodeId;
use crate::fs::sim::SimFs;
use crate::fs::{Fs as _, FsFile as _, OpenMode};
use crate::fuzzing::{CLUSTER, parts};

use super::layout::{DataDir, ExpectedIdentity};
use super::{layout, snapshot, view, wal};

/// A disk with this file alone.
pub(super) fn disk(path: &Path, bytes: &[u8]) -> std::io::Result<SimFs> {
    let fs = SimFs::new();
    fs.create_dir_all(crate::fs::parent(path))?;
    let file = fs.open(path, OpenMode::CreateNew)?;
    file.write_at(bytes, 0)?;
    file.sync_all()?;
    Ok(fs)
}

/// A segment of the log, the only one.
pub(crate) fn wal(bytes: &[u8]) -> bool {
    let as_it_is = wal::fuzzing::opens(bytes);
    wal::fuzzing::opens(&wal::fuzzing::mended(bytes)) || as_it_is
}

/// A snapshot that another node sends.
pub(crate) fn snapshot(bytes: &[u8]) -> bool {
    let as_it_is = snapshot::fuzzing::taken_in(bytes);
    snapshot::fuzzing::taken_in(&snapshot::fuzzing::mended(bytes)) || as_it_is
}

/// An engine key and its value, a redo file and a filter of known keys.
pub(crate) fn view(bytes: &[u8]) -> bool {
    view::fuzzing::reads(bytes)
}

/// The files FORMAT and IDENTITY, which are parts.
pub(crate) fn data_directory(bytes: &[u8]) -> bool {
    let parts = parts(bytes);
    let [format, identity, ..] = parts.as_slice() else { return false };
    let as_it_is = opens(format, identity);
    opens(&layout::mended(format), &layout::mended(identity)) || as_it_is
}

fn opens(format: &[u8], identity: &[u8]) -> bool {
    let dir = Path::new("/data");
    let fs = disk(&dir.join("FORMAT"), format).and_then(|fs| {
        let file = fs.open(&dir.join("IDENTITY"), OpenMode::CreateNew)?;
        file.write_at(identity, 0)?;
        Ok(fs)
    });
    let Ok(fs) = fs else { return false };
    let expected = ExpectedIdentity { cluster: CLUSTER, node: NodeId::new(3) };
    let opened = DataDir::open_or_create(fs, dir, expected);
    opened.is_ok_and(|opened| {
        // A directory with an identity keeps it: none is made.
        assert!(!identity.is_empty());
        opened.identity().node == expected.node
    })
}

#[cfg(test)]
pub(crate) fn seeds() -> Vec<crate::fuzzing::Seed> {
    use crate::domain::Incarnation;
    use crate::fs::read_file;
    use crate::fuzzing::join;

    let (fs, dir) = (SimFs::new(), Path::new("/data"));
    let expected = ExpectedIdentity { cluster: CLUSTER, node: NodeId::new(3) };
    let mint = || Incarnation::from_bytes([7; 16]);
    drop(DataDir::open_or_create_with(fs.clone(), dir, expected, mint).unwrap());
    let files = ["FORMAT", "IDENTITY"].map(|name| read_file(&fs, &dir.join(name)).unwrap());
    let mut seeds = vec![("data_directory", "node-3".to_owned(), join(files))];
    seeds.extend(wal::fuzzing::seeds());
    seeds.extend(snapshot::fuzzing::seeds());
    seeds.extend(view::fuzzing::seeds());
    seeds
}
