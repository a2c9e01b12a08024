//! The seal: who may open keys at all, and how servers come to the root key.

use std::sync::Arc;

use crate::auth::{Action, Permit};
use crate::crypto::{CryptoError, RootKey, Share, UnlockedKeyring, system_rng};
use crate::domain::{Epoch, FieldError, NodeId, RequestId, ShareSet, Text};
use crate::state::{CommandBody, Keyring, Seal, Unseal, UnsealedBy, query};

use super::admin::Granted;
use super::context::{Proposer, proposer_of};
use super::sealing::{SealMark, keyring_parts, refresh_sealing};
use super::unsealing::{Step, Wanted, fault};
use super::{Consensus, Context, Sealing, ServiceError};

/// Whether a node can open keys, and what it takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealStatus {
    /// The node.
    pub node: NodeId,
    /// Why it can't open keys; `None` if it can.
    pub sealed_because: Option<String>,
    /// Why it can't open what was made since it was unsealed; `None` if it can.
    pub trouble: Option<String>,
    /// Who sealed the whole cluster, if somebody did.
    pub seal: Option<Seal>,
    /// How the root key is split, if it is.
    pub shares: Option<ShareSet>,
    /// How many shares the node was given so far.
    pub given: u8,
    /// Whether the node has a file to read the root key from.
    pub reads_key_file: bool,
    /// The newest epoch of the escrow key; `None` before the cluster was made.
    pub epoch: Option<Epoch>,
}

/// What became of a share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Given {
    /// The node that was given it.
    pub node: NodeId,
    /// Whether it can open keys now.
    pub unsealed: bool,
    /// How many shares it has; all that it takes if it is unsealed.
    pub given: u8,
    /// How many it takes.
    pub threshold: u8,
}

/// Use cases of those who hold the root key.
pub struct OperatorService<C> {
    pub(super) context: Arc<Context<C>>,
    pub(super) sealing: Arc<Sealing>,
    giving: tokio::sync::Mutex<()>,
}

impl<C: Consensus> OperatorService<C> {
    /// Over the shared context and the keyring of this node.
    pub fn new(context: Arc<Context<C>>, sealing: Arc<Sealing>) -> Self {
        Self { context, sealing, giving: tokio::sync::Mutex::new(()) }
    }

    /// How this node is, as far as it knows: needed most when there is no quorum.
    ///
    /// # Errors
    /// If the local store fails.
    pub fn status(&self, permit: &Permit) -> Result<SealStatus, ServiceError> {
        proposer_of(permit, Action::GetSealStatus)?;
        let view = self.context.consensus().view();
        let keyring = query::keyring(view)?;
        Ok(SealStatus {
            node: self.context.node(),
            sealed_because: self.sealing.sealed_because(),
            trouble: self.sealing.trouble(),
            seal: query::seal(view)?,
            shares: keyring.as_ref().and_then(|keyring| keyring.shares),
            given: self.sealing.shares_given(),
            reads_key_file: self.sealing.reads_key_file(),
            epoch: keyring.and_then(|keyring| keyring.epochs.last().map(|epoch| epoch.epoch)),
        })
    }

