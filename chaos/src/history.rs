//! What happened in a run, one event a line (JSON), in the order in which it was written down.
//!
//! The file lies outside the servers' disks. A call's [`Event::Invoke`] is written before the call is sent and its
//! [`Event::Return`] after the answer is there, so the real interval of each call lies within what is recorded.
//! Everything that a checker needs is here. The recovery keys in it are made for the run and open nothing.

mod members;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use members::{Change, ChangeEvent, Expect, Members};

/// Microseconds since the run began, by the monotonic clock of the harness.
pub type Micros = u64;

/// A call's number, unique in a run.
pub type OpId = u64;

/// One line of the history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// First line: what was run.
    Begin(Begin),
    /// A call is about to be sent.
    Invoke(Invoke),
    /// A call came to an end, or was given up.
    Return(Return),
    /// A fault was put in place or taken away.
    Fault(FaultEvent),
    /// What one server said of itself.
    Sample(Sample),
    /// A part of the run begins: "warm-up", "faults", "heal", "final".
    Phase {
        /// When.
        at: Micros,
        /// Which.
        name: String,
    },
    /// A change of the members, or of who leads, was asked for.
    Change(ChangeEvent),
    /// Whom a server held for members after a change.
    Members(Members),
    /// A part of the audit chain, written down once however often it is listed.
    AuditPage {
        /// What [`Reply::AuditList`] names it by.
        page: String,
        /// Its records.
        records: Vec<Audit>,
    },
    /// Something was found outside of the calls: a panic in a log, a planted key on a disk.
    Finding(Finding),
    /// Last line; without it the run was cut off.
    End {
        /// When.
        at: Micros,
    },
}

/// What was run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begin {
    /// Milliseconds since the Unix epoch when the run began.
    pub unix_ms: u64,
    /// Version of the servers.
    pub version: String,
    /// Everything random in the run follows from it.
    pub seed: u64,
    /// Servers at the beginning.
    pub nodes: Vec<u64>,
    /// Seconds of faults that were asked for.
    pub seconds: u64,
    /// Kinds of faults that were asked for.
    pub faults: Vec<String>,
    /// Kinds of faults that this machine can't do, and why.
    pub left_out: Vec<(String, String)>,
    /// The command that repeats the run.
    pub command: String,
}

/// A call is about to be sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invoke {
    /// When.
    pub at: Micros,
    /// The call.
    pub op: OpId,
    /// The client that calls; a client makes one call at a time.
    pub client: u64,
    /// The only server that may answer, or none if the client goes from one to the next.
    pub node: Option<u64>,
    /// What is asked.
    pub call: Call,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "call", rename_all = "snake_case")]
pub enum Call {
    /// A recovery key is escrowed. A retry has the same request id and the same bytes.
    Escrow {
        /// Made by the client; the same for a retry.
        request: Uuid,
        /// Device.
        device: Uuid,
        /// Volume.
        volume: Uuid,
        /// Key id.
        protector: Uuid,
        /// Version of the volume's key that the caller knows of; 0 if none.
        expected: u32,
        /// The recovery key as it is typed.
        key: String,
        /// SHA-256 of the sealed bytes, as the receipt must name it, in hexadecimal digits.
        sealed_digest: String,
    },
    /// A help-desk search; audited.
    Find {
        /// Made by the client.
        request: Uuid,
        /// First eight digits, or all 32 with dashes, or `volume DEVICE VOLUME` for all keys of a volume.
        query: String,
    },
    /// A recovery key is asked for; audited.
    Disclose {
        /// Made by the client; the same for a retry.
        request: Uuid,
        /// Key id.
        protector: Uuid,
        /// Version; 0 for the newest.
        version: u32,
    },
    /// A device reports its state.
    Report {
        /// Made by the client.
        request: Uuid,
        /// Device.
        device: Uuid,
    },
    /// A linearizable read of a device and its volumes.
    ReadDevice {
        /// Device.
        device: Uuid,
    },
    /// The same where staleness is allowed.
    ReadDeviceStale {
        /// Device.
        device: Uuid,
    },
    /// The end of the audit chain, linearizable.
    AuditHead,
    /// The whole audit chain; its records are verified and given in short.
    AuditList,
}

/// A call came to an end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Return {
    /// When.
    pub at: Micros,
    /// The call.
    pub op: OpId,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// It was done.
    Ok {
        /// The answer.
        reply: Reply,
    },
    /// The servers said no: it was not done and never will be under this request id in this form.
    Refused {
        /// Reason in UPPER_SNAKE, as docs/errors.md lists it.
        reason: String,
        /// For a person.
        message: String,
    },
    /// Nobody knows: it may have been done, may be done later, or never.
    Unknown {
        /// For a person.
        message: String,
    },
}

