//! Volumes in the terms of whoever protects them: what LUKS2 and BitLocker have in common.
//!
//! The order of things is in the types. [`VolumeProvider::remove_protector`] wants a [`Proof`], and only
//! [`VolumeProvider::prove`] (or an encryption that was begun with a key, which proves it) makes one.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::crypto::Secret;
use crate::domain::{FieldError, KeyVersion, ProtectorId, RecoveryKey, VolumeId, VolumeKind};

use super::VolumeError;

/// Longest secret that unlocks a volume, in bytes: the largest key file that cryptsetup reads.
pub const UNLOCK_SECRET_BYTES: usize = 8 * 1024 * 1024;

/// Where a secret that unlocks a volume comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnlockOrigin {
    /// A person typed it.
    Passphrase,
    /// A key file holds it.
    KeyFile,
    /// It is a recovery key that this process has made or was given.
    RecoveryKey,
    /// It is the key that the agent keeps for itself in a slot of its own.
    AdminKey,
}

/// A secret that unlocks a volume, byte by byte as its slot wants it.
#[derive(Debug)]
pub struct UnlockSecret {
    origin: UnlockOrigin,
    bytes: Secret,
}

impl UnlockSecret {
    /// Takes the secret over.
    ///
    /// # Errors
    /// If it is empty (cryptsetup takes that for "don't ask") or longer than [`UNLOCK_SECRET_BYTES`].
    pub fn new(origin: UnlockOrigin, bytes: Secret) -> Result<Self, FieldError> {
        match bytes.expose_secret().len() {
            0 => Err(FieldError::new("secret", "must not be empty")),
            length if length > UNLOCK_SECRET_BYTES => {
                Err(FieldError::new("secret", format!("has more than {UNLOCK_SECRET_BYTES} bytes")))
            }
            _ => Ok(Self { origin, bytes }),
        }
    }

    /// A recovery key, as it has to be typed: its dashes and its case belong to it.
    pub fn of_recovery_key(key: &RecoveryKey) -> Self {
        let bytes = Secret::new(key.expose_secret().as_bytes().to_vec());
        Self { origin: UnlockOrigin::RecoveryKey, bytes }
    }

    /// Where it comes from.
    pub const fn origin(&self) -> UnlockOrigin {
        self.origin
    }

    pub(in crate::agent) fn expose_secret(&self) -> &[u8] {
        self.bytes.expose_secret()
    }
}

/// Which recovery key of a volume: what was escrowed under this id and version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyName {
    /// Its id.
    pub id: ProtectorId,
    /// Its version.
    pub version: KeyVersion,
}

/// What a protector of ours has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is there as the agent made it.
    Present,
    /// The agent ended while it was added; [`VolumeProvider::settle`] finishes or removes it.
    Unsettled,
    /// Its slot is gone: a new key has to be escrowed.
    Gone,
    /// Somebody changed its slot, which is not ours any more: a new key has to be escrowed.
    Changed,
}

/// How a volume can be unlocked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProtectorType {
    /// A recovery key.
    RecoveryKey,
    /// A passphrase or a key file: nothing tells them apart.
    Passphrase,
    /// The machine's TPM.
    Tpm,
    /// A FIDO2 security key.
    Fido2,
    /// A smart card.
    SmartCard,
    /// A server in the network.
    Network,
    /// Something that goes by this name.
    Other(String),
}

impl fmt::Display for ProtectorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RecoveryKey => "recovery key",
            Self::Passphrase => "passphrase",
            Self::Tpm => "TPM",
            Self::Fido2 => "FIDO2",
            Self::SmartCard => "smart card",
            Self::Network => "network",
            Self::Other(name) => name,
        })
    }
}

/// One way to unlock a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Protector {
    /// How.
    pub kind: ProtectorType,
    /// If the agent made it: which key it is, and what has become of it.
    pub own: Option<(KeyName, Standing)>,
    /// Its key slot, where it has one.
    pub slot: Option<u8>,
}

/// How far an encryption has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that are encrypted.
    pub done: u64,
    /// All bytes.
    pub total: u64,
}

