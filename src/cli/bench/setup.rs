//! Who the load generator calls, and as whom.

use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;

use super::{BenchArgs, Spread, temporary_dir};
use crate::cli::Context;
use crate::cli::exit::CliError;
use crate::cli::local_cluster::LocalCluster;
use crate::cli::pki::{IssuedPaths, Pki, Subject};
use crate::client::{Address, Client, ClientError, ClientOptions, IdentityFiles};
use crate::clock::{Clock as _, SystemClock};
use crate::domain::{Actor, ClusterId, DeviceId, OperatorName, Role};
use crate::tls::Identity;

/// How long one request is tried before it counts as failed.
const DEADLINE: Duration = Duration::from_secs(30);

/// The cluster that is measured.
pub(super) struct Target {
    endpoints: Vec<Address>,
    ca: PathBuf,
    pki: Option<PathBuf>,
    admin: OperatorName,
    identity: Option<IdentityFiles>,
    spread: Spread,
}

/// A device's connection.
#[derive(Clone)]
pub(super) struct AgentClient {
    pub(super) client: Client,
    pub(super) device: DeviceId,
}

/// Makes clients with certificates; those that it issued are gone when it is dropped, which no open client minds.
pub(super) struct Identities<'a> {
    target: &'a Target,
    issuer: Option<(Pki, TempDir)>,
    endpoints: Vec<Address>,
}

impl Target {
    /// The cluster that flags and environment name.
    pub(super) fn remote(context: &Context, args: &BenchArgs) -> Result<Self, CliError> {
        let mut connection = context.connection.clone();
        if args.pki.is_some() {
            // Certificates are made; those of the environment are not used.
            (connection.cert, connection.key) = (None, None);
        }
        let (addr, ca) = match (&connection.addr, &connection.cacert) {
            (Some(addr), Some(ca)) => (addr, ca.clone()),
            _ => return Err(CliError::usage("give --addr and --cacert, or --local")),
        };
        let identity = match (&connection.cert, &connection.key) {
            (Some(cert), Some(key)) => Some(IdentityFiles { cert: cert.clone(), key: key.clone() }),
            _ if args.pki.is_none() => {
                return Err(CliError::usage("give --cert and --key, or --pki, or --local"));
            }
            _ => None,
        };
        Ok(Self {
            endpoints: Address::parse_list(addr)?,
            ca,
            pki: args.pki.clone(),
            admin: args.admin.clone(),
            identity,
            spread: args.spread,
        })
    }

    /// A cluster on this machine.
    pub(super) fn local(cluster: &LocalCluster, args: &BenchArgs) -> Self {
        Self {
            endpoints: Address::parse_list(&cluster.endpoints()).unwrap_or_default(),
            ca: cluster.client_ca(),
            pki: Some(cluster.pki().directory().to_owned()),
            admin: args.admin.clone(),
            identity: None,
            spread: args.spread,
        }
    }

    /// Finds out who leads, if that matters, and readies the certificate authority.
    pub(super) async fn identities(&self) -> Result<Identities<'_>, CliError> {
        let issuer = match &self.pki {
            Some(dir) => Some((Pki::open(dir)?, temporary_dir()?)),
            None => None,
        };
        let endpoints = self.endpoints.clone();
        let mut identities = Identities { target: self, issuer, endpoints };
        if self.spread == Spread::Leader {
            identities.leader_first().await?;
        }
        Ok(identities)
    }
}

