//! What an access token proves: a JWT (RFC 7519, RFC 9068), checked from the outside to the inside, each fault by its name.
//!
//! Pure: keys and the time are handed in.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::KeyAlgorithm;
use jsonwebtoken::{Algorithm, Validation};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::keys::KeySet;
use crate::auth::{Caller, TokenError};
use crate::domain::{FieldError, Fingerprint, Issuer, OidcSubject, Role, Timestamp};

/// Longest token, in bytes; all headers of a call together have at most twice as much.
pub(super) const TOKEN_BYTES: usize = 8 * 1024;

macro_rules! algorithms {
    ($($(#[$doc:meta])* $variant:ident = $name:literal as $jwt:ident,)*) => {
        /// How a token may be signed: with a private key, which nobody but the provider has.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum SigningAlgorithm { $($(#[$doc])* $variant,)* }

        impl SigningAlgorithm {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// Its name in a token.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            const fn jwt(self) -> Algorithm {
                match self { $(Self::$variant => Algorithm::$jwt,)* }
            }
        }
    };
}

algorithms! {
    /// ECDSA on P-256 with SHA-256.
    Es256 = "ES256" as ES256,
    /// ECDSA on P-384 with SHA-384.
    Es384 = "ES384" as ES384,
    /// Ed25519.
    EdDsa = "EdDSA" as EdDSA,
    /// RSASSA-PSS with SHA-256.
    Ps256 = "PS256" as PS256,
    /// RSASSA-PSS with SHA-384.
    Ps384 = "PS384" as PS384,
    /// RSASSA-PSS with SHA-512.
    Ps512 = "PS512" as PS512,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256 = "RS256" as RS256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    Rs384 = "RS384" as RS384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    Rs512 = "RS512" as RS512,
}

impl FromStr for SigningAlgorithm {
    type Err = FieldError;

    fn from_str(text: &str) -> Result<Self, FieldError> {
        Self::ALL.iter().copied().find(|one| one.as_str() == text).ok_or_else(|| {
            let names = Self::ALL.iter().map(|one| one.as_str()).collect::<Vec<_>>().join(", ");
            FieldError::new("algorithm", format!("{text:?} is none of {names}"))
        })
    }
}

/// Which tokens are good, and what they are good for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRules {
    /// The provider.
    pub issuer: Issuer,
    /// Whom its tokens have to be for.
    pub audience: String,
    /// How they may be signed.
    pub algorithms: BTreeSet<SigningAlgorithm>,
    /// The claim that names a person's groups.
    pub group_claim: String,
    /// The roles of each group.
    pub roles: BTreeMap<String, BTreeSet<Role>>,
    /// How old a token may be, whatever it says itself, in seconds.
    pub max_age_s: u64,
    /// How far the provider's clock may be off, in seconds.
    pub leeway_s: u64,
}

/// A token that is refused, and who is behind it if so much is proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Why.
    pub error: TokenError,
    /// Whom its signature names; `None` if it does not hold, or is for others.
    pub proven: Option<OidcSubject>,
}

impl From<TokenError> for Refused {
    fn from(error: TokenError) -> Self {
        Self { error, proven: None }
    }
}

/// A token that is good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Checked {
    subject: OidcSubject,
    roles: BTreeSet<Role>,
    not_after: Timestamp,
    /// The certificate that has to be shown with it.
    binding: Option<Fingerprint>,
}

impl Checked {
    /// Who calls over a connection with this certificate, or with none.
    pub(super) fn caller(self, certificate: Option<Fingerprint>) -> Result<Caller, Refused> {
        let Self { subject, roles, not_after, binding } = self;
        let refused = |error| Err(Refused { error, proven: Some(subject.clone()) });
        if binding.is_some() && binding != certificate {
            return refused(TokenError::Binding);
        }
        if roles.is_empty() {
            return refused(TokenError::NoRole);
        }
        Ok(Caller::by_token(subject, not_after, roles, certificate))
    }
}

/// What is looked at of a token's header.
#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: String,
    #[serde(default)]
    typ: Option<String>,
    /// Extensions that have to be understood: none is.
    #[serde(default)]
    crit: Option<Value>,
}

impl TokenRules {
    /// Checks a token by the keys that the provider shows.
    pub(super) fn check(
        &self,
        keys: &KeySet,
        token: &str,
        now: Timestamp,
    ) -> Result<Checked, Refused> {
        self.check_claims(&Claims(self.verified(keys, token)?), now)
    }

    /// The same for claims whose signature holds.
    pub(super) fn check_claims(&self, claims: &Claims, now: Timestamp) -> Result<Checked, Refused> {
        self.check_meaning(claims)?;
        let subject = self.subject(claims)?;
        let refused = |error| Refused { error, proven: Some(subject.clone()) };
        let not_after = self.check_time(claims, now).map_err(refused)?;
        let binding = claims.binding().map_err(refused)?;
        let roles = self.roles_of(claims);
        Ok(Checked { subject, roles, not_after, binding })
    }

