//! How a node reaches the others: TLS over TCP, or what a simulation has in the place of a network.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use parking_lot::RwLock;
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint};

use super::api::{PeerTls, RaftError};
use super::peers::Identity;
use crate::crypto::Authority;
use crate::domain::{Actor, ClusterId, NodeId};
use crate::tls::{self, TlsError};

/// Makes connections to other nodes. Who is at the other end is this trait's business; who calls is checked by the other
/// node, by the certificates of the connection.
pub trait Dial: Send + Sync + 'static {
    /// A channel to a node, which connects when it is first used, and again after each failure.
    ///
    /// # Errors
    /// If there can't be one.
    fn channel(
        &self,
        endpoint: &Endpoint,
        to: NodeId,
        within: Duration,
    ) -> Result<Channel, RaftError>;

    /// Takes another certificate and CA for connections that are made from now on.
    fn renew(&self, _authority: Authority, _certificate: tls::Identity) {}

    /// Tries whether anybody listens at `host:port`.
    fn knock<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<()>>;
}

/// TLS over TCP: the other end must be the node that is meant.
pub(crate) struct TlsDial {
    cluster: ClusterId,
    own: Arc<RwLock<(Authority, tls::Identity)>>,
}

impl TlsDial {
    pub(crate) fn new(identity: Identity, files: &PeerTls) -> Result<Self, TlsError> {
        let authority = Authority::from_pem_file("tls.node_ca", &files.node_ca)?;
        let certificate = tls::Identity::load(&files.cert, &files.key)?;
        certificate.expect(identity.cluster, &Actor::Node(identity.id))?;
        let own = Arc::new(RwLock::new((authority, certificate)));
        Ok(Self { cluster: identity.cluster, own })
    }
}

impl Dial for TlsDial {
    fn channel(
        &self,
        endpoint: &Endpoint,
        to: NodeId,
        within: Duration,
    ) -> Result<Channel, RaftError> {
        let (own, cluster) = (Arc::clone(&self.own), self.cluster);
        let config = move || {
            let own = own.read();
            tls::peer_client_config(&own.0, &own.1, cluster, to).map_err(io::Error::other)
        };
        Ok(endpoint.connect_with_connector_lazy(tls::Connector::with(config, within)))
    }

    fn renew(&self, authority: Authority, certificate: tls::Identity) {
        *self.own.write() = (authority, certificate);
    }

    fn knock<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<()>> {
        TcpStream::connect(address).map(|stream| stream.map(drop)).boxed()
    }
}
