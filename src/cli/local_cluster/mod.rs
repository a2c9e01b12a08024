//! A cluster of real server processes on this machine, each with its own data directory, certificates and ports.
//!
//! `dev`, `demo`, `bench --local` and the cluster tests use it. Everything lies below one directory and is found again by
//! the next start. It never waits by sleeping for a fixed time: it waits for conditions, with a deadline.

mod conditions;
mod error;
mod files;
mod lifecycle;
mod node;
mod ports;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast_proto::v1;
use uuid::Uuid;

pub use conditions::{http_get, wait_for};
pub use error::LocalError;
pub use files::NodePorts;
pub(super) use files::write_json;
pub use node::{LocalNode, wait_keeping_stdin};

use super::pki::{CaKind, IssuedPaths, Pki, Subject, write_root_key};
use crate::client::{Client, ClientOptions, wire};
use crate::clock::{Clock as _, SystemClock};
use crate::domain::{ClusterId, DeviceId, NodeId, OperatorName, Role};
use files::{Description, check_own, io, lock};

/// Name of the first administrator.
pub const ADMINISTRATOR: &str = "admin";
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
    claims: Vec<ports::Claim>,
    /// Nobody else may start servers here as long as this is open.
    _lock: File,
}

impl LocalCluster {
    /// Makes the files of a cluster of three, or finds those of an earlier one. Nothing is started.
    ///
    /// # Errors
    /// If a file can't be made or read, or another process uses the directory.
    pub fn prepare(mut options: LocalOptions) -> Result<Self, LocalError> {
        std::fs::create_dir_all(&options.dir).map_err(io(&options.dir))?;
        options.dir = options.dir.canonicalize().map_err(io(&options.dir))?;
        let dir = &options.dir;
        check_own(dir)?;
        let lock = lock(dir)?;
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
        let (description, claims) = match Description::read(&path)? {
            // Before the cluster is made, nobody knows its ports yet; others will do as well.
            Some(found)
                if found.initialised || found.nodes.iter().all(|n| ports::check(n).is_ok()) =>
            {
                let claims = ports::claim_all(&found.nodes);
                (found, claims)
            }
            Some(_) | None => {
                let (nodes, claims) = ports::choose(&[1, 2, 3])?;
                let made = Description::new(nodes, DeviceId::new(Uuid::new_v4()));
                write_json(&path, &made)?;
                (made, claims)
            }
        };
        let nodes = Vec::new();
        let mut cluster = Self { options, description, pki, nodes, claims, _lock: lock };
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

    /// The program that runs the servers.
    pub fn program(&self) -> &Path {
        &self.options.binary
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
        let (chosen, claims) = ports::choose(&[id])?;
        self.claims.extend(claims);
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
            .with_identity(&identity.certificate, &identity.private_key)
            // All servers share this machine, perhaps with a compiler: what is slow is not broken yet.
            .with_deadline(START_DEADLINE);
        Ok(Client::open(options)?)
    }

    /// The first administrator's client.
    ///
    /// # Errors
    /// If its files can't be made or read.
    pub fn administrator(&self) -> Result<Client, LocalError> {
        self.client(&self.operator(&administrator()?)?)
    }

    /// Grants roles as the first administrator; those that are there already leave no second record.
    ///
    /// # Errors
    /// If the cluster refuses or does not answer.
    pub async fn grant(&self, operator: &OperatorName, roles: &[Role]) -> Result<(), LocalError> {
        let client = self.administrator()?;
        let known = client.grants().await?;
        let has = |role: Role| {
            let same = |grant: &v1::Grant| grant.operator == operator.as_str();
            known.iter().any(|grant| same(grant) && grant.role() == wire::role(role))
        };
        for role in roles.iter().filter(|role| !has(**role)) {
            client.grant(operator, *role).await?;
        }
        Ok(())
    }
}

fn administrator() -> Result<OperatorName, LocalError> {
    Ok(ADMINISTRATOR.parse().map_err(crate::client::ClientError::from)?)
}
