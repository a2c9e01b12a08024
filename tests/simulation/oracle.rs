//! What was seen and promised during a run, and what can never be true together with it.

use std::collections::BTreeMap;
use std::sync::Arc;

use holdfast::domain::{KeyVersion, NodeId, ProtectorId, Sealed};
use holdfast::raft::{MemberReport, MemberRole};
use parking_lot::Mutex;

use super::sights::{Sight, Sights};

/// An escrow that was acknowledged.
#[derive(Clone)]
pub(crate) struct Escrowed {
    pub(crate) protector: ProtectorId,
    pub(crate) version: KeyVersion,
    pub(crate) sealed: Sealed,
    pub(crate) plaintext: String,
    pub(crate) request_id: String,
    pub(crate) audit: u64,
    pub(crate) index: u64,
}

/// A disclosure that was answered.
#[derive(Clone)]
pub(crate) struct Disclosed {
    pub(crate) protector: ProtectorId,
    pub(crate) request_id: String,
    pub(crate) audit: u64,
    pub(crate) index: u64,
}

/// The memory of a run.
pub(crate) struct Oracle {
    hash: u64,
    pub(crate) events: Vec<String>,
    pub(crate) violations: Vec<String>,
    echo: bool,
    leaders: BTreeMap<u64, u64>,
    states: BTreeMap<u64, ([u8; 32], u64)>,
    log: BTreeMap<u64, (u64, u64)>,
    pub(crate) escrows: Vec<Escrowed>,
    pub(crate) disclosures: Vec<Disclosed>,
    /// Greatest log index of an acknowledged write.
    pub(crate) newest: u64,
    pub(crate) sights: Arc<Mutex<Sights>>,
    last_leader: Option<u64>,
}

/// FNV-1a, so that it is the same everywhere.
pub(crate) fn hash(seed: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(seed, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

pub(crate) const HASH_BEGIN: u64 = 0xcbf2_9ce4_8422_2325;

impl Oracle {
    pub(crate) fn new(echo: bool) -> Self {
        Self {
            hash: HASH_BEGIN,
            events: Vec::new(),
            violations: Vec::new(),
            echo,
            leaders: BTreeMap::new(),
            states: BTreeMap::new(),
            log: BTreeMap::new(),
            escrows: Vec::new(),
            disclosures: Vec::new(),
            newest: 0,
            sights: Arc::default(),
            last_leader: None,
        }
    }

    pub(crate) fn note(&mut self, at: u64, what: &str) {
        let line = format!("{at:>6} {what}");
        if self.echo {
            println!("{line}");
        }
        self.hash = hash(self.hash, line.as_bytes());
        self.events.push(line);
    }

    pub(crate) fn violation(&mut self, at: u64, what: &str) {
        self.note(at, &format!("VIOLATION {what}"));
        self.violations.push(what.to_owned());
    }

    /// A number for the whole run.
    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    /// Who was last seen to be the leader of a term.
    pub(crate) fn last_leader(&self) -> Option<u64> {
        self.last_leader
    }

    /// Counts something.
    pub(crate) fn saw(&self, sight: Sight) {
        self.sights.lock().add(sight, 1);
    }

    /// What a node says of itself: one leader a term, and the same state at the same index.
    pub(crate) fn look(&mut self, at: u64, id: u64, report: &MemberReport, leader: Option<NodeId>) {
        let leads = (report.role == MemberRole::Leader).then_some(id);
        for leader in leads.into_iter().chain(leader.map(NodeId::get)) {
            let known = self.leaders.get(&report.term).copied();
            if known.is_none() {
                self.note(at, &format!("term {} is led by n{leader}", report.term));
                self.leaders.insert(report.term, leader);
                if self.last_leader.replace(leader).is_some_and(|last| last != leader) {
                    self.saw(Sight::LeaderChange);
                }
            } else if known != Some(leader) {
                let what = format!("term {} has two leaders: {known:?}, n{leader}", report.term);
                self.violation(at, &what);
            }
        }
        let index = report.applied_index;
        let (state, first) = *self.states.entry(index).or_insert((report.state_digest, id));
        if state != report.state_digest {
            self.violation(at, &format!("n{id} and n{first} differ in their state at {index}"));
        }
        if !report.divergence.is_empty() {
            self.violation(at, &format!("n{id} reports divergence: {}", report.divergence));
        }
    }

    /// A committed entry as it lies on a node's disk: it is the same everywhere and for ever.
    pub(crate) fn committed(&mut self, at: u64, id: u64, index: u64, entry: (u64, u64)) {
        let known = *self.log.entry(index).or_insert(entry);
        if known != entry {
            self.violation(at, &format!("n{id} holds another committed entry at {index}"));
        }
    }
}
