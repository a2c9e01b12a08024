//! The ordered key-value store that the state machine is written against.

use std::collections::BTreeMap;

use bytes::Bytes;
use parking_lot::RwLock;

/// A key and its value.
pub type Record = (Bytes, Bytes);

/// A table of records. The tag is stored: never change or reuse one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Table {
    /// Single records about the state itself. Not part of the digest's sum, and not exported record by record.
    Meta = 0,
    /// Devices with their volumes, users and latest compliance; key: device id (16 bytes).
    Devices = 1,
    /// Key versions; key: protector id (16 bytes), then 2^32-1 minus the version (4 bytes, big-endian), so that the
    /// newest version of an id comes first.
    Keys = 2,
    /// Sealed key packages, keyed like [`Table::Keys`].
    Packages = 3,
    /// Audit records; key: sequence (8 bytes, big-endian).
    Audit = 4,
    /// Remembered requests; key: sequence from 0 (8 bytes, big-endian).
    Requests = 5,
    /// Role grants; key: operator, a zero byte, the role's number in store.proto (1 byte).
    Grants = 6,
    /// Keys: `root`, `signer`, `epoch` with its number (4 bytes, big-endian), `shares` if the root key is split, and `seal`
    /// while the cluster is sealed.
    /// Keys: `root`, `signer`, and `epoch` and `agent-ca`, each with its number (4 bytes, big-endian).
    Keyring = 7,
    /// Disclosures counted per requester while no policy was set; key: actor as printed.
    Quotas = 8,
    /// The deny-list; key: 1 and an actor as printed, or 2 and the SHA-256 of a certificate (32 bytes).
    Denials = 9,
    /// Enrolment tokens; key: token id (16 bytes).
    Tokens = 10,
    /// Devices that have certificates of the cluster's CA; key: device id (16 bytes).
    Enrolments = 11,
    /// Groups that devices are in besides that of their enrolment; key: device id (16 bytes).
    DeviceGroups = 12,
    /// Requests for approval; key: number from 1 (8 bytes, big-endian).
    Approvals = 14,
    /// Disclosures counted by spans of time; key: actor as printed, or `cluster` for all together.
    Tallies = 15,
    /// What bounds disclosures: `policy`, and `mass-recovery` once one was proposed.
    Controls = 16,
}

impl Table {
    /// All tables, in the order of their tags.
    pub const ALL: [Self; 16] = [
        Self::Meta,
        Self::Devices,
        Self::Keys,
        Self::Packages,
        Self::Audit,
        Self::Requests,
        Self::Grants,
        Self::Keyring,
        Self::Quotas,
        Self::Denials,
        Self::Tokens,
        Self::Enrolments,
        Self::DeviceGroups,
        Self::Approvals,
        Self::Tallies,
        Self::Controls,
    ];

    /// Its stored tag.
    pub const fn tag(self) -> u8 {
        self as u8
    }

    /// The table of a stored tag.
    pub fn from_tag(tag: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|table| table.tag() == tag)
    }

    /// Whether keys are dense 8-byte numbers that are appended at the end and removed at the front only, so that a
    /// store may pack neighbours together.
    pub const fn is_sequential(self) -> bool {
        matches!(self, Self::Audit | Self::Requests)
    }
}

/// The store failed. Always a local fault: the node stops, because its state can't be trusted or kept.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk or the engine failed.
    #[error("the store failed: {0}")]
    Engine(String),
    /// The disk has too little room left; nothing was changed, and it can be tried again.
    #[error("the disk has too little room for the store")]
    NoRoom,
    /// The store was closed in order: the process ends.
    #[error("the store is closed")]
    Closed,
    /// An export of all records was given up; the store itself is sound, and it can be tried again.
    #[error("the export of the store was abandoned: {0}")]
    Abandoned(&'static str),
    /// A record is damaged.
    #[error("record of table {table:?} is damaged: {what}")]
    Corrupt {
        /// Its table.
        table: Table,
        /// What is wrong.
        what: String,
    },
    /// Entries were handed over out of order: a fault of the layer above.
    #[error("entry {next} was applied after entry {last}")]
    OutOfOrder {
        /// Index of the last entry.
        last: u64,
        /// Index of the entry that should have followed it.
        next: u64,
    },
    /// An earlier call failed, so that nothing in memory can be trusted.
    #[error("the state machine failed before; open it again")]
    Failed,
}

/// Changes that become visible, and later durable, all at once. `None` removes a record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WriteSet(pub BTreeMap<(Table, Bytes), Option<Bytes>>);

/// An ordered key-value store. Reads see the last commit. One writer, many readers.
pub trait Store: Send + Sync + 'static {
    /// The value of `key`.
    ///
    /// # Errors
    /// A local fault: the record can't be read or is damaged.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// The first `limit` records whose key begins with `prefix` and is at or after `from`, ascending.
    ///
    /// # Errors
    /// A local fault: a record can't be read or is damaged.
    fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        from: &[u8],
        limit: usize,
    ) -> Result<Vec<Record>, StoreError>;

    /// Makes all changes visible at once. May wait while too much is not yet on disk.
    ///
    /// # Errors
    /// A local fault: what was committed before can't be brought to disk.
    fn commit(&self, changes: WriteSet) -> Result<(), StoreError>;
}

/// A store in memory, for models, tests and simulations of the state machine alone.
#[derive(Debug, Default)]
pub struct MemoryStore(RwLock<BTreeMap<(Table, Bytes), Bytes>>);

impl MemoryStore {
    /// All records, in order.
    pub fn records(&self) -> Vec<(Table, Record)> {
        self.0
            .read()
            .iter()
            .map(|((table, key), value)| (*table, (key.clone(), value.clone())))
            .collect()
    }
}

impl Store for MemoryStore {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.0.read().get(&(table, Bytes::copy_from_slice(key))).cloned())
    }

    fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        from: &[u8],
        limit: usize,
    ) -> Result<Vec<Record>, StoreError> {
        let start = Bytes::copy_from_slice(prefix.max(from));
        let records = self.0.read();
        let matching = records
            .range((table, start)..)
            .take_while(|((t, key), _)| *t == table && key.starts_with(prefix));
        Ok(matching.take(limit).map(|((_, key), value)| (key.clone(), value.clone())).collect())
    }

    fn commit(&self, changes: WriteSet) -> Result<(), StoreError> {
        let mut records = self.0.write();
        for (key, value) in changes.0 {
            match value {
                Some(value) => records.insert(key, value),
                None => records.remove(&key),
            };
        }
        Ok(())
    }
}
