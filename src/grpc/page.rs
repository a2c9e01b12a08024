//! Pages: how much fits a message, and the token of the next one.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use prost::Message;

use crate::domain::{DeviceId, FieldError, limits};

/// Bytes kept for everything of a message but its items.
const REST: usize = 4096;
/// Version of the token's layout.
const TOKEN: u8 = 1;

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
        // Tag and length of the item in front of it.
        let bytes = item.encoded_len().saturating_add(8);
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

/// The first id that a page may hold; `None` for the first page, or for the end if no id comes after.
pub(super) fn start_of(token: &str) -> Result<Option<DeviceId>, FieldError> {
    if token.is_empty() {
        return Ok(None);
    }
    let bad = || FieldError::new("page_token", "is not one that a page before has given");
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
        for bad in ["x", "AAAA", &token_after(DeviceId::from_bytes([0xff; 16]))] {
            assert_eq!(start_of(bad).unwrap_err().field, "page_token");
        }
    }

    #[test]
    fn a_page_never_outgrows_a_message() {
        let mut budget = Budget::default();
        let item = holdfast_proto::v1::Grant { operator: "x".repeat(1000), ..Default::default() };
        let taken = (0..10_000).take_while(|_| budget.takes(&item)).count();
        let page = holdfast_proto::v1::ListGrantsResponse { grants: vec![item; taken] };
        assert!(page.encoded_len() <= limits::MESSAGE_BYTES);
        assert!(page.encoded_len() > limits::MESSAGE_BYTES - 2 * REST);
    }
}
