//! What all parts of one simulation share.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use holdfast::clock::Clock;
use holdfast::domain::Timestamp;
use holdfast::fs::sim::SimFs;
use holdfast::raft::Node;
use parking_lot::Mutex;

use super::credentials::{BEGIN, Credentials};
use super::oracle::Oracle;

/// A machine.
pub struct Machine {
    pub disk: SimFs,
    pub clock: Arc<SimClock>,
    /// The node, while its process runs.
    pub node: Option<Arc<Node<SimFs>>>,
    /// Why its process ended by itself.
    pub ended: Option<String>,
    /// Whether the disk was tampered with: then the node may refuse to start.
    pub rotten: bool,
    /// Whether the process may end by itself now.
    pub may_end: bool,
}

/// A clock that can be wrong.
pub struct SimClock {
    elapsed: Arc<AtomicU64>,
    wrong_by: AtomicI64,
}

impl SimClock {
    pub fn set_wrong_by(&self, millis: i64) {
        self.wrong_by.store(millis, Ordering::Relaxed);
    }
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        let right = BEGIN + self.elapsed.load(Ordering::Relaxed);
        Timestamp::from_millis(right.saturating_add_signed(self.wrong_by.load(Ordering::Relaxed)))
    }
}

/// One simulation.
pub struct World {
    pub seed: u64,
    pub credentials: Arc<Credentials>,
    elapsed: Arc<AtomicU64>,
    pub machines: Mutex<BTreeMap<u64, Machine>>,
    pub oracle: Mutex<Oracle>,
    /// The cluster is made.
    pub ready: AtomicBool,
    /// Nobody is to write any more.
    pub stopping: AtomicBool,
    /// Everything is level: the last checks may begin.
    pub level: AtomicBool,
    /// A member to be replaced, and the one that takes its place.
    pub replace: Mutex<Option<(u64, u64)>>,
}

impl World {
    pub fn new(seed: u64, echo: bool) -> Arc<Self> {
        Arc::new(Self {
            seed,
            credentials: Arc::new(Credentials::new()),
            elapsed: Arc::default(),
            machines: Mutex::default(),
            oracle: Mutex::new(Oracle::new(echo)),
            ready: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            level: AtomicBool::new(false),
            replace: Mutex::default(),
        })
    }

    pub fn add_machine(&self, id: u64) {
        let clock = SimClock { elapsed: Arc::clone(&self.elapsed), wrong_by: AtomicI64::new(0) };
        let machine = Machine {
            disk: SimFs::new(),
            clock: Arc::new(clock),
            node: None,
            ended: None,
            rotten: false,
            may_end: false,
        };
        self.machines.lock().insert(id, machine);
    }

    /// Milliseconds since the beginning.
    pub fn millis(&self) -> u64 {
        self.elapsed.load(Ordering::Relaxed)
    }

    pub fn set_millis(&self, millis: u64) {
        self.elapsed.store(millis, Ordering::Relaxed);
    }

    /// Notes an event of the run.
    pub fn note(&self, what: impl AsRef<str>) {
        let at = self.millis();
        self.oracle.lock().note(at, what.as_ref());
    }

    /// Notes what must never be.
    pub fn violation(&self, what: impl AsRef<str>) {
        let at = self.millis();
        self.oracle.lock().violation(at, what.as_ref());
    }

    pub fn is(flag: &AtomicBool) -> bool {
        flag.load(Ordering::Relaxed)
    }
}