    /// Gives this node a share. With enough of them it records that it is unsealed, and only then is.
    ///
    /// # Errors
    /// What is wrong with the share. If nobody knows whether it was recorded the shares stay, and the same request may be
    /// made again.
    pub async fn give_share(
        &self,
        permit: &Permit,
        request_id: RequestId,
        share: Share,
    ) -> Result<Given, ServiceError> {
        let proposer = proposer_of(permit, Action::GiveShare)?;
        let _one_at_a_time = self.giving.lock().await;
        // By the newest splitting and the newest seal that a quorum knows of.
        self.context.read(false).await?;
        let seals = self.context.heads()?.seals;
        let keyring = query::keyring(self.context.consensus().view())?;
        let keyring = keyring.ok_or(ServiceError::NotInitialised)?;
        let Some(set) = keyring.shares else { return Err(not_split().into()) };
        let wanted = Wanted { cluster: self.context.cluster(), set, seals };
        refresh_sealing(&self.context, &self.sealing)?;
        // One that has opened an older keyring only, before the root key was changed, has something to gain.
        if self.sealing.has_opened(&keyring) {
            return Ok(self.given(set, true, set.threshold()));
        }
        match self.sealing.take_share(share, request_id, wanted)? {
            Step::More(given) => Ok(self.given(set, false, given)),
            Step::Enough(root, numbers) => {
                let unlocked = self.unlock(&root, &keyring)?;
                tracing::info!(shares = ?numbers, "enough shares of the root key were given");
                self.record(proposer, request_id, seals, numbers).await?;
                self.sealing.install(unlocked, keyring_parts(&keyring), Some(root), seals);
                refresh_sealing(&self.context, &self.sealing)?;
                Ok(self.given(set, true, set.threshold()))
            }
        }
    }

    fn given(&self, set: ShareSet, unsealed: bool, given: u8) -> Given {
        Given { node: self.context.node(), unsealed, given, threshold: set.threshold() }
    }

    fn unlock(&self, root: &RootKey, keyring: &Keyring) -> Result<UnlockedKeyring, ServiceError> {
        let (cluster, parts) = (self.context.cluster(), keyring_parts(keyring));
        UnlockedKeyring::unlock(root, cluster, &parts, &mut system_rng()).map_err(|error| {
            if matches!(error, CryptoError::WrongRootKey) {
                // Their checksums are right and they fit together, so that nobody mistyped anything.
                self.sealing.forget_shares();
                let what = "the shares together don't give this cluster's root key: at least one of them is forged. \
                            All were dropped: begin anew, and take other ones";
                return fault(what).into();
            }
            ServiceError::Integrity(format!("the keyring can't be unlocked: {error}"))
        })
    }

    async fn record(
        &self,
        proposer: Proposer,
        request_id: RequestId,
        seals: u64,
        numbers: Vec<u8>,
    ) -> Result<(), ServiceError> {
        let by = UnsealedBy::Shares { node: self.context.node(), numbers };
        self.change(proposer, request_id, CommandBody::Unseal(Unseal { seals, by })).await?;
        Ok(())
    }

    /// Seals all nodes. Each forgets its keys when it hears of it, and none opens a key after this in the log.
    ///
    /// # Errors
    /// If it was refused, or nobody knows whether it was done.
    pub async fn seal(
        &self,
        permit: &Permit,
        request_id: RequestId,
        reason: Text,
    ) -> Result<Granted, ServiceError> {
        let proposer = proposer_of(permit, Action::SealCluster)?;
        let done = self.change(proposer, request_id, CommandBody::Seal { reason }).await?;
        refresh_sealing(&self.context, &self.sealing)?;
        Ok(done)
    }

    /// Lets nodes read the root key from their files again. Where it is in shares only, they have to be given those.
    ///
    /// # Errors
    /// If it was refused, or nobody knows whether it was done.
    pub async fn unseal(
        &self,
        permit: &Permit,
        request_id: RequestId,
    ) -> Result<Granted, ServiceError> {
        let proposer = proposer_of(permit, Action::UnsealCluster)?;
        self.context.read(false).await?;
        let SealMark { seals, .. } = SealMark::from(&self.context.heads()?);
        let body = CommandBody::Unseal(Unseal { seals, by: UnsealedBy::Order });
        let done = self.change(proposer, request_id, body).await?;
        refresh_sealing(&self.context, &self.sealing)?;
        Ok(done)
    }

    pub(super) async fn change(
        &self,
        proposer: Proposer,
        request_id: RequestId,
        body: CommandBody,
    ) -> Result<Granted, ServiceError> {
        let done = self.context.change(proposer, request_id, body).await?;
        self.context.wait_applied(done.position).await?;
        Ok(done)
    }
}

fn not_split() -> FieldError {
    fault(
        "this cluster's root key is not split into shares: its servers read it from a file (auto_unseal_key_file)",
    )
}
