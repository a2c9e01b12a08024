//! The accept loop: TCP connections become TLS connections that tonic serves.
//!
//! Handshakes run side by side, each with a time limit, so that whoever is slow holds up nobody else. The number of
//! connections is bounded, handshakes included. Nothing that a stranger does ends the loop or reaches the log: it is
//! counted.

use std::any::Any;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Sleep;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use super::slots::{Slot, Slots};

/// Finished connections that wait for the server to take them.
const READY: usize = 64;
/// Pause after a failed accept (no file descriptors, most often), so that the loop does not spin.
const PAUSE: Duration = Duration::from_millis(50);
/// How long a refused client may take to read why.
const LINGER: Duration = Duration::from_millis(500);
/// How much of what a refused client says is heard meanwhile.
const LINGER_BYTES: usize = 64 * 1024;

/// What happened at a port since the start.
#[derive(Debug, Default)]
pub struct ConnectionCounters {
    accepted: AtomicU64,
    handshake_failed: AtomicU64,
    handshake_timed_out: AtomicU64,
    refused: AtomicU64,
    accept_failed: AtomicU64,
}

/// The values of [`ConnectionCounters`] at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ConnectionCounts {
    /// Connections whose handshake succeeded.
    pub accepted: u64,
    /// Handshakes that failed: no certificate or a wrong one, another TLS version, no TLS.
    pub handshake_failed: u64,
    /// Handshakes that took too long.
    pub handshake_timed_out: u64,
    /// Connections closed at once, because there were too many.
    pub refused: u64,
    /// Failures of accept itself.
    pub accept_failed: u64,
}

impl ConnectionCounters {
    /// The values now.
    pub fn counts(&self) -> ConnectionCounts {
        ConnectionCounts {
            accepted: self.accepted.load(Ordering::Relaxed),
            handshake_failed: self.handshake_failed.load(Ordering::Relaxed),
            handshake_timed_out: self.handshake_timed_out.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            accept_failed: self.accept_failed.load(Ordering::Relaxed),
        }
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Limits of a port.
#[derive(Debug, Clone)]
pub struct IncomingOptions {
    /// How long a handshake may take.
    pub handshake_timeout: Duration,
    /// Most connections at a time, handshakes included.
    pub max_connections: usize,
    /// Most of them from one address.
    pub max_per_address: usize,
    /// Bounds on those that show no certificate.
    pub nameless: NamelessLimits,
    /// What is counted.
    pub counters: Arc<ConnectionCounters>,
}

/// Bounds on connections without a client certificate, where they are taken beside others: whoever is behind them has proven
/// nothing yet, and must not take the places of those who have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NamelessLimits {
    /// Most of them at a time.
    pub max_connections: usize,
    /// Most of them from one address.
    pub max_per_address: usize,
    /// How long one lives; for ever if that is not said.
    pub age: Option<Duration>,
}

impl Default for NamelessLimits {
    fn default() -> Self {
        Self { max_connections: usize::MAX, max_per_address: usize::MAX, age: None }
    }
}

impl Default for IncomingOptions {
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(5),
            max_connections: 10_000,
            max_per_address: usize::MAX,
            nameless: NamelessLimits::default(),
            counters: Arc::default(),
        }
    }
}

/// Who is at the other end of a connection, as TLS verified it. One value per connection; clones share the memo.
#[derive(Clone)]
pub struct PeerCertificates {
    chain: Arc<Vec<Vec<u8>>>,
    remote: SocketAddr,
    memo: Arc<OnceLock<Box<dyn Any + Send + Sync>>>,
}

impl PeerCertificates {
    /// A chain (DER, the holder's certificate first) presented from an address.
    pub fn new(chain: Vec<Vec<u8>>, remote: SocketAddr) -> Self {
        Self { chain: Arc::new(chain), remote, memo: Arc::default() }
    }

    /// The chain, the holder's certificate first. Empty if none was presented.
    pub fn chain(&self) -> &[Vec<u8>] {
        &self.chain
    }

    /// Where the connection comes from.
    pub const fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// What was concluded from the chain: once `make` has come to a conclusion, all later calls for the connection return
    /// that. A failure is not remembered: its cause, such as a wrong clock, may pass. A value of another type that was
    /// remembered before is left alone.
    ///
    /// # Errors
    /// What `make` fails with.
    pub fn memo<T: Clone + Send + Sync + 'static, E>(
        &self,
        make: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        if let Some(known) = self.memo.get().and_then(|known| known.downcast_ref::<T>()) {
            return Ok(known.clone());
        }
        let made = make()?;
        self.memo.get_or_init(|| Box::new(made.clone()));
        Ok(made)
    }
}

impl std::fmt::Debug for PeerCertificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PeerCertificates({}, {} certificates)", self.remote, self.chain.len())
    }
}

