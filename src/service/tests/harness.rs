//! One node whose log is a counter: what it proposes is applied at once, or not at all, as a test wants.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::auth::{Action, Caller, Permit};
use crate::clock::SystemClock;
use crate::crypto::testing::{CLUSTER, DEVICE, Order, TestCa, days_from_now, operator, rng};
use crate::crypto::{
    AgentCaSigner, Binding, CryptoError, EscrowPublicKey, NodeSigner, Part, RootKey, Secret, seal,
};
use crate::domain::{
    Actor, DeviceId, Incarnation, KeyVersion, NodeId, ProtectorId, ProtectorKind, Reach, Reason,
    RecoveryKey, RequestId, Role, Sealed, Text, User, VolumeId, VolumeKind,
};
use crate::raft::{ClusterView, Freshness, Hello, Member, NodeMetrics, RaftError};
use crate::server::ServerNode;
use crate::service::*;
use crate::state::{
    Applied, Command, CommandBody, Disclose, Entry, Escrow, Machine, MemoryStore, Position, codec,
};

/// What becomes of a proposal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Log {
    /// It is committed and applied.
    Commits,
    /// Nothing is proposed.
    NoLeader,
    /// Nothing is proposed, and reads are answered: the leader is lost in between.
    ReadsOnly,
    /// It is committed elsewhere, and this node never gets to apply it.
    CommitsElsewhere,
    /// There is never an answer.
    Stalls,
}

/// A consensus of one.
pub(crate) struct Fake {
    store: Arc<MemoryStore>,
    machine: Mutex<Machine<MemoryStore>>,
    pub(crate) log: Mutex<Log>,
    pub(crate) age: Mutex<Duration>,
    pub(crate) members: Mutex<Option<Vec<Member>>>,
    pub(crate) used: Mutex<Vec<NodeId>>,
    pub(crate) proposed: Mutex<Vec<Command>>,
    pub(crate) changes: Mutex<Vec<String>>,
    pub(crate) failure: watch::Sender<Option<String>>,
    /// What the server did to it at the end, in order.
    pub(crate) ending: Mutex<Vec<&'static str>>,
}

impl Fake {
    fn new() -> Self {
        let store = Arc::<MemoryStore>::default();
        let machine = Mutex::new(Machine::open(Arc::clone(&store)).unwrap());
        Self {
            store,
            machine,
            log: Mutex::new(Log::Commits),
            age: Mutex::new(Duration::ZERO),
            members: Mutex::default(),
            used: Mutex::default(),
            proposed: Mutex::default(),
            changes: Mutex::default(),
            failure: watch::Sender::new(None),
            ending: Mutex::default(),
        }
    }

    fn index(&self) -> u64 {
        self.machine.lock().heads().position.map_or(0, |position| position.index)
    }

    fn apply(&self, command: &Command) -> Applied {
        let mut machine = self.machine.lock();
        let index = machine.heads().position.map_or(1, |position| position.index + 1);
        let entry = Entry::Command(codec::encode_command(command));
        machine.apply([(Position { term: 1, index }, entry)]).unwrap().pop().unwrap()
    }

    /// Applies a membership of these nodes.
    pub(crate) fn membership(&self, nodes: &[u64]) {
        let mut machine = self.machine.lock();
        let index = machine.heads().position.map_or(1, |position| position.index + 1);
        let members = nodes.iter().copied().map(NodeId::new).collect();
        let entry = Entry::Membership { bytes: bytes::Bytes::from_static(b"members"), members };
        machine.apply([(Position { term: 1, index }, entry)]).unwrap();
    }

    fn change(&self, what: String) -> Result<Position, RaftError> {
        self.changes.lock().push(what);
        Ok(Position { term: 1, index: self.index() })
    }
}

impl Consensus for Fake {
    type View = MemoryStore;

