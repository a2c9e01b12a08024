//! `holdfast.v1.EscrowService`.

use std::sync::Arc;

use bytes::Bytes;
use holdfast_proto::v1;
use holdfast_proto::v1::escrow_service_server::EscrowService as Api;
use tonic::{Request, Response, Status};

use crate::auth::Action;
use crate::domain::{FieldError, KeyVersion, RequestId, limits};
use crate::service::Staleness;
use crate::service::{Consensus, EscrowService, ServiceError, SignedEscrowKey, SignedReceipt};
use crate::state::Escrow;

use super::gate::Gate;
use super::{decode, encode};

/// Serves agents that escrow.
pub(super) struct EscrowApi<C> {
    pub(super) gate: Arc<Gate<C>>,
    pub(super) service: EscrowService<C>,
}

impl<C: Consensus> EscrowApi<C> {
    fn escrow_key<T>(&self, request: &Request<T>) -> Result<SignedEscrowKey, ServiceError> {
        let caller = self.gate.caller(request)?;
        // Every agent may, and the key is signed: neither takes recent grants.
        let permit = self.gate.permit_read(&caller, Action::GetEscrowKey, Staleness::Accepted)?;
        self.service.escrow_key(&permit)
    }

    async fn escrow(
        &self,
        request: Request<v1::EscrowRecoveryKeyRequest>,
    ) -> Result<SignedReceipt, ServiceError> {
        let caller = self.gate.caller(&request)?;
        let (request_id, escrow) = decode_escrow(request.into_inner())?;
        let permit = self.gate.permit(&caller, Action::Escrow { device: escrow.device })?;
        self.service.escrow(&permit, request_id, escrow).await
    }
}

#[tonic::async_trait]
impl<C: Consensus> Api for EscrowApi<C> {
    async fn get_escrow_key(
        &self,
        request: Request<v1::GetEscrowKeyRequest>,
    ) -> Result<Response<v1::GetEscrowKeyResponse>, Status> {
        let signed = self.escrow_key(&request).map_err(|error| self.gate.status(error))?;
        Ok(Response::new(v1::GetEscrowKeyResponse {
            cluster_id: signed.key.cluster.to_string(),
            epoch: signed.key.epoch.get(),
            public_key: Bytes::copy_from_slice(&signed.key.key),
            signature: signed.signature,
            signer_chain: signed.signer_chain,
        }))
    }

    async fn escrow_recovery_key(
        &self,
        request: Request<v1::EscrowRecoveryKeyRequest>,
    ) -> Result<Response<v1::EscrowRecoveryKeyResponse>, Status> {
        let signed = self.escrow(request).await.map_err(|error| self.gate.status(error))?;
        let receipt = Some(encode_receipt(signed));
        Ok(Response::new(v1::EscrowRecoveryKeyResponse { receipt }))
    }
}

pub(super) fn decode_escrow(
    request: v1::EscrowRecoveryKeyRequest,
) -> Result<(RequestId, Escrow), FieldError> {
    let request_id = decode::request_id(&request.request_id)?;
    let package = request
        .sealed_key_package
        .map(|package| decode::sealed("sealed_key_package", package, limits::SEALED_PACKAGE_BYTES));
    let key = decode::present("sealed_key", request.sealed_key)?;
    let escrow = Escrow {
        device: decode::id("device_id", &request.device_id)?,
        volume: decode::id("volume_id", &request.volume_id)?,
        protector: decode::id("protector_id", &request.protector_id)?,
        protector_kind: decode::protector_kind("protector_kind", request.protector_kind)?,
        volume_kind: decode::volume_kind("volume_kind", request.volume_kind)?,
        expected_version: KeyVersion::new(request.expected_version),
        key: decode::sealed("sealed_key", key, limits::SEALED_KEY_BYTES)?,
        package: package.transpose()?,
        host_name: decode::name("host_name", request.host_name)?,
        users: decode::users("users", request.users)?,
    };
    Ok((request_id, escrow))
}

fn encode_receipt(signed: SignedReceipt) -> v1::Receipt {
    let SignedReceipt { cluster, body, node, signature, signer_chain } = signed;
    v1::Receipt {
        cluster_id: cluster.to_string(),
        device_id: body.device.to_string(),
        volume_id: body.volume.to_string(),
        protector_id: body.protector.to_string(),
        version: body.version.get(),
        sealed_digest: Bytes::copy_from_slice(&body.sealed_digest),
        position: Some(encode::position(body.position)),
        audit_head: Some(encode::audit_head(&body.audit)),
        escrowed_at_ms: body.escrowed_at.as_millis(),
        node_id: node.get(),
        signature,
        signer_chain,
    }
}
