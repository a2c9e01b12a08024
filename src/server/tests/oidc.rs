//! People with access tokens at the client port: with a certificate or without.

use serde_json::json;
use tonic::Status;

use super::rights::{Raw as _, call_with};
use super::*;
use crate::domain::{DeviceId, Fingerprint, Role};
use crate::oidc::testing::{AUDIENCE, Mood, TestKey, TestProvider};
use crate::server::config::OidcConfig;
use crate::state::{CommandBody, RefusalCount};

/// A provider with the key that it signs with.
pub(super) struct Provider {
    pub(super) shown: TestProvider,
    pub(super) key: TestKey,
}

impl Provider {
    /// A token of alice, who is in these groups.
    pub(super) fn token(&self, groups: &[&str]) -> String {
        self.key.token(&self.shown.claims("alice", groups))
    }
}

/// A server that takes the tokens of a provider; each group gives the role of its name.
pub(super) async fn running() -> (Running, Provider) {
    let key = TestKey::ed("k1");
    let shown = TestProvider::start(&[&key]).await;
    let bench = Bench::ready().await;
    let oidc = OidcConfig {
        issuer: shown.issuer.parse().unwrap(),
        audience: AUDIENCE.to_owned(),
        algorithms: [crate::oidc::SigningAlgorithm::EdDsa].into(),
        ca_file: shown.ca_file.clone(),
        group_claim: "groups".to_owned(),
        max_age_s: 900,
        leeway_s: 30,
        keys_refresh_s: 300,
        keys_max_age_s: 3600,
        roles: Role::ALL.map(|role| (role.as_str().to_owned(), [role].into())).into(),
    };
    let mut config = config(&bench, 100);
    config.oidc = Some(oidc);
    config.limits.max_connections = 40;
    (Running::start_with(bench, config).await, Provider { shown, key })
}

/// Asks for the reasons of a disclosure, which takes any role.
async fn ask(channel: &Channel, token: Option<&str>) -> Result<(), Status> {
    let bytes = v1::ListReasonsRequest {}.raw();
    call_with(channel.clone(), token, "RecoveryService/ListReasons", bytes).await
}

async fn refusal(channel: &Channel, token: &str) -> (Code, String) {
    let status = ask(channel, Some(token)).await.unwrap_err();
    (status.code(), reason(&status))
}

#[tokio::test]
async fn a_person_without_a_certificate_gets_in_with_a_token_and_nobody_without_one() {
    let (running, provider) = running().await;
    let channel = running.stranger(running.port).await.unwrap();
    ask(&channel, Some(&provider.token(&["help-desk"]))).await.unwrap();
    let nobody = ask(&channel, None).await.unwrap_err();
    let found = (nobody.code(), reason(&nobody));
    assert_eq!(found, (Code::Unauthenticated, "CERTIFICATE_INVALID".to_owned()));
    // Nor does anything else answer that was behind the handshake before.
    let request = || HealthCheckRequest { service: String::new() };
    let health = HealthClient::new(channel.clone()).check(request()).await.unwrap_err();
    assert_eq!(health.code(), Code::Unauthenticated);
    let bytes = v1::GetEscrowKeyRequest {}.raw();
    let agents = call_with(channel.clone(), None, "EscrowService/GetEscrowKey", bytes).await;
    assert_eq!(agents.unwrap_err().code(), Code::Unauthenticated);
    // With a token, health does.
    let mut asked = Request::new(request());
    let token = format!("Bearer {}", provider.token(&["auditor"]));
    asked.metadata_mut().insert("authorization", token.parse().unwrap());
    HealthClient::new(channel).check(asked).await.unwrap();
    // Who has a certificate needs no token.
    ask(&running.alice().await, None).await.unwrap();
    running.agent().await;
}

