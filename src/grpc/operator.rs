//! `holdfast.v1.OperatorService`.

use std::sync::Arc;

use holdfast_proto::v1;
use holdfast_proto::v1::operator_service_server::OperatorService as Api;
use tonic::{Request, Response, Status};

use crate::auth::Action;
use crate::crypto::{RootKey, Secret, Share};
use crate::domain::{Epoch, FieldError, RequestId, ShareSet, ShareSetId, Text};
use crate::service::{
    Consensus, Given, Granted, NewRootKey, OperatorService, ResealStep, Rotated, SealStatus,
    ServiceError, Staleness,
};

use super::gate::Gate;
use super::{decode, encode, page};

/// Serves those who hold the root key.
pub(super) struct OperatorApi<C> {
    pub(super) gate: Arc<Gate<C>>,
    pub(super) service: OperatorService<C>,
}

impl<C: Consensus> OperatorApi<C> {
    fn status<T>(&self, request: &Request<T>) -> Result<SealStatus, ServiceError> {
        let caller = self.gate.caller(request)?;
        // Needed most when there is no quorum.
        let permit = self.gate.permit_read(&caller, Action::GetSealStatus, Staleness::Accepted)?;
        self.service.status(&permit)
    }

    async fn give(&self, request: Request<v1::GiveShareRequest>) -> Result<Given, ServiceError> {
        let caller = self.gate.caller(&request)?;
        let (request_id, share) = decode_share(request.into_inner())?;
        let permit = self.gate.permit(&caller, Action::GiveShare)?;
        self.service.give_share(&permit, request_id, share).await
    }

    async fn seal(
        &self,
        request: Request<v1::SealClusterRequest>,
    ) -> Result<Granted, ServiceError> {
        let caller = self.gate.caller(&request)?;
        let (request_id, reason) = decode_seal(request.into_inner())?;
        let permit = self.gate.permit(&caller, Action::SealCluster)?;
        self.service.seal(&permit, request_id, reason).await
    }

    async fn unseal(
        &self,
        request: Request<v1::UnsealClusterRequest>,
    ) -> Result<Granted, ServiceError> {
        let caller = self.gate.caller(&request)?;
        let request_id = decode::request_id(&request.get_ref().request_id)?;
        let permit = self.gate.permit(&caller, Action::UnsealCluster)?;
        self.service.unseal(&permit, request_id).await
    }
}

impl<C: Consensus> OperatorApi<C> {
    async fn rotate(
        &self,
        request: Request<v1::RotateEscrowKeyRequest>,
    ) -> Result<Rotated, ServiceError> {
        let caller = self.gate.caller(&request)?;
        let current = decode_rotate(request.get_ref())?;
        let permit = self.gate.permit(&caller, Action::RotateEscrowKey)?;
        self.service.rotate(&permit, current).await
    }

    async fn rekey(&self, request: Request<v1::RekeyRootKeyRequest>) -> Result<bool, ServiceError> {
        let caller = self.gate.caller(&request)?;
        let new = decode_rekey(request.into_inner())?;
        let permit = self.gate.permit(&caller, Action::RekeyRootKey)?;
        self.service.rekey(&permit, new).await
    }

    async fn reseal(
        &self,
        request: Request<v1::ResealKeysRequest>,
    ) -> Result<ResealStep, ServiceError> {
        let caller = self.gate.caller(&request)?;
        let after = page::key_of(&request.get_ref().page_token)?;
        let permit = self.gate.permit(&caller, Action::ResealKeys)?;
        self.service.reseal(&permit, after).await
    }
}

#[tonic::async_trait]
impl<C: Consensus> Api for OperatorApi<C> {
    async fn rotate_escrow_key(
        &self,
        request: Request<v1::RotateEscrowKeyRequest>,
    ) -> Result<Response<v1::RotateEscrowKeyResponse>, Status> {
        let done = self.rotate(request).await.map_err(|error| self.gate.status(error))?;
        let (epoch, changed) = (done.epoch.get(), done.changed);
        Ok(Response::new(v1::RotateEscrowKeyResponse { epoch, changed }))
    }

    async fn rekey_root_key(
        &self,
        request: Request<v1::RekeyRootKeyRequest>,
    ) -> Result<Response<v1::RekeyRootKeyResponse>, Status> {
        let changed = self.rekey(request).await.map_err(|error| self.gate.status(error))?;
        Ok(Response::new(v1::RekeyRootKeyResponse { changed }))
    }

    async fn reseal_keys(
        &self,
        request: Request<v1::ResealKeysRequest>,
    ) -> Result<Response<v1::ResealKeysResponse>, Status> {
        let step = self.reseal(request).await.map_err(|error| self.gate.status(error))?;
        Ok(Response::new(v1::ResealKeysResponse {
            looked_at: step.looked_at,
            resealed: step.resealed,
            changed_meanwhile: step.changed_meanwhile,
            failed: step.failed,
            next_page_token: step.next.map(page::token_after_key).unwrap_or_default(),
            epoch: step.epoch.map_or(0, Epoch::get),
        }))
    }

