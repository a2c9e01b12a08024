//! From a running node to a serving process, and back down in order.

mod checkpoints;
mod enrolment;
mod people;

use std::collections::BTreeSet;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use holdfast_proto::v1::escrow_service_server::SERVICE_NAME as ESCROW_SERVICE;
use prost_types::FileDescriptorSet;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::service::Routes;
use tonic::transport::server::Server as GrpcServer;
use tonic_health::server::HealthReporter;

use crate::auth::IdentityError;
use crate::clock::SharedClock;
use crate::crypto::CertificateError;
use crate::domain::limits;
use crate::grpc::{
    Bearer, Guard, Observe, RpcMetrics, Services, method_names, public_descriptors,
    routes as api_routes,
};
use crate::service::{Context, Deadlines, Sealing};
use crate::tls::{ConnectionCounters, IncomingOptions, TlsError, incoming};

use super::checkpoints::CheckpointFileError;
use super::config::Config;
use super::credentials::Credentials;
use super::node::ServerNode;
use super::readiness::Readiness;
use super::renewal::Renewal;
use super::{chores, expiry, health, http, metrics, renewal};

pub(super) use checkpoints::Checkpoints;

/// How often an idle connection is asked whether it is still there, and how long it may take to answer.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// Largest header of a request, in bytes.
const HEADER_BYTES: u32 = 16 * 1024;
/// How long refusals may take to be recorded at the end.
const LAST_REFUSALS: Duration = Duration::from_secs(2);
/// How long leadership may take to be handed on at the end.
const HAND_OVER: Duration = Duration::from_secs(2);
/// Most connections of the peer port: a handful of nodes with a few each.
const PEER_CONNECTIONS: usize = 256;

