//! One server, as the client reaches it: TCP, TLS 1.3 and HTTP/2, connected on first use and again after a failure.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::Status;
use tonic::transport::{Channel, Uri};

use super::address::Address;

/// How long TCP and TLS may take together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How often an HTTP/2 ping is sent while calls are open.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
/// How long the answer to a ping may take before the connection counts as dead.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(3);

/// A server and the connection to it.
#[derive(Clone)]
pub(super) struct Endpoint {
    address: Address,
    channel: Channel,
}

/// Why no connection came to be.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("connecting failed: {0}")]
    Tcp(#[source] std::io::Error),
    #[error("{0}")]
    Untrusted(String),
    #[error("the TLS handshake failed: {0}")]
    Tls(#[source] std::io::Error),
    #[error("no connection within {0:?}")]
    Timeout(Duration),
    #[error("the server doesn't speak HTTP/2")]
    Protocol,
}

/// What a failure that no server sent was.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum LocalFailure {
    /// The connection could not be made or broke; another server or another moment may do.
    Transport { what: String, sent: bool },
    /// The server's certificate is not trusted: no retry helps.
    Untrusted(String),
    /// The server refused our certificate: no retry helps.
    IdentityRefused(String),
}

impl Endpoint {
    /// A server, not connected yet.
    pub(super) fn new(
        address: Address,
        tls: Arc<rustls::ClientConfig>,
    ) -> Result<Self, crate::domain::FieldError> {
        let bad = |what: String| crate::domain::FieldError::new("addr", what);
        let name = ServerName::try_from(address.host().to_owned())
            .map_err(|_| bad(format!("{address} has no valid host name")))?;
        let uri = Uri::try_from(format!("http://{address}"))
            .map_err(|_| bad(format!("{address} is not an address")))?;
        let connector = TlsConnector::from(tls);
        let target = address.clone();
        let connect = tower::service_fn(move |_: Uri| {
            let (connector, name, target) = (connector.clone(), name.clone(), target.clone());
            async move { connect(connector, name, target).await.map(TokioIo::new) }
        });
        let channel = tonic::transport::Endpoint::from(uri)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .initial_connection_window_size(4 * 1024 * 1024)
            .initial_stream_window_size(1024 * 1024)
            .connect_with_connector_lazy(connect);
        Ok(Self { address, channel })
    }

    /// Its address.
    pub(super) const fn address(&self) -> &Address {
        &self.address
    }

    /// Its channel; a clone is cheap and shares the connection.
    pub(super) fn channel(&self) -> Channel {
        self.channel.clone()
    }
}

async fn connect(
    connector: TlsConnector,
    name: ServerName<'static>,
    target: Address,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, ConnectError> {
    let dial = async {
        let tcp = TcpStream::connect((target.host(), target.port())).await;
        let tcp = tcp.map_err(ConnectError::Tcp)?;
        tcp.set_nodelay(true).map_err(ConnectError::Tcp)?;
        let tls = connector.connect(name, tcp).await.map_err(handshake_error)?;
        if tls.get_ref().1.alpn_protocol() == Some(b"h2") {
            Ok(tls)
        } else {
            Err(ConnectError::Protocol)
        }
    };
    match tokio::time::timeout(CONNECT_TIMEOUT, dial).await {
        Ok(result) => result,
        Err(_) => Err(ConnectError::Timeout(CONNECT_TIMEOUT)),
    }
}

fn handshake_error(error: std::io::Error) -> ConnectError {
    let rustls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match rustls {
        Some(rustls::Error::InvalidCertificate(why)) => {
            ConnectError::Untrusted(format!("its certificate is not valid: {why}"))
        }
        Some(rustls::Error::NoCertificatesPresented) => {
            ConnectError::Untrusted("it presented no certificate".to_owned())
        }
        Some(_) | None => ConnectError::Tls(error),
    }
}

/// Tells a failure of the connection from a server's answer: a status that a server sent has no source. `None` for an
/// answer.
pub(super) fn local_failure(status: &Status) -> Option<LocalFailure> {
    let mut cause: Option<&(dyn Error + 'static)> = Some(Error::source(status)?);
    let mut connecting = false;
    let mut texts: Vec<String> = Vec::new();
    while let Some(error) = cause {
        if let Some(failure) = error.downcast_ref::<ConnectError>() {
            connecting = true;
            if let ConnectError::Untrusted(what) = failure {
                return Some(LocalFailure::Untrusted(what.clone()));
            }
        }
        let text = error.to_string();
        if let Some(alert) = text.split("received fatal alert: ").nth(1)
            && is_identity_alert(alert)
        {
            return Some(LocalFailure::IdentityRefused(alert.to_owned()));
        }
        texts.push(text);
        cause = error.source();
    }
    // The innermost text says most; the outer ones are "transport error" and the like.
    let what = texts.pop().unwrap_or_else(|| status.message().to_owned());
    Some(LocalFailure::Transport { what, sent: !connecting })
}

/// Alerts of TLS 1.3 by which a server says that it doesn't take the client's certificate. After the client's half of
/// the handshake they arrive as text only: HTTP/2 keeps no typed cause.
fn is_identity_alert(alert: &str) -> bool {
    [
        "BadCertificate",
        "UnsupportedCertificate",
        "CertificateRevoked",
        "CertificateExpired",
        "CertificateUnknown",
        "CertificateRequired",
        "UnknownCA",
        "AccessDenied",
        "DecryptError",
    ]
    .iter()
    .any(|name| alert.starts_with(name))
}
