//! A cluster of real server processes on this machine, each with its own data directory, certificates and ports.
//!
//! `dev`, `demo`, `bench --local` and the cluster tests use it. Everything lies below one directory and is found again by
//! the next start. It never waits by sleeping for a fixed time: it waits for conditions, with a deadline.

mod error;
mod files;
mod node;
mod ports;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast_proto::v1;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;
use uuid::Uuid;

pub use error::LocalError;
pub use files::NodePorts;
pub(super) use files::write_json;
pub use node::LocalNode;

use super::pki::{CaKind, IssuedPaths, Pki, Subject, write_root_key};
use crate::client::{Client, ClientOptions};
use crate::clock::{Clock as _, SystemClock};
use crate::domain::{ClusterId, DeviceId, NodeId, OperatorName, Role};
use files::{Description, io};

/// Name of the first administrator.
pub const ADMINISTRATOR: &str = "admin";
/// The servers' reason when the cluster was made before.
const ALREADY_INITIALISED: &str = "CLUSTER_ALREADY_INITIALISED";
/// The servers' reason when one of the nodes to be made members did not answer.
const NODE_NOT_READY: &str = "NODE_NOT_READY";
/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(20);
/// Validity of local certificates, in days.
const DAYS: u32 = 3653;
/// How long a server may take to listen.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// What a local cluster is made of.
#[derive(Debug, Clone)]
pub struct LocalOptions {
    /// The program; its `server` command is started.
    pub binary: PathBuf,
    /// Directory of everything; made if missing.
    pub dir: PathBuf,
    /// Additional tables of the servers' configuration, such as `[log]`.
    pub extra: toml::Table,
}

impl LocalOptions {
    /// A cluster in `dir` of servers that this very program runs.
    ///
    /// # Errors
    /// If the program's own path can't be found.
    pub fn of_this_program(dir: &Path) -> Result<Self, LocalError> {
        let binary = std::env::current_exe().map_err(io(Path::new("/proc/self/exe")))?;
        Ok(Self { binary, dir: dir.to_owned(), extra: toml::Table::new() })
    }
}

/// A cluster on this machine. Dropping it kills its servers.
pub struct LocalCluster {
    options: LocalOptions,
    description: Description,
    pki: Pki,
    nodes: Vec<LocalNode>,
}

impl LocalCluster {
    /// Makes the files of a cluster of three, or finds those of an earlier one. Nothing is started.
    ///
    /// # Errors
    /// If a file can't be made or read.
    pub fn prepare(mut options: LocalOptions) -> Result<Self, LocalError> {
        std::fs::create_dir_all(&options.dir).map_err(io(&options.dir))?;
        options.dir = options.dir.canonicalize().map_err(io(&options.dir))?;
        let dir = &options.dir;
        let pki_dir = dir.join("pki");
        let pki = if pki_dir.join("cluster.json").exists() {
            Pki::open(&pki_dir)?
        } else {
            Pki::init(&pki_dir, ClusterId::new(Uuid::new_v4()), SystemClock.now())?
        };
        let root_key = dir.join("root.key");
        if !root_key.exists() {
            write_root_key(&root_key)?;
        }
        let path = dir.join("local.json");
        let description = match Description::read(&path)? {
            // Before the cluster is made, nobody knows its ports yet; others will do as well.
            Some(found)
                if found.initialised || found.nodes.iter().all(|n| ports::check(n).is_ok()) =>
            {
                found
            }
            Some(_) | None => {
                let made =
                    Description::new(ports::choose(&[1, 2, 3])?, DeviceId::new(Uuid::new_v4()));
                write_json(&path, &made)?;
                made
            }
        };
        let mut cluster = Self { options, description, pki, nodes: Vec::new() };
        for ports in cluster.description.nodes.clone() {
            cluster.add_files(ports)?;
        }
        Ok(cluster)
    }

