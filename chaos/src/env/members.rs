//! Changes of the members and of who leads, through the public API. Each is written down, with what has to come of it.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use holdfast::client::{Client, ClientError};
use holdfast::domain::NodeId;
use holdfast_proto::v1;

use super::pki::ADMINISTRATOR;
use super::server::Server;
use super::world::World;
use crate::history::{Change, ChangeEvent, Event, Expect, Members};

/// How long a change may take with at most one faulty server.
pub const CHANGE: Duration = Duration::from_secs(30);
/// The same for a vote, which a new server gets when it has a copy of everything.
const VOTE: Duration = Duration::from_secs(90);
/// How long a change is waited for that nobody can make.
const HOPELESS: Duration = Duration::from_secs(8);
/// How long is waited before a change is asked for again.
const AGAIN: Duration = Duration::from_millis(200);
/// How long it may take until all servers know the same members when all is well.
const AGREED: Duration = Duration::from_secs(20);

/// What a server is to the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// No member.
    Absent,
    /// A member without a vote.
    Learner,
    /// A member with a vote.
    Voter,
}

fn spec(server: &Server) -> v1::NodeSpec {
    v1::NodeSpec {
        node_id: server.id(),
        client_address: server.addresses.client.clone(),
        peer_address: server.addresses.peer.clone(),
    }
}

/// What has to come of a change while a majority is well.
fn due(change: Change) -> Expect {
    let within = if matches!(change, Change::Promote(_)) { VOTE } else { CHANGE };
    Expect::Made { within_ms: u64::try_from(within.as_millis()).unwrap_or(u64::MAX) }
}

impl World {
    /// Asks for a change until it is made, which has to come to pass: a majority is well. Whether it was acknowledged.
    ///
    /// # Errors
    /// If the administrator's certificate can't be read.
    pub async fn change(&self, change: Change) -> anyhow::Result<bool> {
        self.ask_for(change, due(change)).await
    }

    /// Asks for a change that can't be made: no majority is left. Whether it was acknowledged all the same.
    ///
    /// # Errors
    /// If the administrator's certificate can't be read.
    pub async fn change_in_vain(&self, change: Change) -> anyhow::Result<bool> {
        self.ask_for(change, Expect::NotMade).await
    }

    async fn ask_for(&self, change: Change, expect: Expect) -> anyhow::Result<bool> {
        let limit = match expect {
            Expect::Made { within_ms } => Duration::from_millis(within_ms),
            Expect::NotMade => HOPELESS,
        };
        let began = Instant::now();
        let (mut attempts, mut failed) = (0_u32, Some("it was not asked for".to_owned()));
        while failed.is_some() && began.elapsed() < limit {
            attempts += 1;
            // A client of its own each time, as an operator's command is.
            let client =
                self.client_at(&self.endpoints(), ADMINISTRATOR, Duration::from_secs(10))?;
            let left = limit.saturating_sub(began.elapsed());
            failed = match tokio::time::timeout(left, self.ask(&client, change)).await {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some(failed.map_or_else(String::new, |why| {
                    format!("no answer within {limit:?}; before that: {why}")
                })),
            };
            if failed.is_some() {
                tokio::time::sleep(AGAIN).await;
            }
        }
        let done = failed.is_none();
        tracing::debug!("{change:?}: {failed:?} after {attempts} attempts, {:?}", began.elapsed());
        self.record(|recorder| {
            let (at, until) = (recorder.at(began), recorder.now());
            Event::Change(ChangeEvent { at, until, change, expect, attempts, failed })
        });
        Ok(done)
    }

    async fn ask(&self, client: &Client, change: Change) -> Result<(), ClientError> {
        match change {
            Change::AddLearner(id) => {
                let server = self.all().find(|server| server.id() == id);
                let node = server.map(spec).unwrap_or_default();
                client.add_learner(node).await.map(drop)
            }
            Change::Promote(id) => client.promote(NodeId::new(id)).await.map(drop),
            Change::Remove(id) => client.remove_node(NodeId::new(id)).await.map(drop),
            Change::Transfer(id) => {
                client.transfer_leadership(Some(NodeId::new(id))).await.map(drop)
            }
        }
    }

