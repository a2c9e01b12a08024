//! Each bad token by its own name, and keys that come, go and stay away.

use std::time::{Duration, Instant};

use jsonwebtoken::EncodingKey;
use serde_json::{Value, json};

use super::keys::KeySet;
use super::testing::*;
use super::*;
use crate::auth::TokenError;
use crate::crypto::testing::now;
use crate::domain::{Actor, Fingerprint, Role, Timestamp};

const ISSUER: &str = "https://idp.example";
const LONG: Duration = Duration::from_secs(20);

/// Keys and rules without a provider that shows them.
struct Bench {
    key: TestKey,
    set: KeySet,
    rules: TokenRules,
}

impl Bench {
    fn new() -> Self {
        let key = TestKey::ed("k1");
        let set = key_set(&[key.jwk(), TestKey::ec("k2").jwk()]);
        Self { key, set, rules: rules(ISSUER) }
    }

    fn check(&self, token: &str) -> Result<crate::auth::Caller, Refused> {
        self.check_at(token, now(), None)
    }

    fn check_at(
        &self,
        token: &str,
        now: Timestamp,
        certificate: Option<Fingerprint>,
    ) -> Result<crate::auth::Caller, Refused> {
        self.rules.check(&self.set, token, now)?.caller(certificate)
    }

    /// Why a token with these claims, laid over good ones, is refused.
    fn refusal(&self, changed: Value) -> TokenError {
        self.check(&self.key.token(&with(changed))).unwrap_err().error
    }

    fn refusal_of_header(&self, changed: Value) -> TokenError {
        let mut header = self.key.header();
        merge(&mut header, changed);
        self.check(&self.key.sign(&header, &good())).unwrap_err().error
    }
}

fn key_set(keys: &[Value]) -> KeySet {
    KeySet::parse(json!({ "keys": keys }).to_string().as_bytes()).unwrap()
}

fn good() -> Value {
    claims(ISSUER, "alice", &["help-desk", "strangers"])
}

/// Lays values over others; null takes one away.
fn merge(over: &mut Value, changed: Value) {
    let Value::Object(changed) = changed else { panic!() };
    for (name, value) in changed {
        match value {
            Value::Null => drop(over.as_object_mut().unwrap().remove(&name)),
            value => over[name] = value,
        }
    }
}

fn with(changed: Value) -> Value {
    let mut claims = good();
    merge(&mut claims, changed);
    claims
}

#[test]
fn a_good_token_proves_its_subject_and_the_roles_of_its_groups() {
    let bench = Bench::new();
    let caller = bench.check(&bench.key.token(&good())).unwrap();
    assert_eq!(caller.actor().to_string(), "oidc/https://idp.example#alice");
    assert!(matches!(caller.actor(), Actor::Oidc(_)));
    assert_eq!(caller.roles(), &[Role::HelpDesk].into());
    assert_eq!(caller.certificate(), None);
    // One group may be a text, and an audience may be several.
    let other = with(json!({ "groups": "auditor", "aud": ["x", AUDIENCE] }));
    let caller = bench.check(&bench.key.token(&other)).unwrap();
    assert_eq!(caller.roles(), &[Role::Auditor].into());
}

