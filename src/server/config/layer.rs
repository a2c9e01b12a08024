//! One layer of configuration: a file, or flags with their environment variables. Every key may be missing.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;

use crate::telemetry::LogFormat;

macro_rules! layer {
    ($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $type:ty,)* }
        $(nested { $($nested:ident: $nested_type:ty,)* })?) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Default, Deserialize, clap::Args)]
        #[serde(deny_unknown_fields, default)]
        pub struct $name {
            $($(#[$field_meta])* pub $field: Option<$type>,)*
            $($(
                #[allow(missing_docs, reason = "the type says it")]
                #[command(flatten)]
                pub $nested: $nested_type,
            )*)?
        }

        impl $name {
            /// Fills what is missing from `lower`.
            #[must_use]
            pub fn over(self, lower: Self) -> Self {
                Self {
                    $($field: self.$field.or(lower.$field),)*
                    $($($nested: self.$nested.over(lower.$nested),)*)?
                }
            }
        }
    };
}

layer! {
    /// All keys of the configuration.
    Layer {
        /// Id of this node, from 1; never used again after the node was removed.
        #[arg(long, env = "HOLDFAST_NODE_ID")]
        node_id: u64,
        /// The cluster, as `pki init` printed it (UUID).
        #[arg(long, env = "HOLDFAST_CLUSTER_ID")]
        cluster_id: String,
        /// Directory of the node's data; created if missing.
        #[arg(long, env = "HOLDFAST_DATA_DIR")]
        data_dir: PathBuf,
        /// IP address and port for agents and operators.
        #[arg(long, env = "HOLDFAST_CLIENT_LISTEN")]
        client_listen: SocketAddr,
        /// IP address and port for the other nodes.
        #[arg(long, env = "HOLDFAST_PEER_LISTEN")]
        peer_listen: SocketAddr,
        /// IP address and port for metrics and health; no TLS, so keep it internal.
        #[arg(long, env = "HOLDFAST_HTTP_LISTEN")]
        http_listen: SocketAddr,
        /// IP address and port for devices that enrol, which have no certificate yet; off if left out.
        #[arg(long, env = "HOLDFAST_ENROLMENT_LISTEN")]
        enrolment_listen: SocketAddr,
        /// host:port that clients reach this node at.
        #[arg(long, env = "HOLDFAST_CLIENT_ADDRESS")]
        client_address: String,
        /// host:port that other nodes reach this node at.
        #[arg(long, env = "HOLDFAST_PEER_ADDRESS")]
        peer_address: String,
        /// File with the root key, for a node that may open keys by itself after a restart.
        #[arg(long, env = "HOLDFAST_AUTO_UNSEAL_KEY_FILE")]
        auto_unseal_key_file: PathBuf,
    }
    nested {
        tls: TlsLayer,
        log: LogLayer,
        raft: RaftLayer,
        storage: StorageLayer,
        limits: LimitsLayer,
        audit: AuditLayer,
        oidc: OidcLayer,
    }
}

layer! {
    /// Certificates, all PEM files.
    TlsLayer {
        /// CA of the nodes.
        #[arg(id = "tls-node-ca", long = "tls-node-ca", env = "HOLDFAST_TLS_NODE_CA")]
        node_ca: PathBuf,
        /// CA of the agents.
        #[arg(id = "tls-agent-ca", long = "tls-agent-ca", env = "HOLDFAST_TLS_AGENT_CA")]
        agent_ca: PathBuf,
        /// CA of the operators.
        #[arg(id = "tls-operator-ca", long = "tls-operator-ca", env = "HOLDFAST_TLS_OPERATOR_CA")]
        operator_ca: PathBuf,
        /// This node's certificate and its issuers.
        #[arg(id = "tls-cert", long = "tls-cert", env = "HOLDFAST_TLS_CERT")]
        cert: PathBuf,
        /// This node's private key.
        #[arg(id = "tls-key", long = "tls-key", env = "HOLDFAST_TLS_KEY")]
        key: PathBuf,
    }
}

layer! {
    /// Logs.
    LogLayer {
        /// text or json.
        #[arg(id = "log-format", long = "log-format", env = "HOLDFAST_LOG_FORMAT")]
        format: LogFormat,
        /// Level such as info, or a filter such as info,holdfast::raft=debug.
        #[arg(id = "log-level", long = "log-level", env = "HOLDFAST_LOG_LEVEL")]
        level: String,
    }
}