    /// The claims, whose signature holds.
    fn verified(&self, keys: &KeySet, token: &str) -> Result<Map<String, Value>, TokenError> {
        if token.len() > TOKEN_BYTES {
            return Err(TokenError::TooLarge(token.len()));
        }
        let header = header_of(token)?;
        let pinned = header.alg.parse::<SigningAlgorithm>().ok();
        let algorithm = pinned.filter(|alg| self.algorithms.contains(alg));
        let algorithm = algorithm.ok_or(TokenError::Algorithm)?.jwt();
        if header.crit.is_some() {
            return Err(TokenError::Malformed("it has critical extensions"));
        }
        if !header.typ.as_deref().is_none_or(is_type_of_access_tokens) {
            return Err(TokenError::NotAnAccessToken);
        }
        let key = keys.get(&header.kid).ok_or(TokenError::UnknownKey)?;
        let other = key.algorithm.is_some_and(|only| only != KeyAlgorithm::from(algorithm));
        if other || key.family != algorithm.family() {
            return Err(TokenError::Algorithm);
        }
        let decoded = jsonwebtoken::decode(token, &key.decoding, &signature_only(algorithm));
        let decoded = decoded.map_err(|error| match error.kind() {
            ErrorKind::InvalidSignature => TokenError::Signature,
            ErrorKind::InvalidAlgorithm => TokenError::Algorithm,
            _ => TokenError::Malformed("its payload can't be read"),
        })?;
        Ok(decoded.claims)
    }

    /// Whether it is an access token of this provider for this service.
    fn check_meaning(&self, claims: &Claims) -> Result<(), TokenError> {
        if claims.text("iss").ok_or(TokenError::Claim("iss"))? != self.issuer.as_str() {
            return Err(TokenError::Issuer);
        }
        let audience = claims.texts("aud").ok_or(TokenError::Claim("aud"))?;
        if !audience.contains(&self.audience.as_str()) {
            return Err(TokenError::Audience);
        }
        // What an ID token tells a client about a login. It is for the client, who may pass it on to anybody.
        if ["nonce", "at_hash", "c_hash"].iter().any(|name| claims.0.contains_key(*name)) {
            return Err(TokenError::NotAnAccessToken);
        }
        Ok(())
    }

    fn subject(&self, claims: &Claims) -> Result<OidcSubject, TokenError> {
        let subject = claims.text("sub").ok_or(TokenError::Claim("sub"))?;
        Ok(OidcSubject::new(self.issuer.clone(), subject)?)
    }

    /// Until when it is good.
    fn check_time(&self, claims: &Claims, now: Timestamp) -> Result<Timestamp, TokenError> {
        let now = now.as_millis() / 1000;
        let latest = now.saturating_add(self.leeway_s);
        let expires = claims.seconds("exp")?.ok_or(TokenError::Claim("exp"))?;
        let issued = claims.seconds("iat")?.ok_or(TokenError::Claim("iat"))?;
        if claims.seconds("nbf")?.is_some_and(|from| from > latest) || issued > latest {
            return Err(TokenError::NotYetValid);
        }
        if expires.saturating_add(self.leeway_s) <= now {
            return Err(TokenError::Expired);
        }
        // No leeway here: the limit is this cluster's own, by its own clock.
        let oldest = issued.saturating_add(self.max_age_s);
        if oldest < now {
            return Err(TokenError::TooOld);
        }
        let until = expires.saturating_add(self.leeway_s).min(oldest);
        Ok(Timestamp::from_millis(until.saturating_mul(1000)))
    }

    fn roles_of(&self, claims: &Claims) -> BTreeSet<Role> {
        let groups = claims.texts(&self.group_claim).unwrap_or_default();
        let roles = groups.into_iter().filter_map(|group| self.roles.get(group));
        roles.flatten().copied().collect()
    }
}

fn header_of(token: &str) -> Result<Header, TokenError> {
    let malformed = TokenError::Malformed("it has not the three parts of a signed JWT");
    let parts: Vec<&str> = token.splitn(4, '.').collect();
    let [header, payload, _] = parts[..] else { return Err(malformed) };
    if header.is_empty() || payload.is_empty() {
        return Err(malformed);
    }
    let bytes = URL_SAFE_NO_PAD.decode(header);
    let bytes = bytes.map_err(|_| TokenError::Malformed("its header is no base64url"))?;
    serde_json::from_slice(&bytes).map_err(|_| TokenError::Malformed("its header can't be read"))
}

/// `at+jwt` is what RFC 9068 wants; many providers still write `JWT`.
fn is_type_of_access_tokens(typ: &str) -> bool {
    ["at+jwt", "application/at+jwt", "JWT"].iter().any(|known| known.eq_ignore_ascii_case(typ))
}

/// Checks the signature and nothing else: the library would take the time from the machine, and tell less of what is wrong.
fn signature_only(algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation.required_spec_claims.clear();
    validation
}

/// Claims whose signature holds.
pub(super) struct Claims(pub(super) Map<String, Value>);

impl Claims {
    fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str()
    }

    /// One text or several; `None` if it is anything else.
    fn texts(&self, name: &str) -> Option<Vec<&str>> {
        match self.0.get(name)? {
            Value::String(one) => Some(vec![one]),
            Value::Array(several) => several.iter().map(Value::as_str).collect(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => None,
        }
    }

    /// A time in seconds since the Unix epoch; parts of a second are cut off.
    fn seconds(&self, name: &'static str) -> Result<Option<u64>, TokenError> {
        let Some(value) = self.0.get(name) else { return Ok(None) };
        let whole = value.as_u64().or_else(|| {
            let parts = value.as_f64().filter(|parts| (0.0..1e15).contains(parts))?;
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "within the range just checked"
            )]
            Some(parts as u64)
        });
        whole.map(Some).ok_or(TokenError::Claim(name))
    }

    /// The certificate that it is bound to (RFC 8705). Bound to something that can't be checked here, it is good for nobody.
    fn binding(&self) -> Result<Option<Fingerprint>, TokenError> {
        let Some(confirmation) = self.0.get("cnf") else { return Ok(None) };
        let thumbprint = confirmation.get("x5t#S256").and_then(Value::as_str);
        let bytes = thumbprint.and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
        let bound = bytes.and_then(|bytes| Fingerprint::from_slice(&bytes).ok());
        bound.map(Some).ok_or(TokenError::Binding)
    }
}