    async fn propose(&self, command: Command) -> Result<Applied, RaftError> {
        self.proposed.lock().push(command.clone());
        let log = *self.log.lock();
        match log {
            Log::Commits => Ok(self.apply(&command)),
            Log::NoLeader | Log::ReadsOnly => Err(RaftError::NoLeader),
            Log::CommitsElsewhere => {
                // What the leader answers, from a copy: this node's own state stays behind.
                let copy = Arc::<MemoryStore>::default();
                let records = self.store.records().into_iter();
                let changes = records.map(|(table, (key, value))| ((table, key), Some(value)));
                let changes = crate::state::WriteSet(changes.collect());
                crate::state::Store::commit(copy.as_ref(), changes).unwrap();
                let mut machine = Machine::open(copy).unwrap();
                let index = self.index() + 1;
                let entry = Entry::Command(codec::encode_command(&command));
                Ok(machine.apply([(Position { term: 1, index }, entry)]).unwrap().pop().unwrap())
            }
            Log::Stalls => std::future::pending().await,
        }
    }

    async fn wait_applied(&self, index: u64, _: Duration) -> Result<(), RaftError> {
        if self.index() >= index { Ok(()) } else { Err(RaftError::NoLeader) }
    }

    async fn read_barrier(&self) -> Result<u64, RaftError> {
        let log = *self.log.lock();
        match log {
            Log::Commits | Log::ReadsOnly => Ok(self.index()),
            _ => Err(RaftError::NoLeader),
        }
    }

    fn view(&self) -> &MemoryStore {
        &self.store
    }

    fn freshness(&self) -> Freshness {
        Freshness { applied_index: self.index(), age: *self.age.lock() }
    }

    fn initialized(&self) -> bool {
        self.members.lock().is_some()
    }

    async fn statuses(&self, _: bool) -> ClusterView {
        ClusterView { leader: Some(NodeId::new(1)), members: Vec::new(), shut_out: None }
    }

    async fn hello(&self, id: NodeId, _: &str) -> Result<Hello, RaftError> {
        let last_log = self.used.lock().contains(&id).then_some(Position { term: 1, index: 7 });
        Ok(Hello { id, incarnation: Incarnation::from_bytes([9; 16]), last_log })
    }

    async fn initialize(&self, members: Vec<Member>) -> Result<(), RaftError> {
        *self.members.lock() = Some(members);
        Ok(())
    }

    async fn add_learner(&self, member: Member) -> Result<Position, RaftError> {
        self.change(format!("add {}", member.id))
    }

    async fn promote(&self, node: NodeId) -> Result<Position, RaftError> {
        self.change(format!("promote {node}"))
    }

    async fn remove(&self, node: NodeId) -> Result<Position, RaftError> {
        self.change(format!("remove {node}"))
    }

    async fn transfer(&self, to: Option<NodeId>) -> Result<NodeId, RaftError> {
        self.change("transfer".to_owned())?;
        Ok(to.unwrap_or(NodeId::new(2)))
    }

    fn set_unsealed(&self, _: bool) {}
}

impl ServerNode for Fake {
    fn metrics(&self) -> NodeMetrics {
        NodeMetrics { term: 3, leader: 1, is_leader: true, ..NodeMetrics::default() }
    }

    fn shut_out(&self) -> Option<String> {
        None
    }

    fn renew(&self, _: crate::crypto::Authority, _: crate::tls::Identity) {}

    async fn failed(&self) -> String {
        let mut failure = self.failure.subscribe();
        failure.wait_for(Option::is_some).await.unwrap().clone().unwrap()
    }

    async fn drain(&self) {
        self.ending.lock().push("drain");
    }

    async fn shutdown(&self) {
        self.ending.lock().push("shutdown");
    }
}

/// Counts what is opened on its way to the real keyring.
pub(crate) struct Spy {
    inner: Arc<dyn Opener>,
    pub(crate) opened: AtomicUsize,
}

impl Opener for Spy {
    fn open(&self, binding: &Binding, part: Part, sealed: &Sealed) -> Result<Secret, CryptoError> {
        self.opened.fetch_add(1, Ordering::SeqCst);
        self.inner.open(binding, part, sealed)
    }

    fn opens_to(&self, key: &EscrowPublicKey) -> bool {
        self.inner.opens_to(key)
    }

    fn reseal(
        &self,
        to: &EscrowPublicKey,
        binding: &Binding,
        part: Part,
        sealed: &Sealed,
    ) -> Result<Sealed, CryptoError> {
        self.inner.reseal(to, binding, part, sealed)
    }

    fn agent_ca(&self) -> Result<Option<&AgentCaSigner>, &CryptoError> {
        self.inner.agent_ca()
    }
}

