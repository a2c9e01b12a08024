//! Enrolment: its commands, and the records of its tables.

use bytes::Bytes;
use holdfast_proto::store::v1 as pb;

use super::common::*;
use super::{CodecError, decode, encode, required};
use crate::domain::{DeviceId, FieldError, GroupName, RequestId, TokenBinding, TokenId};
use crate::state::records::{Enrolment, Token};
use crate::state::{AgentCa, DeviceCertificate, Enrol, IssueToken, Renew, Wrapped};

pub(super) fn agent_ca_to(ca: &AgentCa) -> pb::AgentCa {
    pb::AgentCa {
        number: ca.number,
        certificate: ca.certificate.clone(),
        wrapped_private_key: ca.private_key.0.clone(),
    }
}

pub(super) fn agent_ca_from(ca: pb::AgentCa) -> AgentCa {
    AgentCa {
        number: ca.number,
        certificate: ca.certificate,
        private_key: Wrapped(ca.wrapped_private_key),
    }
}

pub(in crate::state) fn agent_ca_to_bytes(ca: &AgentCa) -> Bytes {
    encode(&agent_ca_to(ca))
}

pub(in crate::state) fn agent_ca_from_bytes(value: &Bytes) -> Result<AgentCa, CodecError> {
    decode(value).map(agent_ca_from)
}

pub(super) fn issue_to(issue: &IssueToken) -> pb::IssueToken {
    use pb::issue_token::Binding;
    let binding = match &issue.binding {
        TokenBinding::Device(device) => Binding::DeviceId(id(device.as_bytes())),
        TokenBinding::Group { name, count } => {
            Binding::Group(pb::TokenGroup { name: name.as_str().to_owned(), count: *count })
        }
    };
    pb::IssueToken {
        token_id: id(issue.id.as_bytes()),
        digest: Bytes::copy_from_slice(&issue.digest),
        ttl_ms: issue.ttl_ms,
        binding: Some(binding),
    }
}

pub(super) fn issue_from(issue: pb::IssueToken) -> Result<IssueToken, CodecError> {
    use pb::issue_token::Binding;
    let binding = match required(issue.binding, "binding")? {
        Binding::DeviceId(device) => TokenBinding::Device(DeviceId::from_slice(&device)?),
        Binding::Group(group) => TokenBinding::group(group.name.parse()?, group.count)?,
    };
    Ok(IssueToken {
        id: TokenId::from_slice(&issue.token_id)?,
        digest: digest("digest", &issue.digest)?,
        binding,
        ttl_ms: issue.ttl_ms,
    })
}

fn certificate_to(certificate: &DeviceCertificate) -> pb::DeviceCertificate {
    pb::DeviceCertificate {
        der: certificate.der.clone(),
        not_before_ms: certificate.not_before.as_millis(),
        not_after_ms: certificate.not_after.as_millis(),
        public_key: Bytes::copy_from_slice(&certificate.public_key),
        agent_ca: certificate.agent_ca,
    }
}

fn certificate_from(
    certificate: Option<pb::DeviceCertificate>,
) -> Result<DeviceCertificate, CodecError> {
    let certificate = required(certificate, "certificate")?;
    if certificate.der.is_empty() {
        return Err(CodecError::Missing("certificate.der"));
    }
    Ok(DeviceCertificate {
        der: certificate.der,
        not_before: time(certificate.not_before_ms),
        not_after: time(certificate.not_after_ms),
        public_key: digest("public_key", &certificate.public_key)?,
        agent_ca: certificate.agent_ca,
    })
}

pub(super) fn enrol_to(enrol: &Enrol) -> pb::Enrol {
    pb::Enrol {
        token_id: id(enrol.token.as_bytes()),
        token_digest: Bytes::copy_from_slice(&enrol.token_digest),
        device_id: id(enrol.device.as_bytes()),
        certificate: Some(certificate_to(&enrol.certificate)),
    }
}

