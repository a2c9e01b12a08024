//! tonic over turmoil's network. Callers are told by the address that they call from, and have the certificate that they
//! would have shown in a handshake; all checks of certificates above that are the product's own.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt as _, Stream};
use holdfast::domain::NodeId;
use holdfast::raft::{Dial, RaftError};
use holdfast::tls::PeerCertificates;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;
use tonic::transport::{Channel, Endpoint, Uri};
use turmoil::net::{TcpListener, TcpStream};

use super::credentials::Credentials;

/// A connection that somebody made to a simulated server.
pub(crate) struct Conn {
    stream: TcpStream,
    peer: PeerCertificates,
}

impl Connected for Conn {
    type ConnectInfo = PeerCertificates;

    fn connect_info(&self) -> PeerCertificates {
        self.peer.clone()
    }
}

impl AsyncRead for Conn {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Conn {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

/// The connections of a port.
pub(crate) async fn incoming(
    port: u16,
    credentials: Arc<Credentials>,
) -> io::Result<impl Stream<Item = io::Result<Conn>>> {
    let listener = TcpListener::bind(("0.0.0.0", port)).await?;
    Ok(async_stream::stream! {
        loop {
            let Ok((stream, remote)) = listener.accept().await else { continue };
            let host = turmoil::reverse_lookup(remote.ip()).unwrap_or_default();
            let peer = PeerCertificates::new(credentials.chain(&host), remote);
            yield Ok(Conn { stream, peer });
        }
    })
}

/// How many connections a channel has made.
pub(crate) type Connections = Arc<AtomicU64>;

/// A channel that connects when it is used, and counts its connections.
pub(crate) fn counted_channel(endpoint: &Endpoint, within: Duration) -> (Channel, Connections) {
    guarded_channel(endpoint, within, Arc::default())
}

/// The same, unless whoever connects can't.
fn guarded_channel(
    endpoint: &Endpoint,
    within: Duration,
    closed: Arc<AtomicBool>,
) -> (Channel, Connections) {
    let made = Connections::default();
    let count = Arc::clone(&made);
    let channel = endpoint.connect_with_connector_lazy(tower::service_fn(move |uri: Uri| {
        let (count, closed) = (Arc::clone(&count), closed.load(Ordering::Relaxed));
        async move {
            if closed {
                return Err(io::ErrorKind::PermissionDenied.into());
            }
            let host = uri.host().unwrap_or_default().to_owned();
            let connecting = TcpStream::connect((host, uri.port_u16().unwrap_or_default()));
            let stream = tokio::time::timeout(within, connecting).await;
            count.fetch_add(1, Ordering::Relaxed);
            Ok::<_, io::Error>(TokioIo::new(stream.map_err(io::Error::other)??))
        }
    }));
    (channel, made)
}

/// How simulated nodes reach each other.
pub(crate) struct SimDial {
    /// Whether the node can make no connections. Those that it has live on.
    pub(crate) closed: Arc<AtomicBool>,
}

impl Dial for SimDial {
    fn channel(
        &self,
        endpoint: &Endpoint,
        _to: NodeId,
        within: Duration,
    ) -> Result<Channel, RaftError> {
        Ok(guarded_channel(endpoint, within, Arc::clone(&self.closed)).0)
    }

    fn knock<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<()>> {
        let address = address.to_owned();
        async move { TcpStream::connect(address).await.map(drop) }.boxed()
    }
}