/// A node with all its services.
pub(crate) struct Bench {
    pub(crate) ca: TestCa,
    pub(crate) fake: Arc<Fake>,
    pub(crate) context: Arc<Context<Fake>>,
    pub(crate) sealing: Arc<Sealing>,
    pub(crate) escrow: EscrowService<Fake>,
    pub(crate) admin: AdminService<Fake>,
    pub(crate) audit: AuditService<Fake>,
    pub(crate) compliance: ComplianceService<Fake>,
    pub(crate) cluster: ClusterService<Fake>,
    pub(crate) operator: OperatorService<Fake>,
    pub(crate) dir: tempfile::TempDir,
}

pub(crate) const VOLUME: VolumeId = VolumeId::from_bytes([2; 16]);
pub(crate) const PROTECTOR: ProtectorId = ProtectorId::from_bytes([3; 16]);

pub(crate) fn request(n: u8) -> RequestId {
    RequestId::from_bytes([n; 16])
}

pub(crate) fn caller(actor: Actor) -> Caller {
    Caller::proven(actor, days_from_now(1), "01")
}

pub(crate) fn alice() -> Caller {
    caller(operator("alice"))
}

pub(crate) fn agent() -> Caller {
    caller(Actor::Agent(DEVICE))
}

impl Bench {
    /// A node that is in no cluster; with the root key in a file if `unsealable`.
    pub(crate) fn empty(unsealable: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key_file = unsealable.then(|| write_root_key(dir.path().join("root.key")));
        let (ca, fake) = (TestCa::new("node"), Arc::new(Fake::new()));
        let context = Arc::new(Context::new(
            Arc::clone(&fake),
            Arc::new(SystemClock),
            CLUSTER,
            NodeId::new(1),
            Deadlines { propose: Duration::from_millis(200), ..Deadlines::default() },
        ));
        let sealing = Arc::new(Sealing::new(CLUSTER, key_file, dir.path().join("data")));
        let made = ca.make(&Order::node(1));
        let signer = NodeSigner::new(CLUSTER, NodeId::new(1), made.chain(), &made.private_key);
        let signers = watch::Sender::new(Arc::new(signer.unwrap()));
        let shared = || Arc::clone(&context);
        Self {
            escrow: EscrowService::new(shared(), Arc::clone(&sealing), signers.subscribe()),
            admin: AdminService::new(shared()),
            audit: AuditService::new(shared(), signers.subscribe()),
            compliance: ComplianceService::new(shared()),
            cluster: ClusterService::new(shared(), Arc::clone(&sealing), ca.authority()),
            operator: OperatorService::new(shared(), Arc::clone(&sealing)),
            ca,
            fake,
            context,
            sealing,
            dir,
        }
    }

    /// A cluster whose administrator is alice, who has every other role too.
    pub(crate) async fn ready() -> Self {
        let bench = Self::empty(true);
        bench.init().await.unwrap();
        for (n, role) in (100..).zip(Role::ALL) {
            bench.grant(n, "alice", role).await;
        }
        bench
    }

    pub(crate) async fn init(&self) -> Result<crate::domain::Epoch, ServiceError> {
        let permit = self.permit_stale(&alice(), Action::InitCluster).unwrap();
        self.cluster.init(&permit, request(1), self.init_request(1)).await
    }

    pub(crate) fn init_request(&self, nodes: u64) -> InitCluster {
        InitCluster {
            nodes: (1..=nodes).map(node).collect(),
            administrator: "alice".parse().unwrap(),
            signer: self.ca.make(&Order::escrow_signer()).material(),
            split: None,
        }
    }

    /// The root key in the node's file.
    pub(crate) fn root_key(&self) -> RootKey {
        let dir = self.dir.path();
        RootKey::load(&dir.join("root.key"), &dir.join("data")).unwrap()
    }

    /// The node after a restart: what it had in memory is gone.
    pub(crate) fn restart(&mut self) {
        let path = self.dir.path().join("root.key");
        let key_file = path.exists().then_some(path);
        self.sealing = Arc::new(Sealing::new(CLUSTER, key_file, self.dir.path().join("data")));
        let shared = || (Arc::clone(&self.context), Arc::clone(&self.sealing));
        let (context, sealing) = shared();
        self.operator = OperatorService::new(context, sealing);
        let (context, sealing) = shared();
        self.cluster = ClusterService::new(context, sealing, self.ca.authority());
        refresh_sealing(&self.context, &self.sealing).unwrap();
    }

