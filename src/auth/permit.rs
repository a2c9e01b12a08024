//! What a caller may do: which right each action takes. Who has which right is [`Right`]'s table.

use std::collections::BTreeSet;
use std::fmt;

use crate::domain::{Actor, DeviceId, Fingerprint, Right, Role, denied_words};
use crate::planted::{self, Plant};

use super::Caller;

/// What is asked; one for each RPC of the public API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// `EscrowService.GetEscrowKey`.
    GetEscrowKey,
    /// `EscrowService.EscrowRecoveryKey`.
    Escrow {
        /// The device that the request names.
        device: DeviceId,
    },
    /// `ComplianceService.ReportCompliance`.
    ReportCompliance {
        /// The device that the request names.
        device: DeviceId,
    },
    /// `RecoveryService.FindKeys`.
    FindKeys,
    /// `RecoveryService.DiscloseKey`.
    DiscloseKey,
    /// `RecoveryService.ListReasons`.
    ListReasons,
    /// `AuditService.ListRecords` and `AuditService.GetHead`.
    ReadAudit,
    /// `AdminService.GrantRole`.
    Grant,
    /// `AdminService.RevokeRole`.
    Revoke,
    /// `AdminService.ListGrants`.
    ListGrants,
    /// `AdminService.GetDevice`.
    GetDevice,
    /// `AdminService.ListDevices`.
    ListDevices,
    /// `AdminService.AddDeviceToGroup`.
    AddDeviceToGroup,
    /// `AdminService.RemoveDeviceFromGroup`.
    RemoveDeviceFromGroup,
    /// `AdminService.ListDeviceGroups`.
    ListDeviceGroups,
    /// `AdminService.DenyCertificate`.
    Deny,
    /// `AdminService.AllowCertificate`.
    Allow,
    /// `AdminService.ListDenials`.
    ListDenials,
    /// `OperatorService.GetSealStatus`.
    GetSealStatus,
    /// `OperatorService.GiveShare`.
    GiveShare,
    /// `OperatorService.SealCluster`.
    SealCluster,
    /// `OperatorService.UnsealCluster`.
    UnsealCluster,
    /// `OperatorService.RotateEscrowKey`.
    RotateEscrowKey,
    /// `OperatorService.ResealKeys`.
    ResealKeys,
    /// `OperatorService.RekeyRootKey`.
    RekeyRootKey,
    /// `CertificateService.RenewCertificate`.
    RenewCertificate,
    /// `CertificateService.CreateAgentCa`.
    CreateAgentCa,
    /// `CertificateService.ListAgentCas`.
    ListAgentCas,
    /// `CertificateService.IssueToken`.
    IssueToken,
    /// `CertificateService.RevokeToken`.
    RevokeToken,
    /// `CertificateService.ListTokens`.
    ListTokens,
    /// `DisclosureService.RequestApproval`.
    RequestApproval,
    /// `DisclosureService.DecideApproval`.
    DecideApproval,
    /// `DisclosureService.ListApprovals`.
    ListApprovals,
    /// `DisclosureService.GetDisclosureStatus`.
    GetDisclosureStatus,
    /// `DisclosureService.SetDisclosurePolicy`.
    SetDisclosurePolicy,
    /// `DisclosureService.ProposeMassRecovery`.
    ProposeMassRecovery,
    /// `DisclosureService.ConfirmMassRecovery`.
    ConfirmMassRecovery,
    /// `DisclosureService.EndMassRecovery`.
    EndMassRecovery,
    /// `ClusterService.InitCluster`.
    InitCluster,
    /// `ClusterService.GetStatus`.
    GetStatus,
    /// `ClusterService.AddLearner`.
    AddLearner,
    /// `ClusterService.PromoteNode`.
    PromoteNode,
    /// `ClusterService.RemoveNode`.
    RemoveNode,
    /// `ClusterService.TransferLeadership`.
    TransferLeadership,
}

/// Who may do an action.
enum Rule {
    /// Any agent.
    AnyAgent,
    /// Any agent, or an operator with this right.
    AnyAgentOr(Right),
    /// The agent of this device.
    AgentOf(DeviceId),
    /// The agent of this device, or an operator with this right. Whether the right reaches the device is asked apart.
    AgentOfOr(DeviceId, Right),
    /// Any operator, granted anything or not.
    AnyOperator,
    /// An operator with this right.
    Has(Right),
}

