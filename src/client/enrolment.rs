//! Certificates of devices: enrolment, renewal, and what administrators do for them.

use std::time::Duration;

use bytes::Bytes;
use holdfast_proto::v1;
use holdfast_proto::v1::certificate_service_client::CertificateServiceClient;
use holdfast_proto::v1::enrolment_service_client::EnrolmentServiceClient;
use sha2::{Digest as _, Sha256};

use super::error::ClientError;
use super::{Client, new_request_id};
use crate::crypto::{DeviceKey, EnrolmentToken, Leaf};
use crate::domain::{Actor, DeviceId, Fingerprint, RequestId, TokenBinding, TokenId};

/// Tokens that are asked for at once: as many as a page holds.
const PAGE: u32 = 1000;

/// A certificate that the cluster gave to a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewCertificate {
    /// The certificate and its issuer, DER.
    pub chain: Vec<Bytes>,
    /// Until when it is valid, in milliseconds since the Unix epoch.
    pub not_after_ms: u64,
    /// Whether the device had enrolled before.
    pub again: bool,
}

/// An enrolment token to be issued.
#[derive(Debug)]
pub struct NewToken {
    /// The token.
    pub token: EnrolmentToken,
    /// Whom it is for.
    pub binding: TokenBinding,
    /// How long it is valid.
    pub ttl: Duration,
}

impl Client {
    /// Enrols a device at the enrolment port. The same token and key give the same certificate, however often it is asked for.
    ///
    /// # Errors
    /// If the token does not let the device in, the answer is no certificate of this key, or no server answers.
    pub async fn enrol(
        &self,
        token: &EnrolmentToken,
        device: DeviceId,
        key: &DeviceKey,
    ) -> Result<NewCertificate, ClientError> {
        let message = v1::EnrolRequest {
            request_id: derived_id(&token.digest(), key),
            device_id: device.to_string(),
            token: token.expose_text().to_string(),
            csr: key.csr(None)?.into(),
        };
        let answer = self
            .call(&message, |channel, request| async move {
                EnrolmentServiceClient::new(channel).enrol(request).await
            })
            .await?;
        check(&answer.chain, device, key)?;
        let v1::EnrolResponse { chain, not_after_ms, again, position: _ } = answer;
        Ok(NewCertificate { chain, not_after_ms, again })
    }

    /// Renews the certificate that the client calls with, which is that of `device` and has this fingerprint.
    ///
    /// # Errors
    /// If it is too early, the answer is no certificate of this key, or no server answers.
    pub async fn renew_certificate(
        &self,
        device: DeviceId,
        old: Fingerprint,
        key: &DeviceKey,
    ) -> Result<NewCertificate, ClientError> {
        let message = v1::RenewCertificateRequest {
            request_id: derived_id(old.as_bytes(), key),
            csr: key.csr(None)?.into(),
        };
        let answer = self
            .call(&message, |channel, request| async move {
                CertificateServiceClient::new(channel).renew_certificate(request).await
            })
            .await?;
        check(&answer.chain, device, key)?;
        let v1::RenewCertificateResponse { chain, not_after_ms, position: _ } = answer;
        Ok(NewCertificate { chain, not_after_ms, again: false })
    }

    /// Makes the CA of devices with this number.
    ///
    /// # Errors
    /// If the caller is no administrator, the number is not the next one, the server is sealed, or no server answers.
    pub async fn create_agent_ca(&self, number: u32) -> Result<v1::AgentCa, ClientError> {
        let message = v1::CreateAgentCaRequest { request_id: new_request_id(), number };
        let answer = self
            .call(&message, |channel, request| async move {
                CertificateServiceClient::new(channel).create_agent_ca(request).await
            })
            .await?;
        answer.ca.ok_or_else(|| ClientError::Answer("ca is missing".to_owned()))
    }

    /// The CAs of devices, the first one first.
    ///
    /// # Errors
    /// If the caller may not see them, or no server answers.
    pub async fn agent_cas(&self) -> Result<Vec<v1::AgentCa>, ClientError> {
        let message = v1::ListAgentCasRequest {};
        let answer = self
            .call(&message, |channel, request| async move {
                CertificateServiceClient::new(channel).list_agent_cas(request).await
            })
            .await?;
        Ok(answer.cas)
    }