    pub(crate) async fn grant(&self, n: u8, operator: &str, role: Role) {
        self.grant_for(n, operator, role, Reach::ALL).await;
    }

    pub(crate) async fn grant_for(&self, n: u8, operator: &str, role: Role, reach: Reach) {
        let permit = self.permit(&alice(), Action::Grant).unwrap();
        let operator = operator.parse().unwrap();
        self.admin.grant(&permit, request(n), (operator, role), reach).await.unwrap();
    }

    pub(crate) fn permit(&self, caller: &Caller, action: Action) -> Result<Permit, ServiceError> {
        self.context.permit(caller, action, Staleness::Refused)
    }

    pub(crate) fn permit_stale(
        &self,
        caller: &Caller,
        action: Action,
    ) -> Result<Permit, ServiceError> {
        self.context.permit(caller, action, Staleness::Accepted)
    }

    /// Seals `secret` as an agent would, and escrows it as version 1 of the volume.
    pub(crate) async fn escrow(&self, secret: &[u8]) -> SignedReceipt {
        let permit = self.permit(&agent(), Action::Escrow { device: DEVICE }).unwrap();
        self.escrow.escrow(&permit, request(10), self.sealed(secret)).await.unwrap()
    }

    pub(crate) fn sealed(&self, secret: &[u8]) -> Escrow {
        let permit = self.permit_stale(&agent(), Action::GetEscrowKey).unwrap();
        let key = self.escrow.escrow_key(&permit).unwrap().key;
        let binding = Binding {
            cluster: CLUSTER,
            device: DEVICE,
            volume: VOLUME,
            protector: PROTECTOR,
            protector_kind: ProtectorKind::Luks2RecoveryKey,
            version: KeyVersion::new(1),
        };
        let seal = |part, secret| seal(&key, &binding, part, secret, &mut rng()).unwrap();
        Escrow {
            device: DEVICE,
            volume: VOLUME,
            protector: PROTECTOR,
            protector_kind: ProtectorKind::Luks2RecoveryKey,
            volume_kind: VolumeKind::OperatingSystem,
            expected_version: KeyVersion::NONE,
            key: seal(Part::Key, secret),
            package: Some(seal(Part::Package, b"package")),
            host_name: Text::name("host_name", "pc-1").unwrap(),
            users: vec![User::new("", "bob").unwrap()],
        }
    }

    /// The help desk, with a spy in front of the keyring.
    pub(crate) fn recovery(&self) -> (RecoveryService<Fake>, Arc<Spy>) {
        let inner = self.sealing.opener().unwrap();
        let spy = Arc::new(Spy { inner, opened: AtomicUsize::new(0) });
        let opener: Arc<dyn Opener> = Arc::<Spy>::clone(&spy);
        let sealing = Arc::new(Sealing::with_opener(CLUSTER, opener));
        (RecoveryService::new(Arc::clone(&self.context), sealing), spy)
    }

    pub(crate) fn last_proposal(&self) -> CommandBody {
        self.fake.proposed.lock().last().unwrap().body.clone()
    }
}

pub(crate) fn node(n: u64) -> NodeSpec {
    NodeSpec {
        id: NodeId::new(n),
        peer_address: format!("host:{n}"),
        client_address: format!("host:{}", n + 100),
    }
}

pub(crate) fn luks2_key() -> String {
    let key = RecoveryKey::generate(ProtectorKind::Luks2RecoveryKey, &mut rng());
    key.expose_secret().to_owned()
}

pub(crate) fn disclosure() -> Disclose {
    Disclose {
        protector: PROTECTOR,
        version: KeyVersion::NONE,
        reason: Reason::new("LOST_PIN", "").unwrap(),
        user: Some(User::new("", "bob").unwrap()),
        ticket: Text::default(),
        approval: None,
    }
}

pub(crate) fn other_device() -> DeviceId {
    DeviceId::from_bytes([0xd2; 16])
}

fn write_root_key(path: PathBuf) -> PathBuf {
    use std::io::Write as _;
    let mut file = std::fs::File::create(&path).unwrap();
    let root = RootKey::generate(&mut rng());
    file.write_all(root.expose_file_text().as_bytes()).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o400)).unwrap();
    path
}
