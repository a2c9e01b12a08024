//! What a server does by itself, now and then: unlocking the keyring, looking at the deny-list, and recording refusals.

use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::CertificateDer;

use crate::auth::Authorities;
use crate::service::{Change, Context, Sealing, ServiceError, refresh_sealing};
use crate::state::query;

use super::config::Config;
use super::node::ServerNode;
use super::renewal::Renewal;

/// How often the replicated keyring is looked at, and a root key that did not fit is tried again.
const KEYRING: Duration = Duration::from_millis(250);
/// How often the deny-list is looked at for the sake of calls that are open: they have to end within a second.
const DENIALS: Duration = Duration::from_millis(100);
/// How often refusals are recorded.
const REFUSALS: Duration = Duration::from_secs(60);

/// Unlocks the replicated keyring when it appears or changes; for ever.
pub(super) async fn keep_unsealed<N: ServerNode>(context: Arc<Context<N>>, sealing: Arc<Sealing>) {
    let mut tick = tokio::time::interval(KEYRING);
    loop {
        tick.tick().await;
        match refresh_sealing(&context, &sealing) {
            Ok(Change::None) => {}
            Ok(Change::Unsealed) => tracing::info!("the keyring is unlocked: keys can be opened"),
            Ok(Change::Sealed(why)) => tracing::warn!(why, "the keyring can't be unlocked"),
            Err(error) => {
                tracing::error!(%error, "the keyring can't be read");
                if let ServiceError::Store(fault) = &error {
                    context.report_fault(fault);
                }
                return;
            }
        }
    }
}

/// Takes agents that the cluster's own CAs vouch for, as soon as there are such; for ever.
pub(super) async fn watch_agent_cas<N: ServerNode>(
    context: Arc<Context<N>>,
    renewal: Arc<Renewal>,
    config: Config,
    authorities: Arc<Authorities>,
) {
    let mut tick = tokio::time::interval(KEYRING);
    let (mut known, mut refused) = (Vec::new(), Vec::new());
    loop {
        tick.tick().await;
        let cas = match query::agent_cas(context.consensus().view()) {
            Ok(cas) => cas,
            Err(fault) => {
                tracing::error!(error = %fault, "the agent CAs can't be read");
                context.report_fault(&fault);
                return;
            }
        };
        if cas == known {
            continue;
        }
        let own = cas.iter().map(|ca| CertificateDer::from(ca.certificate.to_vec())).collect();
        match renewal.take_own_agents(&config, &authorities, own) {
            Ok(()) => {
                tracing::info!(count = cas.len(), "agents of the cluster's own CA are served");
                known = cas;
            }
            // Files that are changed may change that, so it is tried again, and said once.
            Err(error) if refused != cas => {
                tracing::error!(%error, "the cluster's agent CA can't be used");
                refused = cas;
            }
            Err(_) => {}
        }
    }
}

/// Has open calls of who is denied ended; for ever.
pub(super) async fn watch_denials<N: ServerNode>(context: Arc<Context<N>>) {
    let mut tick = tokio::time::interval(DENIALS);
    loop {
        tick.tick().await;
        if let Err(error) = context.refresh_denials() {
            tracing::error!(%error, "the deny-list can't be read");
            if let ServiceError::Store(fault) = &error {
                context.report_fault(fault);
            }
            return;
        }
    }
}

/// Records refusals once a minute; for ever.
pub(super) async fn record_refusals<N: ServerNode>(context: Arc<Context<N>>) {
    let mut tick = tokio::time::interval(REFUSALS);
    tick.tick().await;
    loop {
        tick.tick().await;
        if let Err(error) = context.flush_refusals().await {
            tracing::warn!(%error, "refusals are not recorded yet; they are kept");
        }
    }
}
