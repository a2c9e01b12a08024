//! Making a cluster, looking at it and changing it.

use std::time::Duration;

use bytes::Bytes;
use holdfast_proto::v1;
use holdfast_proto::v1::cluster_service_client::ClusterServiceClient;
use zeroize::Zeroizing;

use super::call::Patience;
use super::error::ClientError;
use super::{Client, new_request_id, wire};
use crate::crypto::{RootKey, SigningMaterial};
use crate::domain::{NodeId, OperatorName, ShareSet};

/// How long a membership change may take at one server: it waits for snapshots and catching up.
const CHANGE_ATTEMPT: Duration = Duration::from_secs(60);

/// A secret as a message takes it; wiped when the last copy of the message is gone.
pub(super) fn wiped(secret: &[u8]) -> Bytes {
    Bytes::from_owner(Zeroizing::new(secret.to_vec()))
}

impl Client {
    fn change_patience(&self) -> Patience {
        let deadline = self.patience().deadline.max(CHANGE_ATTEMPT);
        Patience { deadline, attempt: CHANGE_ATTEMPT }
    }

    /// Makes a cluster of nodes that have never been in one.
    ///
    /// # Errors
    /// If it was already made, a node can't be reached, or no server answers.
    pub async fn init_cluster(
        &self,
        nodes: Vec<v1::NodeSpec>,
        administrator: &OperatorName,
        signer: &SigningMaterial,
    ) -> Result<v1::InitClusterResponse, ClientError> {
        self.init(nodes, administrator, signer, None).await
    }

    /// The same with a root key that is split into shares. Asked again with the same root key it answers again.
    ///
    /// # Errors
    /// If it was already made with another root key, a node can't be reached, or no server answers.
    pub async fn init_split_cluster(
        &self,
        nodes: Vec<v1::NodeSpec>,
        administrator: &OperatorName,
        signer: &SigningMaterial,
        split: (&RootKey, ShareSet),
    ) -> Result<v1::InitClusterResponse, ClientError> {
        self.init(nodes, administrator, signer, Some(split)).await
    }

    async fn init(
        &self,
        nodes: Vec<v1::NodeSpec>,
        administrator: &OperatorName,
        signer: &SigningMaterial,
        split: Option<(&RootKey, ShareSet)>,
    ) -> Result<v1::InitClusterResponse, ClientError> {
        let (root_key, share_set) = match split {
            Some((root, set)) => (wiped(root.expose_secret()), Some(wire::share_set(&set))),
            None => (Bytes::new(), None),
        };
        let message = v1::InitClusterRequest {
            request_id: new_request_id(),
            nodes,
            first_administrator: administrator.to_string(),
            signer_chain: signer.chain.clone(),
            signer_private_key: Bytes::copy_from_slice(signer.private_key.expose_secret()),
            root_key,
            share_set,
        };
        self.call_with(self.change_patience(), &message, |channel, request| async move {
            ClusterServiceClient::new(channel).init_cluster(request).await
        })
        .await
    }

    /// What the answering node knows; with `all_members`, what every member says or why it doesn't.
    ///
    /// # Errors
    /// If the caller may not ask, or no server answers.
    pub async fn status(&self, all_members: bool) -> Result<v1::GetStatusResponse, ClientError> {
        self.call(&v1::GetStatusRequest { all_members }, |channel, request| async move {
            ClusterServiceClient::new(channel).get_status(request).await
        })
        .await
    }

    /// Adds a node that gets the log but has no vote.
    ///
    /// # Errors
    /// If the caller is no administrator, the node is not new or not reachable, or no server answers.
    pub async fn add_learner(
        &self,
        node: v1::NodeSpec,
    ) -> Result<v1::AddLearnerResponse, ClientError> {
        let message = v1::AddLearnerRequest { request_id: new_request_id(), node: Some(node) };
        self.call_with(self.change_patience(), &message, |channel, request| async move {
            ClusterServiceClient::new(channel).add_learner(request).await
        })
        .await
    }

    /// Gives a learner a vote.
    ///
    /// # Errors
    /// If the caller is no administrator, the node has not caught up, or no server answers.
    pub async fn promote(&self, node: NodeId) -> Result<v1::PromoteNodeResponse, ClientError> {
        let message = v1::PromoteNodeRequest { request_id: new_request_id(), node_id: node.get() };
        self.call_with(self.change_patience(), &message, |channel, request| async move {
            ClusterServiceClient::new(channel).promote_node(request).await
        })
        .await
    }

    /// Removes a node for ever.
    ///
    /// # Errors
    /// If the caller is no administrator, there is no such node, or no server answers.
    pub async fn remove_node(&self, node: NodeId) -> Result<v1::RemoveNodeResponse, ClientError> {
        let message = v1::RemoveNodeRequest { request_id: new_request_id(), node_id: node.get() };
        self.call_with(self.change_patience(), &message, |channel, request| async move {
            ClusterServiceClient::new(channel).remove_node(request).await
        })
        .await
    }

    /// Hands leadership on; to the voter that is furthest ahead if `to` is `None`. Answers the new leader.
    ///
    /// # Errors
    /// If the caller is no administrator, the node is no voter, or no server answers.
    pub async fn transfer_leadership(&self, to: Option<NodeId>) -> Result<NodeId, ClientError> {
        let message = v1::TransferLeadershipRequest {
            request_id: new_request_id(),
            node_id: to.map_or(0, NodeId::get),
        };
        // It waits for nothing but an election, so the caller's own patience holds.
        let deadline = self.patience().deadline;
        let patience = Patience { deadline, attempt: deadline };
        let answer = self
            .call_with(patience, &message, |channel, request| async move {
                ClusterServiceClient::new(channel).transfer_leadership(request).await
            })
            .await?;
        Ok(NodeId::new(answer.leader_id))
    }
}
