//! The keyring: the escrow key's epochs and the signer of escrow keys, wrapped by the root key.
//!
//! [`KeyringParts`] is what the replicated state keeps, as plain bytes; [`UnlockedKeyring`] is what an unsealed node has in
//! memory. A keyring that unlocks can open: that is tried before it is used.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use rand::CryptoRng;

use crate::domain::{
    ClusterId, DeviceId, Epoch, KeyVersion, ProtectorId, ProtectorKind, Sealed, Timestamp, VolumeId,
};

use super::agent_ca::{AgentCaParts, AgentCaSigner};
use super::certificate::{Authority, Purpose, escrow_signer_uri};
use super::root::{RootKey, WrapPurpose};
use super::seal::{self, Binding, EscrowPublicKey, Part, PrivateKey};
use super::signing::Signer;
use super::statement::escrow_key_statement;
use super::{CryptoError, Secret};

/// What the canary of the self-test is made of; no secret.
const CANARY: &[u8] = b"holdfast canary";

/// The signer's certificate and private key, as an operator makes them for a new cluster.
pub struct SigningMaterial {
    /// Its certificate and its issuers, DER, its own first.
    pub chain: Vec<Bytes>,
    /// Its private key, PKCS #8, DER.
    pub private_key: Secret,
}

impl fmt::Debug for SigningMaterial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningMaterial([redacted])")
    }
}

/// The signer of escrow keys as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignerParts {
    /// Its certificate and its issuers, DER, its own first.
    pub chain: Vec<Bytes>,
    /// Its private key, wrapped by the root key.
    pub private_key: Bytes,
}

/// An epoch as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochParts {
    /// Its number.
    pub epoch: Epoch,
    /// X25519 public key.
    pub public_key: [u8; 32],
    /// X25519 private key, wrapped by the root key.
    pub private_key: Bytes,
    /// The signer's signature over the escrow key statement.
    pub signature: Bytes,
}

/// The keyring as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyringParts {
    /// Tells the right root key from a wrong one.
    pub root_check: [u8; 32],
    /// Signs escrow keys.
    pub signer: SignerParts,
    /// All epochs, the first one first, without gaps.
    pub epochs: Vec<EpochParts>,
    /// The CAs of devices, the first one first; the last one signs.
    pub agent_cas: Vec<AgentCaParts>,
}

