//! The cluster: making it, showing it, and changing its members.
//!
//! A change of members is recorded in the audit chain before it is made.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::auth::{Action, Permit};
use crate::crypto::{
    Authority, CryptoError, KeyringParts, RootKey, SigningMaterial, UnlockedKeyring, system_rng,
};
use crate::domain::{
    ClusterId, DisclosurePolicy, Epoch, FieldError, NodeId, OperatorName, RequestId, ShareSet,
    Text, Timestamp,
};
use crate::raft::{ClusterView, Member, RaftError};
use crate::state::{
    Accepted, Bootstrap, CommandBody, EpochRecord, Position, Signer, Wrapped, query,
};

use super::context::{Proposer, proposer_of};
use super::sealing::{keyring_parts, refresh_sealing};
use super::{Consensus, Context, Sealing, ServiceError};

/// Most nodes of a new cluster.
pub const MOST_NODES: usize = 9;
/// How long a new cluster may take to elect its first leader.
const FIRST_LEADER: Duration = Duration::from_secs(10);
/// Pause between two tries to propose to a cluster that has no leader yet.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// A node's addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSpec {
    /// Its id.
    pub id: NodeId,
    /// `host:port` that other nodes reach it at.
    pub peer_address: String,
    /// `host:port` that clients reach it at.
    pub client_address: String,
}

/// What a new cluster is made of.
#[derive(Debug)]
pub struct InitCluster {
    /// Its voters.
    pub nodes: Vec<NodeSpec>,
    /// Its first administrator.
    pub administrator: OperatorName,
    /// The signer of its escrow keys.
    pub signer: SigningMaterial,
    /// A root key that is split into shares; `None` if this node has it in a file.
    pub split: Option<SplitRootKey>,
}

/// A root key and how it was split.
#[derive(Debug)]
pub struct SplitRootKey {
    /// The root key.
    pub root: Arc<RootKey>,
    /// Its shares, which nobody but its operators has.
    pub set: ShareSet,
}

/// The cluster as this node sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The cluster; `None` before it was made.
    pub cluster: Option<ClusterId>,
    /// This node.
    pub node: NodeId,
    /// Leader and members.
    pub view: ClusterView,
    /// Until when quotas of disclosures are lifted, if they are.
    pub mass_recovery_until: Option<Timestamp>,
}

/// Use cases of those who run the cluster.
pub struct ClusterService<C> {
    context: Arc<Context<C>>,
    sealing: Arc<Sealing>,
    node_ca: Authority,
    making: tokio::sync::Mutex<()>,
}

impl<C: Consensus> ClusterService<C> {
    /// Over the shared context, the keyring of this node, and the CA that the escrow signer has to end at.
    pub fn new(context: Arc<Context<C>>, sealing: Arc<Sealing>, node_ca: Authority) -> Self {
        Self { context, sealing, node_ca, making: tokio::sync::Mutex::new(()) }
    }

    /// Makes the cluster: once, of empty nodes. After a failure on the way it may be called again on the same node.
    ///
    /// # Errors
    /// [`ServiceError::AlreadyInitialised`], [`ServiceError::Sealed`] if this node has no root key, or what is wrong with
    /// a node or the signer.
    pub async fn init(
        &self,
        permit: &Permit,
        request_id: RequestId,
        init: InitCluster,
    ) -> Result<Epoch, ServiceError> {
        let proposer = proposer_of(permit, Action::InitCluster)?;
        let _one_at_a_time = self.making.lock().await;
        let cluster = self.context.cluster();
        if self.context.heads()?.cluster.is_some() {
            return self.made_before(init.split.as_ref());
        }
        if init.split.is_some() && self.sealing.reads_key_file() {
            let what = "this server reads another root key from a file: take auto_unseal_key_file out of the \
                        configuration of all servers, and restart them";
            return Err(FieldError::new("root_key", what).into());
        }
        self.check_nodes(&init.nodes)?;
        // Everything that can be wrong is found before the first irrevocable step.
        let (epoch, body) = self.bootstrap(cluster, &init)?;
        if !self.context.consensus().initialized() {
            let members = self.greet_all(init.nodes).await?;
            self.context.consensus().initialize(members).await?;
        }
        self.propose_first(proposer, request_id, body).await?;
        if let Some(split) = &init.split {
            self.keep(split)?;
        }
        refresh_sealing(&self.context, &self.sealing)?;
        Ok(epoch)
    }

    /// Keeps the root key that the cluster was made with: nobody else here has it.
    fn keep(&self, split: &SplitRootKey) -> Result<(), ServiceError> {
        let view = self.context.consensus().view();
        let keyring = query::keyring(view)?.ok_or(ServiceError::NotInitialised)?;
        let (cluster, parts) = (self.context.cluster(), keyring_parts(&keyring));
        let unlocked = UnlockedKeyring::unlock(&split.root, cluster, &parts, &mut system_rng());
        let unlocked = unlocked
            .map_err(|error| ServiceError::Integrity(format!("the new keyring: {error}")))?;
        let seals = self.context.heads()?.seals;
        self.sealing.install(unlocked, parts, Some(Arc::clone(&split.root)), seals);
        Ok(())
    }

