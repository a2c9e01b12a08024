//! What commands show: values that serialise to JSON in the words of the API.

use holdfast_proto::v1;
use serde::Serialize;

use super::output::{Sheet, Show, dash, time};

/// Name of a kind of protector.
pub(super) fn protector_kind(kind: i32) -> &'static str {
    match v1::ProtectorKind::try_from(kind) {
        Ok(v1::ProtectorKind::BitlockerRecoveryPassword) => "bitlocker",
        Ok(v1::ProtectorKind::Luks2RecoveryKey) => "luks2",
        Ok(v1::ProtectorKind::Unspecified) | Err(_) => "unknown",
    }
}

/// Name of a kind of volume.
pub(super) fn volume_kind(kind: i32) -> &'static str {
    match v1::VolumeKind::try_from(kind) {
        Ok(v1::VolumeKind::OperatingSystem) => "operating-system",
        Ok(v1::VolumeKind::FixedData) => "fixed-data",
        Ok(v1::VolumeKind::RemovableData) => "removable-data",
        Ok(v1::VolumeKind::Unspecified) | Err(_) => "unknown",
    }
}

/// Name of a key's state; a dash if there is no key.
pub(super) fn key_state(state: i32) -> &'static str {
    match v1::KeyState::try_from(state) {
        Ok(v1::KeyState::Active) => "active",
        Ok(v1::KeyState::Disclosed) => "disclosed",
        Ok(v1::KeyState::RotationDue) => "rotation-due",
        Ok(v1::KeyState::Superseded) => "superseded",
        Ok(v1::KeyState::Unspecified) | Err(_) => "-",
    }
}

/// Name of a role.
pub(super) fn role(role: i32) -> &'static str {
    match v1::Role::try_from(role) {
        Ok(v1::Role::HelpDesk) => "help-desk",
        Ok(v1::Role::AdvancedHelpDesk) => "advanced-help-desk",
        Ok(v1::Role::ReportReader) => "report-reader",
        Ok(v1::Role::Auditor) => "auditor",
        Ok(v1::Role::Administrator) => "administrator",
        Ok(v1::Role::DataMigration) => "data-migration",
        Ok(v1::Role::Unspecified) | Err(_) => "unknown",
    }
}

fn compliance_status(status: i32) -> &'static str {
    match v1::ComplianceStatus::try_from(status) {
        Ok(v1::ComplianceStatus::Compliant) => "compliant",
        Ok(v1::ComplianceStatus::NonCompliant) => "non-compliant",
        Ok(v1::ComplianceStatus::Exempt) => "exempt",
        Ok(v1::ComplianceStatus::TemporarilyExempt) => "temporarily-exempt",
        Ok(v1::ComplianceStatus::PolicyNotEnforced) => "policy-not-enforced",
        Ok(v1::ComplianceStatus::Unknown | v1::ComplianceStatus::Unspecified) | Err(_) => "unknown",
    }
}

/// A user as a person writes it.
pub(super) fn user_text(user: &v1::User) -> String {
    if user.domain.is_empty() {
        user.name.clone()
    } else {
        format!("{}\\{}", user.domain, user.name)
    }
}

/// A key version without its secret.
#[derive(Debug, Clone, Serialize)]
pub(super) struct KeyView {
    pub(super) protector_id: String,
    pub(super) version: u32,
    pub(super) device_id: String,
    pub(super) volume_id: String,
    pub(super) protector_kind: &'static str,
    pub(super) volume_kind: &'static str,
    pub(super) state: &'static str,
    pub(super) escrowed_at_ms: u64,
    pub(super) disclosed_at_ms: u64,
    pub(super) has_key_package: bool,
    pub(super) host_name: String,
    pub(super) users: Vec<String>,
    /// Who imported it; empty if the device escrowed it itself.
    pub(super) imported_by: String,
}

