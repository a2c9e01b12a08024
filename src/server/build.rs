//! Opens the data directory and starts the node: the one place that knows which node this server runs.

use std::sync::Arc;

use tonic::service::Routes;

use crate::auth::Authorities;
use crate::clock::SharedClock;
use crate::crypto::Authority;
use crate::fs::{Fs, StdFs};
use crate::grpc::PeerApi;
use crate::raft::{Node, NodeMetrics, StartError};

use crate::tls::Identity;

use super::config::Config;
use super::node::ServerNode;
use super::serve::BuiltNode;

/// Starts the node of this configuration on the machine's own file system.
///
/// # Errors
/// If the data directory or the log is not usable.
pub(super) async fn build_node(
    config: &Config,
    authorities: Arc<Authorities>,
    clock: SharedClock,
) -> Result<BuiltNode<Node<StdFs>>, StartError> {
    let node = Node::start(StdFs, config.node_options(), Arc::clone(&clock)).await?;
    let peer = Routes::new(PeerApi::new(&node, authorities, clock).into_server());
    Ok(BuiltNode { node: Arc::new(node), peer })
}

impl<F: Fs> ServerNode for Node<F> {
    fn metrics(&self) -> NodeMetrics {
        Self::metrics(self)
    }

    fn shut_out(&self) -> Option<String> {
        Self::shut_out(self)
    }

    fn renew(&self, authority: Authority, certificate: Identity) {
        Self::renew(self, authority, certificate);
    }

    async fn failed(&self) -> String {
        let mut failed = Self::failed(self);
        let why = match failed.wait_for(Option::is_some).await {
            Ok(why) => why.clone(),
            Err(_) => None,
        };
        match why {
            Some(why) => why,
            // The node is gone without a word, which only a shutdown does.
            None => std::future::pending().await,
        }
    }

    async fn drain(&self) {
        Self::drain(self).await;
    }

    async fn shutdown(&self) {
        Self::shutdown(self).await;
    }
}
