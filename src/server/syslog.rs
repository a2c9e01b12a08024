//! Checkpoints of the audit chain to a collector of logs: syslog (RFC 5424) over TLS (RFC 5425) or TCP (RFC 6587, octet counting).
//!
//! Syslog has no acknowledgement, and what is written to a connection may be lost with it. So checkpoints wait in a spool on disk
//! ([`spool`]), and count as handed over only when the collector has ended the connection in order after all of them: they are
//! written, this side says that it is done (close_notify, FIN), and the other side's end is waited for. A collector that died, or
//! closed with something unread, resets the connection or ends it too early; everything is written once more then, to the next one.
//! So each checkpoint gets there at least once, and may get there several times.
//!
//! Not over UDP, where it would be lost without anybody noticing, and not to the host's own `/dev/log`, which whoever has this host
//! has too.
//!
//! Nothing waits for any of this: the spool is written beside the use cases, and is bounded.

mod format;
mod spool;
#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::clock::SharedClock;
use crate::crypto::{Authority, CertificateError};
use crate::domain::Timestamp;
use crate::tls::{Connector, Identity, TlsError, collector_config};

use super::checkpoints::{CheckpointFileError, Sink as _};
use super::config::SyslogTarget;
use super::renewal::Renewal;

pub(super) use format::Origin;
pub(super) use spool::Spool;

