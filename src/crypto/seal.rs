//! Sealing of recovery keys and key packages: HPKE (RFC 9180) in base mode with DHKEM(X25519, HKDF-SHA256), HKDF-SHA256
//! and AES-256-GCM.
//!
//! What a sealed key belongs to is bound into it as associated data, so that moved to another record it does not open.

use std::fmt;

use bytes::Bytes;
use hpke::aead::{AeadTag, AesGcm256};
use hpke::inout::InOutBuf;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable as _, Kem, OpModeR, OpModeS, Serializable as _};
use rand::CryptoRng;
use zeroize::Zeroizing;

use crate::domain::{
    ClusterId, DeviceId, Epoch, KeyVersion, ProtectorId, ProtectorKind, Sealed, VolumeId, limits,
};
use crate::planted::{self, Plant};

use super::{CryptoError, Secret};

/// HPKE's `info`: product and version of the format.
const INFO: &[u8] = b"holdfast seal v1";
/// Length of AES-GCM's tag.
const TAG_BYTES: usize = 16;
/// Length that a recovery key is padded to before it is sealed, so that its kind can't be told from its length.
pub const KEY_PLAINTEXT_BYTES: usize = 128;
/// Longest key package that can be sealed.
const PACKAGE_BYTES: usize = limits::SEALED_PACKAGE_BYTES - TAG_BYTES;
/// Length of the associated data.
const AAD_BYTES: usize = 4 * 16 + 1 + 4 + 4 + 1;

/// The public key that recovery keys are sealed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EscrowPublicKey {
    /// The cluster that can open what is sealed to it.
    pub cluster: ClusterId,
    /// Its epoch.
    pub epoch: Epoch,
    /// X25519 public key.
    pub key: [u8; 32],
}

/// What a sealed recovery key belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Binding {
    /// The cluster.
    pub cluster: ClusterId,
    /// The device that escrows it.
    pub device: DeviceId,
    /// The volume that it opens.
    pub volume: VolumeId,
    /// Its id.
    pub protector: ProtectorId,
    /// What kind of secret it is.
    pub protector_kind: ProtectorKind,
    /// The version that it gets.
    pub version: KeyVersion,
}

/// Which of the two secrets of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The recovery key.
    Key,
    /// The key package.
    Package,
}

/// An X25519 private key. Wiped from memory when dropped, never printed.
pub struct PrivateKey(<X25519HkdfSha256 as Kem>::PrivateKey);

impl PrivateKey {
    /// Makes a new one.
    pub fn generate(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        let mut seed = Zeroizing::new([0; 32]);
        rng.fill_bytes(seed.as_mut());
        Self(X25519HkdfSha256::derive_keypair(seed.as_ref()).0)
    }

    /// From its 32 bytes.
    ///
    /// # Errors
    /// If the length is another.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, CryptoError> {
        let key = <X25519HkdfSha256 as Kem>::PrivateKey::from_bytes(bytes);
        key.map(Self).map_err(|_| CryptoError::BadPrivateKey)
    }

    /// Its public key.
    pub fn public_key(&self) -> [u8; 32] {
        X25519HkdfSha256::sk_to_pk(&self.0).to_bytes().into()
    }

    /// Its 32 bytes.
    pub(super) fn expose_secret(&self) -> Zeroizing<[u8; 32]> {
        let mut bytes = Zeroizing::new([0; 32]);
        self.0.write_exact(bytes.as_mut());
        bytes
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey([redacted])")
    }
}

/// Seals a secret to the escrow key. A recovery key is padded with zero bytes to [`KEY_PLAINTEXT_BYTES`]; a key package
/// is sealed as it is.
///
/// # Errors
/// If the secret is empty or too long, if it is a recovery key that ends in a zero byte, if the binding is of another
/// cluster than the key, or if the public key is none.
pub fn seal(
    escrow_key: &EscrowPublicKey,
    binding: &Binding,
    part: Part,
    secret: &[u8],
    rng: &mut (impl CryptoRng + ?Sized),
) -> Result<Sealed, CryptoError> {
    if binding.cluster != escrow_key.cluster {
        return Err(CryptoError::ForeignCluster);
    }
    check_plaintext(part, secret)?;
    let public_key = <X25519HkdfSha256 as Kem>::PublicKey::from_bytes(&escrow_key.key)
        .map_err(|_| CryptoError::BadPublicKey)?;
    let padded = if part == Part::Key { KEY_PLAINTEXT_BYTES } else { secret.len() };
    // With room for the tag from the start: growing would leave a copy of the secret behind.
    let mut buffer = Zeroizing::new(Vec::with_capacity(padded.saturating_add(TAG_BYTES)));
    buffer.extend_from_slice(secret);
    buffer.resize(padded, 0);

    let mut seed = Zeroizing::new([0; 32]);
    rng.fill_bytes(seed.as_mut());
    let (encapsulated, tag) =
        hpke::single_shot_seal_inout_detached_with_rng::<AesGcm256, HkdfSha256, X25519HkdfSha256>(
            &OpModeS::Base,
            &public_key,
            INFO,
            InOutBuf::from(buffer.as_mut_slice()),
            &associated_data(binding, escrow_key.epoch, part),
            &mut OneDraw(seed),
        )
        .map_err(|_| CryptoError::BadPublicKey)?;
    buffer.extend_from_slice(&tag.to_bytes());
    Ok(Sealed {
        epoch: escrow_key.epoch,
        encapsulated_key: encapsulated.to_bytes().into(),
        ciphertext: Bytes::copy_from_slice(&buffer),
    })
}