/// Why a volume can't be protected at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unsupported {
    /// LUKS1 has no tokens.
    #[error(
        "it is LUKS1, which has no room for the id of a recovery key: convert it (cryptsetup convert --type luks2)"
    )]
    Luks1,
    /// Another system's encryption.
    #[error("it is BitLocker's: protect it from Windows")]
    BitLocker,
    /// Its LUKS UUID is none.
    #[error("its LUKS UUID is not a UUID: give it one (cryptsetup luksUUID --uuid)")]
    Uuid,
    /// Another conversion than an encryption is under way.
    #[error(
        "it is being decrypted or encrypted anew: let that end first (cryptsetup reencrypt --resume-only)"
    )]
    Conversion,
    /// Its header wants what the agent does not know.
    #[error("its header requires {0}, which this agent does not know")]
    Requirement(String),
}

/// Why a plain volume can't be encrypted in place as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Obstacle {
    /// Something uses it.
    #[error("it is in use ({0}): unmount or detach it first")]
    InUse(String),
    /// It can't be written.
    #[error("it is read-only")]
    ReadOnly,
    /// Only ext2, ext3 and ext4 say reliably where they end.
    #[error(
        "it holds no ext2, ext3 or ext4 file system, and of others it is not known where they end"
    )]
    FileSystem,
    /// The file system was not unmounted.
    #[error("its file system was not unmounted cleanly: check it first (e2fsck -f)")]
    NotClean,
    /// The file system reaches into the room that the header needs.
    #[error(
        "its file system has {has} bytes and may have {may} at most, to leave room for the header: shrink it (resize2fs)"
    )]
    NoRoom {
        /// Bytes of the file system.
        has: u64,
        /// Most bytes that it may have.
        may: u64,
    },
}

/// What state a volume is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VolumeState {
    /// Not encrypted.
    Plain {
        /// What keeps it from being encrypted in place.
        obstacle: Option<Obstacle>,
    },
    /// Being encrypted, or to be: an encryption that waits counts as well.
    Encrypting(Progress),
    /// Encrypted, and unlocked.
    Protected,
    /// Encrypted, and not unlocked.
    Locked,
    /// Of a kind that can't be protected.
    Unsupported(Unsupported),
    /// Encrypted once, but its header is damaged.
    Damaged,
    /// It could not be found out.
    Unknown(String),
}

/// Key slots, and room for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Slots {
    /// Used.
    pub used: u8,
    /// Free, as far as there is room for them.
    pub free: u8,
}

/// A volume as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Its device or file.
    pub path: PathBuf,
    /// Its id; a plain volume has none yet.
    pub id: Option<VolumeId>,
    /// What it is used for.
    pub kind: VolumeKind,
    /// Its size.
    pub bytes: u64,
    /// Where it is mounted, itself or unlocked.
    pub mount_points: Vec<PathBuf>,
    /// What state it is in.
    pub state: VolumeState,
    /// Cipher and mode, as the volume names them.
    pub cipher: Option<String>,
    /// Bits of the volume key.
    pub key_bits: Option<u32>,
    /// How it can be unlocked.
    pub protectors: Vec<Protector>,
    /// Its key slots.
    pub slots: Slots,
}

/// Everything that a slot holds, in 32 bytes: other keys, tokens and labels may come and go without changing it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    pub(in crate::agent) const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// A recovery key was seen to open a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proof {
    volume: VolumeId,
    key: KeyName,
    fingerprint: Fingerprint,
}

impl Proof {
    /// Only a provider that has just seen it.
    pub(in crate::agent) const fn new(
        volume: VolumeId,
        key: KeyName,
        fingerprint: Fingerprint,
    ) -> Self {
        Self { volume, key, fingerprint }
    }

    /// The volume.
    pub const fn volume(&self) -> VolumeId {
        self.volume
    }

    /// The key.
    pub const fn key(&self) -> KeyName {
        self.key
    }

    /// What the slot looked like when the key opened it.
    pub const fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }
}

