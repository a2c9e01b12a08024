//! `holdfast.v1.EnrolmentService` at the enrolment port, `holdfast.v1.CertificateService` at the client port.

use std::sync::Arc;

use bytes::Bytes;
use holdfast_proto::v1;
use holdfast_proto::v1::certificate_service_server::CertificateService as CertificateApiTrait;
use holdfast_proto::v1::enrolment_service_server::EnrolmentService as EnrolmentApiTrait;
use tonic::{Request, Response, Status};

use crate::auth::Action;
use crate::crypto::{CertificateError, EnrolmentToken, not_after};
use crate::domain::{DeviceId, FieldError, RequestId, TokenBinding, TokenId, limits};
use crate::service::{
    AgentCaView, Consensus, EnrolmentService, Granted, Issued, IssuedToken, ServiceError,
};
use crate::state::{IssueToken, Position, Token};

use super::gate::Gate;
use super::page::{self, Budget};
use super::{decode, encode};

/// Serves devices that have no certificate yet. Whoever calls is nobody: their token alone speaks for them.
pub(super) struct EnrolmentApi<C> {
    pub(super) gate: Arc<Gate<C>>,
    pub(super) service: EnrolmentService<C>,
}

impl<C: Consensus> EnrolmentApi<C> {
    async fn enrol_device(&self, request: v1::EnrolRequest) -> Result<Issued, ServiceError> {
        let (id, device, token, csr) = decode_enrol(request)?;
        tracing::Span::current().record("action", "Enrol");
        self.service.enrol(id, &token, device, &csr).await
    }
}

#[tonic::async_trait]
impl<C: Consensus> EnrolmentApiTrait for EnrolmentApi<C> {
    async fn enrol(
        &self,
        request: Request<v1::EnrolRequest>,
    ) -> Result<Response<v1::EnrolResponse>, Status> {
        let issued = self.enrol_device(request.into_inner()).await;
        let issued = issued.map_err(|error| self.gate.status(error))?;
        Ok(Response::new(v1::EnrolResponse {
            not_after_ms: issued.not_after.as_millis(),
            again: issued.again,
            position: Some(encode::position(issued.position)),
            chain: issued.chain.into(),
        }))
    }
}

/// Serves devices that renew, and those who run enrolment.
pub(super) struct CertificateApi<C> {
    pub(super) gate: Arc<Gate<C>>,
    pub(super) service: EnrolmentService<C>,
}

impl<C: Consensus> CertificateApi<C> {
    async fn renew(
        &self,
        request: Request<v1::RenewCertificateRequest>,
    ) -> Result<Issued, ServiceError> {
        let caller = self.gate.caller(&request)?;
        let request = request.into_inner();
        let id = decode::request_id(&request.request_id)?;
        let permit = self.gate.permit(&caller, Action::RenewCertificate)?;
        self.service.renew(&permit, &caller, id, &request.csr).await
    }

    async fn create(
        &self,
        request: Request<v1::CreateAgentCaRequest>,
    ) -> Result<(AgentCaView, Position), ServiceError> {
        let caller = self.gate.caller(&request)?;
        let (id, number) = decode_create(&request.into_inner())?;
        let permit = self.gate.permit(&caller, Action::CreateAgentCa)?;
        self.service.create_agent_ca(&permit, id, number).await
    }

    async fn cas(
        &self,
        request: Request<v1::ListAgentCasRequest>,
    ) -> Result<v1::ListAgentCasResponse, ServiceError> {
        let caller = self.gate.caller(&request)?;
        let permit = self.gate.permit(&caller, Action::ListAgentCas)?;
        let cas = self.service.agent_cas(&permit).await?;
        let cas = cas.into_iter().map(encode_ca).collect::<Result<_, _>>()?;
        Ok(v1::ListAgentCasResponse { cas })
    }

    async fn issue(
        &self,
        request: Request<v1::IssueTokenRequest>,
    ) -> Result<IssuedToken, ServiceError> {
        let caller = self.gate.caller(&request)?;
        let (id, issue) = decode_issue(request.into_inner())?;
        let permit = self.gate.permit(&caller, Action::IssueToken)?;
        self.service.issue_token(&permit, id, issue).await
    }

    async fn revoke(
        &self,
        request: Request<v1::RevokeTokenRequest>,
    ) -> Result<Granted, ServiceError> {
        let caller = self.gate.caller(&request)?;
        let (id, token) = decode_revoke(&request.into_inner())?;
        let permit = self.gate.permit(&caller, Action::RevokeToken)?;
        self.service.revoke_token(&permit, id, token).await
    }

    async fn tokens(
        &self,
        request: Request<v1::ListTokensRequest>,
    ) -> Result<v1::ListTokensResponse, ServiceError> {
        let caller = self.gate.caller(&request)?;
        let request = request.into_inner();
        let size = decode::page_size(request.page_size)?;
        let after = page::token_id_of(&request.page_token)?;
        let permit = self.gate.permit(&caller, Action::ListTokens)?;
        // One more than wanted shows whether a page follows.
        let found = self.service.tokens(&permit, after, size.saturating_add(1)).await?;
        let mut budget = Budget::default();
        let tokens: Vec<_> = found
            .iter()
            .take(size)
            .map(encode_token)
            .take_while(|token| budget.takes(token))
            .collect();
        let last = tokens.len().checked_sub(1).and_then(|last| found.get(last));
        let more = tokens.len() < found.len();
        let next = last.filter(|_| more).map(|token| page::token_after_token(token.id));
        Ok(v1::ListTokensResponse { tokens, next_page_token: next.unwrap_or_default() })
    }
}

