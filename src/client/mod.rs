//! The client of the API that everyone outside uses: agents, the command line, tests.
//!
//! It knows several servers, asks another one when one doesn't answer, and repeats a request byte for byte with the same
//! request id, so that nothing is done twice. It trusts one thing, the pinned node CA: servers, the escrow key and every
//! receipt must chain to it. Secrets are sealed here, before anything is sent; a recovery key never leaves in the clear,
//! is never logged, and stands in no error.

mod address;
mod admin;
mod audit;
mod bearer;
mod call;
mod chain;
mod cluster;
mod disclosure;
mod endpoint;
mod enrolment;
mod error;
mod escrow;
pub mod evidence;
#[cfg(any(all(test, feature = "server"), feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod groups;
mod operator;
mod options;
mod raw;
mod receipt;
mod recovery;
pub mod wire;

use std::future::Future;
use std::sync::Arc;

use parking_lot::Mutex;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};
use uuid::Uuid;

pub use address::Address;
pub use audit::{AuditFilter, AuditListing};
pub use chain::ChainVerifier;
pub use disclosure::ApprovalRequest;
pub use enrolment::{NewCertificate, NewToken};
pub use error::{ClientError, ErrorKind, Refusal};
pub use escrow::{EscrowKey, NewEscrow, SealedEscrow};
pub use options::{ClientOptions, IdentityFiles};
pub use raw::{EncodedEscrow, Method};
pub use receipt::Receipt;
pub use recovery::{Disclosure, DisclosureRequest, KeyQuery};

use crate::clock::{SharedClock, SystemClock};
use crate::crypto::Authority;
use crate::domain::RequestId;
use crate::tls::{Identity, TlsError, client_config};
use call::{Patience, Pool};
use endpoint::Endpoint;

/// A client of a cluster. A clone shares connections and what was learned.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    pool: Pool,
    patience: Patience,
    /// The pinned node CA.
    anchors: Authority,
    clock: SharedClock,
    /// The newest escrow key that verified.
    escrow_key: Mutex<Option<EscrowKey>>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

fn tls_config(
    options: &ClientOptions,
    anchors: &Authority,
) -> Result<Arc<rustls::ClientConfig>, ClientError> {
    let identity = match &options.identity {
        Some(files) => Some(Identity::load(&files.cert, &files.key).map_err(|error| {
            let path = match &error {
                TlsError::KeyFile { .. }
                | TlsError::KeyMode { .. }
                | TlsError::KeyContent { .. } => &files.key,
                _ => &files.cert,
            };
            ClientError::File { path: path.clone(), what: with_causes(&error) }
        })?),
        None => None,
    };
    client_config(anchors, identity.as_ref()).map_err(|error| {
        let path = options.identity.as_ref().map_or(&options.ca, |files| &files.cert);
        ClientError::File { path: path.clone(), what: with_causes(&error) }
    })
}

/// An error with all its causes, on one line.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

/// A new request id, as messages carry it.
pub fn new_request_id() -> String {
    RequestId::new(Uuid::new_v4()).to_string()
}

impl Client {
    /// Reads the files that the options name. Nothing is connected before the first call.
    ///
    /// # Errors
    /// If a file can't be read or is no certificate or key, or an address has no valid host name.
    pub fn open(options: ClientOptions) -> Result<Self, ClientError> {
        let anchors = Authority::from_pem_file("node", &options.ca).map_err(|error| {
            ClientError::File { path: options.ca.clone(), what: with_causes(&error) }
        })?;
        let config = tls_config(&options, &anchors)?;
        let endpoints = options.endpoints.into_iter();
        let endpoints = endpoints.map(|address| Endpoint::new(address, Arc::clone(&config)));
        let bearer = options.access_token.as_deref().map(bearer::read).transpose()?;
        let pool = Pool::new(endpoints.collect::<Result<_, _>>()?, bearer);
        let patience = Patience { deadline: options.deadline, attempt: options.attempt };
        let clock: SharedClock = Arc::new(SystemClock);
        let inner = Inner { pool, patience, anchors, clock, escrow_key: Mutex::new(None) };
        Ok(Self { inner: Arc::new(inner) })
    }

    fn pool(&self) -> &Pool {
        &self.inner.pool
    }

    fn patience(&self) -> Patience {
        self.inner.patience
    }

    /// A call with the client's own time limits.
    async fn call<Q, R, F, Fut>(&self, message: &Q, attempt: F) -> Result<R, ClientError>
    where
        Q: Clone,
        F: Fn(Channel, Request<Q>) -> Fut,
        Fut: Future<Output = Result<Response<R>, Status>>,
    {
        self.call_with(self.patience(), message, attempt).await
    }

    async fn call_with<Q, R, F, Fut>(
        &self,
        patience: Patience,
        message: &Q,
        attempt: F,
    ) -> Result<R, ClientError>
    where
        Q: Clone,
        F: Fn(Channel, Request<Q>) -> Fut,
        Fut: Future<Output = Result<Response<R>, Status>>,
    {
        self.pool().call(patience, message, true, attempt).await
    }

    /// Opens a stream; the time limit is for its beginning, not for all of it.
    async fn call_stream<Q, R, F, Fut>(
        &self,
        message: &Q,
        attempt: F,
    ) -> Result<Streaming<R>, ClientError>
    where
        Q: Clone,
        F: Fn(Channel, Request<Q>) -> Fut,
        Fut: Future<Output = Result<Response<Streaming<R>>, Status>>,
    {
        self.pool().call(self.patience(), message, false, attempt).await
    }
}
