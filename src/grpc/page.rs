//! Pages: how much fits a message, and the token of the next one.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use prost::Message;

use crate::domain::{
    ApprovalId, DenialSubject, DeviceId, FieldError, KeyVersion, OperatorName, ProtectorId, Role,
    TokenId, limits,
};
use crate::state::KeyRef;

use super::{decode, encode};

/// Bytes kept for everything of a message but its items.
const REST: usize = 4096;
/// First byte of a token of devices: an id follows.
const TOKEN: u8 = 1;
/// First byte of a token of grants: the role's number and the operator's name follow.
const GRANT_TOKEN: u8 = 2;
/// First byte of a token of denials: the subject follows.
const DENIAL_TOKEN: u8 = 3;
/// First byte of a token of key versions: the key id and the version follow.
const KEY_TOKEN: u8 = 5;
/// First byte of a token of requests for approval: the number follows.
const APPROVAL_TOKEN: u8 = 8;
/// First byte of a token of enrolment tokens: an id follows.
const ENROLMENT_TOKEN: u8 = 4;

/// Bytes that a message has left for items.
pub(super) struct Budget {
    left: usize,
    taken: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { left: limits::MESSAGE_BYTES.saturating_sub(REST), taken: 0 }
    }
}

impl Budget {
    /// Whether one more item fits. The first always does: one alone is far below the limit.
    pub(super) fn takes(&mut self, item: &impl Message) -> bool {
        let length = item.encoded_len();
        // Tag and length stand in front of the item.
        let bytes = length.saturating_add(prost::length_delimiter_len(length)).saturating_add(2);
        if bytes > self.left && self.taken > 0 {
            self.left = 0;
            return false;
        }
        self.left = self.left.saturating_sub(bytes);
        self.taken = self.taken.saturating_add(1);
        true
    }
}

