//! Escrowing a recovery key: seal it, send it, check the receipt.
//!
//! Sealing stands apart from sending, so that an agent can write the sealed request to disk before it goes anywhere, and
//! repeat it byte for byte. The plaintext is read here and in `crypto`, and nowhere else.

use std::sync::Arc;

use bytes::Bytes;
use holdfast_proto::v1;
use holdfast_proto::v1::escrow_service_client::EscrowServiceClient;

use super::error::ClientError;
use super::receipt::{Expected, Receipt};
use super::wire;
use super::{Client, new_request_id};
use crate::crypto::{
    Binding, CryptoError, EscrowPublicKey, Part, StatementVerifier, seal, system_rng,
};
use crate::domain::{
    ClusterId, DeviceId, Epoch, FieldError, KeyVersion, ProtectorId, ProtectorKind, RecoveryKey,
    RequestId, Sealed, Text, User, VolumeId, VolumeKind, limits, sealed_digest,
};

/// The server's reason when an epoch is not known to it.
const UNKNOWN_EPOCH: &str = "UNKNOWN_EPOCH";

/// An escrow key whose signature and chain were verified against the pinned CA.
#[derive(Clone)]
pub struct EscrowKey {
    public: EscrowPublicKey,
    verifier: Arc<StatementVerifier>,
}

impl std::fmt::Debug for EscrowKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EscrowKey(cluster {}, epoch {})", self.public.cluster, self.public.epoch)
    }
}

impl EscrowKey {
    /// The cluster that it belongs to.
    pub const fn cluster(&self) -> ClusterId {
        self.public.cluster
    }

    /// Its epoch.
    pub const fn epoch(&self) -> Epoch {
        self.public.epoch
    }

    /// The X25519 public key.
    pub const fn public_key(&self) -> &[u8; 32] {
        &self.public.key
    }

    pub(super) fn verifier(&self) -> &StatementVerifier {
        &self.verifier
    }
}

/// What is escrowed, without the key itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEscrow {
    /// The calling device.
    pub device: DeviceId,
    /// The volume that the key opens.
    pub volume: VolumeId,
    /// What the volume is used for.
    pub volume_kind: VolumeKind,
    /// The key's id.
    pub protector: ProtectorId,
    /// The volume's key version that this one follows; [`KeyVersion::NONE`] for the first.
    pub expected_version: KeyVersion,
    /// Name of the device; may be empty.
    pub host_name: Text,
    /// Users of the device, at most [`limits::DEVICE_USERS`].
    pub users: Vec<User>,
}

/// A sealed escrow, ready to be sent, again and again with the same bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct SealedEscrow {
    message: v1::EscrowRecoveryKeyRequest,
    expected: Expected,
}

impl SealedEscrow {
    /// Seals a recovery key, and a key package if there is one, to the escrow key. Nothing is sent.
    ///
    /// # Errors
    /// If a value doesn't fit, or the key can't be sealed.
    pub fn seal(
        to: &EscrowKey,
        escrow: &NewEscrow,
        key: &RecoveryKey,
        package: Option<&[u8]>,
    ) -> Result<Self, ClientError> {
        let version = escrow.expected_version.next();
        let version = version.ok_or_else(|| FieldError::new("expected_version", "is the last"))?;
        if escrow.users.len() > limits::DEVICE_USERS {
            let most = limits::DEVICE_USERS;
            return Err(FieldError::new("users", format!("at most {most} are allowed")).into());
        }
        let binding = Binding {
            cluster: to.public.cluster,
            device: escrow.device,
            volume: escrow.volume,
            protector: escrow.protector,
            protector_kind: key.kind(),
            version,
        };
        let mut rng = system_rng();
        let secret = key.expose_secret().as_bytes();
        let sealed = seal(&to.public, &binding, Part::Key, secret, &mut rng).map_err(sealing)?;
        let package = package
            .map(|package| seal(&to.public, &binding, Part::Package, package, &mut rng))
            .transpose()
            .map_err(sealing)?;
        let expected = Expected {
            cluster: to.public.cluster,
            device: escrow.device,
            volume: escrow.volume,
            protector: escrow.protector,
            version,
            sealed_digest: sealed_digest(&sealed, package.as_ref()),
        };
        let message = message(escrow, key.kind(), &sealed, package.as_ref());
        Ok(Self { message, expected })
    }

