//! What the agent knows about its volumes, beyond what stands on them: a small JSON file for each.
//!
//! Nothing here is a secret, and nothing is trusted that the volume or the servers can say: a record that is lost or damaged
//! costs one new key.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::domain::{KeyVersion, ProtectorId, Timestamp, VolumeId};
use crate::fs::{Fs, read_file, write_atomically};

const FORMAT: &str = "holdfast agent volume v1";
const SUFFIX: &str = ".json";
const TEMPORARY: &str = ".tmp";
/// Largest record that is read, in bytes.
const RECORD_BYTES: u64 = 64 * 1024;

/// A key that was seen to open its volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProofRecord {
    /// The key's id.
    pub protector: ProtectorId,
    /// Its version.
    pub version: u32,
    /// What its slot held then, in hexadecimal digits.
    pub fingerprint: String,
    /// When it was last seen so, in milliseconds since the Unix epoch.
    pub proven_at_ms: u64,
}

/// What is known of one volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumeRecord {
    format: String,
    /// The volume. Of one that is plain still, the id that it will get.
    pub volume: VolumeId,
    /// Where it was last seen.
    pub path: PathBuf,
    /// The newest version of its key that the servers are known to have; 0 for none.
    pub known: u32,
    /// The id of that key, if this agent escrowed it and has the receipt.
    pub receipt: Option<ProtectorId>,
    /// The last proof.
    pub proof: Option<ProofRecord>,
    /// Since when a new key is due, in milliseconds since the Unix epoch, and after which version.
    pub rotation_due: Option<RotationDue>,
}

/// An order to replace a key by a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RotationDue {
    /// The version that is to be replaced.
    pub version: u32,
    /// When it was ordered, in milliseconds since the Unix epoch.
    pub since_ms: u64,
}

impl VolumeRecord {
    /// Of a volume that nothing is known of.
    pub fn new(volume: VolumeId, path: &Path) -> Self {
        Self {
            format: FORMAT.to_owned(),
            volume,
            path: path.to_owned(),
            known: 0,
            receipt: None,
            proof: None,
            rotation_due: None,
        }
    }

    /// The newest version that the servers are known to have.
    pub const fn known(&self) -> KeyVersion {
        KeyVersion::new(self.known)
    }

    /// Notes that the servers have a key of this agent's: its receipt is on disk.
    pub const fn escrowed(&mut self, version: KeyVersion, protector: ProtectorId) {
        self.known = version.get();
        self.receipt = Some(protector);
    }

    /// Notes which version the servers say they have: they know, whatever was known here.
    pub fn corrected(&mut self, version: KeyVersion) {
        if self.known != version.get() {
            self.known = version.get();
            self.receipt = None;
        }
    }

    /// Notes an order to replace the key that is newest now.
    pub fn order_rotation(&mut self, now: Timestamp) {
        if !self.is_rotation_due() {
            self.rotation_due =
                Some(RotationDue { version: self.known, since_ms: now.as_millis() });
        }
    }

    /// Whether the newest key is one that is to be replaced.
    pub fn is_rotation_due(&self) -> bool {
        self.rotation_due.is_some_and(|due| due.version >= self.known)
    }
}

/// The records of all volumes, in a directory.
#[derive(Debug)]
pub struct Ledger<F: Fs> {
    fs: F,
    dir: PathBuf,
    records: BTreeMap<VolumeId, VolumeRecord>,
}

impl<F: Fs> Ledger<F> {
    /// Reads the records. One that can't be read is named in the log and is taken for lost.
    ///
    /// # Errors
    /// If the directory can't be made or read.
    pub fn open(fs: F, dir: &Path) -> io::Result<Self> {
        fs.create_dir_all(dir)?;
        fs.sync_dir(crate::fs::parent(dir))?;
        let mut records = BTreeMap::new();
        for name in fs.read_dir(dir)? {
            let path = dir.join(&name);
            if name.ends_with(TEMPORARY) {
                fs.remove_file(&path)?;
                continue;
            }
            let Some(volume) = name.strip_suffix(SUFFIX).and_then(|id| id.parse().ok()) else {
                continue;
            };
            match read(&fs, &path, volume) {
                Ok(record) => {
                    records.insert(volume, record);
                }
                Err(error) => {
                    let path = path.display();
                    tracing::error!(%path, %error, "what is known of a volume can't be read: it gets a new key");
                }
            }
        }
        Ok(Self { fs, dir: dir.to_owned(), records })
    }

