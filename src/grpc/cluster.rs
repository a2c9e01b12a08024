//! `holdfast.v1.ClusterService`.

use std::sync::Arc;

use bytes::Bytes;
use holdfast_proto::v1;
use holdfast_proto::v1::cluster_service_server::ClusterService as Api;
use tonic::{Request, Response, Status};

use crate::auth::{Action, Permit};
use crate::crypto::{RootKey, Secret, SigningMaterial};
use crate::domain::{ClusterId, Epoch, FieldError, NodeId, RequestId, limits};
use crate::raft::{Member, MemberRole, MemberStatus};
use crate::service::{
    self, ClusterService, Consensus, InitCluster, MOST_NODES, NodeSpec, ServiceError, SplitRootKey,
    Staleness,
};
use crate::state::Position;

use super::gate::Gate;
use super::{decode, encode, operator};

/// Most certificates of a signer's chain.
pub(super) const CHAIN_CERTIFICATES: usize = 4;
/// Largest certificate, in bytes.
pub(super) const CERTIFICATE_BYTES: usize = 8192;
/// Largest private key, in bytes.
pub(super) const PRIVATE_KEY_BYTES: usize = 4096;

/// Serves those who run the cluster.
pub(super) struct ClusterApi<C> {
    pub(super) gate: Arc<Gate<C>>,
    pub(super) service: ClusterService<C>,
    pub(super) cluster: ClusterId,
}

impl<C: Consensus> ClusterApi<C> {
    async fn init(&self, request: Request<v1::InitClusterRequest>) -> Result<Epoch, ServiceError> {
        let caller = self.gate.caller(&request)?;
        let (request_id, init) = decode_init(request.into_inner())?;
        // There is no quorum yet that the node could have proof of.
        let permit = self.gate.permit_read(&caller, Action::InitCluster, Staleness::Accepted)?;
        self.service.init(&permit, request_id, init).await
    }

    async fn status(
        &self,
        request: Request<v1::GetStatusRequest>,
    ) -> Result<v1::GetStatusResponse, ServiceError> {
        let caller = self.gate.caller(&request)?;
        // Needed most when there is no quorum.
        let permit = self.gate.permit_read(&caller, Action::GetStatus, Staleness::Accepted)?;
        let status = self.service.status(&permit, request.get_ref().all_members).await?;
        Ok(encode_status(&status))
    }

    async fn add_learner(
        &self,
        request: Request<v1::AddLearnerRequest>,
    ) -> Result<Position, ServiceError> {
        let caller = self.gate.caller(&request)?;
        let request = request.into_inner();
        let request_id = decode::request_id(&request.request_id)?;
        let node = decode_node("node", decode::present("node", request.node)?)?;
        let permit = self.gate.permit(&caller, Action::AddLearner)?;
        self.service.add_learner(&permit, request_id, node).await
    }

    async fn promote(
        &self,
        request: Request<v1::PromoteNodeRequest>,
    ) -> Result<Position, ServiceError> {
        let message = request.get_ref();
        let named = (message.request_id.clone(), message.node_id);
        let (permit, id, node) = self.named(&request, named, Action::PromoteNode)?;
        self.service.promote(&permit, id, node).await
    }

    async fn remove(
        &self,
        request: Request<v1::RemoveNodeRequest>,
    ) -> Result<Position, ServiceError> {
        let message = request.get_ref();
        let named = (message.request_id.clone(), message.node_id);
        let (permit, id, node) = self.named(&request, named, Action::RemoveNode)?;
        self.service.remove(&permit, id, node).await
    }

    fn named<T>(
        &self,
        request: &Request<T>,
        (request_id, node): (String, u64),
        action: Action,
    ) -> Result<(Permit, RequestId, NodeId), ServiceError> {
        let caller = self.gate.caller(request)?;
        let request_id = decode::request_id(&request_id)?;
        let node = node_id("node_id", node)?;
        Ok((self.gate.permit(&caller, action)?, request_id, node))
    }

