//! Certificates, keys and CAs without a restart: their files are read again when they have changed, and on SIGHUP.
//!
//! What is read is used as a whole or not at all: a certificate whose key is not written yet leaves everything as it is. It
//! is good for connections that are made from then on; those that are open live on.

use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls_pki_types::CertificateDer;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::auth::Authorities;
use crate::crypto::{Leaf, NodeSigner};
use crate::tls::{Identity, Nameless, client_port_config, enrolment_port_config, peer_port_config};

use super::config::{Config, TlsPaths};
use super::credentials::Credentials;
use super::node::ServerNode;
use super::serve::ServeError;

/// How often it is looked whether a file has changed.
const LOOK: Duration = Duration::from_secs(5);

/// What is made of the files, the newest of each.
#[derive(Debug)]
pub(super) struct Renewal {
    /// The identity that all of it was made with. Held while something is made, so that what is newer comes last.
    identity: Mutex<Identity>,
    client_port: watch::Sender<Arc<ServerConfig>>,
    peer_port: watch::Sender<Arc<ServerConfig>>,
    enrolment_port: watch::Sender<Arc<ServerConfig>>,
    signer: watch::Sender<Arc<NodeSigner>>,
    leaf: watch::Sender<Leaf>,
    failed: AtomicBool,
}

/// What one reading of the files gives.
struct Material {
    client_port: Arc<ServerConfig>,
    peer_port: Arc<ServerConfig>,
    enrolment_port: Arc<ServerConfig>,
    signer: Arc<NodeSigner>,
    leaf: Leaf,
}

impl Material {
    fn of(
        config: &Config,
        identity: &Identity,
        authorities: &Authorities,
    ) -> Result<Self, ServeError> {
        let (agent, operator) = (authorities.agent(), authorities.operator());
        let nameless = if config.oidc.is_some() { Nameless::Taken } else { Nameless::Refused };
        let signer = identity.node_signer(config.cluster_id, config.node_id);
        Ok(Self {
            client_port: client_port_config(&agent, &operator, identity, nameless)
                .map_err(ServeError::Identity)?,
            peer_port: peer_port_config(&authorities.node(), identity)
                .map_err(ServeError::Identity)?,
            enrolment_port: enrolment_port_config(identity).map_err(ServeError::Identity)?,
            signer: Arc::new(signer.map_err(ServeError::Identity)?),
            leaf: identity.leaf().clone(),
        })
    }
}

impl Renewal {
    /// Begins with what was read at the start.
    ///
    /// # Errors
    /// If it can't be used.
    pub(super) fn new(config: &Config, credentials: &Credentials) -> Result<Self, ServeError> {
        let Credentials { identity, authorities } = credentials;
        let first = Material::of(config, identity, authorities)?;
        Ok(Self {
            identity: Mutex::new(identity.clone()),
            enrolment_port: watch::Sender::new(first.enrolment_port),
            client_port: watch::Sender::new(first.client_port),
            peer_port: watch::Sender::new(first.peer_port),
            signer: watch::Sender::new(first.signer),
            leaf: watch::Sender::new(first.leaf),
            failed: AtomicBool::new(false),
        })
    }

    pub(super) fn client_port(&self) -> watch::Receiver<Arc<ServerConfig>> {
        self.client_port.subscribe()
    }

    pub(super) fn peer_port(&self) -> watch::Receiver<Arc<ServerConfig>> {
        self.peer_port.subscribe()
    }

    pub(super) fn enrolment_port(&self) -> watch::Receiver<Arc<ServerConfig>> {
        self.enrolment_port.subscribe()
    }

    pub(super) fn signer(&self) -> watch::Receiver<Arc<NodeSigner>> {
        self.signer.subscribe()
    }

    /// The identity in use.
    pub(super) fn identity(&self) -> Identity {
        self.identity.lock().clone()
    }

