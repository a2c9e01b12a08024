//! gRPC health: `""` is the process, each service of the API is SERVING only while the node can take writes.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::watch;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use super::node::ServerNode;
use super::readiness::Readiness;

/// How often readiness is looked at. Shorter than an election, so that clients learn of one.
const EVERY: Duration = Duration::from_millis(100);

/// Keeps the health of `services` true until `stop`, and sets all of it to NOT_SERVING then.
pub(super) async fn keep<N: ServerNode>(
    reporter: HealthReporter,
    readiness: Readiness<N>,
    services: BTreeSet<String>,
    mut stop: watch::Receiver<bool>,
) {
    let mut shown: Option<bool> = None;
    let mut tick = tokio::time::interval(EVERY);
    loop {
        let stopping = *stop.borrow();
        let judged = readiness.check();
        let ready = judged.is_ok() && !stopping;
        if shown != Some(ready) {
            show(&reporter, &services, ready).await;
            match judged {
                Ok(()) if ready => tracing::info!("ready to serve"),
                Ok(()) => {}
                Err(why) => tracing::warn!(why, "not ready to serve"),
            }
            shown = Some(ready);
        }
        if stopping {
            reporter.set_service_status("", ServingStatus::NotServing).await;
            return;
        }
        tokio::select! {
            _ = tick.tick() => {}
            changed = stop.changed() => if changed.is_err() { return },
        }
    }
}

async fn show(reporter: &HealthReporter, services: &BTreeSet<String>, ready: bool) {
    let status = if ready { ServingStatus::Serving } else { ServingStatus::NotServing };
    for service in services {
        reporter.set_service_status(service, status).await;
    }
}
