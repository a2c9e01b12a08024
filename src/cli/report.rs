//! `holdfast device report`: a compliance report from flags or a JSON file, sent with a device's own certificate.

use std::path::PathBuf;

use holdfast_proto::v1;
use serde::{Deserialize, Serialize};

use super::exit::{CliError, Exit};
use super::output::{Sheet, Show};
use super::values::guid;
use super::{Context, Done};
use crate::client::wire;
use crate::domain::{DeviceId, VolumeId};

/// What to report.
#[derive(Debug, clap::Args)]
pub(super) struct ReportArgs {
    /// The device; the certificate must be its own
    #[arg(long, value_name = "UUID", required_unless_present = "file", value_parser = guid::<DeviceId>)]
    device: Option<DeviceId>,
    /// Whole report as JSON instead of the flags
    #[arg(long, value_name = "FILE", conflicts_with_all = ["device", "volumes"])]
    file: Option<PathBuf>,
    /// Name of the device
    #[arg(long, default_value = "")]
    host_name: String,
    /// Operating system
    #[arg(long = "os", default_value = "")]
    operating_system: String,
    /// User of the device: name, domain\name or name@domain; several times for several
    #[arg(long = "user")]
    users: Vec<String>,
    /// A volume; several times for several
    #[arg(long = "volume", value_name = "UUID", value_parser = guid::<VolumeId>)]
    volumes: Vec<VolumeId>,
    /// Status of all volumes named by --volume
    #[arg(long, value_enum, default_value_t)]
    status: Status,
    /// Non-compliance codes of all volumes named by --volume, ascending, separated by commas
    #[arg(long, value_delimiter = ',')]
    reasons: Vec<u32>,
}

/// Whether a volume meets its policy.
#[derive(Debug, Clone, Copy, Default, clap::ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Status {
    /// It does
    #[default]
    Compliant,
    /// It doesn't
    NonCompliant,
    /// The user is exempt
    Exempt,
    /// The user waits for an exemption
    TemporarilyExempt,
    /// The policy could not be enforced
    PolicyNotEnforced,
    /// Not known
    Unknown,
}

impl From<Status> for v1::ComplianceStatus {
    fn from(status: Status) -> Self {
        match status {
            Status::Compliant => Self::Compliant,
            Status::NonCompliant => Self::NonCompliant,
            Status::Exempt => Self::Exempt,
            Status::TemporarilyExempt => Self::TemporarilyExempt,
            Status::PolicyNotEnforced => Self::PolicyNotEnforced,
            Status::Unknown => Self::Unknown,
        }
    }
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum FileKind {
    #[default]
    OperatingSystem,
    FixedData,
    RemovableData,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum FileEncryption {
    NotEncrypted,
    Encrypting,
    #[default]
    Encrypted,
    Decrypting,
    Unknown,
}

/// A report as a file holds it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileReport {
    device_id: DeviceId,
    #[serde(default)]
    host_name: String,
    #[serde(default)]
    operating_system: String,
    #[serde(default)]
    manufacturer: String,
    #[serde(default)]
    model: String,
    #[serde(default)]
    users: Vec<String>,
    #[serde(default)]
    volumes: Vec<FileVolume>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileVolume {
    volume_id: VolumeId,
    #[serde(default)]
    volume_kind: FileKind,
    #[serde(default)]
    mount_point: String,
    status: Status,
    #[serde(default)]
    reasons: Vec<u32>,
    #[serde(default)]
    encryption_state: FileEncryption,
    #[serde(default)]
    protection_on: bool,
    #[serde(default)]
    cipher: String,
    #[serde(default)]
    protector_types: String,
}

impl From<FileVolume> for v1::VolumeCompliance {
    fn from(volume: FileVolume) -> Self {
        let kind = match volume.volume_kind {
            FileKind::OperatingSystem => v1::VolumeKind::OperatingSystem,
            FileKind::FixedData => v1::VolumeKind::FixedData,
            FileKind::RemovableData => v1::VolumeKind::RemovableData,
        };
        let encryption = match volume.encryption_state {
            FileEncryption::NotEncrypted => v1::EncryptionState::NotEncrypted,
            FileEncryption::Encrypting => v1::EncryptionState::Encrypting,
            FileEncryption::Encrypted => v1::EncryptionState::Encrypted,
            FileEncryption::Decrypting => v1::EncryptionState::Decrypting,
            FileEncryption::Unknown => v1::EncryptionState::Unknown,
        };
        Self {
            volume_id: volume.volume_id.to_string(),
            volume_kind: kind.into(),
            mount_point: volume.mount_point,
            status: v1::ComplianceStatus::from(volume.status).into(),
            reasons: volume.reasons,
            encryption_state: encryption.into(),
            protection_on: volume.protection_on,
            cipher: volume.cipher,
            protector_types: volume.protector_types,
        }
    }
}

/// What the server asks the agent to do next.
#[derive(Debug, Serialize)]
struct ReportedView {
    rotation_due_volume_ids: Vec<String>,
    index: u64,
}

impl Show for ReportedView {
    fn sheet(&self) -> Sheet {
        let sheet = Sheet::new().line(format!("the report is stored at log index {}", self.index));
        self.rotation_due_volume_ids
            .iter()
            .fold(sheet, |sheet, volume| sheet.line(format!("rotate the key of volume {volume}")))
    }
}

pub(super) async fn run(context: &Context, args: ReportArgs) -> Done {
    let report = message(args)?;
    let answer = context.connection.client()?.report_compliance(report).await?;
    context.printer.print(&ReportedView {
        rotation_due_volume_ids: answer.rotation_due_volume_ids,
        index: answer.position.map_or(0, |position| position.index),
    })?;
    Ok(Exit::Ok)
}

fn message(args: ReportArgs) -> Result<v1::ReportComplianceRequest, CliError> {
    let report = match args.file {
        Some(path) => {
            let text = std::fs::read_to_string(&path)
                .map_err(|error| CliError::usage(format!("{}: {error}", path.display())))?;
            serde_json::from_str::<FileReport>(&text)
                .map_err(|error| CliError::usage(format!("{}: {error}", path.display())))?
        }
        None => {
            let volume = |volume_id| FileVolume {
                volume_id,
                volume_kind: FileKind::OperatingSystem,
                mount_point: String::new(),
                status: args.status,
                reasons: args.reasons.clone(),
                encryption_state: FileEncryption::Encrypted,
                protection_on: true,
                cipher: String::new(),
                protector_types: String::new(),
            };
            FileReport {
                device_id: args.device.ok_or_else(|| CliError::usage("give --device or --file"))?,
                host_name: args.host_name,
                operating_system: args.operating_system,
                manufacturer: String::new(),
                model: String::new(),
                users: args.users,
                volumes: args.volumes.into_iter().map(volume).collect(),
            }
        }
    };
    let users =
        report.users.iter().map(|user| wire::parse_user(user).map(|user| wire::user(&user)));
    Ok(v1::ReportComplianceRequest {
        request_id: String::new(),
        device_id: report.device_id.to_string(),
        host_name: report.host_name,
        operating_system: report.operating_system,
        manufacturer: report.manufacturer,
        model: report.model,
        users: users.collect::<Result<_, _>>()?,
        volumes: report.volumes.into_iter().map(Into::into).collect(),
    })
}
