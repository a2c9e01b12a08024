//! All hosts of a run, and what is asked of the cluster as a whole.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use anyhow::{Context as _, bail};
use rand::Rng as _;

use super::command::find;
use super::disk::Disk;
use super::interrupt::Interrupt;
use super::network::Switch;
use super::pki::Papers;
use super::proxy::{Proxy, Source};
use super::registry::Registry;
use super::server::{Addresses, Server};
use crate::history::{Event, Finding, Micros};
use crate::recorder::Recorder;

/// Size of a host's disk. Its file takes only what was ever written.
const DISK_MEBIBYTES: u64 = 768;

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
    /// Ends the making of hosts early.
    pub interrupt: Interrupt,
}

/// The hosts of a run.
#[derive(Debug)]
pub struct World {
    pub(super) plan: Plan,
    pub(super) registry: Registry,
    pub(super) papers: Papers,
    pub(super) settings: toml::Table,
    servers: Vec<Server>,
    spare: Server,
    pub(super) proxy: Option<Arc<Proxy>>,
    pub(super) next_id: AtomicU64,
    recorder: OnceLock<Arc<Recorder>>,
    closed: std::sync::atomic::AtomicBool,
}

/// What is made before there is a world.
struct Made {
    papers: Papers,
    servers: Vec<Server>,
    spare: Server,
    proxy: Option<Arc<Proxy>>,
}

/// The processes of all hosts, for the proxy: who makes a connection.
#[derive(Debug)]
struct Processes(Vec<(u64, Arc<AtomicU32>)>);

impl Source for Processes {
    fn host_of(&self, from: std::net::SocketAddr, to: std::net::SocketAddr) -> Option<u64> {
        let processes = self.0.iter().map(|(host, pid)| (*host, pid.load(Ordering::SeqCst)));
        super::proxy::process_of(from, to, processes.filter(|(_, pid)| *pid != 0))
    }
}