    async fn transfer(
        &self,
        request: Request<v1::TransferLeadershipRequest>,
    ) -> Result<NodeId, ServiceError> {
        let caller = self.gate.caller(&request)?;
        let request = request.into_inner();
        let request_id = decode::request_id(&request.request_id)?;
        let to = (request.node_id != 0).then_some(NodeId::new(request.node_id));
        let permit = self.gate.permit(&caller, Action::TransferLeadership)?;
        self.service.transfer(&permit, request_id, to).await
    }
}

#[tonic::async_trait]
impl<C: Consensus> Api for ClusterApi<C> {
    async fn init_cluster(
        &self,
        request: Request<v1::InitClusterRequest>,
    ) -> Result<Response<v1::InitClusterResponse>, Status> {
        let epoch = self.init(request).await.map_err(|error| self.gate.status(error))?;
        Ok(Response::new(v1::InitClusterResponse {
            cluster_id: self.cluster.to_string(),
            epoch: epoch.get(),
        }))
    }

    async fn get_status(
        &self,
        request: Request<v1::GetStatusRequest>,
    ) -> Result<Response<v1::GetStatusResponse>, Status> {
        self.status(request).await.map(Response::new).map_err(|error| self.gate.status(error))
    }

    async fn add_learner(
        &self,
        request: Request<v1::AddLearnerRequest>,
    ) -> Result<Response<v1::AddLearnerResponse>, Status> {
        let added = Self::add_learner(self, request).await;
        let position = added.map(encode::position).map_err(|error| self.gate.status(error))?;
        Ok(Response::new(v1::AddLearnerResponse { position: Some(position) }))
    }

    async fn promote_node(
        &self,
        request: Request<v1::PromoteNodeRequest>,
    ) -> Result<Response<v1::PromoteNodeResponse>, Status> {
        let promoted = self.promote(request).await;
        let position = promoted.map(encode::position).map_err(|error| self.gate.status(error))?;
        Ok(Response::new(v1::PromoteNodeResponse { position: Some(position) }))
    }

    async fn remove_node(
        &self,
        request: Request<v1::RemoveNodeRequest>,
    ) -> Result<Response<v1::RemoveNodeResponse>, Status> {
        let removed = self.remove(request).await;
        let position = removed.map(encode::position).map_err(|error| self.gate.status(error))?;
        Ok(Response::new(v1::RemoveNodeResponse { position: Some(position) }))
    }

    async fn transfer_leadership(
        &self,
        request: Request<v1::TransferLeadershipRequest>,
    ) -> Result<Response<v1::TransferLeadershipResponse>, Status> {
        let leader = self.transfer(request).await.map_err(|error| self.gate.status(error))?;
        Ok(Response::new(v1::TransferLeadershipResponse { leader_id: leader.get() }))
    }
}

pub(super) fn node_id(path: &str, id: u64) -> Result<NodeId, FieldError> {
    if id == 0 {
        return Err(FieldError::new(path.to_owned(), "must be 1 or more"));
    }
    Ok(NodeId::new(id))
}

fn address(path: String, text: String) -> Result<String, FieldError> {
    let port = text.rsplit_once(':').and_then(|(host, port)| {
        let fits = !host.is_empty() && text.len() <= limits::NAME_BYTES;
        port.parse::<u16>().ok().filter(|port| fits && *port > 0)
    });
    let plain = !text.chars().any(|c| c.is_control() || c.is_whitespace());
    if port.is_some() && plain {
        Ok(text)
    } else {
        Err(FieldError::new(path, "must be host:port of at most 256 bytes"))
    }
}

pub(super) fn decode_node(path: &str, node: v1::NodeSpec) -> Result<NodeSpec, FieldError> {
    Ok(NodeSpec {
        id: node_id(&format!("{path}.node_id"), node.node_id)?,
        peer_address: address(format!("{path}.peer_address"), node.peer_address)?,
        client_address: address(format!("{path}.client_address"), node.client_address)?,
    })
}

