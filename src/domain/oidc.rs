//! People whom an OIDC provider vouches for.

use std::fmt;
use std::str::FromStr;

use super::{FieldError, limits};

/// What an issuer begins with: nothing that is fetched in the clear is believed.
const SCHEME: &str = "https://";

/// Visible ASCII without blanks: one spelling, one line, nothing that a log or a terminal would take for something else.
fn visible(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// The URL of a provider, exactly as its tokens name it: `https://`, at most 256 bytes of visible ASCII, no query and no
/// fragment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Issuer(String);

impl Issuer {
    /// The URL.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Issuer {
    type Err = FieldError;

    fn from_str(text: &str) -> Result<Self, FieldError> {
        let host = text.strip_prefix(SCHEME).and_then(|rest| rest.split('/').next());
        let fits = host.is_some_and(|host| !host.is_empty()) && text.len() <= limits::NAME_BYTES;
        if fits && visible(text) && !text.contains(['?', '#']) {
            Ok(Self(text.to_owned()))
        } else {
            let what = "must be an https:// URL without query and fragment, at most 256 bytes";
            Err(FieldError::new("issuer", what))
        }
    }
}

impl fmt::Display for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A person as a provider names them: the issuer and the subject of a token, which together never mean anybody else. Printed
/// as `<issuer>#<subject>`; an issuer has no `#`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OidcSubject {
    issuer: Issuer,
    subject: String,
}

impl OidcSubject {
    /// From a token's `iss` and `sub`.
    ///
    /// # Errors
    /// If the subject is not 1 to 255 bytes of visible ASCII.
    pub fn new(issuer: Issuer, subject: impl Into<String>) -> Result<Self, FieldError> {
        let subject = subject.into();
        if (1..=limits::OIDC_SUBJECT_BYTES).contains(&subject.len()) && visible(&subject) {
            Ok(Self { issuer, subject })
        } else {
            Err(FieldError::new("subject", "must be 1 to 255 bytes of visible ASCII"))
        }
    }

    /// The provider.
    pub const fn issuer(&self) -> &Issuer {
        &self.issuer
    }

    /// What the provider calls the person.
    pub fn subject(&self) -> &str {
        &self.subject
    }
}

impl FromStr for OidcSubject {
    type Err = FieldError;

    fn from_str(text: &str) -> Result<Self, FieldError> {
        let bad = || FieldError::new("subject", "must be <issuer>#<subject>");
        let (issuer, subject) = text.split_once('#').ok_or_else(bad)?;
        Self::new(issuer.parse()?, subject)
    }
}

impl fmt::Display for OidcSubject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.issuer, self.subject)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_read_as_it_is_printed_also_with_a_number_sign_in_it() {
        for text in ["https://idp.example#alice", "https://idp.example:8443/realms/a#auth0|1#2"] {
            let read: OidcSubject = text.parse().unwrap();
            assert_eq!(read.to_string(), text);
        }
        let read: OidcSubject = "https://idp.example#a#b".parse().unwrap();
        assert_eq!((read.issuer().as_str(), read.subject()), ("https://idp.example", "a#b"));
    }

    #[test]
    fn an_issuer_is_an_https_url_without_query_and_fragment() {
        let long = format!("https://{}", "x".repeat(249));
        for bad in [
            "",
            "https://",
            "https:///a",
            "http://idp.example",
            "HTTPS://idp.example",
            "https://idp.example?a",
            "https://idp.example#a",
            "https://idp .example",
            "https://idp.ex\u{e4}mple",
            &long,
        ] {
            assert_eq!(bad.parse::<Issuer>().unwrap_err().field, "issuer", "{bad}");
        }
        assert!(long[..256].parse::<Issuer>().is_ok());
    }

    #[test]
    fn a_subject_has_1_to_255_visible_bytes() {
        let issuer: Issuer = "https://idp.example".parse().unwrap();
        for bad in ["", "a b", "a\nb", "\u{e4}", &"x".repeat(256)] {
            assert_eq!(OidcSubject::new(issuer.clone(), bad).unwrap_err().field, "subject");
        }
        assert!(OidcSubject::new(issuer, "x".repeat(255)).is_ok());
    }
}
