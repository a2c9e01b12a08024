//! Seeded clients that do what agents, the help desk and auditors do, through the public API only.
//!
//! What a client does next follows from the seed and from what it has been told; sealing takes the system's randomness, as
//! it does for everybody. A client makes one call at a time. After a call of unknown outcome it does what a real client
//! does: mostly it repeats the request byte for byte, sometimes it goes on without ever knowing.

mod agent;
mod auditor;
mod calls;
mod door;
mod final_pass;
mod help_desk;
mod registry;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use holdfast::client::{Client, EscrowKey, IdentityFiles};
use holdfast::domain::{DisclosurePolicy, OperatorName, Role, limits};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::task::JoinSet;
use tokio::time::Instant;
use uuid::Uuid;

pub use final_pass::FinalPass;

use crate::recorder::Recorder;
use calls::Caller;
use door::{Door, Endpoints};
use registry::Registry;

/// An operator's name and certificate.
#[derive(Debug, Clone)]
pub struct Operator {
    /// Its name.
    pub name: OperatorName,
    /// Its certificate.
    pub files: IdentityFiles,
}

/// A device and the certificate of its agent.
#[derive(Debug, Clone)]
pub struct Agent {
    /// The device.
    pub device: Uuid,
    /// Its certificate.
    pub files: IdentityFiles,
}

/// What a workload is made of.
#[derive(Debug, Clone)]
pub struct WorkloadOptions {
    /// Servers and their client addresses.
    pub endpoints: Vec<(u64, String)>,
    /// The node CA, PEM.
    pub ca: PathBuf,
    /// Devices; 8 to 16 give enough volumes for ten minutes.
    pub agents: Vec<Agent>,
    /// Help-desk operators. Each may disclose 200 keys an hour, about half of them in the last phase: the more there are,
    /// the more keys are opened. 40 are a good number for two minutes.
    pub help_desk: Vec<Operator>,
    /// Reads the audit chain.
    pub auditor: Operator,
    /// Grants the roles.
    pub administrator: Operator,
    /// All choices follow from it.
    pub seed: u64,
    /// Clients; two thirds are agents. 24 are a good number.
    pub clients: u32,
    /// Calls a second of all clients together at most.
    pub rate: u32,
    /// How long it is meant to run: disclosures are spread over it.
    pub expected: Duration,
    /// Takes the history.
    pub recorder: Arc<Recorder>,
}

/// A workload that runs.
#[derive(Debug)]
pub struct Workload {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

/// What all clients share.
#[derive(Debug)]
pub(crate) struct Shared {
    options: WorkloadOptions,
    caller: Caller,
    endpoints: Endpoints,
    registry: Registry,
    escrow_key: EscrowKey,
    stop: AtomicBool,
    clients: AtomicU64,
    began: Instant,
}

impl Shared {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn new_client(&self) -> u64 {
        self.clients.fetch_add(1, Ordering::Relaxed)
    }

