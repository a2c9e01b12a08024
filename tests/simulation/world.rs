//! What all parts of one simulation share.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};

use holdfast::clock::Clock;
use holdfast::domain::Timestamp;
use holdfast::fs::sim::SimFs;
use holdfast::raft::{MemberReport, MemberRole, Node};
use parking_lot::Mutex;

use super::credentials::{BEGIN, Credentials};
use super::oracle::{Check, Oracle};
use super::sights::Sight;

/// A machine.
pub(crate) struct Machine {
    pub(crate) disk: SimFs,
    pub(crate) clock: Arc<SimClock>,
    /// Whether its node can make no connections to others.
    pub(crate) closed: Arc<AtomicBool>,
    /// The node, while its process runs.
    pub(crate) node: Option<Arc<Node<SimFs>>>,
    /// Last entry in its log, and the last that it applied, when its node knows a leader.
    pub(crate) seen: Option<(u64, u64)>,
    /// The last entry that it applied, and the last term that it took part in, as it said itself.
    pub(crate) applied: u64,
    pub(crate) term: u64,
    /// Whether that term is new.
    pub(crate) voted: bool,
    /// Whether it leads, as far as it knows.
    pub(crate) leads: bool,
    /// Why its process ended by itself.
    pub(crate) ended: Option<String>,
    /// Whether a bit of the disk has rotted: then the node may end, and refuse to start.
    pub(crate) rotten: bool,
    /// Whether the process may end by itself now.
    pub(crate) may_end: bool,
}

impl Machine {
    /// Takes note of what the node says of itself.
    pub(crate) fn says(&mut self, report: &MemberReport) {
        self.applied = self.applied.max(report.applied_index);
        self.voted |= report.term > self.term;
        self.term = self.term.max(report.term);
        self.leads = report.role == MemberRole::Leader;
    }
}

/// A clock that can be wrong.
pub(crate) struct SimClock {
    elapsed: Arc<AtomicU64>,
    wrong_by: AtomicI64,
}

impl SimClock {
    pub(crate) fn set_wrong_by(&self, millis: i64) {
        self.wrong_by.store(millis, Ordering::Relaxed);
    }
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        let right = BEGIN + self.elapsed.load(Ordering::Relaxed);
        Timestamp::from_millis(right.saturating_add_signed(self.wrong_by.load(Ordering::Relaxed)))
    }
}

/// A change of the members that the operator is to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// A new member gets the place of another one.
    Replace { old: u64, new: u64 },
    /// A new member is added and gets a vote.
    Grow(u64),
    /// A member is removed.
    Shrink(u64),
}

/// While it lives a caller has something to do.
pub(crate) struct Working(Arc<World>);

impl Drop for Working {
    fn drop(&mut self) {
        self.0.working.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One simulation.
pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) credentials: Arc<Credentials>,
    elapsed: Arc<AtomicU64>,
    pub(crate) machines: Mutex<BTreeMap<u64, Machine>>,
    pub(crate) oracle: Mutex<Oracle>,
    /// The cluster is made.
    pub(crate) ready: AtomicBool,
    /// Nobody is to write any more.
    pub(crate) stopping: AtomicBool,
    /// Callers that still have something to do.
    pub(crate) working: AtomicUsize,
    /// Everything is level: the last checks may begin.
    pub(crate) level: AtomicBool,
    /// What the operator is to change; one at a time.
    pub(crate) change: Mutex<Option<Change>>,
    /// Machines that are no members any more, and run on until somebody switches them off.
    pub(crate) removed: Mutex<BTreeSet<u64>>,
}

impl World {
    pub(crate) fn new(seed: u64, echo: bool) -> Arc<Self> {
        Arc::new(Self {
            seed,
            credentials: Arc::new(Credentials::new()),
            elapsed: Arc::default(),
            machines: Mutex::default(),
            oracle: Mutex::new(Oracle::new(echo)),
            ready: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            working: AtomicUsize::new(0),
            level: AtomicBool::new(false),
            change: Mutex::default(),
            removed: Mutex::default(),
        })
    }

    /// Says that a caller has something to do, until what is returned is dropped. Nothing is level before.
    pub(crate) fn work(self: &Arc<Self>) -> Working {
        self.working.fetch_add(1, Ordering::Relaxed);
        Working(Arc::clone(self))
    }

    pub(crate) fn add_machine(&self, id: u64) {
        let clock = SimClock { elapsed: Arc::clone(&self.elapsed), wrong_by: AtomicI64::new(0) };
        let machine = Machine {
            disk: SimFs::new(),
            clock: Arc::new(clock),
            closed: Arc::default(),
            node: None,
            seen: None,
            applied: 0,
            term: 0,
            voted: false,
            leads: false,
            ended: None,
            rotten: false,
            may_end: false,
        };
        self.machines.lock().insert(id, machine);
    }

    /// Milliseconds since the beginning.
    pub(crate) fn millis(&self) -> u64 {
        self.elapsed.load(Ordering::Relaxed)
    }

    pub(crate) fn set_millis(&self, millis: u64) {
        self.elapsed.store(millis, Ordering::Relaxed);
    }

    /// Notes an event of the run.
    pub(crate) fn note(&self, what: impl AsRef<str>) {
        let at = self.millis();
        self.oracle.lock().note(at, what.as_ref());
    }

    /// Notes what must never be.
    pub(crate) fn violation(&self, check: Check, what: impl AsRef<str>) {
        let at = self.millis();
        self.oracle.lock().violation(at, check, what.as_ref());
    }

    /// Counts something.
    pub(crate) fn saw(&self, sight: Sight) {
        self.oracle.lock().saw(sight);
    }

    pub(crate) fn is(flag: &AtomicBool) -> bool {
        flag.load(Ordering::Relaxed)
    }
}