    /// The facts of the certificate in use.
    pub(super) fn leaf(&self) -> Leaf {
        self.leaf.borrow().clone()
    }

    /// Whether the files were found not to be usable, so that older ones are in use.
    pub(super) fn failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// Takes what was read from files, if it can be used as a whole.
    fn take(
        &self,
        config: &Config,
        authorities: &Authorities,
        read: &Credentials,
    ) -> Result<(), ServeError> {
        let mut identity = self.identity.lock();
        Material::of(config, &read.identity, &read.authorities)?;
        // Who may vouch comes first, so that no connection is made that nobody can be told on.
        authorities.replace(&read.authorities).map_err(ServeError::Authorities)?;
        self.send(Material::of(config, &read.identity, authorities)?);
        *identity = read.identity.clone();
        Ok(())
    }

    /// Has new connections of agents accepted that these CAs vouch for, which the cluster has made.
    pub(super) fn take_own_agents(
        &self,
        config: &Config,
        authorities: &Authorities,
        own: Vec<CertificateDer<'static>>,
    ) -> Result<(), ServeError> {
        let identity = self.identity.lock();
        authorities.set_own_agents(own).map_err(ServeError::Authorities)?;
        self.send(Material::of(config, &identity, authorities)?);
        Ok(())
    }

    fn send(&self, new: Material) {
        self.client_port.send_replace(new.client_port);
        self.peer_port.send_replace(new.peer_port);
        self.enrolment_port.send_replace(new.enrolment_port);
        self.signer.send_replace(new.signer);
        self.leaf.send_replace(new.leaf);
    }
}

/// Reads the files again when they have changed or the process is told to; for ever.
pub(super) async fn watch<N: ServerNode>(
    renewal: Arc<Renewal>,
    config: Config,
    authorities: Arc<Authorities>,
    node: Arc<N>,
) {
    let mut hangups = signal(SignalKind::hangup())
        .inspect_err(|error| tracing::error!(%error, "SIGHUP can't be heard"))
        .ok();
    let mut tick = tokio::time::interval(LOOK);
    let mut known = stamps(&config.tls);
    loop {
        let asked = tokio::select! {
            _ = tick.tick() => false,
            () = hung_up(&mut hangups) => true,
        };
        let now = stamps(&config.tls);
        if now == known && !asked {
            continue;
        }
        known = now;
        let renewed = renew(&renewal, &config, &authorities, node.as_ref());
        renewal.failed.store(renewed.is_err(), Ordering::Relaxed);
        match renewed {
            Ok(()) => {
                let until = renewal.leaf().not_after;
                tracing::info!(%until, "certificates are read again; new connections get the new one");
            }
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::error!(
                    %error,
                    cause = cause.unwrap_or_default(),
                    "the certificates can't be used; those that were read before stay in use"
                );
            }
        }
    }
}

fn renew<N: ServerNode>(
    renewal: &Renewal,
    config: &Config,
    authorities: &Authorities,
    node: &N,
) -> Result<(), ServeError> {
    let read = Credentials::load(config)?;
    renewal.take(config, authorities, &read)?;
    node.renew(authorities.node(), read.identity);
    Ok(())
}

async fn hung_up(hangups: &mut Option<Signal>) {
    match hangups {
        Some(hangups) => drop(hangups.recv().await),
        None => std::future::pending().await,
    }
}

/// What tells that a file was written or replaced: its place on disk, its size, and when it was changed.
type Stamp = Option<(u64, u64, i64, i64)>;

fn stamps(paths: &TlsPaths) -> Vec<Stamp> {
    let TlsPaths { node_ca, agent_ca, operator_ca, cert, key } = paths;
    let stamp = |path: &std::path::PathBuf| {
        let found = std::fs::metadata(path).ok()?;
        Some((found.ino(), found.size(), found.mtime(), found.mtime_nsec()))
    };
    [node_ca, agent_ca, operator_ca, cert, key].map(stamp).to_vec()
}