/// Opens what [`seal`] made. Of a recovery key, zero bytes at the end are dropped; whether the rest is a well-formed key
/// is for the caller to see, since only whoever sealed it had a say in that.
///
/// # Errors
/// [`CryptoError::DoesNotOpen`] if anything that is bound differs, or the bytes were changed.
pub fn open(
    private_key: &PrivateKey,
    binding: &Binding,
    part: Part,
    sealed: &Sealed,
) -> Result<Secret, CryptoError> {
    let aad = associated_data(binding, sealed.epoch, part);
    let mut buffer =
        decrypt(private_key, &sealed.encapsulated_key, INFO, &aad, &sealed.ciphertext)?;
    let mut secret = Secret::new(std::mem::take(&mut *buffer));
    if part == Part::Key {
        let kept = secret.expose_secret().iter().rposition(|byte| *byte != 0);
        secret.truncate(kept.map_or(0, |last| last.saturating_add(1)));
    }
    Ok(secret)
}

fn decrypt(
    private_key: &PrivateKey,
    encapsulated_key: &[u8; 32],
    info: &[u8],
    aad: &[u8],
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
    let split = sealed.len().checked_sub(TAG_BYTES).ok_or(CryptoError::DoesNotOpen)?;
    let (ciphertext, tag) = sealed.split_at_checked(split).ok_or(CryptoError::DoesNotOpen)?;
    let tag = AeadTag::<AesGcm256>::from_bytes(tag).map_err(|_| CryptoError::DoesNotOpen)?;
    let encapsulated = <X25519HkdfSha256 as Kem>::EncappedKey::from_bytes(encapsulated_key)
        .map_err(|_| CryptoError::DoesNotOpen)?;
    let mut buffer = Zeroizing::new(ciphertext.to_vec());
    hpke::single_shot_open_inout_detached::<AesGcm256, HkdfSha256, X25519HkdfSha256>(
        &OpModeR::Base,
        &private_key.0,
        &encapsulated,
        info,
        InOutBuf::from(buffer.as_mut_slice()),
        aad,
        &tag,
    )
    .map_err(|_| CryptoError::DoesNotOpen)?;
    Ok(buffer)
}

fn check_plaintext(part: Part, secret: &[u8]) -> Result<(), CryptoError> {
    let (what, most, allowed) = match part {
        Part::Key => ("a recovery key", KEY_PLAINTEXT_BYTES, "1 to 128"),
        Part::Package => ("a key package", PACKAGE_BYTES, "1 to 65520"),
    };
    if secret.is_empty() || secret.len() > most {
        return Err(CryptoError::PlaintextLength { what, bytes: secret.len(), allowed });
    }
    if part == Part::Key && secret.last() == Some(&0) {
        return Err(CryptoError::PlaintextEnd);
    }
    Ok(())
}

pub(super) fn associated_data(binding: &Binding, epoch: Epoch, part: Part) -> Vec<u8> {
    let kind = match binding.protector_kind {
        ProtectorKind::BitLockerRecoveryPassword => 1,
        ProtectorKind::Luks2RecoveryKey => 2,
    };
    let part = match part {
        Part::Key => 1,
        Part::Package => 2,
    };
    let mut bytes = Vec::with_capacity(AAD_BYTES);
    bytes.extend_from_slice(binding.cluster.as_bytes());
    bytes.extend_from_slice(binding.device.as_bytes());
    bytes.extend_from_slice(binding.volume.as_bytes());
    bytes.extend_from_slice(binding.protector.as_bytes());
    bytes.push(kind);
    if !planted::is(Plant::VersionUnbound) {
        bytes.extend_from_slice(&binding.version.get().to_be_bytes());
    }
    bytes.extend_from_slice(&epoch.get().to_be_bytes());
    bytes.push(part);
    bytes
}

/// Hands 32 bytes that were drawn before to HPKE, which draws exactly so many (the seed of the ephemeral key) from a
/// generator of another version of the `rand` traits. Draws beyond them repeat the bytes hashed, and never happen.
struct OneDraw(Zeroizing<[u8; 32]>);

impl hpke::rand_core::TryRng for OneDraw {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Self::Error> {
        use sha2::Digest as _;
        for chunk in out.chunks_mut(32) {
            for (to, from) in chunk.iter_mut().zip(self.0.iter()) {
                *to = *from;
            }
            let next = sha2::Sha256::digest(self.0.as_ref());
            self.0.copy_from_slice(&next);
        }
        Ok(())
    }
}

impl hpke::rand_core::TryCryptoRng for OneDraw {}

#[cfg(test)]
mod tests;