    /// A sealed escrow from the request as it was kept, for the cluster that it was sealed for.
    ///
    /// # Errors
    /// If it is no request that [`SealedEscrow::seal`] makes; the field is named.
    pub fn from_message(
        cluster: ClusterId,
        message: v1::EscrowRecoveryKeyRequest,
    ) -> Result<Self, FieldError> {
        message.request_id.parse::<RequestId>()?;
        let expected = Expected::of_request(cluster, &message)?;
        Ok(Self { message, expected })
    }

    /// The cluster that it is sealed for.
    pub const fn cluster(&self) -> ClusterId {
        self.expected.cluster
    }

    /// The device that escrows.
    pub const fn device(&self) -> DeviceId {
        self.expected.device
    }

    /// The volume that the key opens.
    pub const fn volume(&self) -> VolumeId {
        self.expected.volume
    }

    /// The key's id.
    pub const fn protector(&self) -> ProtectorId {
        self.expected.protector
    }

    /// Whether a receipt that was checked is for exactly this escrow.
    pub fn is_answered_by(&self, receipt: &Receipt) -> bool {
        Expected::of_receipt(receipt) == self.expected
    }

    /// The request as it is sent.
    pub const fn message(&self) -> &v1::EscrowRecoveryKeyRequest {
        &self.message
    }

    /// The version that the key gets.
    pub const fn version(&self) -> KeyVersion {
        self.expected.version
    }

    pub(super) const fn expected(&self) -> &Expected {
        &self.expected
    }

    /// Checks a receipt: it must be for exactly this escrow, and signed by a node of the cluster.
    ///
    /// # Errors
    /// Says what is wrong. The key must not be used for encryption then.
    pub fn check_receipt(
        &self,
        receipt: v1::Receipt,
        key: &EscrowKey,
        now: crate::domain::Timestamp,
    ) -> Result<Receipt, ClientError> {
        Receipt::check(receipt, &self.expected, key.verifier(), now)
    }
}

/// Sealing fails for what the caller gave, or not at all.
fn sealing(error: CryptoError) -> ClientError {
    ClientError::Seal(error)
}

fn message(
    escrow: &NewEscrow,
    kind: ProtectorKind,
    key: &Sealed,
    package: Option<&Sealed>,
) -> v1::EscrowRecoveryKeyRequest {
    v1::EscrowRecoveryKeyRequest {
        request_id: new_request_id(),
        device_id: escrow.device.to_string(),
        volume_id: escrow.volume.to_string(),
        protector_id: escrow.protector.to_string(),
        protector_kind: wire::protector_kind(kind).into(),
        volume_kind: wire::volume_kind(escrow.volume_kind).into(),
        expected_version: escrow.expected_version.get(),
        sealed_key: Some(sealed_message(key)),
        sealed_key_package: package.map(sealed_message),
        host_name: escrow.host_name.as_str().to_owned(),
        users: escrow.users.iter().map(wire::user).collect(),
    }
}

fn sealed_message(sealed: &Sealed) -> v1::SealedKey {
    v1::SealedKey {
        epoch: sealed.epoch.get(),
        encapsulated_key: Bytes::copy_from_slice(&sealed.encapsulated_key),
        ciphertext: sealed.ciphertext.clone(),
    }
}

/// The escrow key that a server names. Nobody vouches for it before its signature is verified.
pub(super) fn stated(answer: &v1::GetEscrowKeyResponse) -> Result<EscrowPublicKey, ClientError> {
    Ok(EscrowPublicKey {
        cluster: wire::well_formed(answer.cluster_id.parse())?,
        epoch: Epoch::new(answer.epoch),
        key: wire::bytes32(&answer.public_key, "public_key")?,
    })
}

