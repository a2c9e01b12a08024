//! Enrolment tokens: what an administrator hands to whoever sets a device up.

use std::fmt;
use std::str::FromStr;

use rand::CryptoRng;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::domain::{FieldError, TokenId};

/// What the text of a token begins with; 96 hexadecimal digits follow.
pub const TOKEN_PREFIX: &str = "holdfast-enrol-v1:";
const LABEL: &[u8] = b"holdfast enrolment token v1\0";
const ID_BYTES: usize = 16;
const BYTES: usize = 48;

/// An enrolment token: an id, which may be known, and a secret of 32 bytes. Wiped from memory when dropped, never printed.
pub struct EnrolmentToken(Zeroizing<[u8; BYTES]>);

impl EnrolmentToken {
    /// Makes a new one.
    pub fn generate(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        let mut bytes = Zeroizing::new([0; BYTES]);
        rng.fill_bytes(bytes.as_mut());
        Self(bytes)
    }

    /// Its id.
    pub fn id(&self) -> TokenId {
        let mut id = [0; ID_BYTES];
        for (to, from) in id.iter_mut().zip(self.0.iter()) {
            *to = *from;
        }
        TokenId::from_bytes(id)
    }

    /// What the cluster keeps of it. The secret has 256 bits of randomness, so that nothing slower than a hash is needed.
    pub fn digest(&self) -> [u8; 32] {
        Sha256::new().chain_update(LABEL).chain_update(self.0.as_ref()).finalize().into()
    }

    /// Its text.
    pub fn expose_text(&self) -> Zeroizing<String> {
        let mut digits = Zeroizing::new([0; 2 * BYTES]);
        let mut text = Zeroizing::new(String::with_capacity(TOKEN_PREFIX.len() + 2 * BYTES));
        text.push_str(TOKEN_PREFIX);
        if hex::encode_to_slice(self.0.as_ref(), digits.as_mut()).is_ok() {
            text.extend(digits.iter().copied().map(char::from));
        }
        text
    }
}

impl FromStr for EnrolmentToken {
    type Err = FieldError;

    fn from_str(text: &str) -> Result<Self, FieldError> {
        let bad =
            || FieldError::new("token", "must be holdfast-enrol-v1: and 96 hexadecimal digits");
        let digits = text.strip_prefix(TOKEN_PREFIX).ok_or_else(bad)?;
        let mut bytes = Zeroizing::new([0; BYTES]);
        hex::decode_to_slice(digits, bytes.as_mut()).map_err(|_| bad())?;
        Ok(Self(bytes))
    }
}

impl fmt::Debug for EnrolmentToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EnrolmentToken({}, [redacted])", self.id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::system_rng;

    #[test]
    fn a_token_is_read_as_it_is_printed_and_by_nothing_else() {
        let token = EnrolmentToken::generate(&mut system_rng());
        let text = token.expose_text();
        let read: EnrolmentToken = text.parse().unwrap();
        assert_eq!((read.id(), read.digest()), (token.id(), token.digest()));
        for bad in ["", "holdfast-enrol-v1:", &text[1..], &text[..text.len() - 2]] {
            assert_eq!(bad.parse::<EnrolmentToken>().unwrap_err().field, "token", "{bad}");
        }
        assert!(format!("{}0", text.as_str()).parse::<EnrolmentToken>().is_err());
    }

    #[test]
    fn a_token_is_not_printed_and_its_digest_is_none_of_its_bytes() {
        let token = EnrolmentToken(Zeroizing::new([7; BYTES]));
        let shown = format!("{token:?}");
        assert_eq!(shown, "EnrolmentToken(07070707-0707-0707-0707-070707070707, [redacted])");
        let digest = Sha256::digest([LABEL, &[7; BYTES]].concat());
        assert_eq!(token.digest(), <[u8; 32]>::from(digest));
        let page = include_str!("../../docs/formats-sealing.md");
        assert!(page.contains(&format!("token digest      {}", hex::encode(digest))));
    }
}