    /// What is known of a volume.
    pub fn get(&self, volume: VolumeId) -> Option<&VolumeRecord> {
        self.records.get(&volume)
    }

    /// All records.
    pub fn records(&self) -> impl Iterator<Item = &VolumeRecord> {
        self.records.values()
    }

    /// Keeps a record. It is durable when this returns.
    ///
    /// # Errors
    /// If the disk doesn't take it; then the one before stands.
    pub fn put(&mut self, record: VolumeRecord) -> io::Result<()> {
        if self.records.get(&record.volume) == Some(&record) {
            return Ok(());
        }
        let text = serde_json::to_string_pretty(&record).map_err(io::Error::other)?;
        let path = self.dir.join(format!("{}{SUFFIX}", record.volume));
        write_atomically(&self.fs, &path, text.as_bytes())?;
        self.records.insert(record.volume, record);
        Ok(())
    }
}

fn read<F: Fs>(fs: &F, path: &Path, volume: VolumeId) -> io::Result<VolumeRecord> {
    let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let length = fs.file_len(path)?;
    if length > RECORD_BYTES {
        return Err(invalid(format!("it has {length} bytes")));
    }
    let record: VolumeRecord = serde_json::from_slice(&read_file(fs, path)?)
        .map_err(|error| invalid(error.to_string()))?;
    if record.format != FORMAT {
        return Err(invalid(format!("its format is {:?}", record.format)));
    }
    if record.volume != volume {
        return Err(invalid(format!("it is of the volume {}", record.volume)));
    }
    Ok(record)
}

#[cfg(all(test, feature = "server"))]
mod tests {
    use super::*;
    use crate::agent::testing::{NOW, dir, disk, volume};
    use crate::fs::sim::Survivors;

    fn record() -> VolumeRecord {
        let mut record = VolumeRecord::new(volume(1), Path::new("/dev/vdb"));
        record.escrowed(KeyVersion::new(2), ProtectorId::from_bytes([7; 16]));
        record
    }

    #[test]
    fn a_record_is_there_after_a_power_cut() {
        let fs = disk();
        Ledger::open(fs.clone(), dir()).unwrap().put(record()).unwrap();
        let ledger = Ledger::open(fs.crash(Survivors::None), dir()).unwrap();
        assert_eq!(ledger.get(volume(1)), Some(&record()));
    }

    #[test]
    fn a_record_that_cannot_be_read_is_taken_for_lost_and_the_others_stand() {
        let fs = disk();
        let mut ledger = Ledger::open(fs.clone(), dir()).unwrap();
        ledger.put(record()).unwrap();
        let file = |number: u8| dir().join(format!("{}.json", volume(number)));
        let good = read_file(&fs, &file(1)).unwrap();
        let later = String::from_utf8(good.clone()).unwrap().replace("volume v1", "volume v2");
        write_atomically(&fs, &file(2), b"{").unwrap();
        write_atomically(&fs, &file(3), &good).unwrap();
        write_atomically(&fs, &file(4), later.as_bytes()).unwrap();
        write_atomically(&fs, &file(5), &vec![b' '; 70_000]).unwrap();
        let ledger = Ledger::open(fs, dir()).unwrap();
        let volumes: Vec<_> = ledger.records().map(|record| record.volume).collect();
        assert_eq!(volumes, [volume(1)]);
    }

    #[test]
    fn an_order_to_rotate_is_for_the_key_that_was_newest_then() {
        let mut record = record();
        record.order_rotation(NOW);
        assert!(record.is_rotation_due());
        record.escrowed(KeyVersion::new(3), ProtectorId::from_bytes([8; 16]));
        assert!(!record.is_rotation_due());
        record.order_rotation(NOW);
        assert_eq!(record.rotation_due.map(|due| due.version), Some(3));
    }

    #[test]
    fn what_the_servers_say_they_have_is_what_counts() {
        let mut record = record();
        record.corrected(KeyVersion::new(2));
        assert!(record.receipt.is_some());
        record.corrected(KeyVersion::new(1));
        assert_eq!((record.known, record.receipt), (1, None));
    }
}
