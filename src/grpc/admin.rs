//! `holdfast.v1.AdminService`.

use std::sync::Arc;

use holdfast_proto::v1;
use holdfast_proto::v1::admin_service_server::AdminService as Api;
use tonic::{Request, Response, Status};

use crate::auth::Action;
use crate::domain::{FieldError, OperatorName, RequestId, Role};
use crate::service::{AdminService, Consensus, Granted, ServiceError};
use crate::state::Grant;

use super::gate::Gate;
use super::groups::{decode_grant_role, names};
use super::page::{self, Budget};
use super::{decode, denials, encode};

/// Serves administrators, and those who read devices.
pub(super) struct AdminApi<C> {
    pub(super) gate: Arc<Gate<C>>,
    pub(super) service: AdminService<C>,
}

impl<C: Consensus> AdminApi<C> {
    async fn grant(&self, request: Request<v1::GrantRoleRequest>) -> Result<Granted, ServiceError> {
        let caller = self.gate.caller(&request)?;
        let (id, operator, role, reach) = decode_grant_role(request.into_inner())?;
        let permit = self.gate.permit(&caller, Action::Grant)?;
        self.service.grant(&permit, id, (operator, role), reach).await
    }

    async fn revoke(
        &self,
        request: Request<v1::RevokeRoleRequest>,
    ) -> Result<Granted, ServiceError> {
        let caller = self.gate.caller(&request)?;
        let request = request.into_inner();
        let (id, operator, role) =
            decode_grant(&request.request_id, &request.operator, request.role)?;
        let permit = self.gate.permit(&caller, Action::Revoke)?;
        self.service.revoke(&permit, id, operator, role).await
    }

    async fn grants(
        &self,
        request: Request<v1::ListGrantsRequest>,
    ) -> Result<v1::ListGrantsResponse, ServiceError> {
        let caller = self.gate.caller(&request)?;
        let request = request.into_inner();
        let size = decode::page_size(request.page_size)?;
        let after = page::grant_of(&request.page_token)?;
        let permit = self.gate.permit(&caller, Action::ListGrants)?;
        // One more than wanted shows whether a page follows.
        let found = self.service.grants(&permit, after, size.saturating_add(1)).await?;
        let mut budget = Budget::default();
        let grants: Vec<_> = found
            .iter()
            .take(size)
            .map(encode_grant)
            .take_while(|grant| budget.takes(grant))
            .collect();
        let last = grants.len().checked_sub(1).and_then(|last| found.get(last));
        let more = grants.len() < found.len();
        let token = last.filter(|_| more).map(|g| page::token_after_grant(&g.operator, g.role));
        Ok(v1::ListGrantsResponse { grants, next_page_token: token.unwrap_or_default() })
    }

    async fn deny(
        &self,
        request: Request<v1::DenyCertificateRequest>,
    ) -> Result<Granted, ServiceError> {
        let caller = self.gate.caller(&request)?;
        let (id, subject, reason) = denials::decode_deny(request.into_inner())?;
        let permit = self.gate.permit(&caller, Action::Deny)?;
        self.service.deny(&permit, id, subject, reason).await
    }

    async fn allow(
        &self,
        request: Request<v1::AllowCertificateRequest>,
    ) -> Result<Granted, ServiceError> {
        let caller = self.gate.caller(&request)?;
        let request = request.into_inner();
        let id = decode::request_id(&request.request_id)?;
        let subject = decode::id("subject", &request.subject)?;
        let permit = self.gate.permit(&caller, Action::Allow)?;
        self.service.allow(&permit, id, subject).await
    }

    async fn denials(
        &self,
        request: Request<v1::ListDenialsRequest>,
    ) -> Result<v1::ListDenialsResponse, ServiceError> {
        let caller = self.gate.caller(&request)?;
        let request = request.into_inner();
        let size = decode::page_size(request.page_size)?;
        let after = page::denial_of(&request.page_token)?;
        let permit = self.gate.permit(&caller, Action::ListDenials)?;
        // One more than wanted shows whether a page follows.
        let found = self.service.denials(&permit, after, size.saturating_add(1)).await?;
        Ok(denials::encode_page(&found, size))
    }
}

