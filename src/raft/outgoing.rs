//! Requests on their way to a follower, and whether anything of them is held up.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use futures::{Stream, StreamExt as _};
use tokio::sync::oneshot;

/// What is known of one stream of requests.
#[derive(Debug, Clone, Default)]
pub(super) struct Traffic(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    /// Requests that were taken and are not answered yet.
    in_flight: AtomicU64,
    /// Whether the connection last asked for a request when there was none.
    drained: AtomicBool,
}

impl Traffic {
    /// Nothing is to be sent, and everything is answered. Not so while the connection does not even ask for what is to be sent:
    /// a connection can live and take nothing.
    pub(super) fn is_idle(&self) -> bool {
        self.0.in_flight.load(Ordering::Relaxed) == 0 && self.0.drained.load(Ordering::Relaxed)
    }

    /// An answer has come.
    pub(super) fn answered(&self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    /// The same requests, counted as they are taken.
    pub(super) fn count<S: Stream + Unpin>(&self, requests: S) -> Counted<S> {
        Counted { requests, traffic: self.clone() }
    }
}

/// Requests that are counted as they are taken.
pub(super) struct Counted<S> {
    requests: S,
    traffic: Traffic,
}

impl<S: Stream + Unpin> Stream for Counted<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        let polled = Pin::new(&mut self.requests).poll_next(cx);
        if matches!(polled, Poll::Ready(Some(_))) {
            self.traffic.0.in_flight.fetch_add(1, Ordering::Relaxed);
        }
        self.traffic.0.drained.store(polled.is_pending(), Ordering::Relaxed);
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

    #[test]
    fn a_stream_is_idle_only_when_all_was_taken_and_answered() {
        let traffic = Traffic::default();
        let mut requests = traffic.count(stream::iter([1, 2]).chain(stream::pending()));
        assert!(!traffic.is_idle(), "nobody has asked for the first yet");
        assert_eq!(requests.next().now_or_never(), Some(Some(1)));
        traffic.answered();
        assert!(!traffic.is_idle(), "there is a second one, which nobody asks for");
        assert_eq!(requests.next().now_or_never(), Some(Some(2)));
        assert_eq!(requests.next().now_or_never(), None);
        assert!(!traffic.is_idle(), "the second one is not answered");
        traffic.answered();
        assert!(traffic.is_idle());
    }
}
