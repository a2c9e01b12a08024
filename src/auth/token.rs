//! Why a token is refused.

use crate::domain::FieldError;

/// A token proves nobody, or somebody who may do nothing. None of these shows any of what the token holds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// This server takes certificates only.
    #[error("this server takes no access tokens: it has no [oidc] in its configuration")]
    Off,
    /// Not one `authorization: Bearer <JWT>`, or not of the form of a signed JWT.
    #[error("the access token is malformed: {0}")]
    Malformed(&'static str),
    /// Longer than any token of use.
    #[error("the access token has {0} bytes, more than are allowed")]
    TooLarge(usize),
    /// It was not signed, or in a way that is not allowed.
    #[error("the access token is signed by an algorithm that is not allowed here")]
    Algorithm,
    /// No key of the provider has the id that it names.
    #[error("the access token is signed by a key that the provider does not show")]
    UnknownKey,
    /// There are no keys of the provider that are young enough.
    #[error("the provider's keys could not be read for too long")]
    NoKeys,
    /// The signature is not that of the key.
    #[error("the access token's signature is not valid")]
    Signature,
    /// It is no access token, such as an ID token.
    #[error("the token is no access token")]
    NotAnAccessToken,
    /// A claim that has to be there is missing, or has no sense.
    #[error("the access token's claim {0} is missing or malformed")]
    Claim(&'static str),
    /// Another issuer.
    #[error("the access token is of another issuer")]
    Issuer,
    /// For somebody else.
    #[error("the access token is for another audience")]
    Audience,
    /// Its time is over.
    #[error("the access token has expired; log in again")]
    Expired,
    /// It was issued too long ago, whatever it says itself.
    #[error("the access token was issued too long ago; log in again")]
    TooOld,
    /// It is not valid yet, or was issued in the future.
    #[error("the access token is not valid yet: look at the clocks")]
    NotYetValid,
    /// The subject is no name that could be recorded.
    #[error("the access token's subject: {0}")]
    Subject(#[from] FieldError),
    /// It is bound to a certificate, and not to the one of this connection.
    #[error("the access token is bound to another client certificate than that of this connection")]
    Binding,
    /// It came over a connection of a device or a server.
    #[error("an access token is for people: the certificate of this connection is no operator's")]
    ForeignCertificate,
    /// None of its groups has a role here.
    #[error("none of the access token's groups has a role here")]
    NoRole,
}

impl TokenError {
    /// Why, in UPPER_SNAKE.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Off => "OIDC_OFF",
            Self::Malformed(_) => "OIDC_MALFORMED",
            Self::TooLarge(_) => "OIDC_TOO_LARGE",
            Self::Algorithm => "OIDC_ALGORITHM",
            Self::UnknownKey => "OIDC_KEY_UNKNOWN",
            Self::NoKeys => "OIDC_KEYS_UNAVAILABLE",
            Self::Signature => "OIDC_SIGNATURE",
            Self::NotAnAccessToken => "OIDC_NOT_ACCESS_TOKEN",
            Self::Claim(_) => "OIDC_CLAIM",
            Self::Issuer => "OIDC_ISSUER",
            Self::Audience => "OIDC_AUDIENCE",
            Self::Expired => "OIDC_EXPIRED",
            Self::TooOld => "OIDC_TOO_OLD",
            Self::NotYetValid => "OIDC_NOT_YET_VALID",
            Self::Subject(_) => "OIDC_SUBJECT",
            Self::Binding => "OIDC_BINDING",
            Self::ForeignCertificate => "OIDC_FOREIGN_CERTIFICATE",
            Self::NoRole => "OIDC_NO_ROLE",
        }
    }
}
