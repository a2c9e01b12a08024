//! All hosts of a run, and what is asked of the cluster as a whole.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use holdfast::client::{Client, ClientOptions};
use holdfast_proto::v1;
use rand::Rng as _;

use super::command::{call, find};
use super::disk::Disk;
use super::network::Switch;
use super::pki::{ADMINISTRATOR, AUDITOR, HELP_DESK, Papers, READER};
use super::registry::Registry;
use super::server::{Addresses, Server};

/// Size of a host's disk. Its file takes only what was ever written.
const DISK_MEBIBYTES: u64 = 768;
/// How long a server may take to listen: it checks all its data first.
const START: Duration = Duration::from_secs(60);

/// What a world is made of.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The program `holdfast`.
    pub program: PathBuf,
    /// Directory of everything; made new.
    pub out: PathBuf,
    /// How many servers.
    pub nodes: u64,
    /// Whether each host gets a network and a disk of its own.
    pub isolated: bool,
}

/// The hosts of a run.
#[derive(Debug)]
pub struct World {
    plan: Plan,
    registry: Registry,
    papers: Papers,
    settings: toml::Table,
    servers: Vec<Server>,
    next_id: AtomicU64,
    closed: std::sync::atomic::AtomicBool,
}

/// Small files, so that a run of a minute sees segments end, snapshots taken and the log purged.
fn settings() -> toml::Table {
    toml::toml! {
        [log]
        level = "info,openraft=warn"
        format = "text"
        [storage]
        wal_segment_bytes = 4194304
        wal_keep_entries = 500
        wal_cache_bytes = 8388608
        view_cache_bytes = 33554432
        snapshot_floor_bytes = 2097152
    }
}

/// A port on loopback that nobody listens on, below those that the kernel gives to outgoing connections.
fn free_port() -> anyhow::Result<String> {
    for _ in 0..1000 {
        let port = rand::rng().random_range(20_000..32_000_u16);
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(format!("127.0.0.1:{port}"));
        }
    }
    bail!("no free port on loopback")
}

impl World {
    /// Makes the hosts. If they are isolated, this thread and those that it starts are in the clients' network then: it has to
    /// be called before the runtime is made.
    ///
    /// # Errors
    /// If something can't be made; what was made is taken away again.
    pub fn make(plan: Plan) -> anyhow::Result<Arc<Self>> {
        std::fs::create_dir_all(&plan.out).with_context(|| plan.out.display().to_string())?;
        let registry = Registry::open(&plan.out)?;
        match Self::fill(plan, &registry) {
            Ok((plan, papers, servers)) => {
                let next_id = AtomicU64::new(plan.nodes + 1);
                let settings = settings();
                let closed = false.into();
                Ok(Arc::new(Self { plan, registry, papers, settings, servers, next_id, closed }))
            }
            Err(error) => {
                for problem in registry.close() {
                    tracing::warn!("{problem:#}");
                }
                Err(error)
            }
        }
    }

    fn fill(plan: Plan, registry: &Registry) -> anyhow::Result<(Plan, Papers, Vec<Server>)> {
        let papers = Papers::make(&plan.program, plan.out.join("papers"))?;
        let switch = if plan.isolated { Some(Switch::make(registry)?) } else { None };
        let mut servers = Vec::new();
        for host in 1..=plan.nodes {
            let server = Self::host(&plan, registry, switch.as_ref(), host)?;
            papers.equip(&server, &settings())?;
            servers.push(server);
        }
        if let Some(switch) = switch {
            switch.join()?;
        }
        Ok((plan, papers, servers))
    }

    fn host(
        plan: &Plan,
        registry: &Registry,
        switch: Option<&Switch>,
        host: u64,
    ) -> anyhow::Result<Server> {
        let dir = plan.out.join(format!("host-{host}"));
        std::fs::create_dir_all(dir.join("disk")).context("a host's directory")?;
        let network =
            switch.map(|switch| switch.host(registry, u8::try_from(host)?)).transpose()?;
        let addresses = match &network {
            Some(network) => Addresses {
                client: format!("{}:7401", network.address),
                peer: format!("{}:7402", network.address),
                http: format!("{}:7403", network.address),
            },
            None => Addresses { client: free_port()?, peer: free_port()?, http: free_port()? },
        };
        let mut server = Server::new(host, addresses, dir.clone(), plan.program.clone());
        server.network = network;
        if plan.isolated {
            let image = plan.out.join(format!("host-{host}.img"));
            server.disk = Some(Disk::make(image, dir.join("disk"), DISK_MEBIBYTES)?);
            for kind in ["cpu", "memory"] {
                let group =
                    Path::new("/sys/fs/cgroup").join(kind).join(registry.name(&format!("{host}")));
                if std::fs::create_dir(&group).is_ok() {
                    server.groups.push(group.join("cgroup.procs"));
                }
            }
        }
        Ok(server)
    }

