//! The audit chain: its records, the bytes that are hashed, and how anyone checks the chain.
//!
//! Each record's hash covers the hash before it, so that no record can be changed, dropped or put in later without
//! changing all that follow. The hashed bytes don't depend on any encoding that we store or send records in: an outsider
//! can make them from the record's facts alone. `docs/formats-audit.md` lays them down for readers of other languages.
//! Nothing here writes or stores a record.

mod action;
mod chain;

use sha2::{Digest as _, Sha256};

use super::{
    Actor, DeviceId, KeyVersion, ProtectorId, Reason, RequestId, Text, Timestamp, User, VolumeId,
};

pub use action::{AuditAction, AuditOutcome};
pub use chain::{ChainError, ChainFault, verify_chain, verify_hashed_chain};

/// What the hashed bytes begin with: the layout's name and version.
pub const AUDIT_LABEL: &[u8; 18] = b"holdfast audit v1\0";

/// A place in the audit chain: the head after some record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AuditPosition {
    /// Its number, counted from 1; 0 before the first.
    pub sequence: u64,
    /// Its hash; zeros before the first.
    pub hash: [u8; 32],
}

/// One audit record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRecord {
    /// Number, counted from 1 without gaps.
    pub sequence: u64,
    /// When; never less than the record before.
    pub time: Timestamp,
    /// Term of the log entry that wrote it.
    pub log_term: u64,
    /// Index of the log entry that wrote it.
    pub log_index: u64,
    /// How many equal refusals it stands for; 1 for everything else.
    pub count: u64,
    /// Who; `None` only if the command could not be read.
    pub actor: Option<Actor>,
    /// What.
    pub action: AuditAction,
    /// How it ended.
    pub outcome: AuditOutcome,
    /// The request; `None` only if the command could not be read.
    pub request_id: Option<RequestId>,
    /// Device, if one was concerned.
    pub device: Option<DeviceId>,
    /// Volume, if one was concerned.
    pub volume: Option<VolumeId>,
    /// Key id, if one was concerned.
    pub protector: Option<ProtectorId>,
    /// Version of the key; [`KeyVersion::NONE`] if none was concerned.
    pub version: KeyVersion,
    /// Why, if a reason was given.
    pub reason: Option<Reason>,
    /// User that a key was disclosed for, if named.
    pub user: Option<User>,
    /// Ticket number; may be empty.
    pub ticket: Text,
    /// What the search, the grant or the change was about, in words; may be empty.
    pub detail: Text,
    /// Hash of the record before; zeros for the first.
    pub previous_hash: [u8; 32],
}

impl AuditRecord {
    /// The bytes that are hashed, without the previous hash. In this order, without anything between:
    ///
    /// | bytes | what |
    /// |---|---|
    /// | 18 | ASCII `holdfast audit v1` and a zero byte |
    /// | 8 | sequence |
    /// | 8 | time, milliseconds since the Unix epoch |
    /// | 8 | term of the log entry |
    /// | 8 | index of the log entry |
    /// | 8 | count |
    /// | 4 | version of the key, 0 for none |
    /// | 4+n | actor: `node/N`, `agent/UUID`, `operator/NAME`; empty if the command could not be read |
    /// | 4+n | action: its name, such as `disclose` |
    /// | 4+n | outcome: `ok`, `repeated`, or the reason of the refusal in UPPER_SNAKE |
    /// | 4+n | request id: 16 bytes in printed order, or empty |
    /// | 4+n | device: 16 bytes, or empty |
    /// | 4+n | volume: 16 bytes, or empty |
    /// | 4+n | key id: 16 bytes, or empty |
    /// | 4+n | reason code, or empty |
    /// | 4+n | reason text, or empty |
    /// | 4+n | user's domain, or empty |
    /// | 4+n | user's name, or empty |
    /// | 4+n | ticket, or empty |
    /// | 4+n | detail, or empty |
    ///
    /// All numbers are unsigned and big-endian. `4+n` is a 4-byte length `n` and `n` bytes, of UTF-8 where it is text.
    pub fn canonical(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(320);
        out.extend_from_slice(AUDIT_LABEL);
        let numbers =
            [self.sequence, self.time.as_millis(), self.log_term, self.log_index, self.count];
        for number in numbers {
            out.extend_from_slice(&number.to_be_bytes());
        }
        out.extend_from_slice(&self.version.get().to_be_bytes());
        let actor = self.actor.as_ref().map(ToString::to_string).unwrap_or_default();
        let (domain, name) = self.user.as_ref().map_or(("", ""), |u| (u.domain(), u.name()));
        let (code, text) = self.reason.as_ref().map_or(("", ""), |r| (r.code(), r.text()));
        let fields: [&[u8]; 13] = [
            actor.as_bytes(),
            self.action.as_str().as_bytes(),
            self.outcome.as_str().as_bytes(),
            self.request_id.as_ref().map_or(&[], |id| id.as_bytes()),
            self.device.as_ref().map_or(&[], |id| id.as_bytes()),
            self.volume.as_ref().map_or(&[], |id| id.as_bytes()),
            self.protector.as_ref().map_or(&[], |id| id.as_bytes()),
            code.as_bytes(),
            text.as_bytes(),
            domain.as_bytes(),
            name.as_bytes(),
            self.ticket.as_str().as_bytes(),
            self.detail.as_str().as_bytes(),
        ];
        for field in fields {
            // Every field is bounded far below 4 GiB by the types above.
            let length = u32::try_from(field.len()).unwrap_or(u32::MAX);
            out.extend_from_slice(&length.to_be_bytes());
            out.extend_from_slice(field);
        }
        out
    }

