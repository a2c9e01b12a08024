//! Grants, the deny-list and compliance reports.

use holdfast_proto::v1;
use holdfast_proto::v1::admin_service_client::AdminServiceClient;
use holdfast_proto::v1::compliance_service_client::ComplianceServiceClient;

use super::error::ClientError;
use super::wire;
use super::{Client, new_request_id};
use crate::domain::{DenialSubject, OperatorName, Reach, Role};

/// Grants and denials that are asked for at once: as many as a page holds.
const PAGE: u32 = 1000;

impl Client {
    /// Grants a role for all devices. Answers whether that was new.
    ///
    /// # Errors
    /// If the caller is no administrator, or no server answers.
    pub async fn grant(&self, operator: &OperatorName, role: Role) -> Result<bool, ClientError> {
        self.grant_for(operator, role, &Reach::ALL).await
    }

    /// Grants a role for some devices, in the place of whichever it was granted for before. Answers whether that was new.
    ///
    /// # Errors
    /// If the caller is no administrator, the role is not about devices, or no server answers.
    pub async fn grant_for(
        &self,
        operator: &OperatorName,
        role: Role,
        reach: &Reach,
    ) -> Result<bool, ClientError> {
        let message = v1::GrantRoleRequest {
            request_id: new_request_id(),
            operator: operator.to_string(),
            role: wire::role(role).into(),
            groups: reach.groups().map(ToString::to_string).collect(),
        };
        let answer = self
            .call(&message, |channel, request| async move {
                AdminServiceClient::new(channel).grant_role(request).await
            })
            .await?;
        Ok(answer.changed)
    }

    /// Takes a role away. Answers whether there was one.
    ///
    /// # Errors
    /// If the caller is no administrator, the grant is the last administrator's, or no server answers.
    pub async fn revoke(&self, operator: &OperatorName, role: Role) -> Result<bool, ClientError> {
        let message = v1::RevokeRoleRequest {
            request_id: new_request_id(),
            operator: operator.to_string(),
            role: wire::role(role).into(),
        };
        let answer = self
            .call(&message, |channel, request| async move {
                AdminServiceClient::new(channel).revoke_role(request).await
            })
            .await?;
        Ok(answer.changed)
    }

    /// All grants, page by page.
    ///
    /// # Errors
    /// If the caller may not read them, or no server answers.
    pub async fn grants(&self) -> Result<Vec<v1::Grant>, ClientError> {
        let mut grants = Vec::new();
        let mut page_token = String::new();
        loop {
            let page = self.grants_page(PAGE, &page_token).await?;
            grants.extend(page.grants);
            // A server that gives the same token again would keep us for ever.
            if page.next_page_token.is_empty() {
                return Ok(grants);
            }
            if page.next_page_token == page_token {
                return Err(ClientError::Answer("the same page_token twice".to_owned()));
            }
            page_token = page.next_page_token;
        }
    }

    /// A page of grants. `page_token` is empty for the first page.
    ///
    /// # Errors
    /// If the caller may not read them, or no server answers.
    pub async fn grants_page(
        &self,
        page_size: u32,
        page_token: &str,
    ) -> Result<v1::ListGrantsResponse, ClientError> {
        let message = v1::ListGrantsRequest { page_size, page_token: page_token.to_owned() };
        self.call(&message, |channel, request| async move {
            AdminServiceClient::new(channel).list_grants(request).await
        })
        .await
    }

    /// Denies an identity or a certificate. Answers whether it was not denied before.
    ///
    /// # Errors
    /// If the caller is no administrator, nobody or no quorum would be left, or no server answers.
    pub async fn deny(&self, subject: &DenialSubject, reason: &str) -> Result<bool, ClientError> {
        let message = v1::DenyCertificateRequest {
            request_id: new_request_id(),
            subject: subject.to_string(),
            reason: reason.to_owned(),
        };
        let answer = self
            .call(&message, |channel, request| async move {
                AdminServiceClient::new(channel).deny_certificate(request).await
            })
            .await?;
        Ok(answer.changed)
    }

    /// Allows an identity or a certificate again. Answers whether it was denied.
    ///
    /// # Errors
    /// If the caller is no administrator, or no server answers.
    pub async fn allow(&self, subject: &DenialSubject) -> Result<bool, ClientError> {
        let message = v1::AllowCertificateRequest {
            request_id: new_request_id(),
            subject: subject.to_string(),
        };
        let answer = self
            .call(&message, |channel, request| async move {
                AdminServiceClient::new(channel).allow_certificate(request).await
            })
            .await?;
        Ok(answer.changed)
    }

    /// The whole deny-list, page by page.
    ///
    /// # Errors
    /// If the caller may not read it, or no server answers.
    pub async fn denials(&self) -> Result<Vec<v1::Denial>, ClientError> {
        let mut denials = Vec::new();
        let mut message = v1::ListDenialsRequest { page_size: PAGE, page_token: String::new() };
        loop {
            let page = self
                .call(&message, |channel, request| async move {
                    AdminServiceClient::new(channel).list_denials(request).await
                })
                .await?;
            denials.extend(page.denials);
            // A server that gives the same token again would keep us for ever.
            if page.next_page_token.is_empty() {
                return Ok(denials);
            }
            if page.next_page_token == message.page_token {
                return Err(ClientError::Answer("the same page_token twice".to_owned()));
            }
            message.page_token = page.next_page_token;
        }
    }

    /// Replaces the calling device's compliance report. A request id is made if the message has none.
    ///
    /// # Errors
    /// If a field is not well-formed, the device is not the caller's, or no server answers.
    pub async fn report_compliance(
        &self,
        mut report: v1::ReportComplianceRequest,
    ) -> Result<v1::ReportComplianceResponse, ClientError> {
        if report.request_id.is_empty() {
            report.request_id = new_request_id();
        }
        self.call(&report, |channel, request| async move {
            ComplianceServiceClient::new(channel).report_compliance(request).await
        })
        .await
    }
}
