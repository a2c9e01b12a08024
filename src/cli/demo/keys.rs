//! The keys of the demonstration: published examples, so that showing them gives nothing away.

use secrecy::ExposeSecret as _;
use uuid::Uuid;

use crate::cli::exit::CliError;
use crate::client::{Disclosure, NewEscrow, Receipt};
use crate::crypto::system_rng;
use crate::domain::{
    AuditPosition, DeviceId, KeyVersion, ProtectorId, ProtectorKind, RecoveryKey, Text, User,
    VolumeId, VolumeKind,
};

/// BitLocker recovery passwords that the documentation and tests of other programs publish (libbde, dislocker,
/// bitcracker), and the reason each is disclosed for.
const BITLOCKER: [(&str, &str); 4] = [
    ("471207-278498-422125-177177-561902-537405-468006-693451", "LOST_PIN"),
    ("599907-126192-034078-378543-435050-262383-683309-100661", "TPM_RESET"),
    ("563200-557084-108284-218900-019151-415437-694144-239976", "BIOS_CHANGED"),
    ("236808-089419-192665-495704-618299-073414-538373-542366", "LOST_PASSPHRASE"),
];

/// A key of the demonstration.
pub(super) struct DemoKey {
    pub(super) name: &'static str,
    pub(super) reason: &'static str,
    pub(super) escrow: NewEscrow,
    pub(super) key: RecoveryKey,
    pub(super) receipt: Option<Receipt>,
}

impl DemoKey {
    fn new(
        name: &'static str,
        reason: &'static str,
        device: DeviceId,
        key: RecoveryKey,
    ) -> Result<Self, CliError> {
        let escrow = NewEscrow {
            device,
            volume: VolumeId::new(Uuid::new_v4()),
            volume_kind: VolumeKind::OperatingSystem,
            protector: ProtectorId::new(Uuid::new_v4()),
            expected_version: KeyVersion::NONE,
            host_name: Text::name("host_name", "laptop-0042")?,
            users: vec![User::new("CORP", "alice")?],
        };
        Ok(Self { name, reason, escrow, key, receipt: None })
    }

    /// Whether this very key was disclosed.
    pub(super) fn is(&self, disclosed: &Disclosure) -> bool {
        !disclosed.malformed && disclosed.recovery_key.expose_secret() == self.key.expose_secret()
    }

    /// The key as it is shown: a published one in full, a generated one not.
    pub(super) fn shown(&self) -> String {
        match self.key.kind() {
            ProtectorKind::BitLockerRecoveryPassword => self.key.expose_secret().to_owned(),
            ProtectorKind::Luks2RecoveryKey => {
                let first = self.key.expose_secret().get(..8).unwrap_or_default();
                format!("{first}-... (new, so not shown)")
            }
        }
    }

    /// Whether its receipt names this place in the audit chain.
    pub(super) fn is_recorded_at(&self, head: AuditPosition) -> bool {
        let facts = self.receipt.as_ref().map(|receipt| &receipt.facts);
        facts.is_some_and(|f| f.audit_sequence == head.sequence && f.audit_hash == head.hash)
    }
}

/// Four published BitLocker passwords and a new LUKS2 recovery key in the format of systemd.
pub(super) fn all(device: DeviceId) -> Result<Vec<DemoKey>, CliError> {
    let mut keys = Vec::new();
    for (text, reason) in BITLOCKER {
        let key = RecoveryKey::parse(ProtectorKind::BitLockerRecoveryPassword, text)
            .map_err(|error| CliError::failed(error.to_string()))?;
        keys.push(DemoKey::new("BitLocker key", reason, device, key)?);
    }
    let key = RecoveryKey::generate(ProtectorKind::Luks2RecoveryKey, &mut system_rng());
    keys.push(DemoKey::new("LUKS2 key    ", "OS_FILES_CHANGED", device, key)?);
    Ok(keys)
}
