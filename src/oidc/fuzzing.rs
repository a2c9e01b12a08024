//! Tokens of whoever calls, and what a provider answers.

use std::sync::OnceLock;

use serde_json::Value;

use super::jwt::{Checked, Claims};
use super::provider::Metadata;
use super::{KeySet, SigningAlgorithm, TokenRules};
use crate::domain::{Actor, Fingerprint, Role};
use crate::fuzzing::NOW;

/// The key that the seeds are signed with.
const KEYS: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"k1","use":"sig","alg":"EdDSA","x":"6kpsY-KcUgq-9VB7Ey7F-ZVHdq6-vnuSQh7qaRRG0iw"}]}"#;
const ISSUER: &str = "https://idp.example";

fn fixed() -> &'static (TokenRules, KeySet) {
    static FIXED: OnceLock<(TokenRules, KeySet)> = OnceLock::new();
    #[allow(clippy::unwrap_used, reason = "both are constants")]
    FIXED.get_or_init(|| {
        let rules = TokenRules {
            issuer: ISSUER.parse().unwrap(),
            audience: "holdfast".to_owned(),
            algorithms: SigningAlgorithm::ALL.iter().copied().collect(),
            group_claim: "groups".to_owned(),
            roles: [("desk".to_owned(), [Role::HelpDesk].into())].into(),
            max_age_s: 900,
            leeway_s: 30,
        };
        (rules, KeySet::parse(KEYS.as_bytes()).unwrap())
    })
}

/// Whoever a token proves has a name that is read as it is printed, and roles that were given.
fn stands(checked: Checked) -> bool {
    let caller = checked.caller(Some(Fingerprint::from_bytes([7; 32])));
    caller.is_ok_and(|caller| {
        let actor = caller.actor();
        assert!(matches!(actor, Actor::Oidc(_)));
        assert_eq!(actor.to_string().parse().as_ref(), Ok(actor));
        assert_eq!(caller.roles(), &[Role::HelpDesk].into());
        true
    })
}

/// Checks a token; and claims, as if a provider had signed them.
pub(crate) fn access_token(bytes: &[u8]) -> bool {
    let (rules, keys) = fixed();
    let token = std::str::from_utf8(bytes).ok().and_then(|text| rules.check(keys, text, NOW).ok());
    let claims = serde_json::from_slice(bytes).ok().and_then(|claims| match claims {
        Value::Object(claims) => rules.check_claims(&Claims(claims), NOW).ok(),
        _ => None,
    });
    token.or(claims).is_some_and(stands)
}

/// Reads a provider's description of itself, or its keys.
pub(crate) fn provider(bytes: &[u8]) -> bool {
    let metadata: Result<Metadata, _> = serde_json::from_slice(bytes);
    KeySet::parse(bytes).is_ok() || metadata.is_ok()
}

#[cfg(test)]
pub(crate) fn seeds() -> Vec<crate::fuzzing::Seed> {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use jsonwebtoken::{Algorithm, EncodingKey};
    use serde_json::json;

    let pkcs8 = [&hex::decode("302e020100300506032b657004220420").unwrap()[..], &[7; 32]].concat();
    let now = NOW.as_millis() / 1000;
    let claims = json!({
        "iss": ISSUER, "aud": ["holdfast", "x"], "sub": "auth0|alice", "groups": ["desk", "x"],
        "iat": now, "nbf": now, "exp": now + 600,
        "cnf": { "x5t#S256": URL_SAFE_NO_PAD.encode([7; 32]) },
    });
    let header = json!({ "alg": "EdDSA", "kid": "k1", "typ": "at+jwt" });
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(&header), part(&claims));
    let key = EncodingKey::from_ed_der(&pkcs8);
    let signed = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::EdDSA).unwrap();
    let metadata = json!({
        "issuer": ISSUER, "jwks_uri": "https://idp.example/keys",
        "authorization_endpoint": "https://idp.example/authorize",
        "token_endpoint": "https://idp.example/token",
    });
    vec![
        ("access_token", "token".to_owned(), format!("{message}.{signed}").into_bytes()),
        ("access_token", "claims".to_owned(), claims.to_string().into_bytes()),
        ("provider", "keys".to_owned(), KEYS.as_bytes().to_vec()),
        ("provider", "metadata".to_owned(), metadata.to_string().into_bytes()),
    ]
}
