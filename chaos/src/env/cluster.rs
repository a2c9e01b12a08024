//! What is asked of the cluster as a whole.

use std::time::{Duration, Instant};

use anyhow::bail;
use holdfast::client::{Client, ClientOptions};
use holdfast_proto::v1;

use super::command::call;
use super::pki::{ADMINISTRATOR, AUDITOR, HELP_DESK, READER};
use super::server::Server;
use super::world::World;

/// How long a server may take to listen: it checks all its data first.
pub(super) const START: Duration = Duration::from_secs(60);

impl World {
    pub(super) fn client_at(
        &self,
        addresses: &str,
        who: &str,
        limit: Duration,
    ) -> anyhow::Result<Client> {
        let (certificate, key) = self.papers.operator(who);
        let mut options = ClientOptions::new(addresses, self.papers.client_ca())?
            .with_identity(certificate, key)
            .with_deadline(limit);
        options.attempt = options.attempt.min(limit);
        Ok(Client::open(options)?)
    }

    /// All client addresses.
    pub fn endpoints(&self) -> String {
        let all: Vec<_> = self.servers().iter().map(|s| s.addresses.client.clone()).collect();
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
        self.start_proxy()?;
        for server in self.servers() {
            self.start(server).await?;
        }
        let pki = self.papers.pki().display().to_string();
        let specs: Vec<_> = self.servers().iter().map(Self::spec).collect();
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

    /// What the leader says of all members. Nobody else is asked: one that was removed and does not know it yet has members of
    /// its own.
    ///
    /// # Errors
    /// If nobody leads, or it does not answer.
    pub async fn status(&self, limit: Duration) -> anyhow::Result<v1::GetStatusResponse> {
        let address = &self.leader(limit).await?.addresses.client;
        let leader = self.client_at(address, ADMINISTRATOR, Duration::from_secs(5))?;
        Ok(leader.status(true).await?)
    }

    /// The server that leads: the one that says so itself, of the highest term.
    ///
    /// # Errors
    /// If nobody does in time.
    pub async fn leader(&self, limit: Duration) -> anyhow::Result<&Server> {
        let deadline = Instant::now() + limit;
        loop {
            let mut best: Option<(u64, &Server)> = None;
            for server in self.all().filter(|server| server.pid().is_some()) {
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
    let all = status.members.iter().filter_map(|member| member.node.as_ref());
    let surplus = all.map(|node| node.node_id).find(|id| !ids.contains(id));
    surplus.map(|id| format!("node {id} is a member still"))
}
