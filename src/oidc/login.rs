//! A person's login at a provider: the authorization code flow with PKCE (RFC 6749, RFC 7636, RFC 8252), without a secret of
//! the client's.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use form_urlencoded::Serializer;
use rand::RngCore as _;
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::fetch::{FetchError, Fetcher};
use super::jwt::TOKEN_BYTES;
use super::provider::Metadata;
use crate::crypto::system_rng;
use crate::domain::Issuer;

/// Largest answer of a token endpoint, in bytes.
const ANSWER_BYTES: usize = 64 * 1024;
/// Longest word that a provider may say about a refusal and that is shown.
const WORD_BYTES: usize = 200;

/// Why a login came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// The provider does not say where to log in.
    #[error("the provider names no {0}")]
    Endpoint(&'static str),
    /// The provider refused.
    #[error("the provider refused: {0}")]
    Refused(String),
    /// The answer that came back is not that to this login.
    #[error("the answer is not for this login ({0}); nothing of it was used")]
    Foreign(&'static str),
    /// The code could not be turned into a token.
    #[error("{0}")]
    Fetch(#[from] FetchError),
    /// What the provider gave is no access token.
    #[error("the provider's answer can't be used: {0}")]
    Answer(&'static str),
}

/// Who logs in, and for what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginClient {
    /// The provider.
    pub issuer: Issuer,
    /// What the provider knows this program by.
    pub client_id: String,
    /// What is asked for, such as `openid`.
    pub scope: String,
    /// The service that the token is to be for (RFC 8707), if the provider has to be told.
    pub resource: Option<String>,
}

/// A login that has begun.
pub struct Login {
    client: LoginClient,
    redirect_uri: String,
    token_endpoint: String,
    url: String,
    state: String,
    nonce: String,
    verifier: Zeroizing<String>,
}

/// An access token, for whoever holds it.
pub struct AccessToken {
    /// The token.
    pub token: Zeroizing<String>,
    /// Whom it names, as far as its holder can tell.
    pub subject: Option<String>,
    /// When it ends, in seconds since the Unix epoch, as far as its holder can tell.
    pub expires_s: Option<u64>,
}

/// 32 random bytes in letters and digits.
fn random_word() -> String {
    let mut bytes = Zeroizing::new([0; 32]);
    system_rng().fill_bytes(bytes.as_mut());
    URL_SAFE_NO_PAD.encode(bytes.as_ref())
}

impl Login {
    /// Begins a login whose answer will come to `redirect_uri`.
    ///
    /// # Errors
    /// If the provider does not say where to log in.
    pub fn begin(
        metadata: &Metadata,
        client: LoginClient,
        redirect_uri: String,
    ) -> Result<Self, LoginError> {
        for (endpoint, name) in [
            (&metadata.authorization_endpoint, "authorization_endpoint"),
            (&metadata.token_endpoint, "token_endpoint"),
        ] {
            if !endpoint.starts_with("https://") || endpoint.contains('#') {
                return Err(LoginError::Endpoint(name));
            }
        }
        let (state, nonce, verifier) = (random_word(), random_word(), random_word());
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes()));
        let mut query = Serializer::new(String::new());
        query
            .append_pair("response_type", "code")
            .append_pair("client_id", &client.client_id)
            .append_pair("redirect_uri", &redirect_uri)
            .append_pair("scope", &client.scope)
            .append_pair("state", &state)
            .append_pair("nonce", &nonce)
            .append_pair("code_challenge", &challenge)
            .append_pair("code_challenge_method", "S256");
        if let Some(resource) = &client.resource {
            query.append_pair("resource", resource);
        }
        let endpoint = &metadata.authorization_endpoint;
        let joint = if endpoint.contains('?') { '&' } else { '?' };
        let url = format!("{endpoint}{joint}{}", query.finish());
        let token_endpoint = metadata.token_endpoint.clone();
        let verifier = Zeroizing::new(verifier);
        Ok(Self { client, redirect_uri, token_endpoint, url, state, nonce, verifier })
    }

    /// What the person opens in a browser.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The code in the query that the browser came back with.
    ///
    /// # Errors
    /// If it is not the answer to this login, or a refusal.
    pub fn code(&self, query: &str) -> Result<Zeroizing<String>, LoginError> {
        let mut fields = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            if fields.insert(name.into_owned(), value.into_owned()).is_some() {
                return Err(LoginError::Foreign("a field came twice"));
            }
        }
        let state = fields.get("state").map_or("", String::as_str);
        if !bool::from(state.as_bytes().ct_eq(self.state.as_bytes())) {
            return Err(LoginError::Foreign("another state"));
        }
        // RFC 9207: the answer may say whose it is.
        if fields.get("iss").is_some_and(|issuer| issuer != self.client.issuer.as_str()) {
            return Err(LoginError::Foreign("another issuer"));
        }
        if let Some(error) = fields.get("error") {
            return Err(LoginError::Refused(plain(error)));
        }
        let code = fields.remove("code").filter(|code| !code.is_empty());
        code.map(Zeroizing::new).ok_or(LoginError::Foreign("no code"))
    }

    /// Turns the code into a token.
    ///
    /// # Errors
    /// If the provider gives none, or one that is not for this login.
    pub async fn redeem(&self, fetcher: &Fetcher, code: &str) -> Result<AccessToken, LoginError> {
        let mut form = Serializer::new(String::new());
        form.append_pair("grant_type", "authorization_code")
            .append_pair("code", code)
            .append_pair("redirect_uri", &self.redirect_uri)
            .append_pair("client_id", &self.client.client_id)
            .append_pair("code_verifier", &self.verifier);
        if let Some(resource) = &self.client.resource {
            form.append_pair("resource", resource);
        }
        let answer = fetcher.post(&self.token_endpoint, form.finish(), ANSWER_BYTES).await?;
        self.read(&answer)
    }

    fn read(&self, answer: &[u8]) -> Result<AccessToken, LoginError> {
        #[derive(Deserialize)]
        struct Answer {
            access_token: String,
            token_type: String,
            id_token: Option<String>,
        }
        let answer: Answer = serde_json::from_slice(answer)
            .map_err(|_| LoginError::Answer("it has no access token"))?;
        if !answer.token_type.eq_ignore_ascii_case("Bearer") {
            return Err(LoginError::Answer("its token is no bearer token"));
        }
        let token = Zeroizing::new(answer.access_token);
        let fits = (1..=TOKEN_BYTES).contains(&token.len());
        if !fits || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(LoginError::Answer("its access token is empty, too long or not plain"));
        }
        self.check_id_token(answer.id_token.as_deref())?;
        let claims = claims_of(&token).unwrap_or_default();
        Ok(AccessToken {
            subject: claims.get("sub").and_then(Value::as_str).map(plain),
            expires_s: claims.get("exp").and_then(Value::as_u64),
            token,
        })
    }

    /// The ID token says whether the answer is to this login. It came over TLS from the provider itself, so that its signature
    /// need not be looked at (OpenID Connect Core 3.1.3.7); it is for nothing else.
    fn check_id_token(&self, token: Option<&str>) -> Result<(), LoginError> {
        let claims = token.and_then(claims_of);
        let claims =
            claims.ok_or(LoginError::Answer("it has no ID token, which openid asks for"))?;
        let text = |name: &str| claims.get(name).and_then(Value::as_str).unwrap_or_default();
        if !bool::from(text("nonce").as_bytes().ct_eq(self.nonce.as_bytes())) {
            return Err(LoginError::Foreign("another nonce"));
        }
        if text("iss") != self.client.issuer.as_str() {
            return Err(LoginError::Foreign("another issuer"));
        }
        let audience = match claims.get("aud") {
            Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
            Some(one) => one.as_str().into_iter().collect::<Vec<_>>(),
            None => Vec::new(),
        };
        if audience.contains(&self.client.client_id.as_str()) {
            Ok(())
        } else {
            Err(LoginError::Foreign("another client"))
        }
    }
}

