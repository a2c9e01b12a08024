//! Whom and what an administrator shuts out.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};

use super::{Actor, FieldError};

/// What a fingerprint begins with when it is printed.
const PREFIX: &str = "sha256:";

/// SHA-256 over a certificate's DER. Printed as `sha256:` and 64 hexadecimal digits.
///
/// A certificate is denied by this and not by issuer and serial number: it is what `openssl x509 -fingerprint -sha256` and
/// every other tool prints, it has one length and one spelling (names of issuers and leading zeros of serial numbers have
/// several), and it needs no trust in a CA never to give a number twice. The signature within the hashed bytes can't be
/// written in another way by who holds the certificate: Ed25519 is verified strictly, and so is DER.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Of a certificate in DER.
    pub fn of(certificate: &[u8]) -> Self {
        Self(Sha256::digest(certificate).into())
    }

    /// From its bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// From as many bytes as it has.
    ///
    /// # Errors
    /// If there are not 32 of them.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, FieldError> {
        bytes.try_into().map(Self).map_err(|_| FieldError::new("certificate", "must have 32 bytes"))
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", hex::encode(self.0))
    }
}

/// What somebody who is denied is told. Who did that and why is not for them.
pub fn denied_words(actor: &Actor) -> String {
    match actor {
        Actor::Oidc(_) => format!("{actor} was denied by an administrator"),
        Actor::Node(_) | Actor::Agent(_) | Actor::Operator(_) => {
            format!("the certificate of {actor} was denied by an administrator")
        }
    }
}

/// A row of the deny-list: all certificates or tokens of somebody, or one certificate.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DenialSubject {
    /// Whoever proves to be this, by whatever certificate or token.
    Identity(Actor),
    /// Whoever shows this certificate.
    Certificate(Fingerprint),
}

impl fmt::Display for DenialSubject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Identity(actor) => actor.fmt(f),
            Self::Certificate(fingerprint) => fingerprint.fmt(f),
        }
    }
}

impl FromStr for DenialSubject {
    type Err = FieldError;

    /// Exactly what it is printed as, but that a fingerprint may have colons between its bytes and capital letters, as
    /// other tools print it.
    fn from_str(text: &str) -> Result<Self, FieldError> {
        let bad = || {
            let what = "must be node/<id>, agent/<device>, operator/<name>, oidc/<issuer>#<subject> or sha256:<64 hex digits>";
            FieldError::new("subject", what)
        };
        let Some(digits) = text.strip_prefix(PREFIX) else {
            let actor: Actor = text.parse().map_err(|_| bad())?;
            // One spelling each: an entry that nobody could ever match would be a false comfort.
            return if actor.to_string() == text { Ok(Self::Identity(actor)) } else { Err(bad()) };
        };
        let bytes = hex::decode(digits.replace(':', "")).map_err(|_| bad())?;
        Fingerprint::from_slice(&bytes).map(Self::Certificate).map_err(|_| bad())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_read_as_it_is_printed() {
        for text in [
            "node/3",
            "agent/01010101-0101-0101-0101-010101010101",
            "operator/alice",
            "oidc/https://idp.example/realm#auth0|alice",
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        ] {
            let subject: DenialSubject = text.parse().unwrap();
            assert_eq!(subject.to_string(), text);
        }
    }

    #[test]
    fn a_fingerprint_may_be_pasted_as_openssl_prints_it() {
        let plain = DenialSubject::Certificate(Fingerprint::of(b""));
        let pairs = hex::encode_upper(Fingerprint::of(b"").as_bytes());
        let pairs: Vec<_> =
            pairs.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap()).collect();
        assert_eq!(format!("sha256:{}", pairs.join(":")).parse(), Ok(plain));
    }

    #[test]
    fn what_could_never_match_anybody_is_no_subject() {
        for bad in
            ["", "alice", "node/0", "node/01", "robot/1", "operator/", "sha256:", "sha256:00"]
        {
            assert_eq!(bad.parse::<DenialSubject>().unwrap_err().field, "subject", "{bad}");
        }
        let upper = "agent/ABABABAB-0101-0101-0101-010101010101";
        assert_eq!(upper.parse::<DenialSubject>().unwrap_err().field, "subject");
    }
}