    /// Its hash: SHA-256 over the previous hash (32 bytes) and [`AuditRecord::canonical`].
    pub fn hash(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(self.previous_hash);
        hash.update(self.canonical());
        hash.finalize().into()
    }

    /// The chain's head once this record is its last.
    pub fn head(&self) -> AuditPosition {
        AuditPosition { sequence: self.sequence, hash: self.hash() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The two records of `docs/formats-audit.md`.
    fn vectors() -> [AuditRecord; 2] {
        let first = AuditRecord {
            sequence: 1,
            time: Timestamp::from_millis(1_700_000_000_000),
            log_term: 1,
            log_index: 3,
            count: 1,
            actor: Some("operator/alice".parse().unwrap()),
            action: AuditAction::Bootstrap,
            outcome: AuditOutcome::Ok,
            request_id: Some("00000000-0000-0000-0000-000000000001".parse().unwrap()),
            device: None,
            volume: None,
            protector: None,
            version: KeyVersion::NONE,
            reason: None,
            user: None,
            ticket: Text::default(),
            detail: Text::free("detail", "first administrator alice").unwrap(),
            previous_hash: [0; 32],
        };
        let second = AuditRecord {
            sequence: 2,
            time: Timestamp::from_millis(1_700_000_060_000),
            log_term: 1,
            log_index: 9,
            count: 1,
            actor: Some("operator/bob".parse().unwrap()),
            action: AuditAction::Disclose,
            outcome: AuditOutcome::Ok,
            request_id: Some("00000000-0000-0000-0000-000000000002".parse().unwrap()),
            device: Some("8c9d0e1f-2a3b-4c5d-6e7f-8091a2b3c4d5".parse().unwrap()),
            volume: Some("0b5a7c3e-1d2f-4a6b-8c9d-0e1f2a3b4c5d".parse().unwrap()),
            protector: Some("1854c11f-6b44-08b0-91db-121a2fbf9ac0".parse().unwrap()),
            version: KeyVersion::new(4),
            reason: Some(Reason::new("LOST_PIN", "").unwrap()),
            user: Some(User::new("CORP", "eve").unwrap()),
            ticket: Text::name("ticket", "INC-7").unwrap(),
            detail: Text::default(),
            previous_hash: first.hash(),
        };
        [first, second]
    }

    #[test]
    fn the_vectors_in_the_documentation_are_what_is_hashed() {
        let documentation = include_str!("../../docs/formats-audit.md");
        let packed: String = documentation.split_whitespace().collect();
        for record in vectors() {
            let canonical = hex::encode(record.canonical());
            assert!(packed.contains(&canonical), "canonical {}: {canonical}", record.sequence);
            let hash = hex::encode(record.hash());
            assert!(packed.contains(&hash), "hash {}: {hash}", record.sequence);
        }
    }

    #[test]
    fn every_field_is_part_of_the_hash() {
        let [_, record] = vectors();
        let id: RequestId = "00000000-0000-0000-0000-000000000009".parse().unwrap();
        let changes: [fn(&mut AuditRecord); 16] = [
            |r| r.sequence = 3,
            |r| r.time = Timestamp::from_millis(1),
            |r| r.log_term = 2,
            |r| r.log_index = 1,
            |r| r.count = 2,
            |r| r.actor = None,
            |r| r.action = AuditAction::Find,
            |r| r.outcome = AuditOutcome::Repeated,
            |r| r.device = None,
            |r| r.volume = None,
            |r| r.protector = None,
            |r| r.version = KeyVersion::new(5),
            |r| r.reason = None,
            |r| r.user = None,
            |r| r.ticket = Text::default(),
            |r| r.previous_hash = [1; 32],
        ];
        let mut seen = std::collections::BTreeSet::from([record.hash()]);
        for change in changes {
            let mut other = record.clone();
            change(&mut other);
            assert!(seen.insert(other.hash()), "{other:?}");
        }
        let mut other = AuditRecord { request_id: Some(id), ..record.clone() };
        assert!(seen.insert(other.hash()));
        other = record;
        other.detail = Text::free("detail", "x").unwrap();
        assert!(seen.insert(other.hash()));
    }

    #[test]
    fn text_cannot_move_from_one_field_to_the_next_unseen() {
        let [record, _] = vectors();
        let ticket = AuditRecord { ticket: record.detail.clone(), ..record.clone() };
        let moved = AuditRecord { detail: Text::default(), ..ticket };
        assert_ne!(moved.canonical(), record.canonical());
        assert_eq!(moved.canonical().len(), record.canonical().len());
    }

    #[test]
    fn names_of_actions_and_outcomes_round_trip() {
        for action in AuditAction::ALL {
            assert_eq!(action.as_str().parse(), Ok(action));
        }
        for text in ["ok", "repeated", "NOT_GRANTED"] {
            assert_eq!(AuditOutcome::from(text).as_str(), text);
        }
        assert!("disclosed".parse::<AuditAction>().is_err());
    }
}