#[test]
fn a_token_that_is_not_signed_by_a_pinned_algorithm_is_refused() {
    let bench = Bench::new();
    // Not signed at all, in each way to write it.
    for alg in ["none", "None", ""] {
        let header = json!({ "alg": alg, "kid": "k1" });
        let token = format!("{}.", unsigned(&header, &good()));
        assert_eq!(bench.check(&token).unwrap_err().error, TokenError::Algorithm, "{alg}");
    }
    // Signed with what everybody knows: the public key, as a shared secret.
    let public = bench.key.jwk().to_string();
    for secret in [public.as_bytes(), bench.key.jwk()["x"].as_str().unwrap().as_bytes()] {
        let header = json!({ "alg": "HS256", "kid": "k1" });
        let message = unsigned(&header, &good());
        let secret = EncodingKey::from_secret(secret);
        let signed =
            jsonwebtoken::crypto::sign(message.as_bytes(), &secret, jsonwebtoken::Algorithm::HS256);
        let token = format!("{message}.{}", signed.unwrap());
        assert_eq!(bench.check(&token).unwrap_err().error, TokenError::Algorithm);
    }
    // One that the provider's key is for, and that is not allowed here.
    let mut narrow = Bench::new();
    narrow.rules.algorithms = [SigningAlgorithm::Es256].into();
    let refused = narrow.check(&narrow.key.token(&good())).unwrap_err();
    assert_eq!(refused.error, TokenError::Algorithm);
    // An algorithm that is sound, and not that of the key.
    assert_eq!(bench.refusal_of_header(json!({ "alg": "RS256" })), TokenError::Algorithm);
    assert_eq!(bench.refusal_of_header(json!({ "alg": "ES256" })), TokenError::Algorithm);
    assert_eq!(bench.refusal_of_header(json!({ "kid": "k2" })), TokenError::Algorithm);
}

#[test]
fn a_token_is_good_with_the_key_that_it_names_and_with_no_other() {
    let bench = Bench::new();
    for kid in [json!("k3"), json!(""), Value::Null] {
        assert_eq!(bench.refusal_of_header(json!({ "kid": kid })), TokenError::UnknownKey);
    }
    // A key of somebody else under the provider's name for its own.
    let foreign = TestKey::ed("k1");
    let refused = bench.check(&foreign.token(&good())).unwrap_err();
    assert_eq!((refused.error, refused.proven), (TokenError::Signature, None));
}

#[test]
fn a_token_that_was_tampered_with_is_refused() {
    let bench = Bench::new();
    let token = bench.key.token(&good());
    let parts: Vec<&str> = token.split('.').collect();
    let other = bench.key.token(&with(json!({ "groups": ["administrator"] })));
    let payload = other.split('.').nth(1).unwrap();
    let forged = format!("{}.{payload}.{}", parts[0], parts[2]);
    assert_eq!(bench.check(&forged).unwrap_err().error, TokenError::Signature);
    let cut = &token[..token.len() - 2];
    assert_eq!(bench.check(cut).unwrap_err().error, TokenError::Signature);
}

#[test]
fn what_is_no_jwt_is_malformed_and_what_is_too_long_is_not_looked_at() {
    let bench = Bench::new();
    let two_parts = unsigned(&bench.key.header(), &good());
    let four_parts = format!("{}.x", bench.key.token(&good()));
    for bad in ["", "x", "..", "a.b.c", "é.b.c", &two_parts, &four_parts] {
        let error = bench.check(bad).unwrap_err().error;
        assert!(matches!(error, TokenError::Malformed(_)), "{bad}: {error}");
    }
    let crit = bench.refusal_of_header(json!({ "crit": ["x"] }));
    assert!(matches!(crit, TokenError::Malformed(_)), "{crit}");
    let long = bench.key.token(&with(json!({ "x": "x".repeat(8000) })));
    assert_eq!(bench.check(&long).unwrap_err().error, TokenError::TooLarge(long.len()));
}

#[test]
fn a_token_of_another_issuer_or_for_somebody_else_is_refused() {
    let bench = Bench::new();
    for other in ["https://idp.example/", "https://evil.example", "HTTPS://IDP.EXAMPLE"] {
        assert_eq!(bench.refusal(json!({ "iss": other })), TokenError::Issuer);
    }
    for other in
        [json!("holdfast-cli"), json!([]), json!(["x", "y"]), json!(format!("{AUDIENCE}/"))]
    {
        assert_eq!(bench.refusal(json!({ "aud": other })), TokenError::Audience);
    }
    assert_eq!(bench.refusal(json!({ "aud": 7 })), TokenError::Claim("aud"));
    assert_eq!(bench.refusal(json!({ "iss": null })), TokenError::Claim("iss"));
}