    fn add_files(&mut self, ports: NodePorts) -> Result<(), LocalError> {
        let dir = self.options.dir.join("nodes").join(ports.id.to_string());
        std::fs::create_dir_all(&dir).map_err(io(&dir))?;
        let hosts = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        let subject = Subject::Node { id: NodeId::new(ports.id), hosts };
        let identity = self.issued(&subject, &dir, &format!("node-{}", ports.id))?;
        let node = LocalNode::new(ports, dir);
        let root_key = self.options.dir.join("root.key");
        node.configure(&self.pki, &identity, &root_key, &self.options.extra)?;
        self.nodes.push(node);
        Ok(())
    }

    /// Issues a certificate, or finds the one that was issued before.
    fn issued(&self, subject: &Subject, dir: &Path, stem: &str) -> Result<IssuedPaths, LocalError> {
        let paths = IssuedPaths {
            certificate: dir.join(format!("{stem}.pem")),
            private_key: dir.join(format!("{stem}.key")),
        };
        if paths.certificate.exists() && paths.private_key.exists() {
            return Ok(paths);
        }
        Ok(self.pki.issue(subject, DAYS, dir, SystemClock.now())?)
    }

    /// The directory of everything.
    pub fn dir(&self) -> &Path {
        &self.options.dir
    }

    /// The certificate authorities.
    pub const fn pki(&self) -> &Pki {
        &self.pki
    }

    /// The device that [`LocalCluster::agent`] is usually asked for.
    pub const fn device(&self) -> DeviceId {
        self.description.device
    }

    /// Whether the cluster was made, in this life or an earlier one.
    pub const fn initialised(&self) -> bool {
        self.description.initialised
    }

    /// The nodes.
    pub fn nodes(&self) -> &[LocalNode] {
        &self.nodes
    }

    /// A node.
    ///
    /// # Errors
    /// If there is none of this id.
    pub fn node(&self, id: u64) -> Result<&LocalNode, LocalError> {
        self.nodes.iter().find(|node| node.id() == id).ok_or(LocalError::NoNode(id))
    }

    /// A node, to be waited for.
    ///
    /// # Errors
    /// If there is none of this id.
    pub fn node_mut(&mut self, id: u64) -> Result<&mut LocalNode, LocalError> {
        self.nodes.iter_mut().find(|node| node.id() == id).ok_or(LocalError::NoNode(id))
    }

    /// Makes the files of one more node, with free ports. It is neither started nor a member.
    ///
    /// # Errors
    /// If a file can't be made, or there is a node of this id.
    pub fn add_node(&mut self, id: u64) -> Result<&LocalNode, LocalError> {
        let chosen = ports::choose(&[id])?;
        for ports in chosen {
            self.add_files(ports)?;
            self.description.nodes.push(ports);
        }
        self.save()?;
        self.node(id)
    }

    fn save(&self) -> Result<(), LocalError> {
        write_json(&self.options.dir.join("local.json"), &self.description)
    }

    /// The nodes as `InitCluster` and `AddLearner` take them.
    pub fn spec(&self, id: u64) -> Result<v1::NodeSpec, LocalError> {
        let ports = self.node(id)?.ports();
        Ok(v1::NodeSpec {
            node_id: id,
            client_address: ports.client_address(),
            peer_address: ports.peer_address(),
        })
    }

    /// All client addresses, separated by commas.
    pub fn endpoints(&self) -> String {
        let addresses = self.nodes.iter().map(|node| node.ports().client_address());
        addresses.collect::<Vec<_>>().join(",")
    }

    /// File of the CA that clients pin.
    pub fn client_ca(&self) -> PathBuf {
        self.pki.ca_path(CaKind::Node)
    }

    fn identities(&self) -> PathBuf {
        self.options.dir.join("identities")
    }

    /// An operator's certificate.
    ///
    /// # Errors
    /// If it can't be issued.
    pub fn operator(&self, name: &OperatorName) -> Result<IssuedPaths, LocalError> {
        let stem = format!("operator-{name}");
        self.issued(&Subject::Operator(name.clone()), &self.identities(), &stem)
    }

    /// A device's certificate.
    ///
    /// # Errors
    /// If it can't be issued.
    pub fn agent(&self, device: DeviceId) -> Result<IssuedPaths, LocalError> {
        let stem = format!("agent-{device}");
        self.issued(&Subject::Agent(device), &self.identities(), &stem)
    }

