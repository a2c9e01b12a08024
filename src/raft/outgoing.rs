//! Requests on their way to a follower, and whether anything of them is held up.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use futures::Stream;

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

#[cfg(test)]
mod tests {
    use futures::{FutureExt as _, StreamExt as _, stream};

    use super::*;

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