#[tonic::async_trait]
impl<C: Consensus> Api for AdminApi<C> {
    async fn grant_role(
        &self,
        request: Request<v1::GrantRoleRequest>,
    ) -> Result<Response<v1::GrantRoleResponse>, Status> {
        let done = self.grant(request).await.map_err(|error| self.gate.status(error))?;
        let position = Some(encode::position(done.position));
        Ok(Response::new(v1::GrantRoleResponse { changed: done.changed, position }))
    }

    async fn revoke_role(
        &self,
        request: Request<v1::RevokeRoleRequest>,
    ) -> Result<Response<v1::RevokeRoleResponse>, Status> {
        let done = self.revoke(request).await.map_err(|error| self.gate.status(error))?;
        let position = Some(encode::position(done.position));
        Ok(Response::new(v1::RevokeRoleResponse { changed: done.changed, position }))
    }

    async fn list_grants(
        &self,
        request: Request<v1::ListGrantsRequest>,
    ) -> Result<Response<v1::ListGrantsResponse>, Status> {
        self.grants(request).await.map(Response::new).map_err(|error| self.gate.status(error))
    }

    async fn deny_certificate(
        &self,
        request: Request<v1::DenyCertificateRequest>,
    ) -> Result<Response<v1::DenyCertificateResponse>, Status> {
        let done = self.deny(request).await.map_err(|error| self.gate.status(error))?;
        let position = Some(encode::position(done.position));
        Ok(Response::new(v1::DenyCertificateResponse { changed: done.changed, position }))
    }

    async fn allow_certificate(
        &self,
        request: Request<v1::AllowCertificateRequest>,
    ) -> Result<Response<v1::AllowCertificateResponse>, Status> {
        let done = self.allow(request).await.map_err(|error| self.gate.status(error))?;
        let position = Some(encode::position(done.position));
        Ok(Response::new(v1::AllowCertificateResponse { changed: done.changed, position }))
    }

    async fn list_denials(
        &self,
        request: Request<v1::ListDenialsRequest>,
    ) -> Result<Response<v1::ListDenialsResponse>, Status> {
        self.denials(request).await.map(Response::new).map_err(|error| self.gate.status(error))
    }

    async fn get_device(
        &self,
        request: Request<v1::GetDeviceRequest>,
    ) -> Result<Response<v1::GetDeviceResponse>, Status> {
        self.device(request).await.map(Response::new).map_err(|error| self.gate.status(error))
    }

    async fn list_devices(
        &self,
        request: Request<v1::ListDevicesRequest>,
    ) -> Result<Response<v1::ListDevicesResponse>, Status> {
        self.devices(request).await.map(Response::new).map_err(|error| self.gate.status(error))
    }

    async fn add_device_to_group(
        &self,
        request: Request<v1::AddDeviceToGroupRequest>,
    ) -> Result<Response<v1::AddDeviceToGroupResponse>, Status> {
        let done = self.add_to_group(request).await.map_err(|error| self.gate.status(error))?;
        let position = Some(encode::position(done.position));
        Ok(Response::new(v1::AddDeviceToGroupResponse { changed: done.changed, position }))
    }

    async fn remove_device_from_group(
        &self,
        request: Request<v1::RemoveDeviceFromGroupRequest>,
    ) -> Result<Response<v1::RemoveDeviceFromGroupResponse>, Status> {
        let done =
            self.remove_from_group(request).await.map_err(|error| self.gate.status(error))?;
        let position = Some(encode::position(done.position));
        Ok(Response::new(v1::RemoveDeviceFromGroupResponse { changed: done.changed, position }))
    }

    async fn list_device_groups(
        &self,
        request: Request<v1::ListDeviceGroupsRequest>,
    ) -> Result<Response<v1::ListDeviceGroupsResponse>, Status> {
        self.groups(request).await.map(Response::new).map_err(|error| self.gate.status(error))
    }
}

pub(super) fn decode_grant(
    request_id: &str,
    operator: &str,
    role: i32,
) -> Result<(RequestId, OperatorName, Role), FieldError> {
    Ok((
        decode::request_id(request_id)?,
        decode::operator("operator", operator)?,
        decode::role("role", role)?,
    ))
}

fn encode_grant(grant: &Grant) -> v1::Grant {
    v1::Grant {
        operator: grant.operator.to_string(),
        role: encode::role(grant.role).into(),
        granted_by: grant.granted_by.to_string(),
        granted_at_ms: grant.granted_at.as_millis(),
        groups: names(grant.reach.groups()),
    }
}