/// The token for a page that begins after `last`.
pub(super) fn token_after(last: DeviceId) -> String {
    let mut bytes = vec![TOKEN];
    bytes.extend_from_slice(last.as_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

fn bad_token() -> FieldError {
    FieldError::new("page_token", "is not one that a page before has given")
}

/// The token for a page of grants that begins after this one.
pub(super) fn token_after_grant(operator: &OperatorName, role: Role) -> String {
    let mut bytes = vec![GRANT_TOKEN];
    // Numbers of roles are small; one that did not fit would be refused when the token comes back.
    bytes.push(u8::try_from(i32::from(encode::role(role))).unwrap_or(0));
    bytes.extend_from_slice(operator.as_str().as_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The grant that a page begins after; `None` for the first page.
pub(super) fn grant_of(token: &str) -> Result<Option<(OperatorName, Role)>, FieldError> {
    if token.is_empty() {
        return Ok(None);
    }
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| bad_token())?;
    let [GRANT_TOKEN, role, name @ ..] = bytes.as_slice() else { return Err(bad_token()) };
    let role = decode::role("page_token", i32::from(*role)).map_err(|_| bad_token())?;
    let name = std::str::from_utf8(name).map_err(|_| bad_token())?;
    let operator = decode::operator("page_token", name).map_err(|_| bad_token())?;
    Ok(Some((operator, role)))
}

/// The token for a page of denials that begins after this one.
pub(super) fn token_after_denial(subject: &DenialSubject) -> String {
    let mut bytes = vec![DENIAL_TOKEN];
    bytes.extend_from_slice(subject.to_string().as_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The denial that a page begins after; `None` for the first page.
pub(super) fn denial_of(token: &str) -> Result<Option<DenialSubject>, FieldError> {
    if token.is_empty() {
        return Ok(None);
    }
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| bad_token())?;
    let [DENIAL_TOKEN, subject @ ..] = bytes.as_slice() else { return Err(bad_token()) };
    let subject = std::str::from_utf8(subject).map_err(|_| bad_token())?;
    subject.parse().map(Some).map_err(|_| bad_token())
}

/// The token for keys that begin after this one.
pub(super) fn token_after_key(key: KeyRef) -> String {
    let mut bytes = vec![KEY_TOKEN];
    bytes.extend_from_slice(key.protector.as_bytes());
    bytes.extend_from_slice(&key.version.get().to_be_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The key version that a page begins after; `None` for the first page.
pub(super) fn key_of(token: &str) -> Result<Option<KeyRef>, FieldError> {
    if token.is_empty() {
        return Ok(None);
    }
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| bad_token())?;
    let [KEY_TOKEN, key @ ..] = bytes.as_slice() else { return Err(bad_token()) };
    let (protector, version) = key.split_at_checked(16).ok_or_else(bad_token)?;
    let version = version.try_into().map_err(|_| bad_token())?;
    Ok(Some(KeyRef {
        protector: ProtectorId::from_slice(protector).map_err(|_| bad_token())?,
        version: KeyVersion::new(u32::from_be_bytes(version)),
    }))
}

/// The token for a page of enrolment tokens that begins after this one.
pub(super) fn token_after_token(last: TokenId) -> String {
    URL_SAFE_NO_PAD.encode([&[ENROLMENT_TOKEN], last.as_bytes().as_slice()].concat())
}

/// The enrolment token that a page begins after; `None` for the first page.
pub(super) fn token_id_of(token: &str) -> Result<Option<TokenId>, FieldError> {
    if token.is_empty() {
        return Ok(None);
    }
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| bad_token())?;
    let [ENROLMENT_TOKEN, id @ ..] = bytes.as_slice() else { return Err(bad_token()) };
    TokenId::from_slice(id).map(Some).map_err(|_| bad_token())
}

/// The token for a page of requests for approval that begins after this one.
pub(super) fn token_after_approval(last: ApprovalId) -> String {
    URL_SAFE_NO_PAD.encode([&[APPROVAL_TOKEN], last.get().to_be_bytes().as_slice()].concat())
}

/// The request for approval that a page begins after; `None` for the first page.
pub(super) fn approval_of(token: &str) -> Result<Option<ApprovalId>, FieldError> {
    if token.is_empty() {
        return Ok(None);
    }
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| bad_token())?;
    let [APPROVAL_TOKEN, number @ ..] = bytes.as_slice() else { return Err(bad_token()) };
    let number = number.try_into().map_err(|_| bad_token())?;
    ApprovalId::new(u64::from_be_bytes(number)).map(Some).map_err(|_| bad_token())
}

/// The first id that a page may hold; `None` for the first page, or for the end if no id comes after.
pub(super) fn start_of(token: &str) -> Result<Option<DeviceId>, FieldError> {
    if token.is_empty() {
        return Ok(None);
    }
    let bad = bad_token;
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| bad())?;
    let last = match bytes.split_first() {
        Some((&TOKEN, id)) => DeviceId::from_slice(id).map_err(|_| bad())?,
        _ => return Err(bad()),
    };
    let next = u128::from_be_bytes(*last.as_bytes()).checked_add(1).ok_or_else(bad)?;
    Ok(Some(DeviceId::from_bytes(next.to_be_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_leads_to_the_id_after_the_last_one() {
        let last = DeviceId::from_bytes([7; 16]);
        let mut next = [7; 16];
        next[15] = 8;
        assert_eq!(start_of(&token_after(last)), Ok(Some(DeviceId::from_bytes(next))));
        assert_eq!(start_of(""), Ok(None));
    }

    #[test]
    fn a_made_up_token_is_refused() {
        let alice = "alice".parse().unwrap();
        let of_grants = token_after_grant(&alice, Role::Auditor);
        for bad in ["x", "AAAA", &token_after(DeviceId::from_bytes([0xff; 16])), &of_grants] {
            assert_eq!(start_of(bad).unwrap_err().field, "page_token");
        }
        let no_role = URL_SAFE_NO_PAD.encode(b"\x02\x09alice");
        let nobody = URL_SAFE_NO_PAD.encode(b"\x02\x01");
        let of_devices = token_after(DeviceId::from_bytes([7; 16]));
        for bad in ["x", "AAAA", "Ag", &no_role, &nobody, &of_devices] {
            assert_eq!(grant_of(bad).unwrap_err().field, "page_token");
        }
    }

    #[test]
    fn a_token_of_grants_names_the_last_one() {
        for role in Role::ALL {
            let longest: OperatorName = "o".repeat(limits::NAME_BYTES).parse().unwrap();
            let token = token_after_grant(&longest, role);
            assert_eq!(grant_of(&token), Ok(Some((longest, role))));
        }
        assert_eq!(grant_of(""), Ok(None));
    }

    #[test]
    fn a_token_of_denials_names_the_last_one() {
        for subject in ["node/3", "operator/alice", &format!("sha256:{}", "0f".repeat(32))] {
            let subject: DenialSubject = subject.parse().unwrap();
            assert_eq!(denial_of(&token_after_denial(&subject)), Ok(Some(subject)));
        }
        assert_eq!(denial_of(""), Ok(None));
        let nobody = URL_SAFE_NO_PAD.encode(b"\x03alice");
        for bad in ["x", "AAAA", "Aw", &nobody, &token_after(DeviceId::from_bytes([7; 16]))] {
            assert_eq!(denial_of(bad).unwrap_err().field, "page_token");
        }
    }

    #[test]
    fn a_token_of_requests_for_approval_names_the_last_one() {
        let last = ApprovalId::after(16);
        assert_eq!(approval_of(&token_after_approval(last)), Ok(Some(last)));
        assert_eq!(approval_of(""), Ok(None));
        let zero = URL_SAFE_NO_PAD.encode([&[APPROVAL_TOKEN][..], &[0; 8]].concat());
        let of_devices = token_after(DeviceId::from_bytes([7; 16]));
        for bad in ["x", "AAAA", "CA", &zero, &of_devices] {
            assert_eq!(approval_of(bad).unwrap_err().field, "page_token");
        }
    }

    #[test]
    fn a_page_never_outgrows_a_message() {
        let mut budget = Budget::default();
        let item = holdfast_proto::v1::Grant { operator: "x".repeat(1000), ..Default::default() };
        let taken = (0..10_000).take_while(|_| budget.takes(&item)).count();
        let page = holdfast_proto::v1::ListGrantsResponse {
            grants: vec![item; taken],
            ..Default::default()
        };
        assert!(page.encoded_len() <= limits::MESSAGE_BYTES);
        assert!(page.encoded_len() > limits::MESSAGE_BYTES - 2 * REST);
    }
}