pub(super) fn enrol_from(enrol: pb::Enrol) -> Result<Enrol, CodecError> {
    Ok(Enrol {
        token: TokenId::from_slice(&enrol.token_id)?,
        token_digest: digest("token_digest", &enrol.token_digest)?,
        device: DeviceId::from_slice(&enrol.device_id)?,
        certificate: certificate_from(enrol.certificate)?,
    })
}

pub(super) fn renew_to(renew: &Renew) -> pb::Renew {
    pb::Renew {
        device_id: id(renew.device.as_bytes()),
        certificate: Some(certificate_to(&renew.certificate)),
        old_not_before_ms: renew.old_not_before.as_millis(),
        old_not_after_ms: renew.old_not_after.as_millis(),
    }
}

pub(super) fn renew_from(renew: pb::Renew) -> Result<Renew, CodecError> {
    Ok(Renew {
        device: DeviceId::from_slice(&renew.device_id)?,
        certificate: certificate_from(renew.certificate)?,
        old_not_before: time(renew.old_not_before_ms),
        old_not_after: time(renew.old_not_after_ms),
    })
}

pub(in crate::state) fn encode_token(token: &Token) -> Bytes {
    let (device_id, group) = match &token.binding {
        TokenBinding::Device(device) => (id(device.as_bytes()), String::new()),
        TokenBinding::Group { name, .. } => (Bytes::new(), name.as_str().to_owned()),
    };
    encode(&pb::Token {
        digest: Bytes::copy_from_slice(&token.digest),
        device_id,
        group,
        count: token.binding.count(),
        used: token.used,
        issued_by: Some(actor_to(&token.issued_by)),
        issued_at_ms: token.issued_at.as_millis(),
        expires_at_ms: token.expires_at.as_millis(),
        revoked: token.revoked,
    })
}

pub(in crate::state) fn decode_token(key: &[u8], value: &Bytes) -> Result<Token, CodecError> {
    let token: pb::Token = decode(value)?;
    let binding = match optional_id(&token.device_id, DeviceId::from_slice)? {
        Some(device) => TokenBinding::Device(device),
        None => TokenBinding::group(token.group.parse()?, token.count)?,
    };
    Ok(Token {
        id: TokenId::from_slice(key)?,
        digest: digest("digest", &token.digest)?,
        binding,
        used: token.used,
        issued_by: actor_from(token.issued_by)?,
        issued_at: time(token.issued_at_ms),
        expires_at: time(token.expires_at_ms),
        revoked: token.revoked,
    })
}

pub(in crate::state) fn encode_enrolment(enrolment: &Enrolment) -> Bytes {
    encode(&pb::Enrolment {
        certificate: Some(certificate_to(&enrolment.certificate)),
        token_id: enrolment.token.as_ref().map_or_else(Bytes::new, |token| id(token.as_bytes())),
        group: enrolment.group.as_ref().map_or_else(String::new, ToString::to_string),
        enrolled_at_ms: enrolment.enrolled_at.as_millis(),
        times: enrolment.times,
        issued_at_ms: enrolment.issued_at.as_millis(),
        request_id: id(enrolment.request_id.as_bytes()),
    })
}

pub(in crate::state) fn decode_enrolment(
    key: &[u8],
    value: &Bytes,
) -> Result<Enrolment, CodecError> {
    let enrolment: pb::Enrolment = decode(value)?;
    Ok(Enrolment {
        device: DeviceId::from_slice(key)?,
        certificate: certificate_from(enrolment.certificate)?,
        token: optional_id(&enrolment.token_id, TokenId::from_slice)?,
        group: optional_group(&enrolment.group)?,
        enrolled_at: time(enrolment.enrolled_at_ms),
        times: enrolment.times,
        issued_at: time(enrolment.issued_at_ms),
        request_id: RequestId::from_slice(&enrolment.request_id)?,
    })
}

fn optional_group(name: &str) -> Result<Option<GroupName>, FieldError> {
    if name.is_empty() { Ok(None) } else { name.parse().map(Some) }
}
