//! What the composition root needs of a node, beyond what use cases need.

use std::future::Future;

use crate::crypto::Authority;
use crate::raft::NodeMetrics;
use crate::service::Consensus;
use crate::tls::Identity;

/// A running node.
pub trait ServerNode: Consensus {
    /// Its numbers.
    fn metrics(&self) -> NodeMetrics;

    /// Why the other members want nothing of this node, if they said so just now.
    fn shut_out(&self) -> Option<String>;

    /// Takes another certificate and CA towards the other nodes, for connections that are made from now on.
    fn renew(&self, authority: Authority, certificate: Identity);

    /// Waits until the node has failed for good by a local fault (disk, corruption); returns the cause for a person.
    fn failed(&self) -> impl Future<Output = String> + Send;

    /// Takes no proposals any more, and hands leadership on if it leads.
    fn drain(&self) -> impl Future<Output = ()> + Send;

    /// Stops taking part and closes its files.
    fn shutdown(&self) -> impl Future<Output = ()> + Send;
}