    /// The directory of everything.
    pub fn out(&self) -> &Path {
        &self.plan.out
    }

    /// Certificates.
    pub const fn papers(&self) -> &Papers {
        &self.papers
    }

    /// The registry.
    pub const fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The hosts.
    pub fn servers(&self) -> &[Server] {
        &self.servers
    }

    /// The host on which the server with this id is.
    ///
    /// # Errors
    /// If there is none.
    pub fn server(&self, id: u64) -> anyhow::Result<&Server> {
        let found = self.servers.iter().find(|server| server.id() == id);
        found.with_context(|| format!("there is no node {id}"))
    }

    /// Servers' ids in order of hosts.
    pub fn ids(&self) -> Vec<u64> {
        self.servers.iter().map(Server::id).collect()
    }

    fn client_at(&self, addresses: &str, who: &str, limit: Duration) -> anyhow::Result<Client> {
        let (certificate, key) = self.papers.operator(who);
        let mut options = ClientOptions::new(addresses, self.papers.client_ca())?
            .with_identity(certificate, key)
            .with_deadline(limit);
        options.attempt = options.attempt.min(limit);
        Ok(Client::open(options)?)
    }

    /// All client addresses.
    pub fn endpoints(&self) -> String {
        let all: Vec<_> = self.servers.iter().map(|s| s.addresses.client.clone()).collect();
        all.join(",")
    }

    /// The administrator, at all servers.
    ///
    /// # Errors
    /// If the certificates can't be read.
    pub fn administrator(&self) -> anyhow::Result<Client> {
        self.client_at(&self.endpoints(), ADMINISTRATOR, Duration::from_secs(15))
    }

    /// The administrator, at one server only.
    ///
    /// # Errors
    /// If the certificates can't be read.
    pub fn administrator_of(&self, server: &Server) -> anyhow::Result<Client> {
        self.client_at(&server.addresses.client, ADMINISTRATOR, Duration::from_secs(1))
    }

    /// Runs the product's command line as the administrator.
    ///
    /// # Errors
    /// If it ends with another code than 0.
    pub async fn holdfast(&self, args: &[&str]) -> anyhow::Result<String> {
        let (cert, key) = self.papers.operator(ADMINISTRATOR);
        let texts = [&self.papers.client_ca(), &cert, &key].map(|path| path.display().to_string());
        let [ca, cert, key] = texts;
        let addresses = self.endpoints();
        let common = ["--addr", &addresses, "--cacert", &ca, "--cert", &cert, "--key", &key];
        call(&self.plan.program.display().to_string(), &[&common, args].concat()).await
    }

    /// A server as `cluster init` and `cluster replace` take it.
    pub fn spec(server: &Server) -> String {
        format!("{}={},{}", server.id(), server.addresses.client, server.addresses.peer)
    }