    /// Issues an enrolment token. Its secret is not sent. Answers until when it is valid, in milliseconds since the Unix
    /// epoch.
    ///
    /// # Errors
    /// If the caller is no administrator, a value is out of its limits, or no server answers.
    pub async fn issue_token(&self, new: &NewToken) -> Result<u64, ClientError> {
        use v1::issue_token_request::Binding;
        let binding = match &new.binding {
            TokenBinding::Device(device) => Binding::DeviceId(device.to_string()),
            TokenBinding::Group { name, count } => {
                Binding::Group(v1::TokenGroup { name: name.to_string(), count: *count })
            }
        };
        let message = v1::IssueTokenRequest {
            request_id: new_request_id(),
            token_id: new.token.id().to_string(),
            digest: Bytes::copy_from_slice(&new.token.digest()),
            ttl_ms: u64::try_from(new.ttl.as_millis()).unwrap_or(u64::MAX),
            binding: Some(binding),
        };
        let answer = self
            .call(&message, |channel, request| async move {
                CertificateServiceClient::new(channel).issue_token(request).await
            })
            .await?;
        Ok(answer.expires_at_ms)
    }

    /// Revokes an enrolment token. Answers whether it was not revoked before.
    ///
    /// # Errors
    /// If the caller is no administrator, there is no such token, or no server answers.
    pub async fn revoke_token(&self, token: TokenId) -> Result<bool, ClientError> {
        let message =
            v1::RevokeTokenRequest { request_id: new_request_id(), token_id: token.to_string() };
        let answer = self
            .call(&message, |channel, request| async move {
                CertificateServiceClient::new(channel).revoke_token(request).await
            })
            .await?;
        Ok(answer.changed)
    }

    /// All enrolment tokens, page by page.
    ///
    /// # Errors
    /// If the caller may not see them, or no server answers.
    pub async fn tokens(&self) -> Result<Vec<v1::EnrolmentToken>, ClientError> {
        let mut tokens = Vec::new();
        let mut message = v1::ListTokensRequest { page_size: PAGE, page_token: String::new() };
        loop {
            let page = self
                .call(&message, |channel, request| async move {
                    CertificateServiceClient::new(channel).list_tokens(request).await
                })
                .await?;
            tokens.extend(page.tokens);
            // A server that gives the same token again would keep us for ever.
            if page.next_page_token.is_empty() {
                return Ok(tokens);
            }
            if page.next_page_token == message.page_token {
                return Err(ClientError::Answer("the same page_token twice".to_owned()));
            }
            message.page_token = page.next_page_token;
        }
    }
}

/// A request id that follows from what is asked: also a process that begins anew after a crash asks for the same.
fn derived_id(with: &[u8; 32], key: &DeviceKey) -> String {
    let hash = Sha256::new()
        .chain_update(b"holdfast certificate request v1\0")
        .chain_update(with)
        .chain_update(key.public_key())
        .finalize();
    let mut id = [0; 16];
    for (to, from) in id.iter_mut().zip(hash.iter()) {
        *to = *from;
    }
    RequestId::new(uuid::Builder::from_custom_bytes(id).into_uuid()).to_string()
}

/// Checks that the cluster gave the device's own certificate.
fn check(chain: &[Bytes], device: DeviceId, key: &DeviceKey) -> Result<(), ClientError> {
    let fault = |what: &str| Err(ClientError::Answer(what.to_owned()));
    let Some(first) = chain.first() else { return fault("there is no certificate in it") };
    let Ok(leaf) = Leaf::read(first) else { return fault("what it holds is no certificate") };
    if leaf.public_key != *key.public_key() {
        return fault("the certificate is of another key");
    }
    let path = format!("/{}", Actor::Agent(device));
    if leaf.uri.starts_with("spiffe://") && leaf.uri.ends_with(&path) {
        Ok(())
    } else {
        fault("the certificate is of another device")
    }
}