/// What an encryption in place begins with: both ids are minted by the agent, since a key is escrowed before there is a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncryptionPlan {
    /// The id that the volume gets.
    pub volume: VolumeId,
    /// The key that it gets.
    pub key: KeyName,
}

/// What was left half-done by an agent that ended, and what was made of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// A key was about to be added and was not.
    NeverAdded(KeyName),
    /// A key had been added: it is a protector of ours now, which nobody has proven.
    Added(KeyName),
    /// An encryption was about to begin: the volume is plain, as it was.
    NeverBegun(EncryptionPlan),
    /// An encryption had begun: its header is whole again.
    Begun(EncryptionPlan),
    /// An encryption is complete: its key has its tokens now.
    Encrypted(KeyName),
}

/// What protects the volumes of a machine. Everything is done on the volume itself, so that a provider has nothing to forget.
///
/// Every method may fail because the system's program is missing, too old, hangs or makes no sense, or because the volume vanishes.
#[allow(clippy::missing_errors_doc, reason = "the sentence above, and each method's own")]
pub trait VolumeProvider: Send + Sync {
    /// All volumes of the machine, and those that are configured. A volume that can't be looked at is
    /// [`VolumeState::Unknown`].
    fn discover(&self) -> impl Future<Output = Result<Vec<Volume>, VolumeError>> + Send;

    /// One volume.
    fn inspect(&self, path: &Path) -> impl Future<Output = Result<Volume, VolumeError>> + Send;

    /// Finishes or undoes what an agent that ended has left half-done. To be called for each volume at start. No key slot is removed
    /// by it.
    fn settle(&self, path: &Path)
    -> impl Future<Output = Result<Vec<Settled>, VolumeError>> + Send;

    /// Puts a recovery key into the volume, under the name that it was escrowed with. It is not proven by that.
    fn add_recovery_key(
        &self,
        path: &Path,
        unlock: &UnlockSecret,
        key: &RecoveryKey,
        name: KeyName,
    ) -> impl Future<Output = Result<(), VolumeError>> + Send;

    /// Opens the volume's slot with the key, and nothing but this slot and this key.
    fn prove(
        &self,
        path: &Path,
        key: &RecoveryKey,
        name: KeyName,
    ) -> impl Future<Output = Result<Proof, VolumeError>> + Send;

    /// What the slot of a key holds now. Where it differs from [`Proof::fingerprint`], the proof is void.
    fn fingerprint(
        &self,
        path: &Path,
        id: ProtectorId,
    ) -> impl Future<Output = Result<Fingerprint, VolumeError>> + Send;

    /// Removes a key of ours. `proof` is of another key of the same volume, which `key` is and which has to open the volume once
    /// more. What is not ours, or no longer as we made it, is never removed; neither is the last key.
    fn remove_protector(
        &self,
        path: &Path,
        old: ProtectorId,
        proof: &Proof,
        key: &RecoveryKey,
    ) -> impl Future<Output = Result<(), VolumeError>> + Send;

    /// Lets another secret unlock the volume: a user's, or the agent's own.
    fn add_unlock(
        &self,
        path: &Path,
        unlock: &UnlockSecret,
        new: &UnlockSecret,
    ) -> impl Future<Output = Result<(), VolumeError>> + Send;

    /// Makes the header of a plain volume, with this key in it, and proves the key. Nothing is encrypted by that.
    fn begin_encryption(
        &self,
        path: &Path,
        plan: &EncryptionPlan,
        key: &RecoveryKey,
    ) -> impl Future<Output = Result<Proof, VolumeError>> + Send;

    /// Takes back an encryption that was begun and of which nothing is done yet, without any key: the way on when the key that it was
    /// begun with is gone. The volume is plain then, as it was.
    fn abandon_encryption(
        &self,
        path: &Path,
    ) -> impl Future<Output = Result<(), VolumeError>> + Send;

    /// Encrypts what is not encrypted yet. Repairs first what a killed one has left. If it is dropped or the machine stops, it
    /// can be called again, also when nothing is left to do.
    fn resume_encryption(
        &self,
        path: &Path,
        unlock: &UnlockSecret,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> impl Future<Output = Result<(), VolumeError>> + Send;
}