impl Identities<'_> {
    /// A client whose first server is the `index`-th, so that connections spread over all of them.
    fn open(&self, index: usize, files: IdentityFiles) -> Result<Client, CliError> {
        let mut endpoints = self.endpoints.clone();
        if self.target.spread == Spread::All && !endpoints.is_empty() {
            let by = index.checked_rem(endpoints.len()).unwrap_or(0);
            endpoints.rotate_left(by);
        }
        let options = ClientOptions {
            endpoints,
            ca: self.target.ca.clone(),
            identity: Some(files),
            access_token: None,
            deadline: DEADLINE,
            attempt: Duration::from_secs(5),
        };
        Ok(Client::open(options)?)
    }

    fn issue(&self, subject: &Subject) -> Result<Option<IdentityFiles>, CliError> {
        let Some((pki, dir)) = &self.issuer else { return Ok(None) };
        let IssuedPaths { certificate, private_key } =
            pki.issue(subject, 2, dir.path(), SystemClock.now())?;
        Ok(Some(IdentityFiles { cert: certificate, key: private_key }))
    }

    fn given(&self) -> Result<IdentityFiles, CliError> {
        self.target.identity.clone().ok_or_else(|| CliError::usage("give --cert and --key"))
    }

    /// Whether certificates, grants and keys can be made.
    pub(super) const fn can_issue(&self) -> bool {
        self.issuer.is_some()
    }

    /// Devices, each with a connection of its own; all the same device without a certificate authority.
    pub(super) fn agents(&self, count: usize) -> Result<Vec<AgentClient>, CliError> {
        let mut agents = Vec::with_capacity(count);
        for index in 0..count {
            let device = DeviceId::new(uuid::Uuid::new_v4());
            let agent = match self.issue(&Subject::Agent(device))? {
                Some(files) => AgentClient { client: self.open(index, files)?, device },
                None => {
                    let files = self.given()?;
                    let device = device_of(&files)?;
                    AgentClient { client: self.open(index, files)?, device }
                }
            };
            agents.push(agent);
        }
        Ok(agents)
    }

    /// Operators with these roles, each with a connection of its own.
    pub(super) async fn operators(
        &self,
        count: usize,
        roles: &[Role],
    ) -> Result<Vec<Client>, CliError> {
        let mut clients = Vec::with_capacity(count);
        let administrator = match self.issuer {
            Some(_) => Some(self.administrator()?),
            None => None,
        };
        for index in 0..count {
            let name: OperatorName = format!("bench-{}", uuid::Uuid::new_v4().simple()).parse()?;
            if let Some(administrator) = &administrator {
                for role in roles {
                    administrator.grant(&name, *role).await?;
                }
            }
            let files = match self.issue(&Subject::Operator(name))? {
                Some(files) => files,
                None => self.given()?,
            };
            clients.push(self.open(index, files)?);
        }
        Ok(clients)
    }

    fn administrator(&self) -> Result<Client, CliError> {
        let dir = self.issuer.as_ref().map(|(_, dir)| dir.path().to_owned());
        let stem = format!("operator-{}", self.target.admin);
        let known = dir.map(|dir| IdentityFiles {
            cert: dir.join(format!("{stem}.pem")),
            key: dir.join(format!("{stem}.key")),
        });
        let files = match known.filter(|files| files.cert.exists()) {
            Some(files) => files,
            None => match self.issue(&Subject::Operator(self.target.admin.clone()))? {
                Some(files) => files,
                None => self.given()?,
            },
        };
        self.open(0, files)
    }

    async fn leader_first(&mut self) -> Result<(), CliError> {
        if self.issuer.is_none() {
            return Err(CliError::usage("--spread leader needs --pki or --local"));
        }
        let status = self.administrator()?.status(false).await?;
        let leader = status.members.iter().filter_map(|member| member.node.as_ref());
        let leader = leader.into_iter().find(|node| node.node_id == status.leader_id);
        let address = leader.and_then(|node| node.client_address.parse::<Address>().ok());
        if let Some(at) = self.endpoints.iter().position(|e| Some(e) == address.as_ref()) {
            self.endpoints.rotate_left(at);
        }
        Ok(())
    }
}

/// The device that a certificate names.
fn device_of(files: &IdentityFiles) -> Result<DeviceId, CliError> {
    let identity = Identity::load(&files.cert, &files.key).map_err(|error| {
        CliError::from(ClientError::File {
            path: files.cert.clone(),
            what: crate::client::with_causes(&error),
        })
    })?;
    let uri = &identity.leaf().uri;
    let cluster = uri.strip_prefix("spiffe://").and_then(|rest| rest.split('/').next());
    let cluster = cluster.and_then(|id| id.parse::<ClusterId>().ok());
    match cluster.map(|cluster| Actor::from_spiffe_uri(uri, cluster)) {
        Some(Ok(Actor::Agent(device))) => Ok(device),
        _ => {
            Err(CliError::usage(format!("{uri} is no agent; give an agent's certificate or --pki")))
        }
    }
}
