//! One connection over the proxy: two streams of bytes, each under the rule of its direction.

use std::time::Duration;

use rand::Rng as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::{Rule, Rules, Shared};

/// Bytes that go on at once.
const PIECE: usize = 16 * 1024;
/// Pieces that are under way on a slow link.
const UNDER_WAY: usize = 64;
/// How long the port takes to close that nobody listens behind.
const CLOSING: Duration = Duration::from_millis(5);

/// Who sends, and who receives.
type Ends = (u64, u64);

fn rule(rules: &Rules, ends: Ends) -> Rule {
    rules.get(&ends).copied().unwrap_or_default()
}

/// What a connection goes to, and who wants to know when nobody listens there any more.
#[derive(Debug, Clone, Copy)]
pub(super) struct Behind<'a> {
    pub(super) target: &'a str,
    pub(super) gone: &'a watch::Sender<u64>,
}

impl Behind<'_> {
    async fn connect(self) -> Option<TcpStream> {
        TcpStream::connect(self.target).await.ok()
    }

    /// Closes the port if the server's process is gone: before the connection ends, as the server's own would have.
    async fn look(self) {
        if self.connect().await.is_none() {
            self.gone.send_modify(|count| *count = count.saturating_add(1));
            tokio::time::sleep(CLOSING).await;
        }
    }
}

/// Ends a connection with a reset.
fn abort(stream: TcpStream) {
    // A connection that is gone already needs none.
    drop(stream.set_zero_linger());
}

/// Carries a connection from `ends.0` to `ends.1` until it ends.
pub(super) async fn relay(shared: &Shared, mut stream: TcpStream, behind: Behind<'_>, ends: Ends) {
    let mut rules = shared.rules.subscribe();
    if rule(&rules.borrow_and_update(), ends).no_new {
        shared.touch();
        // As if no packet were answered, until the link is whole; the caller will have given up by then.
        drop(rules.wait_for(|rules| !rule(rules, ends).no_new).await);
        return abort(stream);
    }
    let Some(mut server) = behind.connect().await else {
        behind.look().await;
        return abort(stream);
    };
    // One that can't be made quick goes on all the same.
    drop((stream.set_nodelay(true), server.set_nodelay(true)));
    let reset = {
        let ((from, answers), (asks, to)) = (stream.split(), server.split());
        let there = pump(shared, from, to, ends, None);
        let back = pump(shared, asks, answers, (ends.1, ends.0), Some(behind));
        tokio::select! {
            _ = async { tokio::join!(there, back) } => false,
            reset = rules.wait_for(|rules| rule(rules, ends).reset) => reset.is_ok(),
        }
    };
    if reset {
        shared.touch();
        abort(stream);
        abort(server);
    }
}

/// Carries one direction until its sender has no more to say.
async fn pump(
    shared: &Shared,
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    ends: Ends,
    behind: Option<Behind<'_>>,
) {
    let (queue, mut queued) = mpsc::channel(UNDER_WAY);
    let read = async move {
        let mut buffer = vec![0; PIECE];
        while let Ok(length) = from.read(&mut buffer).await {
            let piece = buffer.get(..length).unwrap_or_default().to_vec();
            let last = piece.is_empty();
            if queue.send((Instant::now(), piece)).await.is_err() || last {
                break;
            }
        }
        if let Some(behind) = behind {
            behind.look().await;
        }
    };
    let write = async move {
        let mut link = Link { shared, rules: shared.rules.subscribe(), ends };
        while let Some((came, piece)) = queued.recv().await {
            link.pass(came, piece.len()).await;
            if to.write_all(&piece).await.is_err() {
                return;
            }
        }
        // One that is closed already needs no more.
        drop(to.shutdown().await);
    };
    tokio::join!(read, write);
}

/// One direction of a link.
struct Link<'a> {
    shared: &'a Shared,
    rules: watch::Receiver<Rules>,
    ends: Ends,
}

impl Link<'_> {
    /// Waits until a piece may go on.
    async fn pass(&mut self, came: Instant, length: usize) {
        let now = rule(&self.rules.borrow_and_update(), self.ends);
        if now == Rule::default() {
            return;
        }
        self.shared.touch();
        let (least, more) = now.delay;
        let late = if more > 0 { least + rand::rng().random_range(0..=more) } else { least };
        tokio::time::sleep_until(came + Duration::from_millis(late)).await;
        if let Some(rate) = now.rate.filter(|rate| *rate > 0) {
            let micros = (length as u64).saturating_mul(1_000_000).checked_div(rate).unwrap_or(0);
            tokio::time::sleep(Duration::from_micros(micros)).await;
        }
        let ends = self.ends;
        drop(self.rules.wait_for(|rules| !rule(rules, ends).hold).await);
    }
}
