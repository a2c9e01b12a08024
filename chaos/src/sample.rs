//! What each server says of itself, once a second, and whether it ends without being asked to.

use std::sync::Arc;
use std::time::Duration;

use holdfast::client::Client;
use tokio::task::JoinSet;

use crate::env::{Server, World};
use crate::history::{Event, Finding, NodeStatus, Sample};
use crate::recorder::Recorder;

const EVERY: Duration = Duration::from_secs(1);
/// How often it is looked whether a server ended.
const WATCH: Duration = Duration::from_millis(100);

/// Samples until it is dropped.
pub(crate) struct Sampler(JoinSet<()>);

impl Sampler {
    /// Ends it.
    pub(crate) fn abort(mut self) {
        self.0.abort_all();
    }
}

/// Begins to sample all servers.
///
/// # Errors
/// If a certificate can't be read.
pub(crate) fn start(world: &Arc<World>, recorder: &Arc<Recorder>) -> anyhow::Result<Sampler> {
    let mut tasks = JoinSet::new();
    for (at, server) in world.servers().iter().enumerate() {
        // A client for each: one that waits for a server that hangs must not hold up the others.
        let client = world.administrator_of(server)?;
        let (world, recorder) = (Arc::clone(world), Arc::clone(recorder));
        tasks.spawn(async move {
            let mut tick = tokio::time::interval(EVERY);
            tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                tick.tick().await;
                if let Some(server) = world.servers().get(at) {
                    recorder.record(&Event::Sample(sample(server, &client, &recorder).await));
                }
            }
        });
    }
    let (world, recorder) = (Arc::clone(world), Arc::clone(recorder));
    tasks.spawn(async move {
        loop {
            tokio::time::sleep(WATCH).await;
            for server in world.servers().iter().filter(|server| !server.at_risk()) {
                watch(server, &world, &recorder).await;
            }
        }
    });
    Ok(Sampler(tasks))
}

async fn sample(server: &Server, client: &Client, recorder: &Recorder) -> Sample {
    let node = server.id();
    let usage = server.usage();
    let status = client.status(false).await.ok();
    let own = status.as_ref().and_then(crate::env::own_word);
    // A server that was replaced meanwhile has another id.
    let own = own.filter(|own| own.node.as_ref().is_some_and(|n| n.node_id == node));
    Sample {
        at: recorder.now(),
        node,
        status: own.map(|own| NodeStatus {
            term: own.term,
            leads: own.role == crate::env::LEADER,
            leader: status.as_ref().map_or(0, |status| status.leader_id),
            last_log: own.last_log_index,
            applied: own.applied_index,
            digest: hex::encode(&own.state_digest),
            divergence: own.divergence.clone(),
        }),
        rss: usage.map(|(rss, _)| rss),
        descriptors: usage.map(|(_, descriptors)| descriptors),
    }
}

/// A server that ends while no fault is at work on it has a fault of its own.
async fn watch(server: &Server, world: &World, recorder: &Recorder) {
    let Ok(Some(status)) = server.ended().await else { return };
    if server.at_risk() {
        return;
    }
    let what = format!("node {} ended by itself ({status}): {}", server.id(), server.last_line());
    tracing::error!("{what}");
    let finding = Finding { at: recorder.now(), checker: "panic".to_owned(), bad: true, what };
    recorder.record(&Event::Finding(finding));
    if let Err(error) = world.start(server).await {
        tracing::error!("{error:#}");
    }
}