    /// A client of all nodes with a certificate.
    ///
    /// # Errors
    /// If its files can't be read.
    pub fn client(&self, identity: &IssuedPaths) -> Result<Client, LocalError> {
        self.client_of(&self.endpoints(), identity)
    }

    /// A client of one node only.
    ///
    /// # Errors
    /// If there is no such node, or a file can't be read.
    pub fn client_of_node(&self, id: u64, identity: &IssuedPaths) -> Result<Client, LocalError> {
        self.client_of(&self.node(id)?.ports().client_address(), identity)
    }

    fn client_of(&self, addresses: &str, identity: &IssuedPaths) -> Result<Client, LocalError> {
        let options = ClientOptions::new(addresses, self.client_ca())
            .map_err(crate::client::ClientError::from)?
            .with_identity(&identity.certificate, &identity.private_key);
        Ok(Client::open(options)?)
    }

    /// The first administrator's client.
    ///
    /// # Errors
    /// If its files can't be made or read.
    pub fn administrator(&self) -> Result<Client, LocalError> {
        self.client(&self.operator(&administrator()?)?)
    }

    /// Starts a node and waits until it listens.
    ///
    /// # Errors
    /// If a port is taken, it ends by itself, or it does not listen in time.
    pub async fn start_node(&mut self, id: u64) -> Result<(), LocalError> {
        let binary = self.options.binary.clone();
        let node = self.node_mut(id)?;
        ports::check(node.ports())?;
        node.spawn(&binary)?;
        self.wait_live(id).await
    }

    /// Starts a node and waits for nothing: it may well refuse to start.
    ///
    /// # Errors
    /// If there is none of this id, or the program can't be run.
    pub fn spawn_node(&mut self, id: u64) -> Result<(), LocalError> {
        let binary = self.options.binary.clone();
        self.node_mut(id)?.spawn(&binary)
    }