    /// Starts a server unless it runs, and waits until it listens.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn start(&self, server: &Server) -> anyhow::Result<()> {
        if server.pid().is_none() {
            let pid = server.spawn().await?;
            self.registry.note(pid);
        }
        server.start(START).await
    }

    /// Starts all servers and makes the cluster.
    ///
    /// # Errors
    /// If a server does not start, or the cluster can't be made.
    pub async fn begin(&self) -> anyhow::Result<()> {
        for server in &self.servers {
            self.start(server).await?;
        }
        let pki = self.papers.pki().display().to_string();
        let specs: Vec<_> = self.servers.iter().map(Self::spec).collect();
        let mut args = vec!["cluster", "init", "--pki", &pki, "--admin", ADMINISTRATOR];
        for spec in &specs {
            args.extend(["--node", spec]);
        }
        self.holdfast(&args).await?;
        for (who, role) in
            [(HELP_DESK, "help-desk"), (AUDITOR, "auditor"), (READER, "report-reader")]
        {
            self.holdfast(&["grant", "add", who, role]).await?;
        }
        self.healthy(START).await
    }

    /// What a server says of all members.
    ///
    /// # Errors
    /// If none answers.
    pub async fn status(&self) -> anyhow::Result<v1::GetStatusResponse> {
        Ok(self.administrator()?.status(true).await?)
    }

    /// The server that leads: the one that says so itself, of the highest term.
    ///
    /// # Errors
    /// If nobody does in time.
    pub async fn leader(&self, limit: Duration) -> anyhow::Result<&Server> {
        let deadline = Instant::now() + limit;
        loop {
            let mut best: Option<(u64, &Server)> = None;
            for server in self.servers.iter().filter(|server| server.pid().is_some()) {
                let Ok(status) = self.administrator_of(server)?.status(false).await else {
                    continue;
                };
                let own = own_word(&status);
                if let Some(own) = own.filter(|own| own.role == LEADER)
                    && best.is_none_or(|(term, _)| own.term > term)
                {
                    best = Some((own.term, server));
                }
            }
            if let Some((_, server)) = best {
                return Ok(server);
            }
            if Instant::now() >= deadline {
                bail!("nobody leads after {limit:?}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until somebody leads, and all members answer, vote, and have the leader's log, or nearly.
    ///
    /// # Errors
    /// If that takes longer than the limit; it says what is wrong.
    pub async fn healthy(&self, limit: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + limit;
        let client = self.administrator()?;
        loop {
            let why = match client.status(true).await {
                Ok(status) => match unwell(&status, &self.ids()) {
                    None => return Ok(()),
                    Some(why) => why,
                },
                Err(error) => error.to_string(),
            };
            if Instant::now() >= deadline {
                bail!("not healthy after {limit:?}: {why}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Puts a new server, under an id that was never used and with an empty disk, in the place of one that is lost for good.
    ///
    /// # Errors
    /// If a step fails.
    pub async fn replace(&self, server: &Server) -> anyhow::Result<(u64, u64)> {
        let (old, new) = (server.id(), self.next_id.fetch_add(1, Ordering::SeqCst));
        server.kill().await?;
        match &server.disk {
            Some(disk) => disk.replace().await?,
            None => std::fs::remove_dir_all(server.data_dir()).context("a lost disk")?,
        }
        server.id.store(new, Ordering::SeqCst);
        self.papers.equip(server, &self.settings)?;
        self.start(server).await?;
        self.holdfast(&["cluster", "replace", &old.to_string(), &Self::spec(server)]).await?;
        Ok((old, new))
    }

    /// Ends all servers, and takes away whatever lies outside the run's directory.
    ///
    /// # Errors
    /// If something is left.
    pub async fn end(&self) -> anyhow::Result<()> {
        for server in &self.servers {
            server.signal(rustix::process::Signal::CONT);
        }
        let mut problems = Vec::new();
        for server in &self.servers {
            problems.extend(server.kill().await.err());
        }
        problems.extend(self.close());
        match problems.into_iter().next() {
            Some(problem) => Err(problem),
            None => Ok(()),
        }
    }

    fn close(&self) -> Vec<anyhow::Error> {
        if self.closed.swap(true, Ordering::SeqCst) { Vec::new() } else { self.registry.close() }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for problem in self.close() {
            tracing::warn!("{problem:#}");
        }
    }
}

/// The role of a leader in a status.
pub(crate) const LEADER: i32 = v1::MemberRole::Leader as i32;

/// What the answering server says of itself.
pub(crate) fn own_word(status: &v1::GetStatusResponse) -> Option<&v1::MemberStatus> {
    let own = |member: &&v1::MemberStatus| {
        member.node.as_ref().is_some_and(|node| node.node_id == status.node_id)
    };
    status.members.iter().find(own)
}

/// How far behind the leader a member may be while writes go on.
const NEARLY: u64 = 2000;

fn unwell(status: &v1::GetStatusResponse, ids: &[u64]) -> Option<String> {
    if status.leader_id == 0 {
        return Some("nobody leads".to_owned());
    }
    let furthest = status.members.iter().map(|member| member.applied_index).max().unwrap_or(0);
    for id in ids {
        let named = |m: &&v1::MemberStatus| m.node.as_ref().is_some_and(|n| n.node_id == *id);
        match status.members.iter().find(named) {
            None => return Some(format!("node {id} is no member")),
            Some(m) if !m.reachable => return Some(format!("node {id}: {}", m.error)),
            Some(m) if !m.voter => return Some(format!("node {id} has no vote")),
            Some(m) if m.applied_index + NEARLY < furthest => {
                return Some(format!("node {id} is at {} of {furthest}", m.applied_index));
            }
            Some(_) => {}
        }
    }
    None
}

/// The program `holdfast` that lies beside this one, or the one above it for a test.
pub(crate) fn beside() -> Option<PathBuf> {
    let own = std::env::current_exe().ok()?;
    let dirs = own.ancestors().skip(1).take(2);
    let found = dirs.map(|dir| dir.join("holdfast")).find(|path| path.is_file());
    found.or_else(|| find("holdfast"))
}