pub(super) fn decode_init(
    request: v1::InitClusterRequest,
) -> Result<(RequestId, InitCluster), FieldError> {
    // Taken over first, so that it is wiped whatever else is wrong.
    let private_key = Secret::new(request.signer_private_key.to_vec());
    let root_key = Secret::new(request.root_key.to_vec());
    let request_id = decode::request_id(&request.request_id)?;
    if request.nodes.is_empty() {
        return Err(FieldError::new("nodes", "is empty"));
    }
    decode::at_most("nodes", &request.nodes, MOST_NODES)?;
    decode::at_most("signer_chain", &request.signer_chain, CHAIN_CERTIFICATES)?;
    if let Some(i) = request.signer_chain.iter().position(|der| der.len() > CERTIFICATE_BYTES) {
        let what = format!("has more than {CERTIFICATE_BYTES} bytes");
        return Err(FieldError::new(format!("signer_chain[{i}]"), what));
    }
    if request.signer_private_key.len() > PRIVATE_KEY_BYTES {
        let what = format!("has more than {PRIVATE_KEY_BYTES} bytes");
        return Err(FieldError::new("signer_private_key", what));
    }
    let split = decode_split(&root_key, request.share_set.as_ref())?;
    let nodes = request.nodes.into_iter().enumerate();
    let init = InitCluster {
        nodes: nodes
            .map(|(i, node)| decode_node(&format!("nodes[{i}]"), node))
            .collect::<Result<_, _>>()?,
        administrator: decode::operator("first_administrator", &request.first_administrator)?,
        signer: SigningMaterial { chain: request.signer_chain, private_key },
        split,
    };
    Ok((request_id, init))
}

fn decode_split(
    root_key: &Secret,
    set: Option<&v1::ShareSet>,
) -> Result<Option<SplitRootKey>, FieldError> {
    let Some(set) = set else {
        return match root_key.expose_secret() {
            [] => Ok(None),
            _ => Err(FieldError::new("share_set", "is missing, although there is a root_key")),
        };
    };
    let root = RootKey::from_slice(root_key.expose_secret())
        .ok_or_else(|| FieldError::new("root_key", "must have 32 bytes"))?;
    Ok(Some(SplitRootKey { root: Arc::new(root), set: operator::decode_share_set(set)? }))
}

fn encode_status(status: &service::Status) -> v1::GetStatusResponse {
    v1::GetStatusResponse {
        cluster_id: status.cluster.map(|cluster| cluster.to_string()).unwrap_or_default(),
        node_id: status.node.get(),
        leader_id: status.view.leader.map_or(0, NodeId::get),
        members: status.view.members.iter().map(encode_member).collect(),
        mass_recovery_until_ms: encode::millis(status.mass_recovery_until),
    }
}

fn encode_node(member: &Member) -> v1::NodeSpec {
    v1::NodeSpec {
        node_id: member.id.get(),
        peer_address: member.peer_address.clone(),
        client_address: member.client_address.clone(),
    }
}

/// A member's status as it goes out.
pub fn encode_member(status: &MemberStatus) -> v1::MemberStatus {
    let known = v1::MemberStatus {
        node: Some(encode_node(&status.member)),
        incarnation: status.member.incarnation.to_string(),
        voter: status.voter,
        ..Default::default()
    };
    let report = match &status.answer {
        Ok(report) => report,
        Err(why) => return v1::MemberStatus { error: why.clone(), ..known },
    };
    let role = match report.role {
        MemberRole::Leader => v1::MemberRole::Leader,
        MemberRole::Follower => v1::MemberRole::Follower,
        MemberRole::Candidate => v1::MemberRole::Candidate,
        MemberRole::Learner => v1::MemberRole::Learner,
        MemberRole::IsolatedLeader => v1::MemberRole::IsolatedLeader,
    };
    v1::MemberStatus {
        reachable: true,
        role: role.into(),
        term: report.term,
        last_log_index: report.last_log_index,
        applied_index: report.applied_index,
        snapshot_index: report.snapshot_index,
        unsealed: report.unsealed,
        state_digest: Bytes::copy_from_slice(&report.state_digest),
        record_count: report.record_count,
        audit_head: Some(encode::audit_head(&report.audit)),
        log_bytes: report.log_bytes,
        version: report.version.clone(),
        divergence: report.divergence.clone(),
        disk_low: report.disk_low,
        ..known
    }
}
