//! What a client has to know before it can call.

use std::path::PathBuf;
use std::time::Duration;

use super::address::Address;
use crate::domain::FieldError;

/// Files of a client certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityFiles {
    /// Certificate and its issuers, PEM, the certificate first.
    pub cert: PathBuf,
    /// Private key, PEM (PKCS #8).
    pub key: PathBuf,
}

/// Where the servers are, who the client is, and how long it tries.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// Servers, in the order in which they are tried at first.
    pub endpoints: Vec<Address>,
    /// The node CA, PEM: servers, receipts and the escrow key must chain to it.
    pub ca: PathBuf,
    /// The client's certificate; without one only what needs no identity works.
    pub identity: Option<IdentityFiles>,
    /// File with an access token that goes with every call; for its owner alone.
    pub access_token: Option<PathBuf>,
    /// How long a call is tried over all servers.
    pub deadline: Duration,
    /// How long one server may take to answer before another one is asked.
    pub attempt: Duration,
}

impl ClientOptions {
    /// Options for the servers of a comma-separated list, with a deadline of 15 s and 5 s for each attempt.
    ///
    /// # Errors
    /// If the list is empty or an address is not `host:port`.
    pub fn new(addresses: &str, ca: impl Into<PathBuf>) -> Result<Self, FieldError> {
        Ok(Self {
            endpoints: Address::parse_list(addresses)?,
            ca: ca.into(),
            identity: None,
            access_token: None,
            deadline: Duration::from_secs(15),
            attempt: Duration::from_secs(5),
        })
    }

    /// The same with a client certificate.
    #[must_use]
    pub fn with_identity(mut self, cert: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.identity = Some(IdentityFiles { cert: cert.into(), key: key.into() });
        self
    }

    /// The same with an access token.
    #[must_use]
    pub fn with_access_token(mut self, file: impl Into<PathBuf>) -> Self {
        self.access_token = Some(file.into());
        self
    }

    /// The same with another deadline for each call.
    #[must_use]
    pub const fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }
}