    async fn get_seal_status(
        &self,
        request: Request<v1::GetSealStatusRequest>,
    ) -> Result<Response<v1::GetSealStatusResponse>, Status> {
        let status = self.status(&request).map_err(|error| self.gate.status(error))?;
        Ok(Response::new(encode_status(status)))
    }

    async fn give_share(
        &self,
        request: Request<v1::GiveShareRequest>,
    ) -> Result<Response<v1::GiveShareResponse>, Status> {
        let given = self.give(request).await.map_err(|error| self.gate.status(error))?;
        Ok(Response::new(v1::GiveShareResponse {
            node_id: given.node.get(),
            unsealed: given.unsealed,
            shares_given: given.given.into(),
            threshold: given.threshold.into(),
        }))
    }

    async fn seal_cluster(
        &self,
        request: Request<v1::SealClusterRequest>,
    ) -> Result<Response<v1::SealClusterResponse>, Status> {
        let done = self.seal(request).await.map_err(|error| self.gate.status(error))?;
        let position = Some(encode::position(done.position));
        Ok(Response::new(v1::SealClusterResponse { changed: done.changed, position }))
    }

    async fn unseal_cluster(
        &self,
        request: Request<v1::UnsealClusterRequest>,
    ) -> Result<Response<v1::UnsealClusterResponse>, Status> {
        let done = self.unseal(request).await.map_err(|error| self.gate.status(error))?;
        let position = Some(encode::position(done.position));
        Ok(Response::new(v1::UnsealClusterResponse { changed: done.changed, position }))
    }
}

pub(super) fn decode_share(
    request: v1::GiveShareRequest,
) -> Result<(RequestId, Share), FieldError> {
    // Taken over first, so that it is wiped whatever else is wrong.
    let text = Secret::new(request.share.to_vec());
    let request_id = decode::request_id(&request.request_id)?;
    let share = Share::parse(text.expose_secret())
        .map_err(|fault| FieldError::new("share", fault.to_string()))?;
    Ok((request_id, share))
}

pub(super) fn decode_seal(
    request: v1::SealClusterRequest,
) -> Result<(RequestId, Text), FieldError> {
    let request_id = decode::request_id(&request.request_id)?;
    let reason = decode::name("reason", request.reason)?;
    if reason.is_empty() {
        return Err(FieldError::new("reason", "must not be empty"));
    }
    Ok((request_id, reason))
}

/// The epoch that another one is to follow.
pub(super) fn decode_rotate(request: &v1::RotateEscrowKeyRequest) -> Result<Epoch, FieldError> {
    match request.current_epoch {
        0 => Err(FieldError::new("current_epoch", "must be 1 or more")),
        epoch => Ok(Epoch::new(epoch)),
    }
}

pub(super) fn decode_rekey(request: v1::RekeyRootKeyRequest) -> Result<NewRootKey, FieldError> {
    // Taken over first, so that it is wiped whatever else is wrong.
    let root = Secret::new(request.root_key.to_vec());
    let root = RootKey::from_slice(root.expose_secret())
        .ok_or_else(|| FieldError::new("root_key", "must have 32 bytes"))?;
    let shares = request.share_set.as_ref().map(decode_share_set).transpose()?;
    Ok(NewRootKey { root: Arc::new(root), shares })
}

/// How a root key is split.
pub(super) fn decode_share_set(set: &v1::ShareSet) -> Result<ShareSet, FieldError> {
    let at = |field: &str| format!("share_set.{field}");
    let mut id = [0; 8];
    hex::decode_to_slice(&set.id, &mut id)
        .map_err(|_| FieldError::new(at("id"), "must have 16 hexadecimal digits"))?;
    // What does not fit into a byte is more than there may be.
    let byte = |number: u32| u8::try_from(number).unwrap_or(u8::MAX);
    ShareSet::new(ShareSetId::from_bytes(id), byte(set.shares), byte(set.threshold)).map_err(
        |error| {
            let field = if error.field == "key_shares" { "shares" } else { "threshold" };
            FieldError::new(at(field), error.what)
        },
    )
}

fn encode_share_set(set: &ShareSet) -> v1::ShareSet {
    v1::ShareSet {
        id: set.id().to_string(),
        shares: set.shares().into(),
        threshold: set.threshold().into(),
    }
}

fn encode_status(status: SealStatus) -> v1::GetSealStatusResponse {
    let seal = status.seal.as_ref();
    v1::GetSealStatusResponse {
        node_id: status.node.get(),
        unsealed: status.sealed_because.is_none(),
        sealed_because: status.sealed_because.clone().unwrap_or_default(),
        trouble: status.trouble.clone().unwrap_or_default(),
        cluster_sealed: seal.is_some(),
        sealed_by: seal.map(|seal| seal.sealed_by.to_string()).unwrap_or_default(),
        sealed_at_ms: seal.map_or(0, |seal| seal.sealed_at.as_millis()),
        reason: seal.map(|seal| seal.reason.to_string()).unwrap_or_default(),
        share_set: status.shares.as_ref().map(encode_share_set),
        shares_given: status.given.into(),
        reads_key_file: status.reads_key_file,
        epoch: status.epoch.map_or(0, |epoch| epoch.get()),
    }
}