/// A TLS connection. Counts against the limit until it is dropped.
#[derive(Debug)]
pub struct Conn {
    stream: TlsStream<TcpStream>,
    peer: PeerCertificates,
    /// When it ends, whatever goes on.
    end: Option<Pin<Box<Sleep>>>,
    _slots: (Slot, Option<Slot>),
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
        let this = self.get_mut();
        if let Some(end) = &mut this.end
            && end.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut this.stream).poll_read(context, buffer)
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

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

/// The connections of a port, as tonic's `serve_with_incoming` takes them. Never yields an error. Dropping it closes the
/// listener and all unfinished handshakes; connections that it has handed out live on.
#[derive(Debug)]
pub struct Incoming {
    ready: mpsc::Receiver<Conn>,
    // Dropping the set ends the accept loop.
    _accept: JoinSet<()>,
}

impl Stream for Incoming {
    type Item = io::Result<Conn>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.ready.poll_recv(context).map(|conn| conn.map(Ok))
    }
}

/// Accepts connections of a port, each with the configuration that is the newest then. Must be called within a tokio
/// runtime.
pub fn incoming(
    listener: TcpListener,
    config: watch::Receiver<Arc<ServerConfig>>,
    options: IncomingOptions,
) -> Incoming {
    let (sender, ready) = mpsc::channel(READY);
    let mut accept = JoinSet::new();
    accept.spawn(accept_loop(listener, config, options, sender));
    Incoming { ready, _accept: accept }
}

async fn accept_loop(
    listener: TcpListener,
    config: watch::Receiver<Arc<ServerConfig>>,
    options: IncomingOptions,
    ready: mpsc::Sender<Conn>,
) {
    let slots = Slots::new(options.max_connections, options.max_per_address);
    let nameless = Slots::new(options.nameless.max_connections, options.nameless.max_per_address);
    let mut handshakes = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = handshakes.join_next() => continue,
        };
        let (stream, remote) = match accepted {
            Ok(accepted) => accepted,
            Err(_) => {
                count(&options.counters.accept_failed);
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        // Closing at once tells a client to go to another node; a full backlog would tell it nothing.
        let Some(slot) = slots.take(remote) else {
            count(&options.counters.refused);
            continue;
        };
        let handshake = Handshake {
            acceptor: TlsAcceptor::from(Arc::clone(&config.borrow())),
            timeout: options.handshake_timeout,
            counters: options.counters.clone(),
            nameless: nameless.clone(),
            nameless_age: options.nameless.age,
            ready: ready.clone(),
        };
        handshakes.spawn(handshake.run(stream, remote, slot));
    }
}

/// Lets a refused client read why. In TLS 1.3 its own handshake is done by then, and it has begun to speak: if the socket were closed,
/// what it says would be answered with a reset, and it would hear of that before it reads the alert.
async fn linger(mut stream: TcpStream) {
    let mut heard = [0; 4096];
    let mut left = LINGER_BYTES;
    if stream.shutdown().await.is_err() {
        return;
    }
    while let Ok(more @ 1..) = stream.read(&mut heard).await {
        let Some(rest) = left.checked_sub(more) else { return };
        left = rest;
    }
}

struct Handshake {
    acceptor: TlsAcceptor,
    timeout: Duration,
    counters: Arc<ConnectionCounters>,
    nameless: Slots,
    nameless_age: Option<Duration>,
    ready: mpsc::Sender<Conn>,
}

impl Handshake {
    async fn run(self, stream: TcpStream, remote: SocketAddr, slot: Slot) {
        // A socket that refuses the option is dead already; the handshake will say so.
        drop(stream.set_nodelay(true));
        let accepting = self.acceptor.accept(stream).into_fallible();
        let stream = match tokio::time::timeout(self.timeout, accepting).await {
            Ok(Ok(stream)) => stream,
            Ok(Err((error, stream))) => {
                count(&self.counters.handshake_failed);
                tracing::debug!(%remote, %error, "TLS handshake failed");
                // Whether the client is still there to be told in time is its own affair.
                drop(tokio::time::timeout(LINGER, linger(stream)).await);
                return;
            }
            Err(_) => {
                count(&self.counters.handshake_timed_out);
                return;
            }
        };
        let presented = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let chain: Vec<_> = presented.iter().map(|der| der.to_vec()).collect();
        let (mut nameless, mut end) = (None, None);
        if chain.is_empty() {
            nameless = self.nameless.take(remote);
            if nameless.is_none() {
                count(&self.counters.refused);
                return;
            }
            end = self.nameless_age.map(|age| Box::pin(tokio::time::sleep(age)));
        }
        count(&self.counters.accepted);
        let peer = PeerCertificates::new(chain, remote);
        let sent = self.ready.send(Conn { stream, peer, end, _slots: (slot, nameless) }).await;
        // The receiver is gone: the server shuts down, and the connection closes with it.
        drop(sent);
    }
}
