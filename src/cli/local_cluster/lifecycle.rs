//! Starting, stopping and killing the servers of a local cluster.

use tokio::time::Instant;

use super::conditions::{http_get, timeout, wait_for};
use super::error::LocalError;
use super::{LocalCluster, LocalNode, POLL, START_DEADLINE, administrator, ports};
use crate::clock::{Clock as _, SystemClock};

/// The servers' reason when the cluster was made before.
const ALREADY_INITIALISED: &str = "CLUSTER_ALREADY_INITIALISED";
/// The servers' reason when one of them does not answer another.
const NODE_NOT_READY: &str = "NODE_NOT_READY";

impl LocalCluster {
    /// Starts a node and waits until it listens.
    ///
    /// # Errors
    /// If a port is taken, it ends by itself, or it does not listen in time.
    pub async fn start_node(&mut self, id: u64) -> Result<(), LocalError> {
        let binary = self.options.binary.clone();
        let node = self.node_mut(id)?;
        ports::check(node.ports())?;
        node.spawn(&binary)?;
        self.wait_live(id).await
    }

    /// Starts a node and waits for nothing: it may well refuse to start.
    ///
    /// # Errors
    /// If there is none of this id, or the program can't be run.
    pub fn spawn_node(&mut self, id: u64) -> Result<(), LocalError> {
        let binary = self.options.binary.clone();
        self.node_mut(id)?.spawn(&binary)
    }

    /// Waits until a node that was started listens.
    ///
    /// # Errors
    /// If it ends by itself, or does not listen in time.
    pub async fn wait_live(&mut self, id: u64) -> Result<(), LocalError> {
        let node = self.node_mut(id)?;
        let address = node.ports().http_address();
        let deadline = Instant::now().checked_add(START_DEADLINE);
        loop {
            node.check_running()?;
            if http_get(&address, "/livez").await.is_ok_and(|(status, _)| status == 200) {
                return Ok(());
            }
            if deadline.is_none_or(|deadline| Instant::now() >= deadline) {
                let what = format!("node {id} listens");
                return Err(timeout(what, START_DEADLINE, String::new()));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Starts all nodes, makes the cluster if it is new, and waits until all members work.
    ///
    /// # Errors
    /// If a node can't be started, or the cluster does not come to work in time.
    pub async fn start(&mut self) -> Result<(), LocalError> {
        self.start_nodes().await?;
        self.ensure_initialised().await?;
        self.wait_healthy(START_DEADLINE).await?;
        Ok(())
    }

    /// Starts all nodes and waits until they listen.
    ///
    /// # Errors
    /// If a port is taken, or a node can't be started or ends by itself.
    pub async fn start_nodes(&mut self) -> Result<(), LocalError> {
        let binary = self.options.binary.clone();
        for node in &self.nodes {
            ports::check(node.ports())?;
        }
        for node in &mut self.nodes {
            node.spawn(&binary)?;
        }
        for id in self.nodes.iter().map(LocalNode::id).collect::<Vec<_>>() {
            self.wait_live(id).await?;
        }
        Ok(())
    }

    /// Makes the cluster of all nodes, which run and are empty, unless it was made before.
    ///
    /// # Errors
    /// If the cluster can't be made.
    pub async fn ensure_initialised(&mut self) -> Result<(), LocalError> {
        if self.description.initialised {
            return Ok(());
        }
        let signer = self.pki.signer(SystemClock.now())?;
        let nodes = self.nodes.iter().map(|node| self.spec(node.id()));
        let nodes = nodes.collect::<Result<Vec<_>, _>>()?;
        let (client, admin) = (self.administrator()?, administrator()?);
        let made = wait_for("the servers reach each other", START_DEADLINE, || async {
            match client.init_cluster(nodes.clone(), &admin, &signer).await {
                Ok(_) => Ok(Ok(())),
                // An earlier start made it, and did not live to write that down.
                Err(error) if error.reason() == ALREADY_INITIALISED => Ok(Ok(())),
                // They run, but on a busy machine one may be slow to answer another. Nothing was done yet.
                Err(error) if error.reason() == NODE_NOT_READY => Err(error.to_string()),
                Err(error) => Ok(Err(error)),
            }
        });
        made.await??;
        self.description.initialised = true;
        self.save()
    }

    /// Says so if a node ended by itself.
    ///
    /// # Errors
    /// With the last words of the first one that did.
    pub fn check_running(&mut self) -> Result<(), LocalError> {
        self.nodes.iter_mut().try_for_each(LocalNode::check_running)
    }

    /// Kills a node at once, as `kill -9` does.
    ///
    /// # Errors
    /// If there is none of this id.
    pub async fn kill_node(&mut self, id: u64) -> Result<(), LocalError> {
        self.node_mut(id)?.kill().await
    }

    /// Stops a node (SIGTERM) and waits until it has ended with exit code 0.
    ///
    /// # Errors
    /// If it does not end in time, or with another code.
    pub async fn stop_node(&mut self, id: u64) -> Result<(), LocalError> {
        let node = self.node_mut(id)?;
        node.ask_to_stop()?;
        node.wait_stopped().await
    }

    /// Stops all nodes that run, all at the same time.
    ///
    /// # Errors
    /// The first failure, after all have ended.
    pub async fn stop(&mut self) -> Result<(), LocalError> {
        let mut result = Ok(());
        for node in &self.nodes {
            result = result.and(node.ask_to_stop());
        }
        for node in &mut self.nodes {
            result = result.and(node.wait_stopped().await);
        }
        result
    }
}