impl From<v1::KeySummary> for KeyView {
    fn from(key: v1::KeySummary) -> Self {
        Self {
            version: key.version,
            protector_kind: protector_kind(key.protector_kind),
            volume_kind: volume_kind(key.volume_kind),
            state: key_state(key.state),
            escrowed_at_ms: key.escrowed_at_ms,
            disclosed_at_ms: key.disclosed_at_ms,
            has_key_package: key.has_key_package,
            users: key.users.iter().map(user_text).collect(),
            protector_id: key.protector_id,
            device_id: key.device_id,
            volume_id: key.volume_id,
            host_name: key.host_name,
            imported_by: key.imported_by,
        }
    }
}

/// The result of a search.
#[derive(Debug, Serialize)]
pub(super) struct FoundView {
    pub(super) keys: Vec<KeyView>,
    pub(super) truncated: bool,
    pub(super) audit_sequence: u64,
}

impl Show for FoundView {
    fn sheet(&self) -> Sheet {
        let rows = self.keys.iter().map(|key| {
            [
                key.protector_id.clone(),
                key.version.to_string(),
                key.state.to_owned(),
                key.protector_kind.to_owned(),
                dash(&key.host_name),
                dash(&key.users.join(", ")),
                time(key.escrowed_at_ms),
                key.volume_id.clone(),
            ]
        });
        let header = ["key id", "version", "state", "kind", "host", "users", "escrowed", "volume"];
        let sheet = Sheet::new().table(header, rows);
        if self.truncated { sheet.line("more keys match; search more narrowly") } else { sheet }
    }
}

/// A volume of a device.
#[derive(Debug, Clone, Serialize)]
pub(super) struct VolumeView {
    volume_id: String,
    volume_kind: &'static str,
    key_version: u32,
    protector_id: String,
    key_state: &'static str,
    compliance: Option<&'static str>,
    reasons: Vec<u32>,
    mount_point: String,
    reported_at_ms: u64,
}

/// A device.
#[derive(Debug, Clone, Serialize)]
pub(super) struct DeviceView {
    device_id: String,
    host_name: String,
    operating_system: String,
    manufacturer: String,
    model: String,
    users: Vec<String>,
    volumes: Vec<VolumeView>,
    first_seen_ms: u64,
    last_contact_ms: u64,
    groups: Vec<String>,
}

impl From<v1::Device> for DeviceView {
    fn from(device: v1::Device) -> Self {
        let volume = |volume: v1::Volume| {
            let report = volume.compliance.unwrap_or_default();
            let reported = volume.reported_at_ms != 0;
            VolumeView {
                volume_id: volume.volume_id,
                volume_kind: volume_kind(volume.volume_kind),
                key_version: volume.key_version,
                protector_id: volume.protector_id,
                key_state: key_state(volume.key_state),
                compliance: reported.then(|| compliance_status(report.status)),
                reasons: report.reasons,
                mount_point: report.mount_point,
                reported_at_ms: volume.reported_at_ms,
            }
        };
        Self {
            users: device.users.iter().map(user_text).collect(),
            volumes: device.volumes.into_iter().map(volume).collect(),
            device_id: device.device_id,
            host_name: device.host_name,
            operating_system: device.operating_system,
            manufacturer: device.manufacturer,
            model: device.model,
            first_seen_ms: device.first_seen_ms,
            last_contact_ms: device.last_contact_ms,
            groups: device.groups,
        }
    }
}

/// A device, and where it was read.
#[derive(Debug, Serialize)]
pub(super) struct DeviceAnswerView {
    pub(super) device: DeviceView,
    pub(super) applied_index: u64,
    pub(super) age_ms: u64,
}

impl Show for DeviceAnswerView {
    fn sheet(&self) -> Sheet {
        let device = &self.device;
        let rows = device.volumes.iter().map(|volume| {
            [
                volume.volume_id.clone(),
                volume.volume_kind.to_owned(),
                volume.key_version.to_string(),
                volume.key_state.to_owned(),
                volume.compliance.unwrap_or("-").to_owned(),
                dash(&volume.mount_point),
                dash(&volume.protector_id),
            ]
        });
        let header = ["volume", "kind", "version", "key", "compliance", "mounted at", "key id"];
        Sheet::new()
            .facts([
                ("device", device.device_id.clone()),
                ("host", dash(&device.host_name)),
                ("system", dash(&device.operating_system)),
                ("hardware", dash(format!("{} {}", device.manufacturer, device.model).trim())),
                ("users", dash(&device.users.join(", "))),
                ("groups", dash(&device.groups.join(", "))),
                ("first seen", time(device.first_seen_ms)),
                ("last contact", time(device.last_contact_ms)),
                ("read at index", self.applied_index.to_string()),
            ])
            .line("")
            .table(header, rows)
    }
}

