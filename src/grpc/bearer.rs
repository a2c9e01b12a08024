//! Before every call of the client port: whoever shows an access token is who the token proves, or is refused. A connection
//! without a certificate gets nothing without a token, whatever it asks for.
//!
//! The token is taken out of the call here; nothing behind this layer sees it, and nothing here logs it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll};

use http::header::AUTHORIZATION;
use http::{HeaderMap, Request, Response};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};
use zeroize::Zeroizing;

use crate::auth::{Authorities, Caller, IdentityError, TokenError, identify_once};
use crate::crypto::CertificateError;
use crate::domain::Actor;
use crate::oidc::{Refused, Tokens};
use crate::service::{Consensus, Context, ServiceError};
use crate::tls::PeerCertificates;

use super::status;

const SCHEME: &str = "bearer ";
/// What was refused, in audit records, if the certificate that came with a token is denied.
const TOKEN_CALL: &str = "AccessToken";

/// Who calls, if a token proved it.
#[derive(Debug, Clone)]
pub(super) struct TokenCaller(pub(super) Arc<Caller>);

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    result: &'static str,
}

/// Tokens that were looked at, by what became of them.
#[derive(Debug, Clone, Default)]
pub struct TokenMetrics(Family<ResultLabels, Counter>);

impl TokenMetrics {
    /// Shows them in `registry`.
    pub fn register(&self, registry: &mut Registry) {
        let help = "Access tokens that were shown, by OK or the reason of the refusal";
        registry.register("oidc_tokens", help, self.0.clone());
    }

    fn count(&self, result: &'static str) {
        self.0.get_or_create(&ResultLabels { result }).inc();
    }
}

/// Wraps a router in [`Borne`].
pub struct Bearer<C> {
    context: Arc<Context<C>>,
    authorities: Arc<Authorities>,
    /// None where tokens are not taken.
    tokens: Option<Arc<Tokens>>,
    metrics: TokenMetrics,
}

impl<C> Clone for Bearer<C> {
    fn clone(&self) -> Self {
        Self {
            context: Arc::clone(&self.context),
            authorities: Arc::clone(&self.authorities),
            tokens: self.tokens.clone(),
            metrics: self.metrics.clone(),
        }
    }
}

/// Why there is no caller.
enum Failure {
    Token(Refused),
    Other(ServiceError),
}

impl From<TokenError> for Failure {
    fn from(error: TokenError) -> Self {
        Self::Token(error.into())
    }
}

impl<C: Consensus> Bearer<C> {
    /// Tokens are checked by `tokens`, and certificates that come with them by `authorities` and the deny-list.
    pub fn new(
        context: Arc<Context<C>>,
        authorities: Arc<Authorities>,
        tokens: Option<Arc<Tokens>>,
        metrics: TokenMetrics,
    ) -> Self {
        Self { context, authorities, tokens, metrics }
    }

    /// Who shows this token. A token that is not good is refused, and never passed over in favour of a certificate: whoever
    /// shows one means it.
    async fn caller(
        &self,
        token: Result<Zeroizing<String>, TokenError>,
        peer: Option<&PeerCertificates>,
    ) -> Result<Arc<Caller>, Status> {
        let failure = match self.prove(token, peer).await {
            Ok(caller) => {
                self.metrics.count("OK");
                return Ok(Arc::new(caller));
            }
            Err(failure) => failure,
        };
        let error = match failure {
            Failure::Token(Refused { error, proven }) => {
                self.metrics.count(error.reason());
                self.context.count_token(proven, &error);
                ServiceError::Unauthenticated(IdentityError::Token(error))
            }
            Failure::Other(error) => {
                self.metrics.count("CERTIFICATE");
                error
            }
        };
        Err(self.status(&error))
    }

    async fn prove(
        &self,
        token: Result<Zeroizing<String>, TokenError>,
        peer: Option<&PeerCertificates>,
    ) -> Result<Caller, Failure> {
        let tokens = self.tokens.as_ref().ok_or(TokenError::Off)?;
        let token = token?;
        let now = self.context.now();
        let shown = peer.filter(|peer| !peer.chain().is_empty());
        let certificate = match shown {
            Some(peer) => self.operator_certificate(peer)?.certificate(),
            None => None,
        };
        tokens.caller(&token, certificate, now).await.map_err(Failure::Token)
    }