/// How long connecting and the TLS handshake may take.
const CONNECT: Duration = Duration::from_secs(10);
/// How long the collector may take to read a batch and to end the connection.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a collector has to be there after it was sent everything: longer than bytes are under way.
const QUIET: Duration = Duration::from_secs(1);
/// Most checkpoints of one connection.
const BATCH: usize = 64;
/// Pause after the first failure, and the longest one.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Why checkpoints were not handed over.
#[derive(Debug, thiserror::Error)]
enum HandOver {
    #[error("{0}")]
    Spool(#[from] CheckpointFileError),
    #[error("audit.syslog_ca: {0}")]
    Ca(#[from] CertificateError),
    #[error("{0}")]
    Tls(#[from] TlsError),
    #[error("{0}")]
    Connection(#[from] io::Error),
    #[error("the collector did not end the connection within {} s", PATIENCE.as_secs())]
    TooLate,
    #[error("a checkpoint can't be written down: {0}")]
    Format(#[from] serde_json::Error),
    #[error("the server ends")]
    CutOff(#[from] crate::turns::CutOff),
}

/// How a collector ended a connection in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// As TCP or TLS have it.
    Said,
    /// The TCP connection was ended, and the TLS session in it was not.
    Unsaid,
}

/// The way to one collector.
pub(super) struct Syslog {
    spool: Arc<Spool>,
    target: SyslogTarget,
    ca: Option<PathBuf>,
    origin: Origin,
    clock: SharedClock,
    failing: AtomicBool,
    failures: AtomicU64,
    sent: AtomicU64,
    unsaid: AtomicU64,
}

impl Syslog {
    /// To this collector, with the CA of its certificate if it is reached by TLS.
    pub(super) fn new(
        spool: Arc<Spool>,
        target: SyslogTarget,
        ca: Option<PathBuf>,
        origin: Origin,
        clock: SharedClock,
    ) -> Self {
        let none = || AtomicU64::new(0);
        let (failures, sent, unsaid) = (none(), none(), none());
        let failing = AtomicBool::new(false);
        Self { spool, target, ca, origin, clock, failing, failures, sent, unsaid }
    }

    /// Whether checkpoints can't be kept for the collector, or could not be handed over when that was last tried.
    pub(super) fn failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed) || self.spool.failing().load(Ordering::Relaxed)
    }

    /// How often handing over failed since the start.
    pub(super) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Checkpoints that were handed over since the start.
    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Those among them whose collector ended the connection without the end of TLS.
    pub(super) fn unsaid(&self) -> u64 {
        self.unsaid.load(Ordering::Relaxed)
    }

    /// Checkpoints that wait.
    pub(super) fn waiting(&self) -> u64 {
        u64::try_from(self.spool.waiting()).unwrap_or(u64::MAX)
    }

    /// Checkpoints that gave their place to newer ones since the start.
    pub(super) fn replaced(&self) -> u64 {
        self.spool.replaced()
    }

    /// For how long the oldest checkpoint that was not handed over has been waiting.
    pub(super) fn lag(&self) -> Duration {
        let waited = |signed: Timestamp| {
            Duration::from_millis(self.clock.now().as_millis().saturating_sub(signed.as_millis()))
        };
        self.spool.oldest_signed().map_or(Duration::ZERO, waited)
    }

    /// Hands over what waits, whenever something does; for ever.
    pub(super) async fn forward(self: Arc<Self>, renewal: Arc<Renewal>) {
        let lock = self.spool.give_lock();
        let mut count = self.spool.count();
        let mut backoff = Backoff::new();
        // The sender lives as long as the spool.
        while count.wait_for(|waiting| *waiting > 0).await.is_ok() {
            let handed = self.hand_over(renewal.identity()).await;
            self.report(handed.as_ref().err());
            match handed {
                Ok(()) => backoff = Backoff::new(),
                Err(_) => tokio::time::sleep(backoff.next(crate::turns::draw())).await,
            }
        }
        drop(lock);
    }

    /// One connection with the oldest that wait.
    async fn hand_over(self: &Arc<Self>, identity: Identity) -> Result<(), HandOver> {
        let this = Arc::clone(self);
        let batch = crate::turns::blocking(move || this.spool.oldest(BATCH)).await??;
        let mut frames = Vec::new();
        for (_, checkpoint) in &batch {
            frames.extend(format::framed(&self.origin.message(checkpoint)?));
        }
        if frames.is_empty() {
            return Ok(());
        }
        let end = self.deliver(identity, &frames).await?;
        let numbers: Vec<u64> = batch.iter().map(|(number, _)| *number).collect();
        let count = u64::try_from(numbers.len()).unwrap_or(u64::MAX);
        let this = Arc::clone(self);
        crate::turns::blocking(move || this.spool.handed_over(&numbers)).await??;
        self.sent.fetch_add(count, Ordering::Relaxed);
        if end == End::Unsaid {
            self.unsaid.fetch_add(count, Ordering::Relaxed);
        }
        Ok(())
    }

    async fn deliver(&self, identity: Identity, frames: &[u8]) -> Result<End, HandOver> {
        let SyslogTarget { host, port, .. } = &self.target;
        let Some(ca) = self.ca.clone() else {
            let host = host.trim_start_matches('[').trim_end_matches(']');
            let dialled = tokio::time::timeout(CONNECT, TcpStream::connect((host, *port))).await;
            let stream = dialled.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
            return within_patience(stream, frames).await;
        };
        // Read anew each time, so that a CA may be replaced.
        let reading = crate::turns::blocking(move || Authority::from_pem_file("collector", &ca));
        let config = collector_config(&reading.await??, &identity)?;
        let stream = Connector::new(config, CONNECT).connect(host, *port).await?;
        within_patience(stream, frames).await
    }

    /// Says once that it fails, and once that it works again.
    fn report(&self, error: Option<&HandOver>) {
        let failed_before = self.failing.swap(error.is_some(), Ordering::Relaxed);
        let collector = &self.target;
        if let Some(error) = error {
            self.failures.fetch_add(1, Ordering::Relaxed);
            if !failed_before {
                tracing::error!(
                    %error, %collector,
                    "checkpoints of the audit chain don't reach the collector; they wait, and are tried again"
                );
            }
        } else if failed_before {
            tracing::info!(%collector, "checkpoints of the audit chain reach the collector again");
        }
    }
}

async fn within_patience(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    frames: &[u8],
) -> Result<End, HandOver> {
    let ended = tokio::time::timeout(PATIENCE, converse(stream, frames)).await;
    Ok(ended.map_err(|_| HandOver::TooLate)??)
}

/// Says everything, says that this was all, and waits for the other side to end. It has read all of it then: a socket that is
/// closed with something unread in it is reset. One that was closed before anything came ends in the same way as one that has read
/// all, so it has to be there a moment longer than bytes take to reach it.
async fn converse(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    frames: &[u8],
) -> io::Result<End> {
    stream.write_all(frames).await?;
    stream.flush().await?;
    let mut heard = [0; 1024];
    if let Ok(early) = tokio::time::timeout(QUIET, stream.read(&mut heard)).await
        && early? == 0
    {
        let what = "the collector ended the connection too early";
        return Err(io::Error::new(io::ErrorKind::ConnectionAborted, what));
    }
    stream.shutdown().await?;
    loop {
        match stream.read(&mut heard).await {
            Ok(0) => return Ok(End::Said),
            // A collector has nothing to say; whatever it is, it is no end.
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(End::Unsaid),
            Err(error) => return Err(error),
        }
    }
}

/// Pauses that double, each of a random length from half of it on, so that servers don't come back all at once.
struct Backoff {
    whole: Duration,
}

impl Backoff {
    const fn new() -> Self {
        Self { whole: PAUSES.0 }
    }

    fn next(&mut self, chance: u64) -> Duration {
        let whole = self.whole;
        self.whole = whole.saturating_mul(2).min(PAUSES.1);
        let half = u64::try_from(whole.as_millis()).unwrap_or(u64::MAX) / 2;
        Duration::from_millis(half.saturating_add(chance % half.saturating_add(1)))
    }
}