impl KeyringParts {
    /// Makes the keyring of a new cluster, with its first epoch.
    ///
    /// # Errors
    /// If the signer's certificate does not end at the node CA, is not valid now or not that of the cluster's escrow
    /// signer, or its key is another one.
    pub fn create(
        root: &RootKey,
        cluster: ClusterId,
        signer: &SigningMaterial,
        node_ca: &Authority,
        now: Timestamp,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<Self, CryptoError> {
        node_ca.verify(&signer.chain, Purpose::EscrowSigner, now)?;
        let key = signer.private_key.expose_secret();
        let pair = Signer::new(&signer.chain, key)?;
        pair.expect_uri(&escrow_signer_uri(cluster))?;
        let parts = SignerParts {
            chain: signer.chain.clone(),
            private_key: root.wrap(WrapPurpose::Signer, cluster, key, rng)?,
        };
        let first = make_epoch(root, cluster, &pair, Epoch::new(1), rng)?;
        let root_check = root.check_value(cluster)?;
        Ok(Self { root_check, signer: parts, epochs: vec![first], agent_cas: Vec::new() })
    }

    /// Makes the epoch after the last one. It counts once the cluster has stored it.
    ///
    /// # Errors
    /// If the root key is wrong or the keyring damaged.
    pub fn next_epoch(
        &self,
        root: &RootKey,
        cluster: ClusterId,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<EpochParts, CryptoError> {
        root.check(cluster, &self.root_check)?;
        let last = self.epochs.last().ok_or(CryptoError::BadEpochs)?.epoch;
        let next = last.get().checked_add(1).map(Epoch::new);
        let next = next.ok_or(CryptoError::NoMoreEpochs(last))?;
        let key = root.unwrap(WrapPurpose::Signer, cluster, &self.signer.private_key)?;
        let key = key.ok_or(CryptoError::DamagedKeyring("the signer's private key"))?;
        let signer = Signer::new(&self.signer.chain, key.expose_secret())?;
        make_epoch(root, cluster, &signer, next, rng)
    }

    /// The public key of the newest epoch, to which new keys are sealed.
    pub fn current(&self, cluster: ClusterId) -> Option<EscrowPublicKey> {
        let last = self.epochs.last()?;
        Some(EscrowPublicKey { cluster, epoch: last.epoch, key: last.public_key })
    }
}

fn make_epoch(
    root: &RootKey,
    cluster: ClusterId,
    signer: &Signer,
    epoch: Epoch,
    rng: &mut (impl CryptoRng + ?Sized),
) -> Result<EpochParts, CryptoError> {
    let key = PrivateKey::generate(rng);
    let public_key = key.public_key();
    let wrapped =
        root.wrap(WrapPurpose::Epoch(epoch), cluster, key.expose_secret().as_ref(), rng)?;
    let statement = escrow_key_statement(&EscrowPublicKey { cluster, epoch, key: public_key });
    Ok(EpochParts { epoch, public_key, private_key: wrapped, signature: signer.sign(&statement) })
}

/// The keyring's private keys, in the memory of an unsealed node. Never printed.
pub struct UnlockedKeyring {
    cluster: ClusterId,
    epochs: BTreeMap<Epoch, PrivateKey>,
    /// The newest one; older ones sign nothing any more. One that does not open keeps no key from being disclosed.
    agent_ca: Option<Result<AgentCaSigner, CryptoError>>,
}

impl UnlockedKeyring {
    /// Unlocks a keyring with the root key, and tries each epoch: seals something to its public key and opens it.
    ///
    /// # Errors
    /// [`CryptoError::WrongRootKey`], or what is damaged.
    pub fn unlock(
        root: &RootKey,
        cluster: ClusterId,
        parts: &KeyringParts,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<Self, CryptoError> {
        root.check(cluster, &parts.root_check)?;
        let mut epochs = BTreeMap::new();
        for (expected, part) in (1..).zip(&parts.epochs) {
            if part.epoch.get() != expected {
                return Err(CryptoError::BadEpochs);
            }
            let wrapped =
                root.unwrap(WrapPurpose::Epoch(part.epoch), cluster, &part.private_key)?;
            let key = wrapped.ok_or(CryptoError::DamagedKeyring("an epoch's private key"))?;
            let key = PrivateKey::from_slice(key.expose_secret())
                .map_err(|_| CryptoError::DamagedKeyring("an epoch's private key"))?;
            let public = EscrowPublicKey { cluster, epoch: part.epoch, key: part.public_key };
            self_test(&public, &key, rng)?;
            epochs.insert(part.epoch, key);
        }
        if epochs.is_empty() {
            return Err(CryptoError::BadEpochs);
        }
        let agent_ca = parts.agent_cas.last();
        let agent_ca = agent_ca.map(|ca| AgentCaSigner::unlock(root, cluster, ca));
        Ok(Self { cluster, epochs, agent_ca })
    }

    /// Opens something sealed to any of its epochs.
    ///
    /// # Errors
    /// [`CryptoError::UnknownEpoch`], or [`CryptoError::DoesNotOpen`].
    pub fn open(
        &self,
        binding: &Binding,
        part: Part,
        sealed: &Sealed,
    ) -> Result<Secret, CryptoError> {
        if binding.cluster != self.cluster {
            return Err(CryptoError::ForeignCluster);
        }
        let key = self.epochs.get(&sealed.epoch);
        seal::open(key.ok_or(CryptoError::UnknownEpoch(sealed.epoch))?, binding, part, sealed)
    }

    /// The CA that signs certificates of devices, if there is one.
    ///
    /// # Errors
    /// Why it does not open. Everything else does.
    pub fn agent_ca(&self) -> Result<Option<&AgentCaSigner>, &CryptoError> {
        self.agent_ca.as_ref().map(Result::as_ref).transpose()
    }

    /// Its newest epoch.
    pub fn newest_epoch(&self) -> Option<Epoch> {
        self.epochs.last_key_value().map(|(epoch, _)| *epoch)
    }
}

impl fmt::Debug for UnlockedKeyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UnlockedKeyring({} epochs, [redacted])", self.epochs.len())
    }
}

fn self_test(
    public: &EscrowPublicKey,
    key: &PrivateKey,
    rng: &mut (impl CryptoRng + ?Sized),
) -> Result<(), CryptoError> {
    let binding = Binding {
        cluster: public.cluster,
        device: DeviceId::from_bytes([0; 16]),
        volume: VolumeId::from_bytes([0; 16]),
        protector: ProtectorId::from_bytes([0; 16]),
        protector_kind: ProtectorKind::Luks2RecoveryKey,
        version: KeyVersion::NONE,
    };
    let sealed = seal::seal(public, &binding, Part::Key, CANARY, rng)?;
    match seal::open(key, &binding, Part::Key, &sealed) {
        Ok(opened) if opened.expose_secret() == CANARY => Ok(()),
        Ok(_) | Err(_) => Err(CryptoError::SelfTest(public.epoch)),
    }
}

#[cfg(test)]
mod tests;
