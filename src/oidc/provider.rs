//! What a provider says about itself (OpenID Connect Discovery).

use serde::Deserialize;

use super::fetch::{FetchError, Fetcher};
use super::keys::{KeySet, KeySetError};
use crate::domain::Issuer;

/// Largest description of a provider, in bytes.
const METADATA_BYTES: usize = 64 * 1024;
/// Largest set of keys, in bytes.
const KEYS_BYTES: usize = 256 * 1024;
const WELL_KNOWN: &str = ".well-known/openid-configuration";

/// Why a provider can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// It gave no answer.
    #[error("{url}: {source}")]
    Fetch {
        /// What was asked for.
        url: String,
        /// Why there is none.
        source: FetchError,
    },
    /// Its description is none.
    #[error("{url}: this is no description of a provider: {what}")]
    Metadata {
        /// Where it was.
        url: String,
        /// What is wrong.
        what: String,
    },
    /// Its keys are none.
    #[error("{url}: {source}")]
    Keys {
        /// Where they were.
        url: String,
        /// What is wrong.
        source: KeySetError,
    },
}

/// A provider's description of itself.
#[derive(Debug, Clone, Deserialize)]
pub struct Metadata {
    issuer: String,
    jwks_uri: String,
    #[serde(default)]
    pub(super) authorization_endpoint: String,
    #[serde(default)]
    pub(super) token_endpoint: String,
}

impl Metadata {
    /// Asks a provider, and checks that it is the one that was meant.
    ///
    /// # Errors
    /// If there is no answer, or it is another provider's.
    pub async fn discover(fetcher: &Fetcher, issuer: &Issuer) -> Result<Self, ProviderError> {
        let url = format!("{}/{WELL_KNOWN}", issuer.as_str().trim_end_matches('/'));
        let bytes = match fetcher.get(&url, METADATA_BYTES).await {
            Ok(bytes) => bytes,
            Err(source) => return Err(ProviderError::Fetch { url, source }),
        };
        let read: Result<Self, _> = serde_json::from_slice(&bytes);
        let what = match read {
            // Another spelling would be another issuer, and so another person in each of its tokens.
            Ok(read) if read.issuer == issuer.as_str() => return Ok(read),
            Ok(read) => format!("its issuer is {:?}, not {issuer}", read.issuer),
            Err(error) => error.to_string(),
        };
        Err(ProviderError::Metadata { url, what })
    }

    /// The keys that it shows now.
    ///
    /// # Errors
    /// If there is no answer, or no key in it that can be used.
    pub async fn keys(&self, fetcher: &Fetcher) -> Result<KeySet, ProviderError> {
        let url = || self.jwks_uri.clone();
        let bytes = fetcher.get(&self.jwks_uri, KEYS_BYTES).await;
        let bytes = bytes.map_err(|source| ProviderError::Fetch { url: url(), source })?;
        KeySet::parse(&bytes).map_err(|source| ProviderError::Keys { url: url(), source })
    }
}