/// Small files, so that a run of a minute sees segments end, snapshots taken and the log purged.
fn settings() -> toml::Table {
    toml::toml! {
        [log]
        level = "info"
        format = "json"
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
        match Self::fill(&plan, &registry) {
            Ok(Made { papers, servers, spare, proxy }) => Ok(Arc::new(Self {
                next_id: AtomicU64::new(plan.nodes + 1),
                plan,
                registry,
                papers,
                settings: settings(),
                servers,
                spare,
                proxy,
                recorder: OnceLock::new(),
                closed: false.into(),
            })),
            Err(error) => {
                for problem in registry.close() {
                    tracing::warn!("{problem:#}");
                }
                Err(error)
            }
        }
    }

    fn fill(plan: &Plan, registry: &Registry) -> anyhow::Result<Made> {
        let papers = Papers::make(&plan.program, plan.out.join("papers"))?;
        let switch = if plan.isolated { Some(Switch::make(registry)?) } else { None };
        let proxy = (!plan.isolated).then(Arc::<Proxy>::default);
        let mut servers = Vec::new();
        for host in 1..=plan.nodes + 1 {
            plan.interrupt.check()?;
            let server = match &switch {
                Some(switch) => Self::host(plan, registry, switch, host)?,
                None => Self::process(plan, proxy.as_deref(), host)?,
            };
            servers.push(server);
        }
        let spare = servers.pop().context("no host")?;
        for server in &servers {
            papers.equip(server, &settings())?;
        }
        plan.interrupt.check()?;
        if let Some(switch) = switch {
            switch.join()?;
        }
        Ok(Made { papers, servers, spare, proxy })
    }

    /// A host with a network and a disk of its own.
    fn host(
        plan: &Plan,
        registry: &Registry,
        switch: &Switch,
        host: u64,
    ) -> anyhow::Result<Server> {
        let dir = plan.out.join(format!("host-{host}"));
        std::fs::create_dir_all(dir.join("disk")).context("a host's directory")?;
        let network = switch.host(registry, u8::try_from(host)?)?;
        let [client, peer, http] =
            [7401, 7402, 7403].map(|port| format!("{}:{port}", network.address));
        let (client_listen, peer_listen) = (client.clone(), peer.clone());
        let addresses = Addresses { client, peer, http, client_listen, peer_listen };
        let mut server = Server::new(host, addresses, dir.clone(), plan.program.clone());
        server.network = Some(network);
        let image = plan.out.join(format!("host-{host}.img"));
        server.disk = Some(Disk::make(image, dir.join("disk"), DISK_MEBIBYTES)?);
        for kind in ["cpu", "memory"] {
            let group =
                Path::new("/sys/fs/cgroup").join(kind).join(registry.name(&format!("{host}")));
            if std::fs::create_dir(&group).is_ok() {
                server.groups.push(group.join("cgroup.procs"));
            }
        }
        Ok(server)
    }

    /// A plain process on loopback, reached over the proxy.
    fn process(plan: &Plan, proxy: Option<&Proxy>, host: u64) -> anyhow::Result<Server> {
        let dir = plan.out.join(format!("host-{host}"));
        std::fs::create_dir_all(dir.join("disk")).context("a host's directory")?;
        let (client_listen, peer_listen, http) = (free_port()?, free_port()?, free_port()?);
        let over = |listen: &String, servers: bool| {
            proxy.map_or_else(|| Ok(listen.clone()), |proxy| proxy.port(host, listen, servers))
        };
        let (client, peer) = (over(&client_listen, false)?, over(&peer_listen, true)?);
        let addresses = Addresses { client, peer, http, client_listen, peer_listen };
        Ok(Server::new(host, addresses, dir, plan.program.clone()))
    }

    /// Begins to carry connections, if there is a proxy.
    pub(super) fn start_proxy(&self) -> anyhow::Result<()> {
        let Some(proxy) = &self.proxy else { return Ok(()) };
        let hosts = self.all().map(|server| (server.host, Arc::clone(&server.pid)));
        let source: Arc<dyn Source> = Arc::new(Processes(hosts.collect()));
        proxy.start(&source)
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

    /// The hosts whose servers are the cluster, but while a change of members is under way.
    pub fn servers(&self) -> &[Server] {
        &self.servers
    }

    /// The host that is there for changes of members. Its server runs only during one.
    pub const fn spare(&self) -> &Server {
        &self.spare
    }

    /// All hosts.
    pub fn all(&self) -> impl Iterator<Item = &Server> {
        self.servers.iter().chain([&self.spare])
    }

    /// The proxy over which all connections go, unless each host has a network of its own.
    pub const fn proxy(&self) -> Option<&Arc<Proxy>> {
        self.proxy.as_ref()
    }

    /// Where everything is written down from now on.
    pub fn set_recorder(&self, recorder: Arc<Recorder>) {
        // The first one stays.
        drop(self.recorder.set(recorder));
    }

    /// Writes an event down that began at some time.
    pub(crate) fn record(&self, event: impl FnOnce(&Recorder) -> Event) {
        if let Some(recorder) = self.recorder.get() {
            recorder.record(&event(recorder));
        }
    }

    /// Writes down what was found outside of the calls.
    pub(crate) fn finding(&self, checker: &str, bad: bool, what: String) {
        if bad {
            tracing::error!("{checker}: {what}");
        }
        self.record(|recorder| {
            let at: Micros = recorder.now();
            Event::Finding(Finding { at, checker: checker.to_owned(), bad, what })
        });
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

    /// Ends all servers, and takes away whatever lies outside the run's directory.
    ///
    /// # Errors
    /// If something is left.
    pub async fn end(&self) -> anyhow::Result<()> {
        for server in self.all() {
            server.signal(rustix::process::Signal::CONT);
        }
        let mut problems = Vec::new();
        for server in self.all() {
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

/// The program `holdfast` that lies beside this one, or the one above it for a test.
pub(crate) fn beside() -> Option<PathBuf> {
    let own = std::env::current_exe().ok()?;
    let dirs = own.ancestors().skip(1).take(2);
    let found = dirs.map(|dir| dir.join("holdfast")).find(|path| path.is_file());
    found.or_else(|| find("holdfast"))
}