    /// The answer to somebody who comes with the very root key that the cluster was made with: the first answer was lost.
    fn made_before(&self, split: Option<&SplitRootKey>) -> Result<Epoch, ServiceError> {
        let keyring = query::keyring(self.context.consensus().view())?;
        let (Some(split), Some(keyring)) = (split, keyring) else {
            return Err(ServiceError::AlreadyInitialised);
        };
        let own = split.root.check(self.context.cluster(), &keyring.root_check).is_ok();
        match keyring.epochs.first() {
            // Nothing is unsealed by it: that is for shares, and leaves a record.
            Some(first) if own && keyring.shares == Some(split.set) => Ok(first.epoch),
            Some(_) | None => Err(ServiceError::AlreadyInitialised),
        }
    }

    fn check_nodes(&self, nodes: &[NodeSpec]) -> Result<(), ServiceError> {
        let fault = |what: &'static str| Err(FieldError::new("nodes", what).into());
        let ids: BTreeSet<_> = nodes.iter().map(|node| node.id).collect();
        let addresses: BTreeSet<_> = nodes.iter().map(|node| &node.peer_address).collect();
        if ids.len() != nodes.len() || addresses.len() != nodes.len() {
            return fault("a node or an address is listed twice");
        }
        if !ids.contains(&self.context.node()) {
            return fault("the called node must be among them");
        }
        Ok(())
    }

    fn bootstrap(
        &self,
        cluster: ClusterId,
        init: &InitCluster,
    ) -> Result<(Epoch, CommandBody), ServiceError> {
        let root = match &init.split {
            Some(split) => Arc::clone(&split.root),
            None => self.sealing.root_key()?,
        };
        let now = self.context.now();
        let made = KeyringParts::create(
            &root,
            cluster,
            &init.signer,
            &self.node_ca,
            now,
            &mut system_rng(),
        );
        let parts = made.map_err(|error| signer_fault(&error))?;
        let Some(first) = parts.epochs.into_iter().next() else {
            return Err(ServiceError::Unexpected("a new keyring has no epoch"));
        };
        let epoch = first.epoch;
        let body = CommandBody::Bootstrap(Bootstrap {
            cluster,
            administrator: init.administrator.clone(),
            root_check: parts.root_check,
            signer: Signer {
                chain: parts.signer.chain,
                private_key: Wrapped(parts.signer.private_key),
            },
            epoch: EpochRecord {
                epoch,
                public_key: first.public_key,
                private_key: Wrapped(first.private_key),
                signature: first.signature,
            },
            shares: init.split.as_ref().map(|split| split.set),
            disclosure_policy: Some(DisclosurePolicy::default()),
        });
        Ok((epoch, body))
    }

    async fn greet_all(&self, nodes: Vec<NodeSpec>) -> Result<Vec<Member>, ServiceError> {
        let greetings = nodes.into_iter().map(|node| self.greet(node, &[]));
        futures::future::try_join_all(greetings).await
    }

    /// Learns a node's incarnation. Only an empty node may join, and one that has joined already: then this is asked
    /// again after a lost answer.
    async fn greet(&self, node: NodeSpec, known: &[Member]) -> Result<Member, ServiceError> {
        let hello = self.context.consensus().hello(node.id, &node.peer_address);
        let hello = tokio::time::timeout(self.context.deadlines().read, hello).await;
        let fault = |why: String| ServiceError::Member { node: node.id, why };
        let hello = match hello {
            Ok(Ok(hello)) => hello,
            Ok(Err(RaftError::Membership(why))) => return Err(fault(why)),
            Ok(Err(other)) => return Err(fault(other.to_string())),
            Err(_) => return Err(fault(format!("{} does not answer", node.peer_address))),
        };
        if hello.id != node.id {
            let what = format!("node {} answers at {}", hello.id, node.peer_address);
            return Err(fault(what));
        }
        let member = Member {
            id: node.id,
            peer_address: node.peer_address,
            client_address: node.client_address,
            incarnation: hello.incarnation,
        };
        if hello.last_log.is_some() && !known.contains(&member) {
            return Err(fault(
                "has been in a cluster before; start it with an empty data_dir".into(),
            ));
        }
        Ok(member)
    }