#[tokio::test]
async fn each_bad_token_has_its_own_reason_which_is_counted_and_recorded_without_the_token() {
    let (running, provider) = running().await;
    let channel = running.stranger(running.port).await.unwrap();
    let good = || provider.shown.claims("alice", &["help-desk"]);
    let with = |name: &str, value: serde_json::Value| {
        let mut claims = good();
        claims[name] = value;
        provider.key.token(&claims)
    };
    let foreign = TestKey::ed("k1").token(&good());
    let cases = [
        ("x".to_owned(), "OIDC_MALFORMED"),
        (with("x", json!("x".repeat(8000))), "OIDC_TOO_LARGE"),
        (provider.key.sign(&json!({ "alg": "none", "kid": "k1" }), &good()), "OIDC_ALGORITHM"),
        (TestKey::ed("k2").token(&good()), "OIDC_KEY_UNKNOWN"),
        (foreign, "OIDC_SIGNATURE"),
        (with("nonce", json!("n")), "OIDC_NOT_ACCESS_TOKEN"),
        (with("iss", json!("https://other.example")), "OIDC_ISSUER"),
        (with("aud", json!("other")), "OIDC_AUDIENCE"),
        (with("exp", json!(1)), "OIDC_EXPIRED"),
        (with("iat", json!(1)), "OIDC_TOO_OLD"),
        (with("nbf", json!(9_999_999_999_u64)), "OIDC_NOT_YET_VALID"),
        (with("sub", json!("a b")), "OIDC_SUBJECT"),
        (with("cnf", json!({ "x5t#S256": "x" })), "OIDC_BINDING"),
        (with("iat", json!("now")), "OIDC_CLAIM"),
    ];
    for (token, wanted) in &cases {
        let found = refusal(&channel, token).await;
        assert_eq!(found, (Code::Unauthenticated, (*wanted).to_owned()));
    }
    let nothing = refusal(&channel, &provider.token(&["strangers"])).await;
    assert_eq!(nothing, (Code::PermissionDenied, "OIDC_NO_ROLE".to_owned()));
    let (_, metrics) = running.get("/metrics").await;
    for wanted in cases.iter().map(|(_, wanted)| *wanted).chain(["OIDC_NO_ROLE"]) {
        let line = format!("holdfast_oidc_tokens_total{{result=\"{wanted}\"}} 1");
        assert!(metrics.lines().any(|found| found == line), "{line}\n{metrics}");
    }
    let (bench, _) = running.stop().await;
    let CommandBody::Refusals(refusals) = bench.last_proposal() else { panic!() };
    let of = |wanted: &str| -> Vec<&RefusalCount> {
        refusals.iter().filter(|refusal| refusal.reason.as_str() == wanted).collect()
    };
    for (_, wanted) in &cases {
        assert_eq!(of(wanted)[0].action.as_str(), "AccessToken");
    }
    // Whom the signature proves is named; of whom nothing is proven, the node speaks.
    assert!(matches!(of("OIDC_NO_ROLE")[0].actor, Actor::Oidc(_)));
    assert!(matches!(of("OIDC_TOO_OLD")[0].actor, Actor::Oidc(_)));
    assert!(matches!(of("OIDC_SIGNATURE")[0].actor, Actor::Node(_)));
    assert!(matches!(of("OIDC_AUDIENCE")[0].actor, Actor::Node(_)));
}

#[tokio::test]
async fn a_token_beside_a_certificate_decides_and_the_certificate_is_asked_for_as_well() {
    let (running, provider) = running().await;
    // Alice has all roles by her certificate; her token gives her one.
    let made = running.operators.make(&Order::actor(&operator("alice")));
    let fingerprint = Fingerprint::of(&made.certificate);
    let channel = running.connect_with(made).await;
    let auditor = provider.token(&["auditor"]);
    let find = || {
        let device = DEVICE.to_string();
        let query = Some(v1::find_keys_request::Query::DeviceId(device));
        v1::FindKeysRequest { request_id: uuid::Uuid::new_v4().to_string(), query }.raw()
    };
    let call = async |token: Option<&str>| {
        call_with(channel.clone(), token, "RecoveryService/FindKeys", find()).await.unwrap_err()
    };
    assert_eq!(call(None).await.code(), Code::NotFound, "there is no such device");
    assert_eq!(reason(&call(Some(&auditor)).await), "ROLE_MISSING");
    let help_desk = provider.token(&["help-desk"]);
    assert_eq!(call(Some(&help_desk)).await.code(), Code::NotFound);
    let proposed = running.bench.fake.proposed.lock().last().unwrap().clone();
    assert_eq!(proposed.actor.to_string(), format!("oidc/{}#alice", provider.shown.issuer));
    assert_eq!(proposed.certificate, Some(fingerprint));
    assert_eq!(proposed.roles, [Role::HelpDesk].into());
    // A bad token is not passed over in favour of the certificate.
    assert_eq!(reason(&call(Some("a.b.c")).await), "OIDC_MALFORMED");
    // A device's connection is no place for a person.
    let device = running.agent().await;
    let found = refusal(&device, &help_desk).await;
    assert_eq!(found, (Code::PermissionDenied, "OIDC_FOREIGN_CERTIFICATE".to_owned()));
    running.connect(&running.agents, &Actor::Agent(DeviceId::from_bytes([7; 16]))).await;
}