#[tonic::async_trait]
impl<C: Consensus> CertificateApiTrait for CertificateApi<C> {
    async fn renew_certificate(
        &self,
        request: Request<v1::RenewCertificateRequest>,
    ) -> Result<Response<v1::RenewCertificateResponse>, Status> {
        let issued = self.renew(request).await.map_err(|error| self.gate.status(error))?;
        Ok(Response::new(v1::RenewCertificateResponse {
            not_after_ms: issued.not_after.as_millis(),
            position: Some(encode::position(issued.position)),
            chain: issued.chain.into(),
        }))
    }

    async fn create_agent_ca(
        &self,
        request: Request<v1::CreateAgentCaRequest>,
    ) -> Result<Response<v1::CreateAgentCaResponse>, Status> {
        let made = self.create(request).await;
        let made = made.and_then(|(ca, position)| Ok((encode_ca(ca)?, position)));
        let (ca, position) = made.map_err(|error| self.gate.status(error))?;
        let position = Some(encode::position(position));
        Ok(Response::new(v1::CreateAgentCaResponse { ca: Some(ca), position }))
    }

    async fn list_agent_cas(
        &self,
        request: Request<v1::ListAgentCasRequest>,
    ) -> Result<Response<v1::ListAgentCasResponse>, Status> {
        self.cas(request).await.map(Response::new).map_err(|error| self.gate.status(error))
    }

    async fn issue_token(
        &self,
        request: Request<v1::IssueTokenRequest>,
    ) -> Result<Response<v1::IssueTokenResponse>, Status> {
        let issued = self.issue(request).await.map_err(|error| self.gate.status(error))?;
        Ok(Response::new(v1::IssueTokenResponse {
            expires_at_ms: issued.expires_at.as_millis(),
            position: Some(encode::position(issued.position)),
        }))
    }

    async fn revoke_token(
        &self,
        request: Request<v1::RevokeTokenRequest>,
    ) -> Result<Response<v1::RevokeTokenResponse>, Status> {
        let done = self.revoke(request).await.map_err(|error| self.gate.status(error))?;
        let position = Some(encode::position(done.position));
        Ok(Response::new(v1::RevokeTokenResponse { changed: done.changed, position }))
    }

    async fn list_tokens(
        &self,
        request: Request<v1::ListTokensRequest>,
    ) -> Result<Response<v1::ListTokensResponse>, Status> {
        self.tokens(request).await.map(Response::new).map_err(|error| self.gate.status(error))
    }
}

pub(super) fn decode_enrol(
    request: v1::EnrolRequest,
) -> Result<(RequestId, DeviceId, EnrolmentToken, Bytes), FieldError> {
    let id = decode::request_id(&request.request_id)?;
    let device = decode::id("device_id", &request.device_id)?;
    let token = decode::id("token", &request.token)?;
    Ok((id, device, token, request.csr))
}

pub(super) fn decode_create(
    request: &v1::CreateAgentCaRequest,
) -> Result<(RequestId, u32), FieldError> {
    let id = decode::request_id(&request.request_id)?;
    if (1..=limits::AGENT_CAS).contains(&request.number) {
        Ok((id, request.number))
    } else {
        Err(FieldError::new("number", format!("must be 1 to {}", limits::AGENT_CAS)))
    }
}

pub(super) fn decode_revoke(
    request: &v1::RevokeTokenRequest,
) -> Result<(RequestId, TokenId), FieldError> {
    Ok((decode::request_id(&request.request_id)?, decode::id("token_id", &request.token_id)?))
}

pub(super) fn decode_issue(
    request: v1::IssueTokenRequest,
) -> Result<(RequestId, IssueToken), FieldError> {
    use v1::issue_token_request::Binding;
    let request_id = decode::request_id(&request.request_id)?;
    let digest = <[u8; 32]>::try_from(request.digest.as_ref())
        .map_err(|_| FieldError::new("digest", "must have 32 bytes"))?;
    if !limits::TOKEN_TTL_MS.contains(&request.ttl_ms) {
        return Err(FieldError::new("ttl_ms", "must be from a minute to 90 days"));
    }
    let binding = match decode::present("binding", request.binding)? {
        Binding::DeviceId(device) => TokenBinding::Device(decode::id("device_id", &device)?),
        Binding::Group(group) => {
            let name = decode::id("group.name", &group.name)?;
            TokenBinding::group(name, group.count).map_err(decode::at("group.count"))?
        }
    };
    let id = decode::id("token_id", &request.token_id)?;
    Ok((request_id, IssueToken { id, digest, binding, ttl_ms: request.ttl_ms }))
}

fn encode_ca(ca: AgentCaView) -> Result<v1::AgentCa, ServiceError> {
    let end = not_after(&ca.certificate).map_err(|_: CertificateError| {
        ServiceError::Integrity("an agent CA that is stored is no certificate".to_owned())
    })?;
    let certificate: Bytes = ca.certificate;
    Ok(v1::AgentCa { number: ca.number, certificate, not_after_ms: end.as_millis() })
}

fn encode_token(token: &Token) -> v1::EnrolmentToken {
    let (device_id, group) = match &token.binding {
        TokenBinding::Device(device) => (device.to_string(), String::new()),
        TokenBinding::Group { name, .. } => (String::new(), name.to_string()),
    };
    v1::EnrolmentToken {
        token_id: token.id.to_string(),
        device_id,
        group,
        count: token.binding.count(),
        used: token.used,
        issued_by: token.issued_by.to_string(),
        issued_at_ms: token.issued_at.as_millis(),
        expires_at_ms: token.expires_at.as_millis(),
        revoked: token.revoked,
    }
}
