//! What was seen and promised during a run, and what can never be true together with it.

use std::collections::BTreeMap;
use std::sync::Arc;

use holdfast::domain::{KeyVersion, NodeId, ProtectorId, Sealed};
use holdfast::raft::{MemberReport, MemberRole};
use parking_lot::Mutex;

use super::sights::{Sight, Sights};

/// What is checked; violations name it in brackets, and `holdfast-chaos controls` expects some of each planted bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Check {
    /// Answers are what was asked for, and nothing is refused for no reason.
    Answers,
    /// What was answered has its record, and the chain is unbroken.
    Audited,
    /// What was sealed for one place is not disclosed in another.
    Bound,
    /// What a node had applied, or promised another one, is still on its disk when it comes back.
    Durable,
    /// No process ends, or refuses to start, without a reason.
    Ended,
    /// Two nodes that see each other elect a leader soon.
    Elected,
    /// A read knows what was acknowledged before it.
    Fresh,
    /// One leader a term.
    Leader,
    /// After the healing all goes on, and is level.
    Live,
    /// Committed entries never change.
    Log,
    /// Every acknowledged escrow is in every state.
    Lost,
    /// A request that is repeated is known as one that was done.
    Once,
    /// Log order follows real time.
    Order,
    /// Whoever has no role gets nothing.
    Roles,
    /// Equal states at equal index.
    State,
}

impl Check {
    fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }
}

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
    /// Key ids that were sealed for another place, and what differs.
    pub(crate) forged: Vec<(ProtectorId, &'static str)>,
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
            forged: Vec::new(),
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

    pub(crate) fn violation(&mut self, at: u64, check: Check, what: &str) {
        let what = format!("[{}] {what}", check.name());
        self.note(at, &format!("VIOLATION {what}"));
        self.violations.push(what);
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
                self.violation(at, Check::Leader, &what);
            }
        }
        let index = report.applied_index;
        let (state, first) = *self.states.entry(index).or_insert((report.state_digest, id));
        if state != report.state_digest {
            let what = format!("n{id} and n{first} differ in their state at {index}");
            self.violation(at, Check::State, &what);
        }
        if !report.divergence.is_empty() {
            let what = format!("n{id} reports divergence: {}", report.divergence);
            self.violation(at, Check::State, &what);
        }
    }

    /// A committed entry as it lies on a node's disk: it is the same everywhere and for ever.
    pub(crate) fn committed(&mut self, at: u64, id: u64, index: u64, entry: (u64, u64)) {
        let known = *self.log.entry(index).or_insert(entry);
        if known != entry {
            let what = format!("n{id} holds another committed entry at {index}");
            self.violation(at, Check::Log, &what);
        }
    }
}
