//! Compliance of volumes, in MBAM's terms.

use super::{FieldError, Text, VolumeId, VolumeKind};

/// Whether a volume meets its policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ComplianceStatus {
    /// It meets the policy.
    Compliant,
    /// It doesn't; the codes say why.
    NonCompliant,
    /// The user is exempt.
    Exempt,
    /// The user asked for an exemption and may wait for the answer.
    TemporarilyExempt,
    /// The policy could not be enforced.
    PolicyNotEnforced,
    /// The agent could not find out.
    Unknown,
}

/// How much of a volume is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EncryptionState {
    /// Nothing.
    NotEncrypted,
    /// Encryption goes on.
    Encrypting,
    /// All of it.
    Encrypted,
    /// Decryption goes on.
    Decrypting,
    /// The volume is locked.
    Unknown,
}

/// What a device reports about one volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeCompliance {
    /// The volume.
    pub volume: VolumeId,
    /// What it is used for.
    pub kind: VolumeKind,
    /// Drive letter or mount point.
    pub mount_point: Text,
    /// Whether it meets its policy.
    pub status: ComplianceStatus,
    /// MBAM's non-compliance codes, ascending; see [`VolumeCompliance::check_codes`].
    pub codes: Vec<u8>,
    /// How much of it is encrypted.
    pub encryption: EncryptionState,
    /// Whether protection is on (not suspended).
    pub protection_on: bool,
    /// Cipher and key length, as the volume names them.
    pub cipher: Text,
    /// Protector types, as the volume names them.
    pub protector_types: Text,
}

impl VolumeCompliance {
    /// Checks non-compliance codes: 0 to 16 (MBAM 2.5, "Determining why a device receives a noncompliance message"),
    /// strictly ascending.
    ///
    /// # Errors
    /// If one is out of range, or they are not strictly ascending.
    pub fn check_codes(codes: &[u32]) -> Result<Vec<u8>, FieldError> {
        let mut checked = Vec::with_capacity(codes.len().min(17));
        for code in codes {
            let small = u8::try_from(*code).ok().filter(|code| *code <= 16);
            let small = small.ok_or_else(|| {
                FieldError::new("reasons", format!("{code} is not a code from 0 to 16"))
            })?;
            if checked.last().is_some_and(|last| *last >= small) {
                return Err(FieldError::new(
                    "reasons",
                    "must be in ascending order without repeats",
                ));
            }
            checked.push(small);
        }
        Ok(checked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noncompliance_codes_run_from_0_to_16_without_repeats() {
        assert_eq!(VolumeCompliance::check_codes(&[0, 3, 16]).unwrap(), [0, 3, 16]);
        assert!(VolumeCompliance::check_codes(&[17]).is_err());
        assert!(VolumeCompliance::check_codes(&[3, 3]).is_err());
        assert!(VolumeCompliance::check_codes(&[3, 2]).is_err());
    }
}
