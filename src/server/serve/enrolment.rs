//! The enrolment port.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tonic::transport::server::Server as GrpcServer;

use crate::grpc::{Observe, RpcMetrics, enrolment_routes};
use crate::tls::{ConnectionCounters, IncomingOptions, incoming};

use super::{HEADER_BYTES, KEEPALIVE, Renewal, Server, ServerNode};

/// Most connections of the enrolment port, and most calls that it serves at a time: devices come once, strangers don't count.
const ENROLMENT_CONNECTIONS: usize = 256;
/// Most connections from one address: many devices may be behind one.
const ENROLMENT_PER_ADDRESS: usize = 64;
const ENROLMENT_REQUESTS: usize = 64;
/// How long one of them lives, and then how long what it has begun, so that strangers who stay take no place from those who come.
const ENROLMENT_AGE: Duration = Duration::from_secs(30);

impl<N: ServerNode> Server<N> {
    /// Serves devices that have no certificate yet, and whoever else comes.
    pub(super) fn enrolment_server(
        &self,
        listener: TcpListener,
        counters: Arc<ConnectionCounters>,
        renewal: &Renewal,
        rpc: RpcMetrics,
    ) -> impl Future<Output = ()> + Send + use<N> {
        let most = self.config.limits.max_connections.min(ENROLMENT_CONNECTIONS);
        let options = self.incoming_options(most, counters);
        let options = IncomingOptions { max_per_address: ENROLMENT_PER_ADDRESS, ..options };
        let connections = incoming(listener, renewal.enrolment_port(), options);
        let requests = self.config.limits.max_requests.min(ENROLMENT_REQUESTS);
        let routes = enrolment_routes(
            Arc::clone(&self.context),
            Arc::clone(&self.sealing),
            Arc::clone(&self.credentials.authorities),
        );
        let server = GrpcServer::builder()
            .max_concurrent_streams(Some(1))
            .max_connection_age(ENROLMENT_AGE)
            .max_connection_age_grace(ENROLMENT_AGE)
            .http2_keepalive_interval(Some(KEEPALIVE))
            .http2_keepalive_timeout(Some(KEEPALIVE))
            .http2_max_header_list_size(Some(HEADER_BYTES))
            .layer(Observe::new(rpc, requests))
            .add_routes(routes);
        async move {
            if let Err(error) = server.serve_with_incoming(connections).await {
                tracing::error!(%error, "the enrolment port stopped serving");
            }
        }
    }
}
