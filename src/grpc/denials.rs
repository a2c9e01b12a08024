//! The deny-list on the wire.

use holdfast_proto::v1;

use crate::domain::{DenialSubject, FieldError, RequestId, Text};
use crate::state::Denial;

use super::decode;
use super::page::{self, Budget};

pub(super) fn decode_deny(
    request: v1::DenyCertificateRequest,
) -> Result<(RequestId, DenialSubject, Text), FieldError> {
    let id = decode::request_id(&request.request_id)?;
    let subject = decode::id("subject", &request.subject)?;
    let reason = decode::name("reason", request.reason)?;
    if reason.is_empty() {
        return Err(FieldError::new("reason", "must not be empty"));
    }
    Ok((id, subject, reason))
}

/// A page of at most `size` of these.
pub(super) fn encode_page(found: &[Denial], size: usize) -> v1::ListDenialsResponse {
    let mut budget = Budget::default();
    let denials: Vec<_> =
        found.iter().take(size).map(encode).take_while(|denial| budget.takes(denial)).collect();
    let last = denials.len().checked_sub(1).and_then(|last| found.get(last));
    let more = denials.len() < found.len();
    let token = last.filter(|_| more).map(|denial| page::token_after_denial(&denial.subject));
    v1::ListDenialsResponse { denials, next_page_token: token.unwrap_or_default() }
}

fn encode(denial: &Denial) -> v1::Denial {
    v1::Denial {
        subject: denial.subject.to_string(),
        denied_by: denial.denied_by.to_string(),
        denied_at_ms: denial.denied_at.as_millis(),
        reason: denial.reason.to_string(),
    }
}
