//! People with access tokens at the client port.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use crate::grpc::{Bearer, TokenMetrics};
use crate::oidc::Tokens;
use crate::tls::NamelessLimits;

use super::{ServeError, Server, ServerNode};

/// Most connections without a certificate; and as a part of all that there may be, so that they leave room for those with one.
const NAMELESS_CONNECTIONS: usize = 256;
const NAMELESS_PART: usize = 4;
/// Most of them from one address: many people may be behind one.
const NAMELESS_PER_ADDRESS: usize = 64;
/// How long one lives: no longer than any token.
const NAMELESS_AGE: Duration = Duration::from_secs(15 * 60);

impl<N: ServerNode> Server<N> {
    /// Begins to read the keys of the OIDC provider, if there is one, and to count its tokens.
    pub(super) fn keep_tokens(
        &self,
        background: &mut JoinSet<()>,
    ) -> Result<(Option<Arc<Tokens>>, TokenMetrics), ServeError> {
        let metrics = TokenMetrics::default();
        let Some(oidc) = &self.config.oidc else { return Ok((None, metrics)) };
        let tokens = Arc::new(oidc.tokens().map_err(ServeError::Provider)?);
        background.spawn(Arc::clone(&tokens).keep());
        Ok((Some(tokens), metrics))
    }

    pub(super) fn bearer(&self, tokens: Option<Arc<Tokens>>, metrics: TokenMetrics) -> Bearer<N> {
        let authorities = Arc::clone(&self.credentials.authorities);
        Bearer::new(Arc::clone(&self.context), authorities, tokens, metrics)
    }

    /// Bounds on connections that show no certificate. Without an OIDC provider none is let in.
    pub(super) fn nameless(&self) -> NamelessLimits {
        let part = (self.config.limits.max_connections / NAMELESS_PART).max(1);
        NamelessLimits {
            max_connections: part.min(NAMELESS_CONNECTIONS),
            max_per_address: NAMELESS_PER_ADDRESS,
            age: Some(NAMELESS_AGE),
        }
    }
}