#[test]
fn an_id_token_is_no_access_token() {
    let bench = Bench::new();
    assert_eq!(bench.refusal(json!({ "nonce": "n" })), TokenError::NotAnAccessToken);
    assert_eq!(bench.refusal(json!({ "at_hash": "h" })), TokenError::NotAnAccessToken);
    assert_eq!(
        bench.refusal_of_header(json!({ "typ": "logout+jwt" })),
        TokenError::NotAnAccessToken
    );
}

#[test]
fn a_token_is_good_in_its_time_and_15_minutes_at_most_whatever_it_says() {
    let bench = Bench::new();
    let second = now_s();
    let at = |s: u64| Timestamp::from_millis(s * 1000);
    let times =
        |iat: u64, exp: u64| bench.key.token(&with(json!({ "iat": iat, "nbf": null, "exp": exp })));
    let outcome = |token: &str, s: u64| bench.check_at(token, at(s), None).map_err(|r| r.error);

    let short = times(second, second + 60);
    assert!(outcome(&short, second + 60 + 29).is_ok(), "the clocks may differ by 30 seconds");
    assert_eq!(outcome(&short, second + 60 + 30).unwrap_err(), TokenError::Expired);
    let long = times(second, second + 86_400);
    let caller = outcome(&long, second + 900).unwrap();
    assert_eq!(caller.not_after(), at(second + 900));
    assert_eq!(outcome(&long, second + 901).unwrap_err(), TokenError::TooOld);

    assert!(outcome(&long, second - 30).is_ok());
    assert_eq!(outcome(&long, second - 31).unwrap_err(), TokenError::NotYetValid);
    let later = bench.key.token(&with(json!({ "nbf": second + 31 })));
    assert_eq!(outcome(&later, second).unwrap_err(), TokenError::NotYetValid);
    // A clock ten years off, either way.
    let decade = 10 * 365 * 86_400;
    assert_eq!(outcome(&long, second + decade).unwrap_err(), TokenError::Expired);
    assert_eq!(outcome(&long, second - decade).unwrap_err(), TokenError::NotYetValid);

    for name in ["exp", "iat"] {
        assert_eq!(bench.refusal(json!({ name: null })), TokenError::Claim(name));
        assert_eq!(bench.refusal(json!({ name: "soon" })), TokenError::Claim(name));
        assert_eq!(bench.refusal(json!({ name: -1 })), TokenError::Claim(name));
    }
    let parts = bench.key.token(&with(json!({ "iat": second as f64 + 0.5 })));
    assert!(outcome(&parts, second).is_ok());
}

#[test]
fn a_token_needs_a_subject_that_can_be_recorded() {
    let bench = Bench::new();
    assert_eq!(bench.refusal(json!({ "sub": null })), TokenError::Claim("sub"));
    for bad in ["", "a b", "a\nb", &"x".repeat(256)] {
        let error = bench.refusal(json!({ "sub": bad }));
        assert!(matches!(error, TokenError::Subject(_)), "{bad:?}: {error}");
    }
}

#[test]
fn a_token_whose_groups_have_no_role_proves_who_it_is_and_gives_nothing() {
    let bench = Bench::new();
    for groups in [json!(["strangers"]), json!([]), json!(null), json!(7), json!(["HELP-DESK"])] {
        let token = bench.key.token(&with(json!({ "groups": groups })));
        let refused = bench.check(&token).unwrap_err();
        assert_eq!(refused.error, TokenError::NoRole);
        assert_eq!(refused.proven.unwrap().subject(), "alice");
    }
}

