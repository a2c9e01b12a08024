//! How a node reaches the others: TLS over TCP, or what a simulation has in the place of a network.

use std::io;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
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

    /// Tries whether anybody listens at `host:port`.
    fn knock<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<()>>;
}

/// TLS over TCP: the other end must be the node that is meant.
pub(crate) struct TlsDial {
    cluster: ClusterId,
    authority: Authority,
    certificate: tls::Identity,
}

impl TlsDial {
    pub(crate) fn new(identity: Identity, files: &PeerTls) -> Result<Self, TlsError> {
        let authority = Authority::from_pem_file("tls.node_ca", &files.node_ca)?;
        let certificate = tls::Identity::load(&files.cert, &files.key)?;
        certificate.expect(identity.cluster, &Actor::Node(identity.id))?;
        Ok(Self { cluster: identity.cluster, authority, certificate })
    }
}

impl Dial for TlsDial {
    fn channel(
        &self,
        endpoint: &Endpoint,
        to: NodeId,
        within: Duration,
    ) -> Result<Channel, RaftError> {
        let config = tls::peer_client_config(&self.authority, &self.certificate, self.cluster, to)
            .map_err(|error| RaftError::Stopped(error.to_string()))?;
        Ok(endpoint.connect_with_connector_lazy(tls::Connector::new(config, within)))
    }

    fn knock<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<()>> {
        TcpStream::connect(address).map(|stream| stream.map(drop)).boxed()
    }
}