impl Client {
    /// The escrow key: the remembered one, or the one that a server gives and that verifies.
    ///
    /// # Errors
    /// If no server answers, or the key is not signed by the cluster's signer under the pinned CA.
    pub async fn escrow_key(&self) -> Result<EscrowKey, ClientError> {
        let known = self.inner.escrow_key.lock().clone();
        match known {
            Some(key) => Ok(key),
            None => self.refresh_escrow_key().await,
        }
    }

    /// The escrow key as servers give it now.
    ///
    /// # Errors
    /// As [`Client::escrow_key`].
    pub async fn refresh_escrow_key(&self) -> Result<EscrowKey, ClientError> {
        let answer = self
            .call(&v1::GetEscrowKeyRequest {}, |channel, request| async move {
                EscrowServiceClient::new(channel).get_escrow_key(request).await
            })
            .await?;
        let key = self.verified(&answer)?;
        *self.inner.escrow_key.lock() = Some(key.clone());
        Ok(key)
    }

    fn verified(&self, answer: &v1::GetEscrowKeyResponse) -> Result<EscrowKey, ClientError> {
        let public = stated(answer)?;
        let known = self.inner.escrow_key.lock().clone();
        let verifier = match known {
            Some(known) if known.public.cluster != public.cluster => {
                return Err(ClientError::EscrowKey(
                    "it is of another cluster than before".to_owned(),
                ));
            }
            Some(known) if known.public.epoch > public.epoch => {
                return Err(ClientError::EscrowKey(
                    "its epoch is older than one seen before".to_owned(),
                ));
            }
            Some(known) => known.verifier,
            None => Arc::new(StatementVerifier::new(public.cluster, self.inner.anchors.clone())),
        };
        verifier
            .escrow_key(&public, &answer.signer_chain, &answer.signature, self.inner.clock.now())
            .map_err(|error| ClientError::EscrowKey(error.to_string()))?;
        Ok(EscrowKey { public, verifier })
    }

    /// Seals a recovery key to the cluster's escrow key. Nothing but the escrow key is asked for.
    ///
    /// # Errors
    /// If the escrow key can't be had or doesn't verify, or a value doesn't fit.
    pub async fn seal(
        &self,
        escrow: &NewEscrow,
        key: &RecoveryKey,
        package: Option<&[u8]>,
    ) -> Result<SealedEscrow, ClientError> {
        SealedEscrow::seal(&self.escrow_key().await?, escrow, key, package)
    }

    /// Sends a sealed escrow and checks the receipt. Sending it again gives the same receipt.
    ///
    /// # Errors
    /// If it is refused, no server answers, or the receipt doesn't verify.
    pub async fn send(&self, sealed: &SealedEscrow) -> Result<Receipt, ClientError> {
        let answer = self
            .call(sealed.message(), |channel, request| async move {
                EscrowServiceClient::new(channel).escrow_recovery_key(request).await
            })
            .await?;
        let receipt = wire::present(answer.receipt, "receipt")?;
        let key = self.escrow_key().await?;
        sealed.check_receipt(receipt, &key, self.inner.clock.now())
    }

    /// Seals, sends and checks the receipt. If the epoch is unknown to the servers, the escrow key is fetched anew and the
    /// recovery key is sealed once more, as a new request.
    ///
    /// # Errors
    /// If it is refused, no server answers, or the receipt doesn't verify.
    pub async fn escrow(
        &self,
        escrow: &NewEscrow,
        key: &RecoveryKey,
        package: Option<&[u8]>,
    ) -> Result<Receipt, ClientError> {
        let sealed = self.seal(escrow, key, package).await?;
        match self.send(&sealed).await {
            Err(error) if error.reason() == UNKNOWN_EPOCH => {
                let fresh = self.refresh_escrow_key().await?;
                self.send(&SealedEscrow::seal(&fresh, escrow, key, package)?).await
            }
            result => result,
        }
    }
}