#[test]
fn a_bound_token_is_good_with_its_certificate_only() {
    use base64::Engine as _;
    let bench = Bench::new();
    let own = Fingerprint::of(b"certificate");
    let other = Fingerprint::of(b"other");
    let thumbprint = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(own.as_bytes());
    let bound = bench.key.token(&with(json!({ "cnf": { "x5t#S256": thumbprint } })));
    let shown = |certificate| bench.check_at(&bound, now(), certificate).map_err(|r| r.error);
    assert_eq!(shown(Some(own)).unwrap().certificate(), Some(own));
    assert_eq!(shown(Some(other)).unwrap_err(), TokenError::Binding);
    assert_eq!(shown(None).unwrap_err(), TokenError::Binding);
    // Bound to something that is not looked at here.
    for cnf in [json!({ "jkt": "x" }), json!({}), json!("x"), json!({ "x5t#S256": "x" })] {
        let token = bench.key.token(&with(json!({ "cnf": cnf })));
        let refused = bench.check_at(&token, now(), Some(own)).unwrap_err();
        assert_eq!(refused.error, TokenError::Binding);
    }
    // One that is not bound may come with a certificate, which then goes along, for the deny-list.
    let free = bench.key.token(&good());
    let caller = bench.check_at(&free, now(), Some(other)).unwrap();
    assert_eq!(caller.certificate(), Some(other));
}

#[test]
fn of_a_providers_keys_only_those_for_signatures_with_an_id_of_their_own_count() {
    let key = TestKey::ed("k1");
    let changed = |change: Value| {
        let mut jwk = key.jwk();
        merge(&mut jwk, change);
        jwk
    };
    let secret = json!({ "kty": "oct", "k": "c2VjcmV0", "kid": "s", "alg": "HS256" });
    let useless = [
        secret,
        changed(json!({ "use": "enc" })),
        changed(json!({ "kid": null })),
        changed(json!({ "kty": "new", "crv": "newer" })),
        json!(7),
    ];
    for jwk in &useless {
        let text = json!({ "keys": [jwk] }).to_string();
        let found = KeySet::parse(text.as_bytes());
        assert!(matches!(found, Err(KeySetError::NoneUsable)), "{jwk}");
    }
    let mut all = useless.to_vec();
    all.push(key.jwk());
    assert_eq!(key_set(&all).len(), 1, "what is useless does no harm");
    let twice = json!({ "keys": [key.jwk(), TestKey::ed("k1").jwk()] }).to_string();
    assert!(matches!(KeySet::parse(twice.as_bytes()), Err(KeySetError::NoneUsable)));
    assert!(matches!(KeySet::parse(b"[]"), Err(KeySetError::Json(_))));
    let many = json!({ "keys": vec![key.jwk(); 101] }).to_string();
    assert!(matches!(KeySet::parse(many.as_bytes()), Err(KeySetError::TooMany(101))));
}

fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Times for a test that is not about them.
fn calm() -> KeyTimes {
    KeyTimes { refresh: LONG, max_age: LONG, pause: LONG, patience: millis(500) }
}

async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !done().await {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(millis(10)).await;
    }
}

async fn refusal(tokens: &Tokens, token: &str) -> TokenError {
    tokens.caller(token, None, now()).await.unwrap_err().error
}

#[tokio::test]
async fn the_keys_come_from_the_provider_and_the_first_call_waits_for_them() {
    let key = TestKey::ec("k1");
    let provider = TestProvider::start(&[&key]).await;
    let tokens = provider.tokens(calm());
    let token = key.token(&provider.claims("alice", &["auditor"]));
    let keeping = tokio::spawn(std::sync::Arc::clone(&tokens).keep());
    let caller = tokens.caller(&token, None, now()).await.unwrap();
    assert_eq!(caller.roles(), &[Role::Auditor].into());
    assert!(tokens.keys_age().unwrap() < LONG);
    keeping.abort();
}

#[tokio::test]
async fn a_new_key_is_asked_for_at_once_and_strangers_do_not_make_it_more_often() {
    let (old, new) = (TestKey::ed("old"), TestKey::ed("new"));
    let provider = TestProvider::start(&[&old]).await;
    let tokens = provider.tokens(KeyTimes { pause: millis(200), ..calm() });
    let keeping = tokio::spawn(std::sync::Arc::clone(&tokens).keep());
    let token = |key: &TestKey| key.token(&provider.claims("alice", &["auditor"]));
    until("the first keys", async || tokens.keys_age().is_some()).await;
    provider.show(&[&new]);
    until("the new key", async || tokens.caller(&token(&new), None, now()).await.is_ok()).await;
    // What the provider does not show any more is not good any more.
    assert_eq!(refusal(&tokens, &token(&old)).await, TokenError::UnknownKey);

    let asked = provider.asked();
    let began = Instant::now();
    let invented = TestKey::ed("invented");
    for _ in 0..50 {
        assert_eq!(refusal(&tokens, &token(&invented)).await, TokenError::UnknownKey);
    }
    let most = began.elapsed().as_millis() / 200 + 2;
    assert!(u128::from(provider.asked() - asked) <= most, "{} questions", provider.asked() - asked);
    keeping.abort();
}