impl Action {
    /// Its name, as refusals and their audit records show it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::GetEscrowKey => "GetEscrowKey",
            Self::Escrow { .. } => "EscrowRecoveryKey",
            Self::ReportCompliance { .. } => "ReportCompliance",
            Self::FindKeys => "FindKeys",
            Self::DiscloseKey => "DiscloseKey",
            Self::ListReasons => "ListReasons",
            Self::ReadAudit => "ReadAudit",
            Self::Grant => "GrantRole",
            Self::Revoke => "RevokeRole",
            Self::ListGrants => "ListGrants",
            Self::GetDevice => "GetDevice",
            Self::ListDevices => "ListDevices",
            Self::AddDeviceToGroup => "AddDeviceToGroup",
            Self::RemoveDeviceFromGroup => "RemoveDeviceFromGroup",
            Self::ListDeviceGroups => "ListDeviceGroups",
            Self::Deny => "DenyCertificate",
            Self::Allow => "AllowCertificate",
            Self::ListDenials => "ListDenials",
            Self::GetSealStatus => "GetSealStatus",
            Self::GiveShare => "GiveShare",
            Self::SealCluster => "SealCluster",
            Self::UnsealCluster => "UnsealCluster",
            Self::RotateEscrowKey => "RotateEscrowKey",
            Self::ResealKeys => "ResealKeys",
            Self::RekeyRootKey => "RekeyRootKey",
            Self::RenewCertificate => "RenewCertificate",
            Self::CreateAgentCa => "CreateAgentCa",
            Self::ListAgentCas => "ListAgentCas",
            Self::IssueToken => "IssueToken",
            Self::RevokeToken => "RevokeToken",
            Self::ListTokens => "ListTokens",
            Self::RequestApproval => "RequestApproval",
            Self::DecideApproval => "DecideApproval",
            Self::ListApprovals => "ListApprovals",
            Self::GetDisclosureStatus => "GetDisclosureStatus",
            Self::SetDisclosurePolicy => "SetDisclosurePolicy",
            Self::ProposeMassRecovery => "ProposeMassRecovery",
            Self::ConfirmMassRecovery => "ConfirmMassRecovery",
            Self::EndMassRecovery => "EndMassRecovery",
            Self::InitCluster => "InitCluster",
            Self::GetStatus => "GetStatus",
            Self::AddLearner => "AddLearner",
            Self::PromoteNode => "PromoteNode",
            Self::RemoveNode => "RemoveNode",
            Self::TransferLeadership => "TransferLeadership",
        }
    }

    /// What it takes.
    const fn rule(&self) -> Rule {
        match self {
            Self::RenewCertificate => Rule::AnyAgent,
            Self::GetEscrowKey => Rule::AnyAgentOr(Right::ImportKeys),
            Self::Escrow { device } => Rule::AgentOfOr(*device, Right::ImportKeys),
            Self::ReportCompliance { device } => Rule::AgentOf(*device),
            Self::FindKeys => Rule::Has(Right::FindKeys),
            Self::DiscloseKey | Self::RequestApproval => Rule::Has(Right::DiscloseKeys),
            Self::DecideApproval => Rule::Has(Right::ApproveDisclosures),
            Self::ListApprovals => Rule::Has(Right::ReadApprovals),
            Self::SetDisclosurePolicy
            | Self::ProposeMassRecovery
            | Self::ConfirmMassRecovery
            | Self::EndMassRecovery => Rule::Has(Right::ChangeDisclosureControls),
            Self::ReadAudit => Rule::Has(Right::ReadAudit),
            Self::ListGrants => Rule::Has(Right::ReadGrants),
            Self::GetDevice | Self::ListDevices | Self::ListDeviceGroups => {
                Rule::Has(Right::ReadDevices)
            }
            Self::AddDeviceToGroup | Self::RemoveDeviceFromGroup => Rule::Has(Right::ChangeGroups),
            Self::Grant | Self::Revoke => Rule::Has(Right::ChangeGrants),
            Self::Deny | Self::Allow => Rule::Has(Right::ChangeDenials),
            Self::ListDenials => Rule::Has(Right::ReadDenials),
            Self::CreateAgentCa | Self::IssueToken | Self::RevokeToken => {
                Rule::Has(Right::ChangeEnrolment)
            }
            Self::ListAgentCas | Self::ListTokens => Rule::Has(Right::ReadEnrolment),
            Self::AddLearner | Self::PromoteNode | Self::RemoveNode | Self::TransferLeadership => {
                Rule::Has(Right::ChangeCluster)
            }
            Self::SealCluster
            | Self::UnsealCluster
            | Self::RotateEscrowKey
            | Self::ResealKeys
            | Self::RekeyRootKey => Rule::Has(Right::ChangeKeyring),
            Self::GiveShare => Rule::Has(Right::GiveShares),
            Self::ListReasons
            | Self::GetStatus
            | Self::GetSealStatus
            | Self::GetDisclosureStatus => Rule::Has(Right::ReadStatus),
            // There are no grants yet; that it happens once only is for the state machine to see.
            Self::InitCluster => Rule::AnyOperator,
        }
    }
}

