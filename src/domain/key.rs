//! Volumes, key protectors and sealed keys.

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::{Epoch, FieldError};

/// What kind of secret a key protector carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProtectorKind {
    /// A BitLocker numerical recovery password: eight groups of six digits.
    BitLockerRecoveryPassword,
    /// A LUKS2 recovery key in the format of systemd-cryptenroll: 64 modhex characters.
    Luks2RecoveryKey,
}

/// What a volume is used for, in MBAM's terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum VolumeKind {
    /// The volume that the operating system starts from.
    OperatingSystem,
    /// A fixed data drive.
    FixedData,
    /// A removable data drive.
    RemovableData,
}

/// Where a key version is in its life. Key versions are never deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyState {
    /// The newest key of its volume, never disclosed.
    Active,
    /// Disclosed after a newer one had taken its place: nothing is left to rotate.
    Disclosed,
    /// The newest key of its volume, disclosed: the agent has to rotate it.
    RotationDue,
    /// A newer key of the same volume was escrowed.
    Superseded,
}

/// Something sealed by HPKE to an escrow key (RFC 9180). Servers store it as it came.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed {
    /// Epoch of the escrow key.
    pub epoch: Epoch,
    /// HPKE encapsulated key.
    pub encapsulated_key: [u8; 32],
    /// HPKE ciphertext with its 16-byte tag.
    pub ciphertext: Bytes,
}

impl Sealed {
    /// A sealed blob of at most `most` bytes of ciphertext.
    ///
    /// # Errors
    /// If a length is wrong; `field` is named.
    pub fn new(
        field: &'static str,
        epoch: Epoch,
        encapsulated_key: &[u8],
        ciphertext: Bytes,
        most: usize,
    ) -> Result<Self, FieldError> {
        let encapsulated_key = encapsulated_key.try_into().map_err(|_| {
            FieldError::new(format!("{field}.encapsulated_key"), "must have 32 bytes")
        })?;
        if epoch.get() == 0 {
            return Err(FieldError::new(format!("{field}.epoch"), "must be 1 or more"));
        }
        if ciphertext.len() <= 16 || ciphertext.len() > most {
            let what = format!("has {} bytes, 17 to {most} are allowed", ciphertext.len());
            return Err(FieldError::new(format!("{field}.ciphertext"), what));
        }
        Ok(Self { epoch, encapsulated_key, ciphertext })
    }
}

impl std::fmt::Debug for Sealed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sealed(epoch {}, {} bytes)", self.epoch, self.ciphertext.len())
    }
}

/// Digest of sealed bytes as received; stands in the receipt and survives resealing. SHA-256 over the ASCII text
/// `holdfast sealed v1` and a zero byte, then the key, then the package or a zero byte. A sealed blob is hashed as a one
/// byte, the epoch (4 bytes, big-endian), the encapsulated key, the ciphertext's length (4 bytes, big-endian), and the
/// ciphertext.
pub fn sealed_digest(key: &Sealed, package: Option<&Sealed>) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(b"holdfast sealed v1\0");
    for part in [Some(key), package] {
        let Some(sealed) = part else {
            hash.update([0]);
            continue;
        };
        hash.update([1]);
        hash.update(sealed.epoch.get().to_be_bytes());
        hash.update(sealed.encapsulated_key);
        hash.update(u32::try_from(sealed.ciphertext.len()).unwrap_or(u32::MAX).to_be_bytes());
        hash.update(&sealed.ciphertext);
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::limits::SEALED_KEY_BYTES;

    #[test]
    fn a_sealed_key_of_1024_bytes_is_taken_and_one_more_is_refused() {
        let make = |length| {
            let ciphertext = Bytes::from(vec![0; length]);
            Sealed::new("sealed_key", Epoch::new(1), &[0; 32], ciphertext, SEALED_KEY_BYTES)
        };
        assert!(make(1024).is_ok());
        assert_eq!(make(1025).unwrap_err().field, "sealed_key.ciphertext");
        assert_eq!(make(16).unwrap_err().field, "sealed_key.ciphertext");
    }
}
