//! `holdfast.v1.RecoveryService`. The only place where a plaintext becomes part of a message.

use std::sync::Arc;

use bytes::Bytes;
use holdfast_proto::v1;
use holdfast_proto::v1::find_keys_request::Query;
use holdfast_proto::v1::recovery_service_server::RecoveryService as Api;
use tonic::{Request, Response, Status};

use crate::auth::Action;
use crate::domain::{FieldError, KeyVersion, REASONS, RequestId};
use crate::service::{Consensus, Disclosure, Found, RecoveryService, ServiceError, Staleness};
use crate::state::{Disclose, FindQuery};

use super::gate::Gate;
use super::page::Budget;
use super::{decode, encode};

/// Serves the help desk.
pub(super) struct RecoveryApi<C> {
    pub(super) gate: Arc<Gate<C>>,
    pub(super) service: RecoveryService<C>,
}

impl<C: Consensus> RecoveryApi<C> {
    async fn find(&self, request: Request<v1::FindKeysRequest>) -> Result<Found, ServiceError> {
        let caller = self.gate.caller(&request)?;
        let (request_id, query) = decode_find(request.into_inner())?;
        let permit = self.gate.permit(&caller, Action::FindKeys)?;
        self.service.find(&permit, request_id, query).await
    }

    async fn disclose(
        &self,
        request: Request<v1::DiscloseKeyRequest>,
    ) -> Result<Disclosure, ServiceError> {
        let caller = self.gate.caller(&request)?;
        let request = request.into_inner();
        let with_package = request.include_key_package;
        let (request_id, disclose) = decode_disclose(request)?;
        let permit = self.gate.permit(&caller, Action::DiscloseKey)?;
        self.service.disclose(&permit, request_id, disclose, with_package).await
    }

    fn reasons<T>(&self, request: &Request<T>) -> Result<v1::ListReasonsResponse, ServiceError> {
        let caller = self.gate.caller(request)?;
        self.gate.permit_read(&caller, Action::ListReasons, Staleness::Accepted)?;
        let reasons = REASONS.iter().map(|reason| v1::ReasonCode {
            code: reason.code.to_owned(),
            title: reason.title.to_owned(),
            text_required: reason.text_required,
        });
        Ok(v1::ListReasonsResponse { reasons: reasons.collect() })
    }
}

#[tonic::async_trait]
impl<C: Consensus> Api for RecoveryApi<C> {
    async fn find_keys(
        &self,
        request: Request<v1::FindKeysRequest>,
    ) -> Result<Response<v1::FindKeysResponse>, Status> {
        let found = self.find(request).await.map_err(|error| self.gate.status(error))?;
        Ok(Response::new(encode_found(&found)))
    }

    async fn disclose_key(
        &self,
        request: Request<v1::DiscloseKeyRequest>,
    ) -> Result<Response<v1::DiscloseKeyResponse>, Status> {
        let disclosed = self.disclose(request).await.and_then(|disclosure| encode(&disclosure));
        disclosed.map(Response::new).map_err(|error| self.gate.status(error))
    }

    async fn list_reasons(
        &self,
        request: Request<v1::ListReasonsRequest>,
    ) -> Result<Response<v1::ListReasonsResponse>, Status> {
        self.reasons(&request).map(Response::new).map_err(|error| self.gate.status(error))
    }
}

pub(super) fn decode_find(
    request: v1::FindKeysRequest,
) -> Result<(RequestId, FindQuery), FieldError> {
    let request_id = decode::request_id(&request.request_id)?;
    let query = match decode::present("query", request.query)? {
        Query::KeyIdPrefix(text) => FindQuery::Prefix(decode::id("key_id_prefix", &text)?),
        Query::KeyId(text) => FindQuery::Protector(decode::id("key_id", &text)?),
        Query::DeviceId(text) => FindQuery::Device(decode::id("device_id", &text)?),
        Query::Volume(volume) => FindQuery::Volume(
            decode::id("volume.device_id", &volume.device_id)?,
            decode::id("volume.volume_id", &volume.volume_id)?,
        ),
    };
    Ok((request_id, query))
}

pub(super) fn decode_disclose(
    request: v1::DiscloseKeyRequest,
) -> Result<(RequestId, Disclose), FieldError> {
    let request_id = decode::request_id(&request.request_id)?;
    let disclose = Disclose {
        protector: decode::id("protector_id", &request.protector_id)?,
        version: KeyVersion::new(request.version),
        reason: decode::reason(request.reason)?,
        user: request.user.map(|user| decode::user("user", user)).transpose()?,
        ticket: decode::name("ticket", request.ticket)?,
        approval: decode::optional_approval(request.approval_id)?,
    };
    Ok((request_id, disclose))
}

/// The answer, cut to what fits a message.
pub(super) fn encode_found(found: &Found) -> v1::FindKeysResponse {
    let mut budget = Budget::default();
    let keys: Vec<_> =
        found.keys.iter().map(encode::key_summary).take_while(|key| budget.takes(key)).collect();
    v1::FindKeysResponse {
        truncated: found.truncated || keys.len() < found.keys.len(),
        keys,
        audit: Some(encode::audit_head(&found.audit)),
        position: Some(encode::position(found.position)),
    }
}

fn encode(disclosure: &Disclosure) -> Result<v1::DiscloseKeyResponse, ServiceError> {
    let text = std::str::from_utf8(disclosure.recovery_key.expose_secret())
        .map_err(|_| ServiceError::Unexpected("a recovery key is no text"))?;
    let package = disclosure.package.as_ref().map(|package| package.expose_secret());
    Ok(v1::DiscloseKeyResponse {
        recovery_key: text.to_owned(),
        key_package: Bytes::copy_from_slice(package.unwrap_or_default()),
        key: Some(encode::key_summary(&disclosure.key)),
        audit: Some(encode::audit_head(&disclosure.audit)),
        position: Some(encode::position(disclosure.position)),
        malformed: disclosure.malformed,
        repeated: disclosure.repeated,
    })
}
