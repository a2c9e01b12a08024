//! Configuration: flags over `HOLDFAST_*` environment variables over a TOML file over defaults.
//!
//! It is read and validated once, at start; every fault names its key. No secret stands in it: secrets are named by the
//! path of their file.

mod layer;
mod oidc;
mod syslog;
#[cfg(test)]
mod tests;
mod validate;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use crate::domain::{ClusterId, NodeId};
use crate::raft::{NodeOptions, PeerTls, RaftTimes, StorageSizes};
use crate::telemetry::LogFormat;

pub use layer::{
    AuditLayer, Layer, LimitsLayer, LogLayer, OidcLayer, RaftLayer, StorageLayer, TlsLayer,
};
pub use oidc::OidcConfig;
pub use syslog::SyslogTarget;

/// What is wrong with the configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A key has no valid value.
    #[error("{key}: {what}")]
    Key {
        /// The key, such as `tls.cert`.
        key: &'static str,
        /// What is wrong, for a person.
        what: String,
    },
    /// The file can't be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is no configuration.
    #[error("{}: {}", path.display(), source.to_string().trim_end())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
}

/// Where the configuration comes from.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Sources {
    /// Configuration file (TOML).
    #[arg(long, env = "HOLDFAST_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Flags and environment variables.
    #[command(flatten)]
    pub flags: Layer,
}

impl Sources {
    /// Reads the file, if one is named, and validates everything.
    ///
    /// # Errors
    /// The first fault, with its file or key.
    pub fn load(self) -> Result<Config, ConfigError> {
        let file = self.config.as_deref().map(read_file).transpose()?.unwrap_or_default();
        Config::from_layer(self.flags.over(file))
    }
}

fn read_file(path: &Path) -> Result<Layer, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    toml::from_str(&text)
        .map_err(|source| ConfigError::Parse { path: path.to_owned(), source: Box::new(source) })
}

/// A valid configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Config {
    /// Id of this node.
    pub node_id: NodeId,
    /// The cluster.
    pub cluster_id: ClusterId,
    /// Directory of the node's data.
    pub data_dir: PathBuf,
    /// Address for agents and operators.
    pub client_listen: SocketAddr,
    /// Address for the other nodes.
    pub peer_listen: SocketAddr,
    /// Address for metrics and health.
    pub http_listen: SocketAddr,
    /// Address for devices that enrol; they can't if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enrolment_listen: Option<SocketAddr>,
    /// `host:port` that clients reach this node at.
    pub client_address: String,
    /// `host:port` that other nodes reach this node at.
    pub peer_address: String,
    /// File with the root key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auto_unseal_key_file: Option<PathBuf>,
    /// Certificates.
    pub tls: TlsPaths,
    /// Logs.
    pub log: LogConfig,
    /// Raft's times.
    pub raft: RaftConfig,
    /// Sizes.
    pub storage: StorageConfig,
    /// Bounds.
    pub limits: LimitsConfig,
    /// Checkpoints of the audit chain.
    pub audit: AuditConfig,
    /// People with access tokens; none are taken without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oidc: Option<OidcConfig>,
}

/// PEM files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TlsPaths {
    /// CA of the nodes.
    pub node_ca: PathBuf,
    /// CA of the agents.
    pub agent_ca: PathBuf,
    /// CA of the operators.
    pub operator_ca: PathBuf,
    /// This node's certificate and its issuers.
    pub cert: PathBuf,
    /// This node's private key.
    pub key: PathBuf,
}

/// Logs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LogConfig {
    /// How lines look.
    pub format: LogFormat,
    /// What is logged.
    pub level: String,
}

/// Raft's times, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct RaftConfig {
    /// How often a leader says that it is there.
    pub heartbeat_ms: u64,
    /// Shortest silence before a follower stands.
    pub election_min_ms: u64,
    /// Longest silence before a follower stands.
    pub election_max_ms: u64,
    /// How long one chunk of a snapshot may take.
    pub snapshot_chunk_ms: u64,
    /// How long a write may take before its outcome counts as unknown.
    pub propose_ms: u64,
}

/// Sizes on disk and in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct StorageConfig {
    /// Bytes of one log segment.
    pub wal_segment_bytes: u64,
    /// Entries that stay in the log behind a snapshot, for followers that were briefly away.
    pub wal_keep_entries: u64,
    /// Bytes of recent log entries kept in memory.
    pub wal_cache_bytes: u64,
    /// Most bytes that are applied and not yet in the engine.
    pub overlay_bytes: u64,
    /// Longest time that something is applied and not yet in the engine, in milliseconds.
    pub overlay_age_ms: u64,
    /// Bytes of the engine's page cache.
    pub view_cache_bytes: u64,
    /// Least bytes of log before a snapshot is taken.
    pub snapshot_floor_bytes: u64,
}

/// Bounds on what is served at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct LimitsConfig {
    /// Most connections of the client port.
    pub max_connections: usize,
    /// Most requests that are served at the same time.
    pub max_requests: usize,
    /// How long a TLS handshake may take, in milliseconds.
    pub handshake_ms: u64,
    /// How long requests may still run after a shutdown began, in milliseconds.
    pub drain_ms: u64,
}

/// Checkpoints of the audit chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AuditConfig {
    /// File that they are appended to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint_file: Option<PathBuf>,
    /// Records after which one is written.
    pub checkpoint_records: u64,
    /// Collector of logs that they are sent to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub syslog: Option<SyslogTarget>,
    /// PEM file with the CA of the collector's certificate, if it is reached by TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub syslog_ca: Option<PathBuf>,
    /// Directory in which they wait for the collector.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub syslog_spool: Option<PathBuf>,
}

impl Config {
    /// What the node of the consensus needs of it.
    pub fn node_options(&self) -> NodeOptions {
        let storage = &self.storage;
        NodeOptions {
            cluster: self.cluster_id,
            id: self.node_id,
            data_dir: self.data_dir.clone(),
            peer_address: self.peer_address.clone(),
            client_address: self.client_address.clone(),
            tls: PeerTls {
                node_ca: self.tls.node_ca.clone(),
                cert: self.tls.cert.clone(),
                key: self.tls.key.clone(),
            },
            times: RaftTimes {
                heartbeat: Duration::from_millis(self.raft.heartbeat_ms),
                election_min: Duration::from_millis(self.raft.election_min_ms),
                election_max: Duration::from_millis(self.raft.election_max_ms),
                snapshot_chunk: Duration::from_millis(self.raft.snapshot_chunk_ms),
            },
            sizes: StorageSizes {
                wal_segment_bytes: storage.wal_segment_bytes,
                wal_keep_entries: storage.wal_keep_entries,
                wal_cache_bytes: storage.wal_cache_bytes,
                overlay_bytes: storage.overlay_bytes,
                overlay_age: Duration::from_millis(storage.overlay_age_ms),
                view_cache_bytes: storage.view_cache_bytes,
                snapshot_floor_bytes: storage.snapshot_floor_bytes,
            },
        }
    }

    /// The effective configuration as a file would hold it.
    ///
    /// # Errors
    /// If a path is not UTF-8.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string(self)
    }
}
