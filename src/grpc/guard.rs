//! Around every call of both ports: who is denied while a call is open has it ended, with PERMISSION_DENIED, as soon as the
//! node has applied the denial and looked (`server/chores.rs` says how often).
//!
//! What a call of the public API may do is the gate's affair, which asks the deny-list too. This layer asks it for calls
//! that have no gate (health, reflection, the peer port), and again for every open call whenever the list changes.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll};

use bytes::Bytes;
use futures::Stream as _;
use http::{HeaderMap, Request, Response};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio_stream::wrappers::WatchStream;
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

use crate::auth::{Authorities, Caller, identify_once};
use crate::service::{Consensus, Context, ServiceError};
use crate::tls::PeerCertificates;

use super::bearer::TokenCaller;
use super::status;

/// Paths of calls that the gate looks at itself, so that the refusal is recorded under the name of what was asked.
const GATED: &str = "/holdfast.v1.";
/// What was refused, in audit records, if it was no call of the public API, or one that was open already.
const OPEN_CALL: &str = "OpenCall";

/// Wraps a router in [`Guarded`].
pub struct Guard<C> {
    context: Arc<Context<C>>,
    authorities: Arc<Authorities>,
}

impl<C> Clone for Guard<C> {
    fn clone(&self) -> Self {
        Self { context: Arc::clone(&self.context), authorities: Arc::clone(&self.authorities) }
    }
}

impl<C: Consensus> Guard<C> {
    /// Callers are proven by `authorities`, and looked for in the deny-list of `context`.
    pub fn new(context: Arc<Context<C>>, authorities: Arc<Authorities>) -> Self {
        Self { context, authorities }
    }

    /// Who calls. Whoever can't be told is left to the call itself, which refuses them.
    fn caller(&self, request: &Request<Body>) -> Option<Arc<Caller>> {
        if let Some(TokenCaller(caller)) = request.extensions().get() {
            return Some(Arc::clone(caller));
        }
        let peer = request.extensions().get::<PeerCertificates>()?;
        let (cluster, now) = (self.context.cluster(), self.context.now());
        identify_once(peer, &self.authorities, cluster, now).ok()
    }

    /// Why a caller is refused, if it is; counted for the audit chain.
    fn refusal(&self, caller: &Caller) -> Option<Status> {
        self.status(self.context.refuse_denied(caller, OPEN_CALL))
    }

    /// The same, not counted.
    fn why_denied(&self, caller: &Caller) -> Option<Status> {
        self.status(self.context.check_denied(caller))
    }

    fn status(&self, checked: Result<(), ServiceError>) -> Option<Status> {
        let error = checked.err()?;
        if let ServiceError::Store(fault) = &error {
            self.context.report_fault(fault);
        }
        Some(status::from_error(&error, self.context.now()))
    }

    /// Watches one side of a call. Only one side of it is counted as refused.
    fn watch(&self, caller: &Arc<Caller>, side: Side) -> Watch {
        let (guard, caller) = (self.clone(), Arc::clone(caller));
        Watch {
            changes: WatchStream::from_changes(self.context.denial_changes()),
            refusal: Box::new(move || match side {
                Side::Request => guard.why_denied(&caller),
                Side::Response => guard.refusal(&caller),
            }),
        }
    }
}

impl<S, C: Consensus> Layer<S> for Guard<C> {
    type Service = Guarded<S, C>;

    fn layer(&self, inner: S) -> Guarded<S, C> {
        Guarded { inner, guard: self.clone() }
    }
}

/// A router whose calls end when their caller is denied.
pub struct Guarded<S, C> {
    inner: S,
    guard: Guard<C>,
}

impl<S: Clone, C> Clone for Guarded<S, C> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), guard: self.guard.clone() }
    }
}

type CallFuture<E> = Pin<Box<dyn Future<Output = Result<Response<Body>, E>> + Send>>;

impl<S, C> Service<Request<Body>> for Guarded<S, C>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    C: Consensus,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = CallFuture<S::Error>;

    fn poll_ready(&mut self, cx: &mut Task<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Some(caller) = self.guard.caller(&request) else {
            return Box::pin(self.inner.call(request));
        };
        // Before the list is asked, so that no change comes between.
        let asked = self.guard.watch(&caller, Side::Request);
        let answered = self.guard.watch(&caller, Side::Response);
        if !request.uri().path().starts_with(GATED)
            && let Some(status) = self.guard.refusal(&caller)
        {
            return Box::pin(std::future::ready(Ok(status.into_http())));
        }
        let request = request.map(|body| Body::new(Watched::new(body, asked, Side::Request)));
        let response = self.inner.call(request);
        Box::pin(async move {
            let response = response.await?;
            Ok(response.map(|body| Body::new(Watched::new(body, answered, Side::Response))))
        })
    }
}

/// Tells when the deny-list has come to name a caller.
struct Watch {
    changes: WatchStream<u64>,
    refusal: Box<dyn Fn() -> Option<Status> + Send>,
}

impl Watch {
    fn poll(&mut self, task: &mut Task<'_>) -> Option<Status> {
        while let Poll::Ready(Some(_)) = Pin::new(&mut self.changes).poll_next(task) {
            let refusal = (self.refusal)();
            if refusal.is_some() {
                return refusal;
            }
        }
        None
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Request,
    Response,
}

/// A body that ends when its caller is denied.
struct Watched {
    /// Gone once it was cut off, and with it whatever made it.
    inner: Option<Body>,
    watch: Watch,
    side: Side,
}

impl Watched {
    const fn new(body: Body, watch: Watch, side: Side) -> Self {
        Self { inner: Some(body), watch, side }
    }
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        task: &mut Task<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let refusal = self.watch.poll(task);
        let Some(inner) = &mut self.inner else { return Poll::Ready(None) };
        let frame = Pin::new(inner).poll_frame(task);
        let Some(status) = refusal else { return frame };
        // What has come to its end in this very moment may say how.
        if let Poll::Ready(Some(Ok(frame))) = &frame
            && frame.is_trailers()
        {
            return Poll::Ready(Some(Ok(Frame::trailers(
                frame.trailers_ref().cloned().unwrap_or_default(),
            ))));
        }
        self.inner = None;
        Poll::Ready(Some(match self.side {
            Side::Request => Err(status),
            Side::Response => {
                let mut trailers = HeaderMap::new();
                status.add_header(&mut trailers).map(|()| Frame::trailers(trailers))
            }
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
