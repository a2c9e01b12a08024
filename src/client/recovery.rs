//! Finding keys and disclosing them.

use holdfast_proto::v1;
use holdfast_proto::v1::recovery_service_client::RecoveryServiceClient;
use secrecy::SecretString;
use zeroize::Zeroizing;

use super::error::ClientError;
use super::wire;
use super::{Client, new_request_id};
use crate::domain::{
    ApprovalId, DeviceId, KeyIdPrefix, KeyVersion, ProtectorId, Reason, Text, User, VolumeId,
};

/// What keys to search for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyQuery {
    /// First eight digits of the key id.
    Prefix(KeyIdPrefix),
    /// The whole key id.
    Protector(ProtectorId),
    /// All keys of a device.
    Device(DeviceId),
    /// All keys of a volume.
    Volume(DeviceId, VolumeId),
}

/// Which key to disclose, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DisclosureRequest {
    /// The key's id.
    pub protector: ProtectorId,
    /// Its version; [`KeyVersion::NONE`] for the newest of this id.
    pub version: KeyVersion,
    /// Why.
    pub reason: Reason,
    /// For whom; help-desk must name the user.
    pub user: Option<User>,
    /// Ticket number; may be empty.
    pub ticket: Text,
    /// Whether the key package is wanted too.
    pub with_package: bool,
    /// The approval that it is made by; it is used up by it.
    pub approval: Option<ApprovalId>,
}

/// A disclosed key. Its audit record was committed before it was opened.
pub struct Disclosure {
    /// The recovery key exactly as it has to be typed.
    pub recovery_key: SecretString,
    /// The key package, if it was asked for and escrowed.
    pub package: Option<Zeroizing<Vec<u8>>>,
    /// The key version, as it stands after this disclosure.
    pub key: v1::KeySummary,
    /// The audit record.
    pub audit: v1::AuditHead,
    /// Whether the text is not a well-formed key of its kind.
    pub malformed: bool,
    /// Whether this answers a retry of an earlier request.
    pub repeated: bool,
}

impl std::fmt::Debug for Disclosure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Disclosure([redacted])")
    }
}

impl Client {
    /// Finds key versions, without their secrets. The search itself is audited.
    ///
    /// # Errors
    /// If the caller may not search, or no server answers.
    pub async fn find_keys(&self, query: KeyQuery) -> Result<v1::FindKeysResponse, ClientError> {
        use v1::find_keys_request::Query;
        let query = match query {
            KeyQuery::Prefix(prefix) => Query::KeyIdPrefix(prefix.to_string()),
            KeyQuery::Protector(id) => Query::KeyId(id.to_string()),
            KeyQuery::Device(device) => Query::DeviceId(device.to_string()),
            KeyQuery::Volume(device, volume) => Query::Volume(v1::VolumeRef {
                device_id: device.to_string(),
                volume_id: volume.to_string(),
            }),
        };
        let message = v1::FindKeysRequest { request_id: new_request_id(), query: Some(query) };
        self.call(&message, |channel, request| async move {
            RecoveryServiceClient::new(channel).find_keys(request).await
        })
        .await
    }

    /// Discloses one key, after its audit record is committed on a majority.
    ///
    /// # Errors
    /// If there is no such key, the caller may not have it or has used up the quota, or no server answers.
    pub async fn disclose(&self, wanted: &DisclosureRequest) -> Result<Disclosure, ClientError> {
        let message = v1::DiscloseKeyRequest {
            request_id: new_request_id(),
            protector_id: wanted.protector.to_string(),
            version: wanted.version.get(),
            reason: Some(wire::reason(&wanted.reason)),
            user: wanted.user.as_ref().map(wire::user),
            ticket: wanted.ticket.as_str().to_owned(),
            include_key_package: wanted.with_package,
            approval_id: wanted.approval.map_or(0, ApprovalId::get),
        };
        let answer = self
            .call(&message, |channel, request| async move {
                RecoveryServiceClient::new(channel).disclose_key(request).await
            })
            .await?;
        let package =
            (!answer.key_package.is_empty()).then(|| Zeroizing::new(answer.key_package.to_vec()));
        Ok(Disclosure {
            recovery_key: SecretString::from(answer.recovery_key),
            package,
            key: wire::present(answer.key, "key")?,
            audit: wire::present(answer.audit, "audit")?,
            malformed: answer.malformed,
            repeated: answer.repeated,
        })
    }

    /// The reason codes that a disclosure takes.
    ///
    /// # Errors
    /// If no server answers.
    pub async fn reasons(&self) -> Result<Vec<v1::ReasonCode>, ClientError> {
        let answer = self
            .call(&v1::ListReasonsRequest {}, |channel, request| async move {
                RecoveryServiceClient::new(channel).list_reasons(request).await
            })
            .await?;
        Ok(answer.reasons)
    }
}
