//! What the composition root needs of a node, beyond what use cases need.

use std::future::Future;

use crate::raft::NodeMetrics;
use crate::service::Consensus;

/// A running node.
pub trait ServerNode: Consensus {
    /// Its numbers.
    fn metrics(&self) -> NodeMetrics;

    /// Waits until the node has stopped by a local fault (disk, corruption); returns the cause for a person. Never
    /// returns for a healthy node, nor after [`ServerNode::shutdown`].
    fn failed(&self) -> impl Future<Output = String> + Send;

    /// Stops the node and closes its files.
    fn shutdown(&self) -> impl Future<Output = ()> + Send;
}