/// Several devices.
#[derive(Debug, Serialize)]
pub(super) struct DevicesView {
    pub(super) devices: Vec<DeviceView>,
}

impl Show for DevicesView {
    fn sheet(&self) -> Sheet {
        let rows = self.devices.iter().map(|device| {
            [
                device.device_id.clone(),
                dash(&device.host_name),
                device.volumes.len().to_string(),
                dash(&device.users.join(", ")),
                dash(&device.groups.join(", ")),
                time(device.last_contact_ms),
            ]
        });
        let header = ["device", "host", "volumes", "users", "groups", "last contact"];
        Sheet::new().table(header, rows)
    }
}

/// All grants.
#[derive(Debug, Serialize)]
pub(super) struct GrantsView {
    grants: Vec<GrantView>,
}

#[derive(Debug, Serialize)]
struct GrantView {
    operator: String,
    role: &'static str,
    granted_by: String,
    granted_at_ms: u64,
    /// None for all devices.
    groups: Vec<String>,
}

impl From<Vec<v1::Grant>> for GrantsView {
    fn from(grants: Vec<v1::Grant>) -> Self {
        let view = |grant: v1::Grant| GrantView {
            role: role(grant.role),
            operator: grant.operator,
            granted_by: grant.granted_by,
            granted_at_ms: grant.granted_at_ms,
            groups: grant.groups,
        };
        Self { grants: grants.into_iter().map(view).collect() }
    }
}

impl Show for GrantsView {
    fn sheet(&self) -> Sheet {
        let rows = self.grants.iter().map(|grant| {
            [
                grant.operator.clone(),
                grant.role.to_owned(),
                if grant.groups.is_empty() { "all".to_owned() } else { grant.groups.join(", ") },
                dash(&grant.granted_by),
                time(grant.granted_at_ms),
            ]
        });
        Sheet::new().table(["operator", "role", "devices", "granted by", "granted"], rows)
    }
}

/// The deny-list.
#[derive(Debug, Serialize)]
pub(super) struct DenialsView {
    denials: Vec<DenialView>,
}

#[derive(Debug, Serialize)]
struct DenialView {
    subject: String,
    denied_by: String,
    denied_at_ms: u64,
    reason: String,
}

impl From<Vec<v1::Denial>> for DenialsView {
    fn from(denials: Vec<v1::Denial>) -> Self {
        let view = |denial: v1::Denial| DenialView {
            subject: denial.subject,
            denied_by: denial.denied_by,
            denied_at_ms: denial.denied_at_ms,
            reason: denial.reason,
        };
        Self { denials: denials.into_iter().map(view).collect() }
    }
}

impl Show for DenialsView {
    fn sheet(&self) -> Sheet {
        let rows = self.denials.iter().map(|denial| {
            [
                denial.subject.clone(),
                dash(&denial.denied_by),
                time(denial.denied_at_ms),
                denial.reason.clone(),
            ]
        });
        Sheet::new().table(["subject", "denied by", "denied", "reason"], rows)
    }
}

/// Something that was changed, or had been before.
#[derive(Debug, Serialize)]
pub(super) struct ChangedView {
    /// What it is about, for a person.
    pub(super) what: String,
    /// Whether this call changed it.
    pub(super) changed: bool,
}

impl Show for ChangedView {
    fn sheet(&self) -> Sheet {
        let note = if self.changed { "" } else { " (nothing changed)" };
        Sheet::new().line(format!("{}{note}", self.what))
    }
}
