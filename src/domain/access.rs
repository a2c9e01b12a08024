//! Which roles may do what: the one table.
//!
//! A node asks it before it proposes a command, and the state machine asks it again when it applies the command, so that
//! the two can't come to disagree.

use super::Role;

/// What an operator may have leave to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Right {
    /// Find keys.
    FindKeys,
    /// Have a key opened.
    DiscloseKeys,
    /// Read the audit chain.
    ReadAudit,
    /// See who is granted what.
    ReadGrants,
    /// See devices and their compliance, without secrets.
    ReadDevices,
    /// Grant roles and take them away.
    ChangeGrants,
    /// Change the cluster's members and hand leadership on.
    ChangeCluster,
    /// Deny identities and certificates, and allow them again.
    ChangeDenials,
    /// See what is denied.
    ReadDenials,
    /// Seal the cluster, let nodes read the root key again, and change the keys that keys are sealed to.
    ChangeKeyring,
    /// Give shares of the root key. Whoever has them was trusted with them; the role only keeps strangers out.
    GiveShares,
    /// Make the CA of devices, and issue and revoke enrolment tokens.
    ChangeEnrolment,
    /// See the CA of devices and enrolment tokens, without their secrets.
    ReadEnrolment,
    /// Put devices into groups and take them out.
    ChangeGroups,
    /// Escrow keys on behalf of devices.
    ImportKeys,
    /// See whether the cluster is well: its status, that of the seal, and the reasons that a disclosure takes.
    ReadStatus,
    /// Decide on requests of others to have a key opened.
    ApproveDisclosures,
    /// See requests for approval.
    ReadApprovals,
    /// Set the quotas of disclosures and which devices are under dual control; lift the quotas together with another
    /// administrator.
    ChangeDisclosureControls,
}

impl Right {
    /// All rights.
    pub const ALL: [Self; 19] = [
        Self::FindKeys,
        Self::DiscloseKeys,
        Self::ReadAudit,
        Self::ReadGrants,
        Self::ReadDevices,
        Self::ChangeGrants,
        Self::ChangeCluster,
        Self::ChangeDenials,
        Self::ReadDenials,
        Self::ChangeKeyring,
        Self::GiveShares,
        Self::ChangeEnrolment,
        Self::ReadEnrolment,
        Self::ChangeGroups,
        Self::ImportKeys,
        Self::ReadStatus,
        Self::ApproveDisclosures,
        Self::ReadApprovals,
        Self::ChangeDisclosureControls,
    ];

    /// Roles of which each has this right. No role has more than its work takes: an administrator runs the cluster and can
    /// appoint an auditor, which leaves a record, but reads neither keys nor the audit chain by that.
    pub const fn roles(self) -> &'static [Role] {
        use Role::{
            Administrator, AdvancedHelpDesk, Auditor, DataMigration, HelpDesk, ReportReader,
        };
        match self {
            Self::FindKeys | Self::DiscloseKeys => &[HelpDesk, AdvancedHelpDesk],
            Self::ReadAudit => &[Auditor],
            Self::ReadGrants | Self::ReadDenials | Self::ReadEnrolment => &[Administrator, Auditor],
            Self::ReadDevices => &[HelpDesk, AdvancedHelpDesk, ReportReader, Administrator],
            Self::ChangeGrants
            | Self::ChangeCluster
            | Self::ChangeDenials
            | Self::ChangeKeyring
            | Self::ChangeEnrolment
            | Self::ChangeDisclosureControls
            | Self::ChangeGroups => &[Administrator],
            // Whoever approves opens nothing by it. An administrator may, so that a help desk of one has somebody to ask.
            Self::ApproveDisclosures => &[AdvancedHelpDesk, Administrator],
            Self::ReadApprovals => &[HelpDesk, AdvancedHelpDesk, Auditor, Administrator],
            Self::ImportKeys => &[DataMigration],
            // Everybody but those who only bring something in.
            Self::GiveShares | Self::ReadStatus => {
                &[HelpDesk, AdvancedHelpDesk, ReportReader, Auditor, Administrator]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rights of a role.
    fn rights(role: Role) -> Vec<Right> {
        Right::ALL.into_iter().filter(|right| right.roles().contains(&role)).collect()
    }

    #[test]
    fn an_auditor_reads_the_audit_and_no_keys() {
        assert_eq!(
            rights(Role::Auditor),
            [
                Right::ReadAudit,
                Right::ReadGrants,
                Right::ReadDenials,
                Right::GiveShares,
                Right::ReadEnrolment,
                Right::ReadStatus,
                Right::ReadApprovals,
            ]
        );
    }

    #[test]
    fn an_administrator_reads_neither_keys_nor_the_audit() {
        let own = [
            Right::ReadGrants,
            Right::ReadDevices,
            Right::ChangeGrants,
            Right::ChangeCluster,
            Right::ChangeDenials,
            Right::ReadDenials,
            Right::ChangeKeyring,
            Right::GiveShares,
            Right::ChangeEnrolment,
            Right::ReadEnrolment,
            Right::ChangeGroups,
            Right::ReadStatus,
            Right::ApproveDisclosures,
            Right::ReadApprovals,
            Right::ChangeDisclosureControls,
        ];
        assert_eq!(rights(Role::Administrator), own);
    }

    #[test]
    fn who_imports_keys_can_do_nothing_else() {
        assert_eq!(rights(Role::DataMigration), [Right::ImportKeys]);
    }

    #[test]
    fn every_right_belongs_to_somebody() {
        assert!(Right::ALL.into_iter().all(|right| !right.roles().is_empty()));
    }
}