    /// A client as somebody, of one server or of all.
    fn door(&self, files: &IdentityFiles, bound: Option<usize>, first: usize) -> Door {
        Door::new(self.options.ca.clone(), files.clone(), bound, first)
    }
}

/// Grants the roles, gets the escrow key and starts the clients.
///
/// # Errors
/// If the roles can't be granted, or there is no agent or help desk.
pub async fn start(options: WorkloadOptions) -> anyhow::Result<Workload> {
    anyhow::ensure!(!options.agents.is_empty(), "a workload needs an agent");
    anyhow::ensure!(!options.help_desk.is_empty(), "a workload needs a help desk");
    anyhow::ensure!(!options.endpoints.is_empty(), "a workload needs a server");
    let endpoints = Endpoints::new(options.endpoints.clone());
    let mut door = Door::new(options.ca.clone(), options.administrator.files.clone(), None, 0);
    grant(&door.patient(&endpoints)?, &options).await?;
    let agent = options.agents.first().context("a workload needs an agent")?;
    let mut door = Door::new(options.ca.clone(), agent.files.clone(), None, 0);
    let escrow_key = door.patient(&endpoints)?.escrow_key().await.context("the escrow key")?;
    let devices = options.agents.iter().map(|agent| agent.device);
    let shared = Arc::new(Shared {
        caller: Caller::new(Arc::clone(&options.recorder)),
        endpoints,
        registry: Registry::new(devices, options.help_desk.len()),
        escrow_key,
        stop: AtomicBool::new(false),
        clients: AtomicU64::new(1),
        began: Instant::now(),
        options,
    });
    let mut tasks = JoinSet::new();
    for index in 0..usize::try_from(shared.options.clients.max(3))? {
        tasks.spawn(client(Arc::clone(&shared), index));
    }
    Ok(Workload { shared, tasks })
}

async fn grant(admin: &Client, options: &WorkloadOptions) -> anyhow::Result<()> {
    for operator in &options.help_desk {
        let name = &operator.name;
        admin.grant(name, Role::HelpDesk).await.with_context(|| format!("granting {name}"))?;
    }
    // All of them together disclose more than a new cluster allows.
    let status = admin.disclosure_status().await.context("reading the disclosure policy")?;
    let mut parts = DisclosurePolicy::default().parts();
    parts.cluster_hour = limits::CLUSTER_HOUR;
    let policy = DisclosurePolicy::new(parts)?;
    let set = admin.set_disclosure_policy(status.revision, &policy).await;
    set.context("setting the disclosure policy")?;
    let name = &options.auditor.name;
    admin.grant(name, Role::Auditor).await.with_context(|| format!("granting {name}"))?;
    Ok(())
}

impl Workload {
    /// Tells the clients where the servers are now, after one was replaced.
    pub fn set_endpoints(&self, endpoints: Vec<(u64, String)>) {
        self.shared.endpoints.set(endpoints);
    }

    /// Lets each client end its call, and waits for that.
    ///
    /// # Errors
    /// If a client panicked: then the history lacks what it did.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        self.shared.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended.context("a client of the workload")?;
        }
        Ok(())
    }
}

/// What a client is played by.
enum Part {
    Agent(Box<agent::AgentClient>),
    HelpDesk(Box<help_desk::HelpDeskClient>),
    Auditor(Box<auditor::AuditorClient>),
}

async fn client(shared: Arc<Shared>, index: usize) {
    let seed = shared.options.seed;
    let mut rng = StdRng::seed_from_u64(
        seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(u64::try_from(index).unwrap_or(0)),
    );
    let id = shared.new_client();
    // Every second client knows one server only.
    let bound = index.is_multiple_of(2).then_some(index / 2);
    let mut role = match index % 6 {
        1 | 4 => {
            Part::HelpDesk(Box::new(help_desk::HelpDeskClient::new(&shared, id, index, bound)))
        }
        2 if index == 2 => Part::Auditor(Box::new(auditor::AuditorClient::new(&shared, id, bound))),
        _ => Part::Agent(Box::new(agent::AgentClient::new(&shared, id, index, bound))),
    };
    let clients = f64::from(shared.options.clients.max(3));
    let pause = clients / f64::from(shared.options.rate.max(1));
    let mut next = Instant::now();
    while !shared.stopped() {
        tokio::time::sleep_until(next).await;
        let known = match &mut role {
            Part::Agent(agent) => agent.step(&shared, &mut rng).await,
            Part::HelpDesk(help_desk) => help_desk.step(&shared, &mut rng).await,
            Part::Auditor(auditor) => auditor.step(&shared, &mut rng).await,
        };
        let jitter = rng.random_range(0.5..1.5);
        // Whoever was not answered waits a little, as people and machines do.
        let more = if known { 0.0 } else { rng.random_range(0.05..0.25) };
        let earliest = Instant::now() + Duration::from_secs_f64(more);
        next = earliest.max(next + Duration::from_secs_f64(pause * jitter));
        // A client that was held up does not make up for all of it at once.
        next = next.max(Instant::now());
    }
}