    /// Proposes the first command as soon as there is a leader.
    async fn propose_first(
        &self,
        proposer: Proposer,
        request_id: RequestId,
        body: CommandBody,
    ) -> Result<(), ServiceError> {
        let deadline = Instant::now() + FIRST_LEADER;
        loop {
            let tried = self.context.propose(proposer.clone(), request_id, body.clone()).await;
            match tried {
                Err(ServiceError::Raft(
                    RaftError::NoLeader | RaftError::OutcomeUnknown | RaftError::NotInitialised,
                )) if Instant::now() < deadline => {
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                Ok(answer) => {
                    let Accepted::Bootstrapped = answer.accepted else {
                        return Err(ServiceError::Unexpected("a bootstrap has another answer"));
                    };
                    return self.context.wait_applied(answer.position).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// What this node knows about every member; with `all`, it asks them.
    ///
    /// # Errors
    /// [`ServiceError::ShutOut`] if the members refuse this node: another one knows more. If the local store fails.
    pub async fn status(&self, permit: &Permit, all: bool) -> Result<Status, ServiceError> {
        proposer_of(permit, Action::GetStatus)?;
        let view = self.context.consensus().statuses(all).await;
        if let (None, Some(why)) = (view.leader, &view.shut_out) {
            return Err(ServiceError::ShutOut(why.clone()));
        }
        let heads = self.context.heads()?;
        let now = self.context.now().max(heads.time);
        let lifted = Some(heads.mass_recovery_until).filter(|until| now < *until);
        let (cluster, node) = (heads.cluster, self.context.node());
        Ok(Status { cluster, node, view, mass_recovery_until: lifted })
    }

    /// Adds a member without a vote.
    ///
    /// # Errors
    /// If it is not empty or does not answer, if the change is not possible, or if nobody knows whether it was made.
    pub async fn add_learner(
        &self,
        permit: &Permit,
        request_id: RequestId,
        node: NodeSpec,
    ) -> Result<Position, ServiceError> {
        let proposer = proposer_of(permit, Action::AddLearner)?;
        // The leader checks this again; here it is found before anything is recorded.
        if self.context.heads()?.removed.contains(&node.id) {
            return Err(RaftError::RemovedId(node.id).into());
        }
        let view = self.context.consensus().statuses(false).await;
        let known: Vec<_> = view.members.into_iter().map(|status| status.member).collect();
        let member = self.greet(node, &known).await?;
        let what = format!(
            "add learner {} at {} as {}",
            member.id, member.peer_address, member.incarnation
        );
        self.record(proposer, request_id, what).await?;
        self.within(self.context.consensus().add_learner(member)).await
    }

    /// Gives a learner a vote.
    ///
    /// # Errors
    /// If the change is not possible, or nobody knows whether it was made.
    pub async fn promote(
        &self,
        permit: &Permit,
        request_id: RequestId,
        node: NodeId,
    ) -> Result<Position, ServiceError> {
        let proposer = proposer_of(permit, Action::PromoteNode)?;
        self.record(proposer, request_id, format!("promote node {node}")).await?;
        self.within(self.context.consensus().promote(node)).await
    }

    /// Removes a member for ever.
    ///
    /// # Errors
    /// If the change is not possible, or nobody knows whether it was made.
    pub async fn remove(
        &self,
        permit: &Permit,
        request_id: RequestId,
        node: NodeId,
    ) -> Result<Position, ServiceError> {
        let proposer = proposer_of(permit, Action::RemoveNode)?;
        self.record(proposer, request_id, format!("remove node {node}")).await?;
        self.within(self.context.consensus().remove(node)).await
    }

    /// Hands leadership on; returns who leads then.
    ///
    /// # Errors
    /// If nobody can or did take it.
    pub async fn transfer(
        &self,
        permit: &Permit,
        request_id: RequestId,
        to: Option<NodeId>,
    ) -> Result<NodeId, ServiceError> {
        let proposer = proposer_of(permit, Action::TransferLeadership)?;
        let what = to.map_or_else(
            || "transfer leadership".to_owned(),
            |node| format!("transfer leadership to node {node}"),
        );
        self.record(proposer, request_id, what).await?;
        self.within(self.context.consensus().transfer(to)).await
    }

    async fn record(
        &self,
        proposer: Proposer,
        request_id: RequestId,
        what: String,
    ) -> Result<(), ServiceError> {
        let body = CommandBody::ClusterChange { detail: Text::free("detail", what)? };
        let answer = self.context.propose(proposer, request_id, body).await?;
        match answer.accepted {
            Accepted::Recorded => Ok(()),
            _ => Err(ServiceError::Unexpected("a record of a change has another answer")),
        }
    }

    async fn within<T>(
        &self,
        change: impl Future<Output = Result<T, RaftError>>,
    ) -> Result<T, ServiceError> {
        let changed = tokio::time::timeout(self.context.deadlines().membership, change).await;
        Ok(changed.map_err(|_| RaftError::OutcomeUnknown)??)
    }
}

fn signer_fault(error: &CryptoError) -> ServiceError {
    let field = match error {
        CryptoError::BadPrivateKey | CryptoError::KeyMismatch => "signer_private_key",
        _ => "signer_chain",
    };
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}"));
    FieldError::new(field, format!("{error}{}", cause.unwrap_or_default())).into()
}