layer! {
    /// Raft's times.
    RaftLayer {
        /// How often a leader says that it is there, in milliseconds.
        #[arg(id = "raft-heartbeat-ms", long = "raft-heartbeat-ms", env = "HOLDFAST_RAFT_HEARTBEAT_MS")]
        heartbeat_ms: u64,
        /// Shortest silence before a follower stands, in milliseconds.
        #[arg(id = "raft-election-min-ms", long = "raft-election-min-ms", env = "HOLDFAST_RAFT_ELECTION_MIN_MS")]
        election_min_ms: u64,
        /// Longest silence before a follower stands, in milliseconds.
        #[arg(id = "raft-election-max-ms", long = "raft-election-max-ms", env = "HOLDFAST_RAFT_ELECTION_MAX_MS")]
        election_max_ms: u64,
        /// How long one chunk of a snapshot may take, in milliseconds.
        #[arg(id = "raft-snapshot-chunk-ms", long = "raft-snapshot-chunk-ms", env = "HOLDFAST_RAFT_SNAPSHOT_CHUNK_MS")]
        snapshot_chunk_ms: u64,
        /// How long a write may take before its outcome counts as unknown, in milliseconds.
        #[arg(id = "raft-propose-ms", long = "raft-propose-ms", env = "HOLDFAST_RAFT_PROPOSE_MS")]
        propose_ms: u64,
    }
}

layer! {
    /// Sizes on disk and in memory.
    StorageLayer {
        /// Bytes of one log segment.
        #[arg(id = "storage-wal-segment-bytes", long = "storage-wal-segment-bytes", env = "HOLDFAST_STORAGE_WAL_SEGMENT_BYTES")]
        wal_segment_bytes: u64,
        /// Entries that stay in the log behind a snapshot, for followers that were briefly away.
        #[arg(id = "storage-wal-keep-entries", long = "storage-wal-keep-entries", env = "HOLDFAST_STORAGE_WAL_KEEP_ENTRIES")]
        wal_keep_entries: u64,
        /// Bytes of recent log entries kept in memory.
        #[arg(id = "storage-wal-cache-bytes", long = "storage-wal-cache-bytes", env = "HOLDFAST_STORAGE_WAL_CACHE_BYTES")]
        wal_cache_bytes: u64,
        /// Most bytes that are applied and not yet in the engine.
        #[arg(id = "storage-overlay-bytes", long = "storage-overlay-bytes", env = "HOLDFAST_STORAGE_OVERLAY_BYTES")]
        overlay_bytes: u64,
        /// Longest time that something is applied and not yet in the engine, in milliseconds.
        #[arg(id = "storage-overlay-age-ms", long = "storage-overlay-age-ms", env = "HOLDFAST_STORAGE_OVERLAY_AGE_MS")]
        overlay_age_ms: u64,
        /// Bytes of the engine's page cache.
        #[arg(id = "storage-view-cache-bytes", long = "storage-view-cache-bytes", env = "HOLDFAST_STORAGE_VIEW_CACHE_BYTES")]
        view_cache_bytes: u64,
        /// Least bytes of log before a snapshot is taken.
        #[arg(id = "storage-snapshot-floor-bytes", long = "storage-snapshot-floor-bytes", env = "HOLDFAST_STORAGE_SNAPSHOT_FLOOR_BYTES")]
        snapshot_floor_bytes: u64,
    }
}

layer! {
    /// Bounds on what is served at once.
    LimitsLayer {
        /// Most connections of the client port.
        #[arg(id = "limits-max-connections", long = "limits-max-connections", env = "HOLDFAST_LIMITS_MAX_CONNECTIONS")]
        max_connections: usize,
        /// Most requests that are served at the same time.
        #[arg(id = "limits-max-requests", long = "limits-max-requests", env = "HOLDFAST_LIMITS_MAX_REQUESTS")]
        max_requests: usize,
        /// How long a TLS handshake may take, in milliseconds.
        #[arg(id = "limits-handshake-ms", long = "limits-handshake-ms", env = "HOLDFAST_LIMITS_HANDSHAKE_MS")]
        handshake_ms: u64,
        /// How long requests may still run after a shutdown began, in milliseconds.
        #[arg(id = "limits-drain-ms", long = "limits-drain-ms", env = "HOLDFAST_LIMITS_DRAIN_MS")]
        drain_ms: u64,
    }
}

