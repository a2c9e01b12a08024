//! Requests on their way to a follower, and whether anything of them is held up.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use parking_lot::Mutex;
use prost::Message;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// How long a follower may take to answer a small request before its stream is given up and opened again.
pub(super) const APPEND_TIMEOUT: Duration = Duration::from_secs(2);
/// A large one may take longer: a link that carries no more than this, 128 kbit/s, still gets a batch of the largest size
/// through. With one and the same limit for all it would be sent for ever and never arrive.
const LEAST_BYTES_A_SECOND: usize = 16 * 1024;

/// What is known of one stream of requests.
#[derive(Debug, Clone)]
pub(super) struct Traffic(Arc<Mutex<Standing>>);

#[derive(Debug)]
struct Standing {
    /// When each request that is not answered yet was taken, and its bytes. The answers come in the same order.
    under_way: VecDeque<(Instant, usize)>,
    /// Whether the connection last asked for a request when there was none. A connection can live and take nothing.
    drained: bool,
    /// When the last answer came; at first, when the stream began.
    heard: Instant,
}

impl Default for Traffic {
    fn default() -> Self {
        let (under_way, heard) = (VecDeque::new(), Instant::now());
        Self(Arc::new(Mutex::new(Standing { under_way, drained: false, heard })))
    }
}

impl Traffic {
    /// Until when the next answer has to come; none while everything is answered and nothing is to be sent.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let standing = self.0.lock();
        match standing.under_way.front() {
            Some((taken, bytes)) => {
                let patience = APPEND_TIMEOUT.saturating_add(transfer_time(*bytes));
                standing.heard.max(*taken).checked_add(patience)
            }
            None if standing.drained => None,
            None => standing.heard.checked_add(APPEND_TIMEOUT),
        }
    }

    /// An answer has come.
    pub(super) fn answered(&self) {
        let mut standing = self.0.lock();
        standing.under_way.pop_front();
        standing.heard = Instant::now();
    }

    /// The same requests, noted as they are taken.
    pub(super) fn note<S: Stream + Unpin>(&self, requests: S) -> Noted<S> {
        Noted { requests, traffic: self.clone() }
    }
}

/// How long so many bytes take on the slowest link that is good enough.
fn transfer_time(bytes: usize) -> Duration {
    let millis = bytes.saturating_mul(1000) / LEAST_BYTES_A_SECOND;
    Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
}

/// Requests that are noted as they are taken.
pub(super) struct Noted<S> {
    requests: S,
    traffic: Traffic,
}

impl<S: Stream<Item: Message> + Unpin> Stream for Noted<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        let polled = Pin::new(&mut self.requests).poll_next(cx);
        let mut standing = self.traffic.0.lock();
        if let Poll::Ready(Some(request)) = &polled {
            standing.under_way.push_back((Instant::now(), request.encoded_len()));
        }
        standing.drained = polled.is_pending();
        drop(standing);
        polled
    }
}

/// While it lives the answers to requests are wanted.
pub(super) struct Wanted {
    _sender: oneshot::Sender<Infallible>,
}

/// The same requests, which end when what is returned with them is dropped. The connection goes on to take requests when nobody
/// waits for the answers any more; those of openraft hold a lock while they wait for entries, and share the entries with its next
/// stream to the same follower.
pub(super) fn while_wanted<S: Stream>(requests: S) -> (Wanted, impl Stream<Item = S::Item>) {
    let (sender, given_up) = oneshot::channel();
    (Wanted { _sender: sender }, requests.take_until(given_up))
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt as _, stream};

    use super::*;

    #[test]
    fn requests_end_when_their_answers_are_given_up() {
        let (wanted, requests) = while_wanted(stream::iter([1]).chain(stream::pending()));
        let mut requests = Box::pin(requests);
        assert_eq!(requests.next().now_or_never(), Some(Some(1)));
        assert_eq!(requests.next().now_or_never(), None);
        drop(wanted);
        assert_eq!(requests.next().now_or_never(), Some(None));
    }

    /// A request of about so many bytes.
    fn request(bytes: usize) -> prost::bytes::Bytes {
        prost::bytes::Bytes::from(vec![0; bytes])
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_waited_for_only_when_all_was_taken_and_answered() {
        let traffic = Traffic::default();
        let mut requests =
            traffic.note(stream::iter([request(1), request(2)]).chain(stream::pending()));
        assert!(traffic.deadline().is_some(), "nobody has asked for the first yet");
        assert!(requests.next().now_or_never().is_some());
        traffic.answered();
        assert!(traffic.deadline().is_some(), "there is a second one, which nobody asks for");
        assert!(requests.next().now_or_never().is_some());
        assert!(requests.next().now_or_never().is_none());
        assert!(traffic.deadline().is_some(), "the second one is not answered");
        traffic.answered();
        assert_eq!(traffic.deadline(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_for_an_answer_runs_from_its_request_or_the_answer_before_and_grows_with_the_bytes()
     {
        let traffic = Traffic::default();
        let (sender, receiver) = futures::channel::mpsc::unbounded();
        let mut requests = traffic.note(receiver);
        assert!(requests.next().now_or_never().is_none());
        tokio::time::advance(APPEND_TIMEOUT * 10).await;
        assert_eq!(traffic.deadline(), None, "silence is no fault while nothing is asked");
        sender.unbounded_send(request(10)).unwrap();
        sender.unbounded_send(request(160 * 1024)).unwrap();
        assert!(requests.next().now_or_never().is_some());
        let (sent, small) = (Instant::now(), Duration::from_millis(10));
        let near = |deadline: Option<Instant>, after: Duration, since: Instant| {
            let late = deadline.unwrap().duration_since(since);
            late >= after && late <= after + small
        };
        assert!(near(traffic.deadline(), APPEND_TIMEOUT, sent));
        assert!(requests.next().now_or_never().is_some());
        tokio::time::advance(Duration::from_secs(1)).await;
        traffic.answered();
        let large = APPEND_TIMEOUT + Duration::from_secs(10);
        assert!(near(traffic.deadline(), large, Instant::now()), "{:?}", traffic.deadline());
    }
}
