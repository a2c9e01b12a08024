//! What bounds disclosures: approvals, the policy, mass recovery.

use std::time::Duration;

use holdfast_proto::v1;
use holdfast_proto::v1::disclosure_service_client::DisclosureServiceClient;

use super::error::ClientError;
use super::{Client, new_request_id, wire};
use crate::domain::{ApprovalId, DisclosurePolicy, KeyVersion, ProtectorId, Reason, Text, User};

/// Requests for approval that are asked for at once: as many as a page holds.
const PAGE: u32 = 1000;

/// Which key somebody wants to disclose, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApprovalRequest {
    /// The key's id.
    pub protector: ProtectorId,
    /// Its version; [`KeyVersion::NONE`] for the newest of this id.
    pub version: KeyVersion,
    /// Why.
    pub reason: Reason,
    /// For whom; help-desk must name the user.
    pub user: Option<User>,
    /// Ticket number; may be empty.
    pub ticket: Text,
}

impl Client {
    /// Asks for an approval to disclose one key.
    ///
    /// # Errors
    /// If there is no such key, the caller may not disclose it or has too many requests open, or no server answers.
    pub async fn request_approval(
        &self,
        wanted: &ApprovalRequest,
    ) -> Result<v1::RequestApprovalResponse, ClientError> {
        let message = v1::RequestApprovalRequest {
            request_id: new_request_id(),
            protector_id: wanted.protector.to_string(),
            version: wanted.version.get(),
            reason: Some(wire::reason(&wanted.reason)),
            user: wanted.user.as_ref().map(wire::user),
            ticket: wanted.ticket.as_str().to_owned(),
        };
        self.call(&message, |channel, request| async move {
            DisclosureServiceClient::new(channel).request_approval(request).await
        })
        .await
    }

    /// Approves or refuses a request of somebody else. Answers until when the approval may be used, in milliseconds since the Unix
    /// epoch.
    ///
    /// # Errors
    /// If the caller may not, has asked for it themselves, it was decided on before or is over, or no server answers.
    pub async fn decide_approval(
        &self,
        approval: ApprovalId,
        approve: bool,
        reason: &str,
    ) -> Result<u64, ClientError> {
        let message = v1::DecideApprovalRequest {
            request_id: new_request_id(),
            approval_id: approval.get(),
            approve,
            reason: reason.to_owned(),
        };
        let answer = self
            .call(&message, |channel, request| async move {
                DisclosureServiceClient::new(channel).decide_approval(request).await
            })
            .await?;
        Ok(answer.expires_at_ms)
    }

    /// All requests for approval that are kept, page by page.
    ///
    /// # Errors
    /// If the caller may not see them, or no server answers.
    pub async fn approvals(&self) -> Result<Vec<v1::Approval>, ClientError> {
        let mut approvals = Vec::new();
        let mut message = v1::ListApprovalsRequest { page_size: PAGE, page_token: String::new() };
        loop {
            let page = self
                .call(&message, |channel, request| async move {
                    DisclosureServiceClient::new(channel).list_approvals(request).await
                })
                .await?;
            approvals.extend(page.approvals);
            // A server that gives the same token again would keep us for ever.
            if page.next_page_token.is_empty() {
                return Ok(approvals);
            }
            if page.next_page_token == message.page_token {
                return Err(ClientError::Answer("the same page_token twice".to_owned()));
            }
            message.page_token = page.next_page_token;
        }
    }

    /// The policy in force, and whether quotas are lifted.
    ///
    /// # Errors
    /// If the caller has no role, or no server answers.
    pub async fn disclosure_status(&self) -> Result<v1::GetDisclosureStatusResponse, ClientError> {
        self.call(&v1::GetDisclosureStatusRequest {}, |channel, request| async move {
            DisclosureServiceClient::new(channel).get_disclosure_status(request).await
        })
        .await
    }

    /// Sets the policy in the place of the one of this revision. Answers whether it was another one.
    ///
    /// # Errors
    /// If the caller is no administrator, somebody else has set it meanwhile, or no server answers.
    pub async fn set_disclosure_policy(
        &self,
        revision: u64,
        policy: &DisclosurePolicy,
    ) -> Result<bool, ClientError> {
        let message = v1::SetDisclosurePolicyRequest {
            request_id: new_request_id(),
            revision,
            policy: Some(wire::disclosure_policy(policy)),
        };
        let answer = self
            .call(&message, |channel, request| async move {
                DisclosureServiceClient::new(channel).set_disclosure_policy(request).await
            })
            .await?;
        Ok(answer.changed)
    }

    /// Proposes to lift the quotas for a while. Answers the number for whoever confirms it.
    ///
    /// # Errors
    /// If the caller is no administrator, quotas are lifted already, or no server answers.
    pub async fn propose_mass_recovery(
        &self,
        duration: Duration,
        reason: &str,
    ) -> Result<u64, ClientError> {
        let message = v1::ProposeMassRecoveryRequest {
            request_id: new_request_id(),
            duration_ms: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
            reason: reason.to_owned(),
        };
        let answer = self
            .call(&message, |channel, request| async move {
                DisclosureServiceClient::new(channel).propose_mass_recovery(request).await
            })
            .await?;
        Ok(answer.number)
    }

    /// Confirms a proposal of another administrator. Answers until when quotas are lifted, in milliseconds since the Unix epoch.
    ///
    /// # Errors
    /// If the caller is no administrator or has proposed it, there is no such proposal, or no server answers.
    pub async fn confirm_mass_recovery(&self, number: u64) -> Result<u64, ClientError> {
        let message = v1::ConfirmMassRecoveryRequest { request_id: new_request_id(), number };
        let answer = self
            .call(&message, |channel, request| async move {
                DisclosureServiceClient::new(channel).confirm_mass_recovery(request).await
            })
            .await?;
        Ok(answer.until_ms)
    }

    /// Ends a mass recovery before its time, or takes a proposal back.
    ///
    /// # Errors
    /// If the caller is no administrator, there is none of this number, or no server answers.
    pub async fn end_mass_recovery(&self, number: u64) -> Result<(), ClientError> {
        let message = v1::EndMassRecoveryRequest { request_id: new_request_id(), number };
        self.call(&message, |channel, request| async move {
            DisclosureServiceClient::new(channel).end_mass_recovery(request).await
        })
        .await
        .map(drop)
    }
}
