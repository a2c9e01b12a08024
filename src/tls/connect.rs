//! Dialling: TCP and TLS within one time limit, in the form that tonic's `Endpoint` takes.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower::Service;

/// Gives the configuration for a connection.
type Configs = Arc<dyn Fn() -> io::Result<Arc<ClientConfig>> + Send + Sync>;

/// Dials `host:port` of a URI and speaks TLS there. The URI's scheme has to be `http`: with `https` tonic insists on TLS
/// of its own.
#[derive(Clone)]
pub struct Connector {
    config: Configs,
    timeout: Duration,
}

impl Connector {
    /// Dials with this configuration; connecting and the handshake together may take as long as `timeout`.
    pub fn new(config: Arc<ClientConfig>, timeout: Duration) -> Self {
        Self::with(move || Ok(Arc::clone(&config)), timeout)
    }

    /// The same, with whatever configuration there is when a connection is made.
    pub fn with(
        config: impl Fn() -> io::Result<Arc<ClientConfig>> + Send + Sync + 'static,
        timeout: Duration,
    ) -> Self {
        Self { config: Arc::new(config), timeout }
    }

    /// Dials a host (a DNS name or an IP address, IPv6 with or without brackets).
    ///
    /// # Errors
    /// Names the host and port.
    pub async fn connect(&self, host: &str, port: u16) -> io::Result<TlsStream<TcpStream>> {
        let address = |kind, what: String| io::Error::new(kind, format!("{host}:{port}: {what}"));
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(bare.to_owned())
            .map_err(|error| address(io::ErrorKind::InvalidInput, error.to_string()))?;
        let dial = async {
            let stream = TcpStream::connect((bare, port)).await?;
            stream.set_nodelay(true)?;
            TlsConnector::from((self.config)()?).connect(name, stream).await
        };
        match tokio::time::timeout(self.timeout, dial).await {
            Ok(done) => done.map_err(|error| address(error.kind(), in_words(&error))),
            Err(_) => Err(address(io::ErrorKind::TimedOut, "no connection in time".to_owned())),
        }
    }
}

/// Why there is no connection. rustls puts a verifier's own reason into its text as a program would print it.
fn in_words(error: &io::Error) -> String {
    let rustls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match rustls {
        Some(rustls::Error::InvalidCertificate(rustls::CertificateError::Other(why))) => {
            format!("the certificate there is refused: {}", why.0)
        }
        _ => error.to_string(),
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let (Some(host), Some(port)) = (uri.host(), uri.port_u16()) else {
                let what = format!("{uri}: must be http://host:port");
                return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
            };
            this.connect(host, port).await.map(TokioIo::new)
        })
    }
}