layer! {
    /// Checkpoints of the audit chain.
    AuditLayer {
        /// File that signed checkpoints are appended to, outside the data directory; none are written without it.
        #[arg(id = "audit-checkpoint-file", long = "audit-checkpoint-file", env = "HOLDFAST_AUDIT_CHECKPOINT_FILE")]
        checkpoint_file: PathBuf,
        /// Records after which a checkpoint is written; one is written within a minute in any case.
        #[arg(id = "audit-checkpoint-records", long = "audit-checkpoint-records", env = "HOLDFAST_AUDIT_CHECKPOINT_RECORDS")]
        checkpoint_records: u64,
        /// Collector of logs that checkpoints are sent to by syslog: tls://host:port or tcp://host:port; none without it.
        #[arg(id = "audit-syslog", long = "audit-syslog", env = "HOLDFAST_AUDIT_SYSLOG")]
        syslog: String,
        /// PEM file with the CA of the collector's certificate; for tls:// only.
        #[arg(id = "audit-syslog-ca", long = "audit-syslog-ca", env = "HOLDFAST_AUDIT_SYSLOG_CA")]
        syslog_ca: PathBuf,
        /// Directory in which checkpoints wait for the collector, outside the data directory; made if missing.
        #[arg(id = "audit-syslog-spool", long = "audit-syslog-spool", env = "HOLDFAST_AUDIT_SYSLOG_SPOOL")]
        syslog_spool: PathBuf,
    }
}

layer! {
    /// People with access tokens of an OIDC provider, beside those with certificates; off unless an issuer is named.
    OidcLayer {
        /// URL of the provider, exactly as its tokens name it (iss); its keys are found by discovery.
        #[arg(id = "oidc-issuer", long = "oidc-issuer", env = "HOLDFAST_OIDC_ISSUER")]
        issuer: String,
        /// Whom tokens have to be for (aud): the name that the provider has for this cluster, never that of a client program.
        #[arg(id = "oidc-audience", long = "oidc-audience", env = "HOLDFAST_OIDC_AUDIENCE")]
        audience: String,
        /// How tokens may be signed, such as RS256,ES256.
        #[arg(id = "oidc-algorithms", long = "oidc-algorithms", env = "HOLDFAST_OIDC_ALGORITHMS", value_delimiter = ',')]
        algorithms: Vec<String>,
        /// CA of the provider's certificate (PEM); no other one is believed.
        #[arg(id = "oidc-ca-file", long = "oidc-ca-file", env = "HOLDFAST_OIDC_CA_FILE")]
        ca_file: PathBuf,
        /// The claim that names a person's groups.
        #[arg(id = "oidc-group-claim", long = "oidc-group-claim", env = "HOLDFAST_OIDC_GROUP_CLAIM")]
        group_claim: String,
        /// The roles of each group; in the file only.
        #[arg(skip)]
        roles: BTreeMap<String, Vec<String>>,
        /// How old a token may be, whatever it says itself, in seconds; 900 at most.
        #[arg(id = "oidc-max-age-s", long = "oidc-max-age-s", env = "HOLDFAST_OIDC_MAX_AGE_S")]
        max_age_s: u64,
        /// How far the provider's clock may be off, in seconds.
        #[arg(id = "oidc-leeway-s", long = "oidc-leeway-s", env = "HOLDFAST_OIDC_LEEWAY_S")]
        leeway_s: u64,
        /// How often the provider's keys are read, in seconds.
        #[arg(id = "oidc-keys-refresh-s", long = "oidc-keys-refresh-s", env = "HOLDFAST_OIDC_KEYS_REFRESH_S")]
        keys_refresh_s: u64,
        /// How long keys are good that can't be read again, in seconds.
        #[arg(id = "oidc-keys-max-age-s", long = "oidc-keys-max-age-s", env = "HOLDFAST_OIDC_KEYS_MAX_AGE_S")]
        keys_max_age_s: u64,
    }
}
