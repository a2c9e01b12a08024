//! The last phase: everything is read once more, through each server.
//!
//! All versions are looked for by volume through every server. As many keys as the operators' quotas allow are opened,
//! each server opening others first, so that together they open as many different ones as possible.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use holdfast::client::{Client, IdentityFiles};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::auditor::{head, list};
use super::calls::{Who, known};
use super::door::{Door, Endpoints, locked};
use super::help_desk::{Ask, Find, disclose, exactly, find, read_device};
use super::{Shared, Workload};
use crate::history::{Event, Outcome};

/// Workers for each server.
const WORKERS: usize = 4;
/// Disclosures that an operator is charged for at most; the servers allow 200 an hour.
const CHARGES: u32 = 195;
/// How often a call of unknown outcome is made again.
const TRIES: u32 = 8;
/// How long is waited before that.
const PAUSE: Duration = Duration::from_millis(400);

/// How much of the last phase is wanted.
#[derive(Debug, Clone, Copy)]
pub struct FinalPass {
    /// Keys to open through each server at most.
    pub disclosures: usize,
}

impl Default for FinalPass {
    fn default() -> Self {
        Self { disclosures: 1000 }
    }
}

/// A call to be made through a server.
#[derive(Debug, Clone, Copy)]
enum Task {
    Find(Find),
    Read(Uuid, bool),
    /// By which operator.
    Disclose(usize, Ask),
}

impl Workload {
    /// Reads everything through each of the servers, which are all that there are now. Begins the phase "final" in the history.
    /// To be called when the clients have stopped and the faults are healed.
    ///
    /// # Errors
    /// If a certificate can't be read, or a worker panics. What the servers answer is in the history, whatever it is.
    pub async fn final_pass(
        &self,
        endpoints: &[(u64, String)],
        pass: FinalPass,
    ) -> anyhow::Result<()> {
        let shared = &self.shared;
        let recorder = shared.caller.recorder();
        recorder.record(&Event::Phase { at: recorder.now(), name: "final".to_owned() });
        let plans = plans(shared, endpoints.len(), pass);
        let servers = endpoints.iter().zip(plans);
        let servers: Vec<_> =
            servers.map(|(server, plan)| Arc::new(Server::new(server, plan))).collect();
        let mut workers = JoinSet::new();
        for server in &servers {
            for _ in 0..WORKERS {
                workers.spawn(work(Arc::clone(shared), Arc::clone(server)));
            }
        }
        while let Some(ended) = workers.join_next().await {
            ended??;
        }
        // Last, when all answers have come: every record must be there.
        for server in &servers {
            chain(shared, server).await?;
        }
        Ok(())
    }
}

/// What is to be done through each server.
fn plans(shared: &Shared, servers: usize, pass: FinalPass) -> Vec<Vec<Task>> {
    let mut rng = StdRng::seed_from_u64(shared.options.seed ^ 0xf1a1);
    let mut keys = shared.registry.keys();
    keys.shuffle(&mut rng);
    let charges = shared.registry.charges();
    let left = charges.iter().map(|used| CHARGES.saturating_sub(*used));
    let mut operators: Vec<usize> = left
        .enumerate()
        .flat_map(|(at, left)| std::iter::repeat_n(at, usize::try_from(left).unwrap_or(0)))
        .collect();
    operators.shuffle(&mut rng);
    let each = operators.len().checked_div(servers).unwrap_or(0);
    let each = each.min(pass.disclosures).min(keys.len());
    let mut plans = Vec::new();
    for server in 0..servers {
        let mut plan = Vec::new();
        for (device, volume) in shared.registry.volumes() {
            plan.push(Task::Find(Find::Volume(device, volume)));
        }
        for agent in &shared.options.agents {
            plan.push(Task::Read(agent.device, false));
            plan.push(Task::Read(agent.device, true));
        }
        let from = server.saturating_mul(each);
        for at in 0..each {
            let key = (from + at).checked_rem(keys.len()).and_then(|at| keys.get(at));
            if let (Some(key), Some(operator)) = (key, operators.pop()) {
                let ask = exactly(*key, super::registry::new_uuid(&mut rng));
                plan.push(Task::Disclose(operator, ask));
            }
        }
        plan.shuffle(&mut rng);
        plans.push(plan);
    }
    plans
}

/// One server, as everybody reaches it in the last phase.
struct Server {
    node: u64,
    endpoints: Endpoints,
    /// One for each operator; all workers share the connection.
    doors: Mutex<BTreeMap<usize, Client>>,
    plan: Vec<Task>,
    next: AtomicUsize,
}

impl Server {
    fn new((node, address): &(u64, String), plan: Vec<Task>) -> Self {
        Self {
            node: *node,
            endpoints: Endpoints::new(vec![(*node, address.clone())]),
            doors: Mutex::new(BTreeMap::new()),
            plan,
            next: AtomicUsize::new(0),
        }
    }

    fn open(&self, shared: &Shared, files: &IdentityFiles) -> anyhow::Result<Client> {
        let mut door = Door::new(shared.options.ca.clone(), files.clone(), Some(0), 0);
        Ok(door.client(&self.endpoints)?.1)
    }

    /// The client of an operator.
    fn client(&self, shared: &Shared, operator: usize) -> anyhow::Result<Client> {
        let mut doors = locked(&self.doors);
        if let Some(client) = doors.get(&operator) {
            return Ok(client.clone());
        }
        let files = shared.options.help_desk.get(operator).context("no such operator")?;
        let client = self.open(shared, &files.files)?;
        doors.insert(operator, client.clone());
        Ok(client)
    }
}

async fn work(shared: Arc<Shared>, server: Arc<Server>) -> anyhow::Result<()> {
    let who = Who { client: shared.new_client(), node: Some(server.node) };
    while let Some(task) = server.plan.get(server.next.fetch_add(1, Ordering::Relaxed)) {
        let operator = match task {
            Task::Find(_) | Task::Read(..) => 0,
            Task::Disclose(operator, _) => *operator,
        };
        let client = server.client(&shared, operator)?;
        insist(|| once(&shared, who, &client, *task)).await;
    }
    Ok(())
}

async fn once(shared: &Shared, who: Who, client: &Client, task: Task) -> Outcome {
    match task {
        Task::Find(what) => find(&shared.caller, who, client, Uuid::new_v4(), what).await,
        Task::Read(device, stale) => read_device(shared, who, client, device, stale).await,
        Task::Disclose(_, ask) => disclose(&shared.caller, who, client, ask).await,
    }
}

/// Makes a call until its outcome is known, but not for ever.
async fn insist<F: Future<Output = Outcome>>(mut call: impl FnMut() -> F) {
    for _ in 0..TRIES {
        if known(&call().await) {
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn chain(shared: &Shared, server: &Server) -> anyhow::Result<()> {
    let who = Who { client: shared.new_client(), node: Some(server.node) };
    let client = server.open(shared, &shared.options.auditor.files)?;
    insist(|| head(&shared.caller, who, &client)).await;
    insist(|| list(&shared.caller, who, &client)).await;
    Ok(())
}