#[tokio::test]
async fn who_is_denied_is_refused_with_a_token_too_and_open_calls_end() {
    let (running, provider) = running().await;
    let channel = running.stranger(running.port).await.unwrap();
    let token = provider.token(&["help-desk"]);
    ask(&channel, Some(&token)).await.unwrap();
    let mut watching = Request::new(HealthCheckRequest { service: String::new() });
    let value = format!("Bearer {token}").parse().unwrap();
    watching.metadata_mut().insert("authorization", value);
    let mut open = HealthClient::new(channel.clone()).watch(watching).await.unwrap().into_inner();
    open.message().await.unwrap().unwrap();
    let mut admin = AdminServiceClient::new(running.alice().await);
    let deny = |subject: String| v1::DenyCertificateRequest {
        request_id: uuid::Uuid::new_v4().to_string(),
        subject,
        reason: "left".to_owned(),
    };
    let subject = format!("oidc/{}#alice", provider.shown.issuer);
    admin.deny_certificate(deny(subject)).await.unwrap();
    let ended = tokio::time::timeout(SECOND, open.message()).await.unwrap().unwrap_err();
    assert_eq!(reason(&ended), "CERTIFICATE_DENIED");
    let refused = (Code::PermissionDenied, "CERTIFICATE_DENIED".to_owned());
    assert_eq!(refusal(&channel, &token).await, refused);
    // The holder of a denied certificate gets no further with the token of somebody else.
    let bob = provider.key.token(&provider.shown.claims("bob", &["help-desk"]));
    ask(&channel, Some(&bob)).await.unwrap();
    let stolen = running.connect(&running.operators, &operator("carl")).await;
    admin.deny_certificate(deny("operator/carl".to_owned())).await.unwrap();
    assert_eq!(refusal(&stolen, &bob).await, refused);
}

#[tokio::test]
async fn a_server_without_a_provider_takes_no_tokens_and_no_connection_without_a_certificate() {
    let running = Running::start(100).await;
    let token = TestKey::ed("k1").token(&json!({}));
    let found = refusal(&running.alice().await, &token).await;
    assert_eq!(found, (Code::Unauthenticated, "OIDC_OFF".to_owned()));
    // In TLS 1.3 the client hears of it with the first answer.
    if let Ok(channel) = running.stranger(running.port).await {
        assert!(reason_of_none(&ask(&channel, None).await.unwrap_err()));
    }
    let (_, metrics) = running.get("/metrics").await;
    assert!(!metrics.contains("holdfast_client_tls_handshake_failures_total 0"), "{metrics}");
    assert!(!metrics.contains("holdfast_oidc"), "{metrics}");
}

/// Whether no server sent this.
fn reason_of_none(status: &Status) -> bool {
    status.get_details_error_info().is_none()
}

#[tokio::test]
async fn callers_with_certificates_do_not_notice_that_the_provider_is_gone() {
    let (running, provider) = running().await;
    let channel = running.stranger(running.port).await.unwrap();
    let known = provider.token(&["help-desk"]);
    ask(&channel, Some(&known)).await.unwrap();
    provider.shown.set(Mood::Hangs);
    let new_key = TestKey::ed("k2").token(&provider.shown.claims("alice", &["help-desk"]));
    let waiting: Vec<_> = (0..20)
        .map(|_| {
            let (channel, token) = (channel.clone(), new_key.clone());
            tokio::spawn(async move { refusal(&channel, &token).await })
        })
        .collect();
    let began = Instant::now();
    ask(&running.alice().await, None).await.unwrap();
    // Nor do those whose key is known.
    ask(&channel, Some(&known)).await.unwrap();
    for refused in waiting {
        assert_eq!(refused.await.unwrap().1, "OIDC_KEY_UNKNOWN");
    }
    assert!(began.elapsed() < SECOND * 5, "{:?}", began.elapsed());
}