    /// Gives a host an empty disk and a new id, and starts its server, which is no member yet.
    ///
    /// # Errors
    /// If a step fails.
    pub async fn renew(&self, server: &Server) -> anyhow::Result<u64> {
        server.kill().await?;
        match &server.disk {
            Some(disk) => disk.replace().await?,
            None => match std::fs::remove_dir_all(server.data_dir()) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).context("a lost disk");
                }
                Ok(()) | Err(_) => {}
            },
        }
        let id = self.next_id.fetch_add(1, Ordering::SeqCst);
        server.id.store(id, Ordering::SeqCst);
        self.papers.equip(server, &self.settings)?;
        self.start(server).await?;
        Ok(id)
    }

    /// Makes a running server a member with a vote. Whether that was acknowledged.
    ///
    /// # Errors
    /// If the administrator's certificate can't be read.
    pub async fn admit(&self, id: u64) -> anyhow::Result<bool> {
        Ok(self.change(Change::AddLearner(id)).await? && self.change(Change::Promote(id)).await?)
    }

    /// Puts a new server, under an id that was never used and with an empty disk, in the place of one that is lost for good.
    ///
    /// # Errors
    /// If a step fails.
    pub async fn replace(&self, server: &Server) -> anyhow::Result<(u64, u64)> {
        let old = server.id();
        let new = self.renew(server).await?;
        let replaced = self.admit(new).await? && self.change(Change::Remove(old)).await?;
        anyhow::ensure!(replaced, "node {new} could not take the place of node {old}");
        Ok((old, new))
    }

    /// What a server is to the cluster, by the word of whoever answers.
    pub fn standing(status: &v1::GetStatusResponse, id: u64) -> Standing {
        let named = |m: &&v1::MemberStatus| m.node.as_ref().is_some_and(|n| n.node_id == id);
        match status.members.iter().find(named) {
            None => Standing::Absent,
            Some(member) if member.voter => Standing::Voter,
            Some(_) => Standing::Learner,
        }
    }

    /// Makes the hosts' servers the cluster again, and nobody else, after changes of which some may have failed.
    ///
    /// # Errors
    /// If nobody leads, or a step fails.
    pub async fn settle(&self) -> anyhow::Result<()> {
        for server in self.servers() {
            let id = server.id();
            let standing = Self::standing(&self.status(CHANGE).await?, id);
            let admitted = match standing {
                Standing::Voter => true,
                Standing::Learner => self.change(Change::Promote(id)).await?,
                // It was removed: it never comes back under its old id.
                Standing::Absent => {
                    server.set_at_risk(true);
                    let new = self.renew(server).await?;
                    self.admit(new).await?
                }
            };
            anyhow::ensure!(admitted, "host {} is no member again", server.host);
        }
        let spare = self.spare();
        if Self::standing(&self.status(CHANGE).await?, spare.id()) != Standing::Absent {
            let removed = self.change(Change::Remove(spare.id())).await?;
            anyhow::ensure!(removed, "node {} is a member still", spare.id());
        }
        spare.kill().await
    }

    /// Waits until all servers say the same of who the members are, and writes down what each says.
    ///
    /// # Errors
    /// If a certificate can't be read.
    pub async fn record_members(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + AGREED;
        let mut wanted = self.ids();
        wanted.sort_unstable();
        loop {
            let mut said = Vec::new();
            for server in self.servers() {
                let status = self.administrator_of(server)?.status(false).await;
                said.extend(status.ok().map(|status| members(server.id(), &status)));
            }
            let agreed = said.iter().all(|m| m.voters == wanted && m.learners.is_empty());
            if (agreed && said.len() == wanted.len()) || Instant::now() >= deadline {
                for members in said {
                    self.record(|recorder| {
                        Event::Members(Members { at: recorder.now(), ..members })
                    });
                }
                return Ok(());
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}

fn members(by: u64, status: &v1::GetStatusResponse) -> Members {
    let with = |voter: bool| {
        let all = status.members.iter().filter(|member| member.voter == voter);
        let mut ids: Vec<_> =
            all.filter_map(|member| Some(member.node.as_ref()?.node_id)).collect();
        ids.sort_unstable();
        ids
    };
    Members { at: 0, by, voters: with(true), learners: with(false) }
}