    /// The holder of the certificate that came with a token: an operator, and not denied.
    fn operator_certificate(&self, peer: &PeerCertificates) -> Result<Arc<Caller>, Failure> {
        let (cluster, now) = (self.context.cluster(), self.context.now());
        let holder = identify_once(peer, &self.authorities, cluster, now)
            .map_err(|error| Failure::Other(error.into()))?;
        if !matches!(holder.actor(), Actor::Operator(_)) {
            return Err(TokenError::ForeignCertificate.into());
        }
        self.context.refuse_denied(&holder, TOKEN_CALL).map_err(Failure::Other)?;
        Ok(holder)
    }

    fn status(&self, error: &ServiceError) -> Status {
        if let ServiceError::Store(fault) = error {
            self.context.report_fault(fault);
        }
        status::from_error(error, self.context.now())
    }

    /// The refusal of a call with neither a certificate nor a token.
    fn nobody(&self) -> Status {
        let missing = IdentityError::Certificate(CertificateError::Missing);
        self.status(&ServiceError::Unauthenticated(missing))
    }
}

/// Takes the token out of a call's headers; `None` if there is none.
fn take_token(headers: &mut HeaderMap) -> Option<Result<Zeroizing<String>, TokenError>> {
    let several = headers.get_all(AUTHORIZATION).iter().count() > 1;
    let value = headers.remove(AUTHORIZATION)?;
    if several {
        return Some(Err(TokenError::Malformed("there are several of them")));
    }
    let token = value.to_str().ok().and_then(|text| {
        let (scheme, token) = text.split_at_checked(SCHEME.len())?;
        scheme.eq_ignore_ascii_case(SCHEME).then(|| Zeroizing::new(token.trim().to_owned()))
    });
    Some(token.ok_or(TokenError::Malformed("authorization has to be `Bearer` and a token")))
}

impl<S, C: Consensus> Layer<S> for Bearer<C> {
    type Service = Borne<S, C>;

    fn layer(&self, inner: S) -> Borne<S, C> {
        Borne { inner, bearer: self.clone() }
    }
}

/// A router whose callers may be proven by tokens.
pub struct Borne<S, C> {
    inner: S,
    bearer: Bearer<C>,
}

impl<S: Clone, C> Clone for Borne<S, C> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), bearer: self.bearer.clone() }
    }
}

type CallFuture<E> = Pin<Box<dyn Future<Output = Result<Response<Body>, E>> + Send>>;

impl<S, C> Service<Request<Body>> for Borne<S, C>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    C: Consensus,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = CallFuture<S::Error>;

    fn poll_ready(&mut self, cx: &mut Task<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let token = take_token(request.headers_mut());
        let peer = request.extensions().get::<PeerCertificates>().cloned();
        let Some(token) = token else {
            if peer.is_none_or(|peer| peer.chain().is_empty()) {
                return Box::pin(std::future::ready(Ok(self.bearer.nobody().into_http())));
            }
            return Box::pin(self.inner.call(request));
        };
        // The one that said it is ready is the one to call.
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        let bearer = self.bearer.clone();
        Box::pin(async move {
            match bearer.caller(token, peer.as_ref()).await {
                Ok(caller) => {
                    request.extensions_mut().insert(TokenCaller(caller));
                    inner.call(request).await
                }
                Err(status) => Ok(status.into_http()),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn taken(values: &[&str]) -> Option<Result<String, TokenError>> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        let token = take_token(&mut headers);
        assert!(headers.is_empty(), "it goes no further");
        token.map(|token| token.map(|token| token.to_string()))
    }

    #[test]
    fn one_bearer_token_is_taken_and_anything_else_is_named() {
        assert_eq!(taken(&[]), None);
        assert_eq!(taken(&["Bearer a.b.c"]), Some(Ok("a.b.c".to_owned())));
        assert_eq!(taken(&["bearer a.b.c"]), Some(Ok("a.b.c".to_owned())));
        for bad in [["Basic YTpi"].as_slice(), &["a.b.c"], &[""], &["Bearer a", "Bearer a"]] {
            assert!(matches!(taken(bad), Some(Err(TokenError::Malformed(_)))), "{bad:?}");
        }
    }
}