/// The answer to a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    /// The receipt, verified.
    Escrow {
        /// Version that the key got.
        version: u32,
        /// Entry that stored it.
        position: Position,
        /// Audit record that it left.
        audit: u64,
        /// The receipt's digest of the sealed bytes, in hexadecimal digits.
        sealed_digest: String,
    },
    /// Keys found: key id and version of each.
    Find {
        /// Each.
        keys: Vec<(Uuid, u32)>,
        /// Audit record of the search.
        audit: u64,
        /// Entry that answered.
        position: Position,
    },
    /// The key.
    Disclose {
        /// As it has to be typed.
        key: String,
        /// Its version.
        version: u32,
        /// Audit record of this disclosure.
        audit: u64,
        /// Entry that permitted it.
        position: Position,
        /// Whether it answers a retry.
        repeated: bool,
    },
    /// The report was taken.
    Report,
    /// The device's volumes: volume, version and key id of each. Empty if the device is unknown.
    Device {
        /// Each.
        volumes: Vec<(Uuid, u32, Uuid)>,
        /// Log index at which it was read.
        index: u64,
        /// Age of the answer in milliseconds, 0 for a linearizable one.
        age_ms: u64,
    },
    /// The end of the audit chain.
    AuditHead {
        /// Sequence number of the last record.
        sequence: u64,
        /// Its hash in hexadecimal digits.
        hash: String,
        /// Log index at which it was read.
        index: u64,
    },
    /// The audit chain, whole, verified up to its head.
    AuditList {
        /// The pages with its records, in order.
        #[serde(default)]
        pages: Vec<String>,
        /// Records after those.
        #[serde(default)]
        records: Vec<Audit>,
        /// Hash of the last one in hexadecimal digits.
        head: String,
    },
}

/// Place of an entry in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    /// Term.
    pub term: u64,
    /// Index.
    pub index: u64,
}

/// An audit record, in short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audit {
    /// Place in the chain, from 1.
    pub sequence: u64,
    /// What was done, as in docs/formats.md.
    pub action: String,
    /// What came of it.
    pub outcome: String,
    /// The caller's request id, empty if none.
    pub request: String,
    /// Key id, empty if none.
    pub protector: String,
    /// Version, 0 if none.
    pub version: u32,
    /// How many equal ones it stands for.
    pub count: u64,
    /// Its hash in hexadecimal digits.
    pub hash: String,
}

/// A fault was put in place or taken away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultEvent {
    /// When the step began.
    pub at: Micros,
    /// When it was done.
    pub until: Micros,
    /// Counts the faults of a run: install and heal of one have the same number.
    pub number: u64,
    /// Kind, as `holdfast-chaos list` names it.
    pub kind: String,
    /// What it hit, for a person: "node 2 (leader)".
    pub target: String,
    /// Servers that it hit.
    pub nodes: Vec<u64>,
    /// Whether it was put in place or taken away.
    pub step: FaultStep,
    /// Whether that took effect.
    pub effect: Effect,
}

/// Which half of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultStep {
    /// It is put in place.
    Install,
    /// It is taken away.
    Heal,
}

/// Whether a fault took effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "effect", rename_all = "snake_case")]
pub enum Effect {
    /// It was seen to take effect.
    Installed {
        /// How that was seen.
        seen: String,
    },
    /// It was not tried.
    Skipped {
        /// Why.
        why: String,
    },
    /// It was tried, and nobody can say whether it took effect.
    Indeterminate {
        /// Why.
        why: String,
    },
}

/// What one server said of itself, or that it said nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// When.
    pub at: Micros,
    /// Server.
    pub node: u64,
    /// Its answer; none if it gave none.
    pub status: Option<NodeStatus>,
    /// Its memory in bytes (RSS); none if it doesn't run.
    pub rss: Option<u64>,
    /// Its open file descriptors; none if it doesn't run.
    pub descriptors: Option<u64>,
}

/// A server's own word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Term.
    pub term: u64,
    /// Whether it leads.
    pub leads: bool,
    /// Whom it holds for the leader; 0 if nobody.
    pub leader: u64,
    /// Last entry of its log.
    pub last_log: u64,
    /// Last entry that it applied.
    pub applied: u64,
    /// The state's digest at `applied`, in hexadecimal digits.
    pub digest: String,
    /// The alarm of a state that differs, empty if there is none.
    pub divergence: String,
}

/// Something that was found outside of the calls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// When.
    pub at: Micros,
    /// Checker that it belongs to: "plaintext", "panic", "leak", "converge", "damage".
    pub checker: String,
    /// False if it is what should be: the scan that found nothing, and where it looked.
    pub bad: bool,
    /// For a person.
    pub what: String,
}