/// Why a caller may not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Denied {
    /// Why, in UPPER_SNAKE: `NOT_AN_AGENT`, `NOT_AN_OPERATOR`, `FOREIGN_DEVICE`, `ROLE_MISSING`, `OUTSIDE_GROUPS` or
    /// `CERTIFICATE_DENIED`.
    pub reason: &'static str,
    /// Why, for a person.
    pub message: String,
}

impl Denied {
    /// The caller, or the certificate that it came with, is on the deny-list. Who did that and why is not for the caller.
    pub fn by_list(actor: &Actor) -> Self {
        Self { reason: "CERTIFICATE_DENIED", message: denied_words(actor) }
    }

    /// There is nothing of what was asked for in the groups that the caller's grants are limited to. It may be elsewhere, or
    /// nowhere.
    pub fn outside_groups(actor: &Actor) -> Self {
        let message = format!(
            "there is nothing of this id or name in the groups of devices that the grants of {actor} are limited to"
        );
        Self { reason: "OUTSIDE_GROUPS", message }
    }
}

/// The proof that a caller may do one action. Only [`authorize`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permit {
    actor: Actor,
    certificate: Option<Fingerprint>,
    roles: BTreeSet<Role>,
    action: Action,
}

impl Permit {
    /// Who may.
    pub const fn actor(&self) -> &Actor {
        &self.actor
    }

    /// The certificate that they came with. It goes with the command, so that apply can ask the deny-list again.
    pub const fn certificate(&self) -> Option<Fingerprint> {
        self.certificate
    }

    /// The roles that the token of the caller gave, which go with the command too; empty for whom a certificate proved.
    pub const fn roles(&self) -> &BTreeSet<Role> {
        &self.roles
    }

    /// What.
    pub const fn action(&self) -> Action {
        self.action
    }
}

/// Decides whether a caller may do an action, given the roles that it is granted. Whether its certificate is still valid
/// is checked before, by [`Caller::check_valid`], and so is the deny-list.
///
/// # Errors
/// [`Denied`] says why not.
pub fn authorize(
    caller: &Caller,
    action: Action,
    roles: &BTreeSet<Role>,
) -> Result<Permit, Denied> {
    let actor = caller.actor();
    let denied = |reason, what: &dyn fmt::Display| Denied {
        reason,
        message: format!("{actor} may not call {}: {what}", action.name()),
    };
    let missing = |what: &dyn fmt::Display| Err(denied("ROLE_MISSING", what));
    match (action.rule(), actor) {
        (Rule::AnyAgent | Rule::AnyAgentOr(_), Actor::Agent(_))
        | (Rule::AnyOperator, Actor::Operator(_) | Actor::Oidc(_)) => Ok(()),
        (Rule::AgentOf(device) | Rule::AgentOfOr(device, _), Actor::Agent(own))
            if device == *own =>
        {
            Ok(())
        }
        (Rule::AgentOf(_) | Rule::AgentOfOr(..), Actor::Agent(_)) => {
            Err(denied("FOREIGN_DEVICE", &"the device is not its own"))
        }
        (Rule::Has(right), Actor::Operator(_) | Actor::Oidc(_))
        | (Rule::AnyAgentOr(right) | Rule::AgentOfOr(_, right), Actor::Operator(_)) => {
            let any = right.roles();
            let named = any.iter().map(|role| role.as_str()).collect::<Vec<_>>().join(" or ");
            if any.iter().any(|role| roles.contains(role)) || planted::is(Plant::RolesUnchecked) {
                Ok(())
            } else {
                missing(&format_args!("it takes the role {named}"))
            }
        }
        (
            Rule::AnyAgent | Rule::AgentOf(_),
            Actor::Node(_) | Actor::Operator(_) | Actor::Oidc(_),
        )
        // A key remembers who imported it by the name in a certificate.
        | (Rule::AnyAgentOr(_) | Rule::AgentOfOr(..), Actor::Node(_) | Actor::Oidc(_)) => {
            Err(denied("NOT_AN_AGENT", &"only agents may"))
        }
        (Rule::AnyOperator | Rule::Has(_), Actor::Node(_) | Actor::Agent(_)) => {
            Err(denied("NOT_AN_OPERATOR", &"only operators may"))
        }
    }
    .map(|()| Permit {
        actor: actor.clone(),
        certificate: caller.certificate(),
        roles: caller.roles().clone(),
        action,
    })
}

#[cfg(test)]
mod tests;