#[tokio::test]
async fn keys_of_a_provider_that_is_gone_are_good_for_a_while_and_then_nothing_is() {
    let key = TestKey::ed("k1");
    let provider = TestProvider::start(&[&key]).await;
    let times = KeyTimes {
        refresh: millis(50),
        max_age: millis(4000),
        pause: millis(50),
        patience: millis(100),
    };
    let tokens = provider.tokens(times);
    let keeping = tokio::spawn(std::sync::Arc::clone(&tokens).keep());
    let token = key.token(&provider.claims("alice", &["auditor"]));
    until("the first keys", async || tokens.keys_age().is_some()).await;
    provider.set(Mood::Fails);
    let failures = tokens.failures();
    until("a failed question", async || tokens.failures() > failures).await;
    assert!(tokens.caller(&token, None, now()).await.is_ok(), "the keys are young enough");
    until("too old keys", async || {
        matches!(
            tokens.caller(&token, None, now()).await,
            Err(Refused { error: TokenError::NoKeys, .. })
        )
    })
    .await;
    provider.set(Mood::Answers);
    until("new keys", async || tokens.caller(&token, None, now()).await.is_ok()).await;
    keeping.abort();
}

#[tokio::test]
async fn no_call_waits_long_for_a_provider_that_says_nothing_and_known_keys_need_no_wait() {
    let key = TestKey::ed("k1");
    let provider = TestProvider::start(&[&key]).await;
    // What ends the wait is the patience of the call: a question to the provider may take far longer.
    let fetcher = Fetcher::new(&provider.ca_file, LONG).unwrap();
    let times = KeyTimes { pause: millis(1), patience: millis(100), ..calm() };
    let tokens = std::sync::Arc::new(Tokens::new(rules(&provider.issuer), fetcher, times));
    let keeping = tokio::spawn(std::sync::Arc::clone(&tokens).keep());
    until("the first keys", async || tokens.keys_age().is_some()).await;
    provider.set(Mood::Hangs);
    let invented = TestKey::ed("invented").token(&provider.claims("alice", &["auditor"]));
    let began = Instant::now();
    assert_eq!(refusal(&tokens, &invented).await, TokenError::UnknownKey);
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    let good = key.token(&provider.claims("alice", &["auditor"]));
    assert!(tokens.caller(&good, None, now()).await.is_ok());
    keeping.abort();
}

#[tokio::test]
async fn a_provider_that_floods_fails_poses_or_is_not_to_be_trusted_shows_no_keys() {
    let key = TestKey::ed("k1");
    let provider = TestProvider::start(&[&key]).await;
    let issuer = provider.issuer.parse().unwrap();
    for (mood, word) in [
        (Mood::Floods, "more than"),
        (Mood::Fails, "500"),
        (Mood::Hangs, "within"),
        (Mood::Poses, "its issuer is"),
    ] {
        provider.set(mood);
        let error = Metadata::discover(&provider.fetcher(), &issuer).await.unwrap_err();
        assert!(error.to_string().contains(word), "{error}");
    }
    provider.set(Mood::Answers);
    let other = TestProvider::start(&[&key]).await;
    let error = Metadata::discover(&other.fetcher(), &issuer).await.unwrap_err();
    assert!(error.to_string().contains("no connection"), "{error}");
    let read = Metadata::discover(&provider.fetcher(), &issuer).await.unwrap();
    assert_eq!(read.keys(&provider.fetcher()).await.unwrap().len(), 1);
}