/// Why a server can't begin to serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// An address can't be listened on.
    #[error("{key}: can't listen on {address}")]
    Listen {
        /// The configuration's key.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A CA can't be used.
    #[error("{key}: the CA can't be used")]
    Authority {
        /// The configuration's key.
        key: &'static str,
        /// Why.
        #[source]
        source: CertificateError,
    },
    /// Two CAs are the same.
    #[error("tls")]
    Authorities(#[source] IdentityError),
    /// The node's certificate or key can't be used.
    #[error("tls.cert, tls.key: the node's certificate can't be used")]
    Identity(#[source] TlsError),
    /// The file for checkpoints can't be used.
    #[error("audit.checkpoint_file: it can't be used")]
    Checkpoints(#[source] CheckpointFileError),
    /// The CA of the OIDC provider can't be used.
    #[error("oidc.ca_file: it can't be used")]
    Provider(#[source] TlsError),
    /// The directory of checkpoints that wait for the collector can't be used.
    #[error("audit.syslog_spool: it can't be used")]
    Spool(#[source] CheckpointFileError),
    /// What was compiled in is damaged.
    #[error("descriptors: {0}")]
    Descriptors(String),
}

/// The ports, listening but not yet serving.
pub struct Listeners {
    /// For agents and operators.
    pub client: TcpListener,
    /// For the other nodes.
    pub peer: TcpListener,
    /// For monitoring.
    pub http: TcpListener,
    /// For devices that enrol, if they can.
    pub enrolment: Option<TcpListener>,
}

impl Listeners {
    /// Binds all of them, before anything is opened that would have to be closed again.
    ///
    /// # Errors
    /// Names the key of the address that can't be listened on.
    pub async fn bind(config: &Config) -> Result<Self, ServeError> {
        Ok(Self {
            client: listen("client_listen", config.client_listen).await?,
            peer: listen("peer_listen", config.peer_listen).await?,
            http: listen("http_listen", config.http_listen).await?,
            enrolment: match config.enrolment_listen {
                Some(address) => Some(listen("enrolment_listen", address).await?),
                None => None,
            },
        })
    }
}

async fn listen(key: &'static str, address: SocketAddr) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address).await.map_err(|source| ServeError::Listen { key, address, source })
}

/// A running node with the service of its peer port.
pub struct BuiltNode<N> {
    /// The node.
    pub node: Arc<N>,
    /// What it answers other nodes.
    pub peer: Routes,
}

/// How a server ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was asked to stop, and everything is closed.
    Stopped,
    /// It can't go on, for this reason. Nothing was drained or closed: what is in memory can't be trusted.
    Failed(String),
}

/// A node with everything that serves around it.
pub struct Server<N> {
    config: Config,
    node: Arc<N>,
    peer: Routes,
    context: Arc<Context<N>>,
    sealing: Arc<Sealing>,
    credentials: Credentials,
    clock: SharedClock,
}

impl<N: ServerNode> Server<N> {
    /// Wires a node up.
    pub fn new(
        config: Config,
        built: BuiltNode<N>,
        credentials: Credentials,
        clock: SharedClock,
    ) -> Self {
        let deadlines = Deadlines {
            propose: Duration::from_millis(config.raft.propose_ms),
            ..Deadlines::default()
        };
        let BuiltNode { node, peer } = built;
        let (cluster, id) = (config.cluster_id, config.node_id);
        let own = Arc::clone(&clock);
        let context = Arc::new(Context::new(Arc::clone(&node), own, cluster, id, deadlines));
        let key_file = config.auto_unseal_key_file.clone();
        let sealing = Arc::new(Sealing::new(cluster, key_file, config.data_dir.clone()));
        Self { config, node, peer, context, sealing, credentials, clock }
    }

    /// Serves until `stop` is done or the node fails.
    ///
    /// # Errors
    /// If serving can't begin.
    pub async fn serve(
        self,
        listeners: Listeners,
        stop: impl Future<Output = ()> + Send,
    ) -> Result<Outcome, ServeError> {
        let (stopping, stopped) = watch::channel(false);
        let (drained, drain) = watch::channel(false);
        let descriptors =
            public_descriptors().map_err(|error| ServeError::Descriptors(error.to_string()))?;
        let reporter = HealthReporter::new();
        let rpc = RpcMetrics::new(method_names(&descriptors));
        let client_port = Arc::<ConnectionCounters>::default();
        let peer_port = Arc::<ConnectionCounters>::default();
        let enrolment_port = Arc::<ConnectionCounters>::default();
        let readiness =
            Readiness { context: Arc::clone(&self.context), sealing: Arc::clone(&self.sealing) };

        let mut background = JoinSet::new();
        background.spawn(health::keep(
            reporter.clone(),
            readiness.clone(),
            service_names(&descriptors),
            stopped,
        ));
        self.begin_chores(&mut background);
        let renewal = Arc::new(Renewal::new(&self.config, &self.credentials)?);
        background.spawn(self.renewals(&renewal));
        background.spawn(chores::watch_agent_cas(
            Arc::clone(&self.context),
            Arc::clone(&renewal),
            self.config.clone(),
            Arc::clone(&self.credentials.authorities),
        ));
        background.spawn(expiry::watch(Arc::clone(&self.context), Arc::clone(&renewal)));
        let checkpoints = self.keep_checkpoints(&mut background, &renewal)?;
        let (tokens, token_metrics) = self.keep_tokens(&mut background)?;
        let sources = metrics::Sources {
            context: Arc::clone(&self.context),
            sealing: Arc::clone(&self.sealing),
            client_port: Arc::clone(&client_port),
            peer_port: Arc::clone(&peer_port),
            enrolment_port: Arc::clone(&enrolment_port),
            renewal: Arc::clone(&renewal),
            checkpoints,
            tokens: tokens.clone(),
        };
        let registry = metrics::registry(sources, &rpc, &token_metrics);
        background.spawn(http::serve(listeners.http, http::Pages { registry, readiness }));
        background.spawn(self.peer_server(listeners.peer, peer_port, &renewal));
        if let Some(listener) = listeners.enrolment {
            let port = self.enrolment_server(listener, enrolment_port, &renewal, rpc.clone());
            background.spawn(port);
        }
        let api = self.api(reporter, descriptors, &renewal)?;
        let layers = (rpc, self.bearer(tokens, token_metrics));
        let clients =
            self.client_server((listeners.client, &renewal), client_port, layers, api, drain);
        let clients = tokio::spawn(clients);
        self.announce();

        let mut failed = Box::pin(first_of(self.node.failed(), self.context.faulted()).fuse());
        let mut stop = std::pin::pin!(stop.fuse());
        tokio::select! {
            why = &mut failed => return Ok(Outcome::Failed(why)),
            () = &mut stop => {}
        }
        let closing = self.close(stopping, drained, clients);
        tokio::select! {
            why = &mut failed => return Ok(Outcome::Failed(why)),
            () = closing => {}
        }
        // Whatever looks at the store now and then ends before the store does: it would take that for a fault.
        background.shutdown().await;
        self.node.shutdown().await;
        tracing::info!("stopped");
        Ok(Outcome::Stopped)
    }

    /// Begins what is done now and then, whoever calls.
    fn begin_chores(&self, background: &mut JoinSet<()>) {
        let (context, sealing) = (&self.context, &self.sealing);
        background.spawn(chores::keep_unsealed(Arc::clone(context), Arc::clone(sealing)));
        background.spawn(chores::test_keys(Arc::clone(context), Arc::clone(sealing)));
        background.spawn(chores::record_refusals(Arc::clone(context)));
        background.spawn(chores::watch_denials(Arc::clone(context)));
    }

    fn announce(&self) {
        tracing::info!(
            node_id = self.config.node_id.get(),
            cluster_id = %self.config.cluster_id,
            client = %self.config.client_listen,
            peer = %self.config.peer_listen,
            http = %self.config.http_listen,
            "serving"
        );
    }

    /// Down again: no new work, and nothing lost of what was begun. The files are closed after that.
    async fn close(
        &self,
        stopping: watch::Sender<bool>,
        drained: watch::Sender<bool>,
        mut clients: tokio::task::JoinHandle<()>,
    ) {
        tracing::info!("stopping: no new work is taken");
        stopping.send_replace(true);
        match tokio::time::timeout(LAST_REFUSALS, self.context.flush_refusals()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the last refusals are not recorded"),
            Err(_) => tracing::warn!("the last refusals are not recorded in time"),
        }
        if tokio::time::timeout(HAND_OVER, self.node.drain()).await.is_err() {
            tracing::warn!("leadership was not handed on in time");
        }
        drained.send_replace(true);
        let drain = Duration::from_millis(self.config.limits.drain_ms);
        if tokio::time::timeout(drain, &mut clients).await.is_err() {
            tracing::warn!("calls that still run are cut off");
            clients.abort();
        }
    }

    fn peer_server(
        &self,
        listener: TcpListener,
        counters: Arc<ConnectionCounters>,
        renewal: &Renewal,
    ) -> impl Future<Output = ()> + Send + use<N> {
        let options = self.incoming_options(PEER_CONNECTIONS, counters);
        let connections = incoming(listener, renewal.peer_port(), options);
        let server = GrpcServer::builder()
            .http2_keepalive_interval(Some(KEEPALIVE))
            .http2_keepalive_timeout(Some(KEEPALIVE))
            .max_concurrent_streams(Some(limits::CONNECTION_STREAMS))
            .initial_stream_window_size(Some(4 * 1024 * 1024))
            .initial_connection_window_size(Some(16 * 1024 * 1024))
            .layer(self.guard())
            .add_routes(self.peer.clone());
        async move {
            if let Err(error) = server.serve_with_incoming(connections).await {
                tracing::error!(%error, "the peer port stopped serving");
            }
        }
    }

    fn client_server(
        &self,
        (listener, renewal): (TcpListener, &Renewal),
        counters: Arc<ConnectionCounters>,
        (rpc, bearer): (RpcMetrics, Bearer<N>),
        api: Routes,
        mut drain: watch::Receiver<bool>,
    ) -> impl Future<Output = ()> + Send + use<N> {
        let options = self.incoming_options(self.config.limits.max_connections, counters);
        let options = IncomingOptions { nameless: self.nameless(), ..options };
        let connections = incoming(listener, renewal.client_port(), options);
        let server = GrpcServer::builder()
            .max_concurrent_streams(Some(limits::CONNECTION_STREAMS))
            .http2_keepalive_interval(Some(KEEPALIVE))
            .http2_keepalive_timeout(Some(KEEPALIVE))
            .http2_max_header_list_size(Some(HEADER_BYTES))
            .layer(Observe::new(rpc, self.config.limits.max_requests))
            .layer(bearer)
            .layer(self.guard())
            .add_routes(api);
        async move {
            let drained = async move {
                // The sender lives until the server is closed; without it there is nothing to wait for.
                drop(drain.wait_for(|drained| *drained).await);
            };
            let served = server.serve_with_incoming_shutdown(connections, drained).await;
            if let Err(error) = served {
                tracing::error!(%error, "the client port stopped serving");
            }
        }
    }

    /// Has the files of certificates read again when they change.
    fn renewals(&self, renewal: &Arc<Renewal>) -> impl Future<Output = ()> + Send + use<N> {
        renewal::watch(
            Arc::clone(renewal),
            self.config.clone(),
            Arc::clone(&self.credentials.authorities),
            Arc::clone(&self.node),
        )
    }

    fn guard(&self) -> Guard<N> {
        Guard::new(Arc::clone(&self.context), Arc::clone(&self.credentials.authorities))
    }

    fn incoming_options(
        &self,
        max_connections: usize,
        counters: Arc<ConnectionCounters>,
    ) -> IncomingOptions {
        IncomingOptions {
            handshake_timeout: Duration::from_millis(self.config.limits.handshake_ms),
            max_connections,
            counters,
            ..IncomingOptions::default()
        }
    }

    /// All services of the client port: the API, health and reflection.
    fn api(
        &self,
        reporter: HealthReporter,
        descriptors: FileDescriptorSet,
        renewal: &Renewal,
    ) -> Result<Routes, ServeError> {
        let services = Services {
            context: Arc::clone(&self.context),
            sealing: Arc::clone(&self.sealing),
            signer: renewal.signer(),
            authorities: Arc::clone(&self.credentials.authorities),
        };
        let describe =
            |error: tonic_reflection::server::Error| ServeError::Descriptors(error.to_string());
        let reflection = || {
            tonic_reflection::server::Builder::configure()
                .register_file_descriptor_set(descriptors.clone())
        };
        let health = tonic_health::server::HealthService::from_health_reporter(reporter);
        Ok(api_routes(services)
            .add_service(tonic_health::pb::health_server::HealthServer::new(health))
            .add_service(reflection().build_v1().map_err(describe)?)
            .add_service(reflection().build_v1alpha().map_err(describe)?))
    }
}

async fn first_of(
    one: impl Future<Output = String>,
    other: impl Future<Output = String>,
) -> String {
    tokio::select! {
        why = one => why,
        why = other => why,
    }
}

/// Names of the services of the API.
fn service_names(descriptors: &FileDescriptorSet) -> BTreeSet<String> {
    let methods = method_names(descriptors);
    let mut names: BTreeSet<String> = methods
        .iter()
        .filter_map(|method| method.split_once('/').map(|(service, _)| service.to_owned()))
        .collect();
    names.insert(ESCROW_SERVICE.to_owned());
    names
}