    /// Waits until a node that was started listens.
    ///
    /// # Errors
    /// If it ends by itself, or does not listen in time.
    pub async fn wait_live(&mut self, id: u64) -> Result<(), LocalError> {
        let node = self.node_mut(id)?;
        let address = node.ports().http_address();
        let deadline = Instant::now().checked_add(START_DEADLINE);
        loop {
            node.check_running()?;
            if http_get(&address, "/livez").await.is_ok_and(|(status, _)| status == 200) {
                return Ok(());
            }
            if deadline.is_none_or(|deadline| Instant::now() >= deadline) {
                let what = format!("node {id} listens");
                return Err(timeout(what, START_DEADLINE, String::new()));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Starts all nodes, makes the cluster if it is new, and waits until all members work.
    ///
    /// # Errors
    /// If a node can't be started, or the cluster does not come to work in time.
    pub async fn start(&mut self) -> Result<(), LocalError> {
        self.start_nodes().await?;
        self.ensure_initialised().await?;
        self.wait_healthy(START_DEADLINE).await?;
        Ok(())
    }

    /// Starts all nodes and waits until they listen.
    ///
    /// # Errors
    /// If a port is taken, or a node can't be started or ends by itself.
    pub async fn start_nodes(&mut self) -> Result<(), LocalError> {
        let binary = self.options.binary.clone();
        for node in &self.nodes {
            ports::check(node.ports())?;
        }
        for node in &mut self.nodes {
            node.spawn(&binary)?;
        }
        for id in self.nodes.iter().map(LocalNode::id).collect::<Vec<_>>() {
            self.wait_live(id).await?;
        }
        Ok(())
    }

    /// Makes the cluster of all nodes, which run and are empty, unless it was made before.
    ///
    /// # Errors
    /// If the cluster can't be made.
    pub async fn ensure_initialised(&mut self) -> Result<(), LocalError> {
        if self.description.initialised {
            return Ok(());
        }
        let signer = self.pki.signer(SystemClock.now())?;
        let nodes = self.nodes.iter().map(|node| self.spec(node.id()));
        let nodes = nodes.collect::<Result<Vec<_>, _>>()?;
        let (client, first) = (self.administrator()?, administrator()?);
        let deadline = Instant::now().checked_add(START_DEADLINE);
        loop {
            match client.init_cluster(nodes.clone(), &first, &signer).await {
                Ok(_) => break,
                // An earlier start made it, and did not live to write that down.
                Err(error) if error.reason() == ALREADY_INITIALISED => break,
                // All listen; one that is slow to answer on a busy machine is asked again.
                Err(error)
                    if error.reason() == NODE_NOT_READY
                        && deadline.is_some_and(|deadline| Instant::now() < deadline) =>
                {
                    tokio::time::sleep(POLL).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.description.initialised = true;
        self.save()
    }

    /// Waits until a running node has applied everything that the leader had committed when it was first asked.
    ///
    /// # Errors
    /// If a node ends by itself, or it does not come true in time.
    pub async fn wait_caught_up(&mut self, id: u64, limit: Duration) -> Result<u64, LocalError> {
        let status = self.wait_healthy(limit).await?;
        let goal = status.members.iter().map(|member| member.applied_index).max().unwrap_or(0);
        let client = self.administrator()?;
        let deadline = Instant::now().checked_add(limit);
        loop {
            self.check_running()?;
            let last = match client.status(true).await {
                Ok(status) => match member(&status, id) {
                    Some(member) if member.applied_index >= goal => return Ok(member.applied_index),
                    Some(member) => format!("it is at {} of {goal}", member.applied_index),
                    None => "it is no member".to_owned(),
                },
                Err(error) => error.to_string(),
            };
            if deadline.is_none_or(|deadline| Instant::now() >= deadline) {
                return Err(timeout(format!("node {id} catches up"), limit, last));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until all members have applied the same entry and gives their state digests, which must be equal then.
    ///
    /// # Errors
    /// If digests differ at the same index, or it does not come true in time.
    pub async fn wait_same_digest(&self, limit: Duration) -> Result<(u64, String), LocalError> {
        let client = self.administrator()?;
        wait_for("all members have the same state at the same log index", limit, || async {
            let status = client.status(true).await.map_err(|error| error.to_string())?;
            same_digest(&status)
        })
        .await
    }

    /// Waits until somebody leads and every running member answers, is unsealed, and knows of the leader.
    ///
    /// # Errors
    /// If a node ends by itself, or it does not come true in time.
    pub async fn wait_healthy(
        &mut self,
        limit: Duration,
    ) -> Result<v1::GetStatusResponse, LocalError> {
        let running: Vec<_> =
            self.nodes.iter().filter(|node| node.pid().is_some()).map(LocalNode::id).collect();
        let client = self.administrator()?;
        let deadline = Instant::now().checked_add(limit);
        loop {
            self.check_running()?;
            let last = match client.status(true).await {
                Ok(status) => match unhealthy(&status, &running) {
                    None => return Ok(status),
                    Some(why) => why,
                },
                Err(error) => error.to_string(),
            };
            if deadline.is_none_or(|deadline| Instant::now() >= deadline) {
                return Err(timeout("all running members work".to_owned(), limit, last));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// The node that leads.
    ///
    /// # Errors
    /// If none does within the deadline.
    pub async fn leader(&self) -> Result<u64, LocalError> {
        let client = self.administrator()?;
        wait_for("somebody leads", START_DEADLINE, || async {
            let status = client.status(false).await.map_err(|error| error.to_string())?;
            if status.leader_id == 0 {
                Err("nobody leads".to_owned())
            } else {
                Ok(status.leader_id)
            }
        })
        .await
    }

    /// Says so if a node ended by itself.
    ///
    /// # Errors
    /// With the last words of the first one that did.
    pub fn check_running(&mut self) -> Result<(), LocalError> {
        self.nodes.iter_mut().try_for_each(LocalNode::check_running)
    }

    /// Kills a node at once, as `kill -9` does.
    ///
    /// # Errors
    /// If there is none of this id.
    pub async fn kill_node(&mut self, id: u64) -> Result<(), LocalError> {
        self.node_mut(id)?.kill().await
    }

    /// Stops a node (SIGTERM) and waits until it has ended with exit code 0.
    ///
    /// # Errors
    /// If it does not end in time, or with another code.
    pub async fn stop_node(&mut self, id: u64) -> Result<(), LocalError> {
        let node = self.node_mut(id)?;
        node.ask_to_stop()?;
        node.wait_stopped().await
    }

    /// Stops all nodes that run, all at the same time.
    ///
    /// # Errors
    /// The first failure, after all have ended.
    pub async fn stop(&mut self) -> Result<(), LocalError> {
        let mut result = Ok(());
        for node in &self.nodes {
            result = result.and(node.ask_to_stop());
        }
        for node in &mut self.nodes {
            result = result.and(node.wait_stopped().await);
        }
        result
    }

    /// Grants roles as the first administrator.
    ///
    /// # Errors
    /// If the cluster refuses or does not answer.
    pub async fn grant(&self, operator: &OperatorName, roles: &[Role]) -> Result<(), LocalError> {
        let client = self.administrator()?;
        for role in roles {
            client.grant(operator, *role).await?;
        }
        Ok(())
    }
}

fn administrator() -> Result<OperatorName, LocalError> {
    Ok(ADMINISTRATOR.parse().map_err(crate::client::ClientError::from)?)
}

fn timeout(what: String, waited: Duration, last: String) -> LocalError {
    LocalError::Timeout { what, waited, last }
}

fn member(status: &v1::GetStatusResponse, id: u64) -> Option<&v1::MemberStatus> {
    status.members.iter().find(|member| member.node.as_ref().is_some_and(|n| n.node_id == id))
}

fn same_digest(status: &v1::GetStatusResponse) -> Result<(u64, String), String> {
    let Some(first) = status.members.first() else { return Err("no members".to_owned()) };
    for member in &status.members {
        let id = member.node.as_ref().map_or(0, |node| node.node_id);
        if !member.reachable {
            return Err(format!("node {id} does not answer: {}", member.error));
        }
        if member.applied_index != first.applied_index {
            return Err(format!("node {id} is at another log index"));
        }
        if member.state_digest.is_empty() || member.state_digest != first.state_digest {
            return Err(format!("node {id} has another state at index {}", member.applied_index));
        }
    }
    Ok((first.applied_index, hex::encode(&first.state_digest)))
}

fn unhealthy(status: &v1::GetStatusResponse, running: &[u64]) -> Option<String> {
    if status.leader_id == 0 {
        return Some("nobody leads".to_owned());
    }
    for id in running {
        match member(status, *id) {
            None => {}
            Some(member) if !member.reachable => {
                return Some(format!("node {id} does not answer: {}", member.error));
            }
            Some(member) if !member.unsealed => return Some(format!("node {id} is sealed")),
            Some(_) => {}
        }
    }
    None
}

/// Looks at a condition until it holds; the error says why it does not yet.
///
/// # Errors
/// If it does not hold within the limit, with the last reason.
pub async fn wait_for<T, F, Fut>(what: &str, limit: Duration, mut look: F) -> Result<T, LocalError>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, String>>,
{
    let deadline = Instant::now().checked_add(limit);
    loop {
        let last = match look().await {
            Ok(value) => return Ok(value),
            Err(why) => why,
        };
        if deadline.is_none_or(|deadline| Instant::now() >= deadline) {
            return Err(timeout(what.to_owned(), limit, last));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// A GET of plain HTTP/1.1: status and body.
///
/// # Errors
/// If nobody listens, or the answer is none.
pub async fn http_get(address: &str, path: &str) -> std::io::Result<(u16, String)> {
    let get = async {
        let mut stream = TcpStream::connect(address).await?;
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = tokio::time::timeout(Duration::from_secs(5), get)
        .await
        .map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))??;
    let text = String::from_utf8_lossy(&answer);
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
    let body = text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    match (status, body) {
        (Some(status), Some(body)) => Ok((status, body)),
        _ => Err(std::io::Error::from(std::io::ErrorKind::InvalidData)),
    }
}
