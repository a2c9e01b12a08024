//! Whether the node can serve, and why not.

use std::sync::Arc;
use std::time::Duration;

use crate::service::{Context, FRESH_FOR, Sealing};

use super::node::ServerNode;

/// Judges one node.
pub(super) struct Readiness<N> {
    pub(super) context: Arc<Context<N>>,
    pub(super) sealing: Arc<Sealing>,
}

impl<N> Clone for Readiness<N> {
    fn clone(&self) -> Self {
        Self { context: Arc::clone(&self.context), sealing: Arc::clone(&self.sealing) }
    }
}

impl<N: ServerNode> Readiness<N> {
    /// Whether the node can take writes: it is in a cluster, knows a leader and has just had proof of a quorum.
    ///
    /// # Errors
    /// Why not, for a person.
    pub(super) fn check(&self) -> Result<(), String> {
        let node = self.context.consensus();
        if !node.initialized() {
            let why = node.shut_out();
            return Err(
                why.unwrap_or_else(|| "not initialised: the node is in no cluster yet".to_owned())
            );
        }
        if node.metrics().leader == 0 {
            let why = node.shut_out().map(|why| format!("; {why}")).unwrap_or_default();
            return Err(format!("no leader is known{why}"));
        }
        let age = node.freshness().age;
        if age > FRESH_FOR {
            return Err(match age {
                Duration::MAX => "no contact with a quorum yet".to_owned(),
                age => format!("no contact with a quorum for {} ms", age.as_millis()),
            });
        }
        Ok(())
    }

    /// What else is worth knowing; none of it makes the node unready.
    pub(super) fn notes(&self) -> Vec<String> {
        let sealed = self.sealing.sealed_because().map(|why| format!("sealed: {why}"));
        let disk = self.context.consensus().metrics().disk_low;
        let disk = disk.then(|| "the disk has too little room left: writes are refused".to_owned());
        let chain = self.context.chain_conflict();
        let chain =
            chain.map(|why| format!("the audit chain is not the one that was signed: {why}"));
        sealed.into_iter().chain(disk).chain(chain).collect()
    }
}