/// The claims of a JWT, not proven; `None` if it is none.
fn claims_of(token: &str) -> Option<serde_json::Map<String, Value>> {
    let payload = token.split('.').nth(1)?;
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
}

/// A word of somebody else's, fit for a terminal.
fn plain(text: &str) -> String {
    let plain = |c: &char| c.is_ascii_graphic() || *c == ' ';
    text.chars().filter(plain).take(WORD_BYTES).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata() -> Metadata {
        serde_json::from_value(serde_json::json!({
            "issuer": "https://idp.example",
            "jwks_uri": "https://idp.example/keys",
            "authorization_endpoint": "https://idp.example/authorize",
            "token_endpoint": "https://idp.example/token",
        }))
        .unwrap()
    }

    fn login() -> Login {
        let client = LoginClient {
            issuer: "https://idp.example".parse().unwrap(),
            client_id: "holdfast-cli".to_owned(),
            scope: "openid".to_owned(),
            resource: Some("https://holdfast.example".to_owned()),
        };
        Login::begin(&metadata(), client, "http://127.0.0.1:7/callback".to_owned()).unwrap()
    }

    fn fields(url: &str) -> BTreeMap<String, String> {
        let (_, query) = url.split_once('?').unwrap();
        form_urlencoded::parse(query.as_bytes()).into_owned().collect()
    }

    fn jwt(claims: &Value) -> String {
        format!("e30.{}.x", URL_SAFE_NO_PAD.encode(claims.to_string()))
    }

    fn answer(login: &Login, nonce: &str) -> Vec<u8> {
        let issuer = login.client.issuer.as_str();
        let id = jwt(&serde_json::json!({ "iss": issuer, "aud": "holdfast-cli", "nonce": nonce }));
        let access = jwt(&serde_json::json!({ "sub": "alice", "exp": 7 }));
        let answer = serde_json::json!({
            "access_token": access, "token_type": "bearer", "id_token": id
        });
        answer.to_string().into_bytes()
    }

    #[test]
    fn the_url_carries_the_challenge_and_never_the_verifier() {
        let login = login();
        let fields = fields(login.url());
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(login.verifier.as_bytes()));
        assert_eq!(fields["code_challenge"], challenge);
        assert_eq!(fields["code_challenge_method"], "S256");
        assert_eq!(fields["resource"], "https://holdfast.example");
        assert!(!login.url().contains(login.verifier.as_str()));
        assert_ne!(fields["state"], fields["nonce"]);
        assert_ne!(super::tests::login().url(), login.url(), "each login has words of its own");
    }

    #[test]
    fn only_the_answer_with_the_state_of_this_login_gives_a_code() {
        let login = login();
        let state = &login.state;
        assert_eq!(*login.code(&format!("code=c1&state={state}")).unwrap(), "c1");
        for bad in [
            "code=c1".to_owned(),
            "code=c1&state=".to_owned(),
            format!("code=c1&state={state}x"),
            format!("code=c1&code=c2&state={state}"),
            format!("code=&state={state}"),
            format!("code=c1&state={state}&iss=https%3A%2F%2Fother.example"),
        ] {
            let error = login.code(&bad).unwrap_err();
            assert!(matches!(error, LoginError::Foreign(_)), "{bad}: {error}");
        }
        let refused = login.code(&format!("error=access_denied%0a&state={state}")).unwrap_err();
        assert_eq!(refused.to_string(), "the provider refused: access_denied");
    }

    #[test]
    fn a_token_counts_only_with_an_id_token_of_this_login() {
        let login = login();
        let token = login.read(&answer(&login, &login.nonce)).unwrap();
        assert_eq!((token.subject.as_deref(), token.expires_s), (Some("alice"), Some(7)));
        let other = login.read(&answer(&login, "other")).err().unwrap();
        assert!(matches!(other, LoginError::Foreign("another nonce")), "{other}");
        let without = br#"{"access_token":"a.b.c","token_type":"Bearer"}"#;
        assert!(matches!(login.read(without).err().unwrap(), LoginError::Answer(_)));
        assert!(matches!(login.read(b"{}").err().unwrap(), LoginError::Answer(_)));
    }

    #[test]
    fn a_provider_without_an_https_endpoint_is_not_logged_in_at() {
        let mut metadata = metadata();
        metadata.token_endpoint = "http://idp.example/token".to_owned();
        let begun = Login::begin(&metadata, login().client, String::new());
        assert!(matches!(begun.err().unwrap(), LoginError::Endpoint("token_endpoint")));
    }
}
