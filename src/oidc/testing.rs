//! A provider on loopback for tests, with keys of its own, that can be made to do what providers do on a bad day.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use jsonwebtoken::{Algorithm, EncodingKey};
use parking_lot::Mutex;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519};
use rustls::ServerConfig;
use rustls_pki_types::PrivatePkcs8KeyDer;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::{Fetcher, KeyTimes, SigningAlgorithm, TokenRules, Tokens};
use crate::crypto::certificate_pem;
use crate::crypto::testing::{Order, TestCa, now};
use crate::domain::Role;

pub(crate) const AUDIENCE: &str = "https://holdfast.example";

/// A key pair of a provider.
pub(crate) struct TestKey {
    pub(crate) id: &'static str,
    algorithm: Algorithm,
    key: EncodingKey,
    public: Vec<u8>,
}

impl TestKey {
    pub(crate) fn ed(id: &'static str) -> Self {
        let pair = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let key = EncodingKey::from_ed_der(&pair.serialize_der());
        Self { id, algorithm: Algorithm::EdDSA, key, public: pair.public_key_raw().to_vec() }
    }

    pub(crate) fn ec(id: &'static str) -> Self {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let key = EncodingKey::from_ec_der(&pair.serialize_der());
        Self { id, algorithm: Algorithm::ES256, key, public: pair.public_key_raw().to_vec() }
    }

    pub(crate) fn jwk(&self) -> Value {
        let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let mut jwk = if self.algorithm == Algorithm::ES256 {
            // Not compressed: a mark, and both coordinates.
            let (x, y) = self.public[1..].split_at(32);
            json!({ "kty": "EC", "crv": "P-256", "x": part(x), "y": part(y), "alg": "ES256" })
        } else {
            json!({ "kty": "OKP", "crv": "Ed25519", "x": part(&self.public), "alg": "EdDSA" })
        };
        jwk["kid"] = self.id.into();
        jwk["use"] = "sig".into();
        jwk
    }

    /// A token with this header and these claims, whatever they say.
    pub(crate) fn sign(&self, header: &Value, claims: &Value) -> String {
        let message = unsigned(header, claims);
        let signed = jsonwebtoken::crypto::sign(message.as_bytes(), &self.key, self.algorithm);
        format!("{message}.{}", signed.unwrap())
    }

    pub(crate) fn header(&self) -> Value {
        let algorithm = serde_json::to_value(self.algorithm).unwrap();
        json!({ "alg": algorithm, "kid": self.id, "typ": "at+jwt" })
    }

    /// A token as the provider would make it.
    pub(crate) fn token(&self, claims: &Value) -> String {
        self.sign(&self.header(), claims)
    }
}

pub(crate) fn unsigned(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}", part(header), part(claims))
}

pub(crate) fn now_s() -> u64 {
    now().as_millis() / 1000
}

/// Claims of a good token of a person in these groups.
pub(crate) fn claims(issuer: &str, subject: &str, groups: &[&str]) -> Value {
    let now = now_s();
    json!({
        "iss": issuer, "aud": AUDIENCE, "sub": subject, "groups": groups,
        "iat": now, "nbf": now, "exp": now + 600,
    })
}

/// What a group of the same name gives.
pub(crate) fn rules(issuer: &str) -> TokenRules {
    TokenRules {
        issuer: issuer.parse().unwrap(),
        audience: AUDIENCE.to_owned(),
        algorithms: [SigningAlgorithm::EdDsa, SigningAlgorithm::Es256].into(),
        group_claim: "groups".to_owned(),
        roles: Role::ALL.map(|role| (role.as_str().to_owned(), [role].into())).into(),
        max_age_s: 900,
        leeway_s: 30,
    }
}

/// What the provider does when it is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mood {
    Answers,
    Fails,
    Hangs,
    Floods,
    /// It says that it is another one.
    Poses,
}

struct State {
    mood: Mood,
    keys: Vec<Value>,
    asked: u64,
}

/// A running provider; gone when it is dropped.
pub(crate) struct TestProvider {
    pub(crate) issuer: String,
    pub(crate) ca_file: PathBuf,
    state: Arc<Mutex<State>>,
    _dir: tempfile::TempDir,
    _server: JoinSet<()>,
}

impl TestProvider {
    pub(crate) async fn start(keys: &[&TestKey]) -> Self {
        let ca = TestCa::new("provider");
        let dir = tempfile::tempdir().unwrap();
        let ca_file = dir.path().join("ca.pem");
        let mut file = std::fs::File::create(&ca_file).unwrap();
        let pem = certificate_pem(&ca.authority().certificates()[0]);
        std::io::Write::write_all(&mut file, pem.as_bytes()).unwrap();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let issuer = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let keys = keys.iter().map(|key| key.jwk()).collect();
        let state = Arc::new(Mutex::new(State { mood: Mood::Answers, keys, asked: 0 }));
        let mut server = JoinSet::new();
        let (shared, own) = (Arc::clone(&state), issuer.clone());
        server.spawn(serve(listener, acceptor(&ca), shared, own));
        Self { issuer, ca_file, state, _dir: dir, _server: server }
    }

    pub(crate) fn set(&self, mood: Mood) {
        self.state.lock().mood = mood;
    }

    pub(crate) fn show(&self, keys: &[&TestKey]) {
        self.state.lock().keys = keys.iter().map(|key| key.jwk()).collect();
    }

    /// How often it was asked for its description.
    pub(crate) fn asked(&self) -> u64 {
        self.state.lock().asked
    }

    pub(crate) fn fetcher(&self) -> Fetcher {
        Fetcher::new(&self.ca_file, Duration::from_millis(500)).unwrap()
    }

    pub(crate) fn tokens(&self, times: KeyTimes) -> Arc<Tokens> {
        Arc::new(Tokens::new(rules(&self.issuer), self.fetcher(), times))
    }

    pub(crate) fn claims(&self, subject: &str, groups: &[&str]) -> Value {
        claims(&self.issuer, subject, groups)
    }
}

fn acceptor(ca: &TestCa) -> TlsAcceptor {
    let made = ca.make(&Order::node(1));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.certificate], PrivatePkcs8KeyDer::from(made.private_key).into())
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

async fn serve(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    state: Arc<Mutex<State>>,
    issuer: String,
) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (acceptor, state, issuer) = (acceptor.clone(), Arc::clone(&state), issuer.clone());
        connections.spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let service = service_fn(|request: Request<Incoming>| {
                let (state, issuer) = (Arc::clone(&state), issuer.clone());
                let describes = request.uri().path().ends_with("/openid-configuration");
                async move { Ok::<_, Infallible>(answer(describes, &state, &issuer).await) }
            });
            drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
        });
    }
}

async fn answer(describes: bool, state: &Mutex<State>, issuer: &str) -> Response<Full<Bytes>> {
    let (mood, keys) = {
        let mut state = state.lock();
        state.asked += u64::from(describes);
        (state.mood.clone(), state.keys.clone())
    };
    let named = if mood == Mood::Poses { "https://localhost:1" } else { issuer };
    let body = if describes {
        json!({ "issuer": named, "jwks_uri": format!("{issuer}/keys") }).to_string()
    } else {
        json!({ "keys": keys }).to_string()
    };
    let body = match mood {
        Mood::Answers | Mood::Poses => body,
        Mood::Floods => " ".repeat(1024 * 1024),
        Mood::Hangs => std::future::pending().await,
        Mood::Fails => {
            let mut response = Response::new(Full::default());
            *response.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR;
            return response;
        }
    };
    Response::new(Full::new(body.into()))
}
