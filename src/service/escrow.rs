//! Escrow: agents hand over sealed recovery keys and get signed receipts.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;

use crate::auth::{Action, Permit};
use crate::crypto::{EscrowPublicKey, NodeSigner, ReceiptFacts};
use crate::domain::{ClusterId, NodeId, RequestId};
use crate::state::{Accepted, CommandBody, EpochRecord, Escrow, ReceiptBody, query};

use super::context::proposer_of;
use super::{Consensus, Context, Sealing, ServiceError};

/// The escrow key, and the proof that it is the cluster's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedEscrowKey {
    /// The key.
    pub key: EscrowPublicKey,
    /// The escrow signer's signature.
    pub signature: Bytes,
    /// The signer's certificate and its issuers, DER, the signer first.
    pub signer_chain: Vec<Bytes>,
}

/// A receipt, signed by this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedReceipt {
    /// The cluster.
    pub cluster: ClusterId,
    /// What was stored.
    pub body: ReceiptBody,
    /// This node.
    pub node: NodeId,
    /// Its signature.
    pub signature: Bytes,
    /// Its certificate and its issuers, DER, the node first.
    pub signer_chain: Vec<Bytes>,
}

/// Use cases of agents that escrow.
pub struct EscrowService<C> {
    context: Arc<Context<C>>,
    sealing: Arc<Sealing>,
    signer: watch::Receiver<Arc<NodeSigner>>,
}

impl<C: Consensus> EscrowService<C> {
    /// With the node's own key for receipts, the newest one.
    pub fn new(
        context: Arc<Context<C>>,
        sealing: Arc<Sealing>,
        signer: watch::Receiver<Arc<NodeSigner>>,
    ) -> Self {
        Self { context, sealing, signer }
    }

    /// The newest escrow key, from the local state: it is signed, so that its age does no harm. A node that is unsealed gives
    /// out none that it can't open itself; one that is sealed relies on whoever made the epoch, who opened it before it was
    /// stored.
    ///
    /// # Errors
    /// If the cluster has none yet, or the local store fails.
    pub fn escrow_key(&self, permit: &Permit) -> Result<SignedEscrowKey, ServiceError> {
        proposer_of(permit, Action::GetEscrowKey)?;
        let keyring = query::keyring(self.context.consensus().view())?;
        let keyring = keyring.ok_or(ServiceError::NotInitialised)?;
        let opened = self.sealing.newest_opened();
        let good = |epoch: &&EpochRecord| opened.is_none_or(|opened| epoch.epoch <= opened);
        let epoch = keyring.epochs.iter().rfind(good).ok_or(ServiceError::NotInitialised)?;
        Ok(SignedEscrowKey {
            key: EscrowPublicKey {
                cluster: keyring.cluster,
                epoch: epoch.epoch,
                key: epoch.public_key,
            },
            signature: epoch.signature.clone(),
            signer_chain: keyring.signer.chain,
        })
    }

    /// Stores a sealed recovery key and answers once a majority has it on disk.
    ///
    /// # Errors
    /// If it was refused, or nobody knows whether it is stored.
    pub async fn escrow(
        &self,
        permit: &Permit,
        request_id: RequestId,
        escrow: Escrow,
    ) -> Result<SignedReceipt, ServiceError> {
        let proposer = proposer_of(permit, Action::Escrow { device: escrow.device })?;
        let answer =
            self.context.propose(proposer, request_id, CommandBody::Escrow(escrow)).await?;
        let Accepted::Escrowed(body) = answer.accepted else {
            return Err(ServiceError::Unexpected("an escrow has another answer than a receipt"));
        };
        let facts = ReceiptFacts {
            device: body.device,
            volume: body.volume,
            protector: body.protector,
            version: body.version,
            sealed_digest: body.sealed_digest,
            term: body.position.term,
            index: body.position.index,
            audit_sequence: body.audit.sequence,
            audit_hash: body.audit.hash,
            escrowed_at: body.escrowed_at,
        };
        // One signer for all of it, whatever comes in between.
        let signer = Arc::clone(&self.signer.borrow());
        Ok(SignedReceipt {
            cluster: self.context.cluster(),
            signature: signer.sign_receipt(&facts),
            node: signer.node(),
            signer_chain: signer.chain().to_vec(),
            body,
        })
    }
}
