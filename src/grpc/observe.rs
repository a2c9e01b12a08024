//! Around every call: a request id, a span, a bound on concurrent requests, and numbers for metrics.
//!
//! It reads no message and knows no caller; it never logs a payload.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::{HeaderValue, Request, Response};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tokio::sync::Semaphore;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};
use tracing::Instrument as _;
use tracing::field::Empty;

use super::status;

/// Header that carries a request's id for logs; a client may choose it, and gets it back.
const REQUEST_ID: &str = "x-request-id";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MethodLabels {
    method: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    method: String,
    code: &'static str,
}

/// Numbers of all calls, by method.
#[derive(Debug, Clone)]
pub struct RpcMetrics {
    methods: Arc<BTreeSet<String>>,
    calls: Family<CallLabels, Counter>,
    durations: Family<MethodLabels, Histogram>,
    in_flight: Gauge,
    shed: Counter,
}

fn histogram() -> Histogram {
    // 0.25 ms to 8 s: a local read at one end, an outcome that stays unknown at the other.
    Histogram::new(prometheus_client::metrics::histogram::exponential_buckets(0.000_25, 2.0, 16))
}

impl RpcMetrics {
    /// Numbers for calls of `methods`, each as `package.Service/Method`. Any other path counts as `other`, so that a
    /// caller can't make up labels.
    pub fn new(methods: BTreeSet<String>) -> Self {
        Self {
            methods: Arc::new(methods),
            calls: Family::default(),
            durations: Family::new_with_constructor(histogram as fn() -> Histogram),
            in_flight: Gauge::default(),
            shed: Counter::default(),
        }
    }

    /// Shows them in `registry`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("rpc", "Calls by method and status code", self.calls.clone());
        registry.register(
            "rpc_duration_seconds",
            "Time until the response began, by method",
            self.durations.clone(),
        );
        registry.register("rpc_in_flight", "Calls being served", self.in_flight.clone());
        registry.register("rpc_shed", "Calls refused for overload", self.shed.clone());
    }

    fn method(&self, path: &str) -> String {
        let name = path.strip_prefix('/').unwrap_or(path);
        if self.methods.contains(name) { name.to_owned() } else { "other".to_owned() }
    }

    fn done(&self, method: String, code: Code, took: Duration) {
        let labels = CallLabels { method: method.clone(), code: code_name(code) };
        self.calls.get_or_create(&labels).inc();
        self.durations.get_or_create(&MethodLabels { method }).observe(took.as_secs_f64());
    }
}

/// A status code's name as gRPC documents it.
pub(super) fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// Wraps a router in [`Observed`].
#[derive(Debug, Clone)]
pub struct Observe {
    metrics: RpcMetrics,
    slots: Arc<Semaphore>,
}

impl Observe {
    /// At most `max_requests` calls at the same time, over all connections.
    pub fn new(metrics: RpcMetrics, max_requests: usize) -> Self {
        let slots = Arc::new(Semaphore::new(max_requests.min(Semaphore::MAX_PERMITS)));
        Self { metrics, slots }
    }
}

impl<S> Layer<S> for Observe {
    type Service = Observed<S>;

    fn layer(&self, inner: S) -> Observed<S> {
        Observed { inner, observe: self.clone() }
    }
}

/// A router whose calls are observed and bounded.
#[derive(Debug, Clone)]
pub struct Observed<S> {
    inner: S,
    observe: Observe,
}

type CallFuture<E> = Pin<Box<dyn Future<Output = Result<Response<Body>, E>> + Send>>;

impl<S> Service<Request<Body>> for Observed<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = CallFuture<S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let began = Instant::now();
        let metrics = self.observe.metrics.clone();
        let method = metrics.method(request.uri().path());
        let id = request_id(&request);
        request.headers_mut().insert(REQUEST_ID, id.clone());
        // Probes have to be answered under any load: they are what tells others to go elsewhere.
        let exempt = request.uri().path().starts_with("/grpc.health.");
        let slot = match Arc::clone(&self.observe.slots).try_acquire_owned() {
            Ok(slot) => Some(slot),
            Err(_) if exempt => None,
            Err(_) => {
                metrics.shed.inc();
                metrics.done(method, Code::ResourceExhausted, began.elapsed());
                return Box::pin(std::future::ready(Ok(with_id(
                    status::overloaded().into_http(),
                    id,
                ))));
            }
        };
        let span = tracing::info_span!(
            "rpc",
            request_id = id.to_str().unwrap_or_default(),
            method = %method,
            caller = Empty,
            action = Empty,
        );
        metrics.in_flight.inc();
        let guard = InFlight(metrics.in_flight.clone());
        let response = self.inner.call(request);
        let call = async move {
            let response = response.await?;
            drop((slot, guard));
            let code = Status::from_header_map(response.headers()).map_or(Code::Ok, |s| s.code());
            tracing::debug!(
                outcome = code_name(code),
                took_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX),
                "call done"
            );
            metrics.done(method, code, began.elapsed());
            Ok(with_id(response, id))
        };
        Box::pin(call.instrument(span))
    }
}

/// Counts a call as in flight until it is answered or given up.
struct InFlight(Gauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// The client's own request id if it is short and plain, else a new one.
fn request_id(request: &Request<Body>) -> HeaderValue {
    let plain = |value: &&HeaderValue| {
        (1..=64).contains(&value.len())
            && value.as_bytes().iter().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b))
    };
    match request.headers().get(REQUEST_ID).filter(plain) {
        Some(value) => value.clone(),
        None => HeaderValue::from_str(&crate::turns::draw_uuid().to_string())
            .unwrap_or(HeaderValue::from_static("none")),
    }
}

fn with_id(mut response: Response<Body>, id: HeaderValue) -> Response<Body> {
    response.headers_mut().insert(REQUEST_ID, id);
    response
}
