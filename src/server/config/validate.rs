//! From a layer with holes to a valid configuration: defaults and checks, each fault with its key.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::oidc::oidc;
use super::{
    AuditConfig, AuditLayer, Config, ConfigError, Layer, LimitsConfig, LimitsLayer, LogConfig,
    LogLayer, RaftConfig, RaftLayer, StorageConfig, StorageLayer, SyslogTarget, TlsLayer, TlsPaths,
};
use crate::crypto::{Authority, RootKey};
use crate::domain::{ClusterId, NodeId};
use crate::telemetry;

const MIB: u64 = 1024 * 1024;

pub(super) fn fault(key: &'static str, what: impl Into<String>) -> ConfigError {
    ConfigError::Key { key, what: what.into() }
}

pub(super) fn required<T>(key: &'static str, value: Option<T>) -> Result<T, ConfigError> {
    value.ok_or_else(|| fault(key, "is missing"))
}

fn listen(
    key: &'static str,
    value: Option<SocketAddr>,
    default: u16,
) -> Result<SocketAddr, ConfigError> {
    // Port 0 is for tests, which read the real port off the listener.
    let address = value.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], default)));
    if address.ip().is_multicast() {
        return Err(fault(key, "must not be a multicast address"));
    }
    Ok(address)
}

/// Checks `host:port` with a port from 1.
pub(super) fn is_host_and_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let host_fits = match bare {
        Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            (1..=253).contains(&host.len())
                && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-'))
        }
    };
    host_fits && port.parse::<u16>().is_ok_and(|port| port > 0)
}

fn advertised(
    key: &'static str,
    value: Option<String>,
    listen: SocketAddr,
) -> Result<String, ConfigError> {
    let address = match value {
        Some(address) => address,
        None if listen.ip().is_unspecified() || listen.port() == 0 => {
            return Err(fault(key, "is missing, and the listening address is no address to call"));
        }
        None => listen.to_string(),
    };
    if is_host_and_port(&address) {
        Ok(address)
    } else {
        Err(fault(key, "must be host:port, such as node-1.example:7401 or [::1]:7401"))
    }
}

pub(super) fn readable(key: &'static str, value: Option<PathBuf>) -> Result<PathBuf, ConfigError> {
    let path = required(key, value)?;
    check_readable(key, &path)?;
    Ok(path)
}

fn check_readable(key: &'static str, path: &Path) -> Result<(), ConfigError> {
    let opened = std::fs::File::open(path).and_then(|file| file.metadata());
    match opened {
        Ok(metadata) if metadata.is_file() => Ok(()),
        Ok(_) => Err(fault(key, format!("{} is no file", path.display()))),
        Err(error) => Err(fault(key, format!("{}: {error}", path.display()))),
    }
}

/// A key that the server would not use later is refused now: its file's mode and place, and its form.
fn check_root_key(path: &Path, data_dir: &Path) -> Result<(), ConfigError> {
    match RootKey::load(path, data_dir) {
        Ok(_) => Ok(()),
        Err(error) => {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
            Err(fault("auto_unseal_key_file", format!("{error}{}", cause.unwrap_or_default())))
        }
    }
}

pub(super) fn between(
    key: &'static str,
    value: Option<u64>,
    default: u64,
    range: std::ops::RangeInclusive<u64>,
) -> Result<u64, ConfigError> {
    let value = value.unwrap_or(default);
    if range.contains(&value) {
        Ok(value)
    } else {
        Err(fault(key, format!("is {value}, must be {} to {}", range.start(), range.end())))
    }
}

fn count(
    key: &'static str,
    value: Option<usize>,
    default: u64,
    range: std::ops::RangeInclusive<u64>,
) -> Result<usize, ConfigError> {
    let value = value.map(|value| u64::try_from(value).unwrap_or(u64::MAX));
    let value = between(key, value, default, range)?;
    usize::try_from(value).map_err(|_| fault(key, "is too large for this machine"))
}

impl Config {
    /// Fills in defaults and checks every key.
    ///
    /// # Errors
    /// The first key at fault.
    pub fn from_layer(layer: Layer) -> Result<Self, ConfigError> {
        let node_id = required("node_id", layer.node_id)?;
        if node_id == 0 {
            return Err(fault("node_id", "must be 1 or more"));
        }
        let cluster_id: ClusterId = required("cluster_id", layer.cluster_id)?
            .parse()
            .map_err(|_| fault("cluster_id", "must be a UUID, as `pki init` prints it"))?;
        let data_dir = required("data_dir", layer.data_dir)?;
        if data_dir.as_os_str().is_empty() {
            return Err(fault("data_dir", "must not be empty"));
        }
        let client_listen = listen("client_listen", layer.client_listen, 7401)?;
        let peer_listen = listen("peer_listen", layer.peer_listen, 7402)?;
        let http_listen = listen("http_listen", layer.http_listen, 7403)?;
        check_distinct(client_listen, peer_listen, http_listen)?;
        let enrolment_listen = layer
            .enrolment_listen
            .map(|address| listen("enrolment_listen", Some(address), 0))
            .transpose()?;
        check_enrolment(enrolment_listen, [client_listen, peer_listen, http_listen])?;
        let client_address = advertised("client_address", layer.client_address, client_listen)?;
        let peer_address = advertised("peer_address", layer.peer_address, peer_listen)?;
        let auto_unseal_key_file = layer.auto_unseal_key_file;
        if let Some(path) = &auto_unseal_key_file {
            check_root_key(path, &data_dir)?;
        }
        let audit = audit(layer.audit, &data_dir)?;
        Ok(Self {
            node_id: NodeId::new(node_id),
            cluster_id,
            data_dir,
            client_listen,
            peer_listen,
            http_listen,
            enrolment_listen,
            client_address,
            peer_address,
            auto_unseal_key_file,
            tls: tls(layer.tls)?,
            log: log(layer.log)?,
            raft: raft(layer.raft)?,
            storage: storage(layer.storage)?,
            limits: limits(layer.limits)?,
            audit,
            oidc: oidc(layer.oidc)?,
        })
    }
}

fn check_distinct(
    client: SocketAddr,
    peer: SocketAddr,
    http: SocketAddr,
) -> Result<(), ConfigError> {
    if peer.port() != 0 && peer == client {
        return Err(fault("peer_listen", "is the same as client_listen"));
    }
    if http.port() != 0 && (http == client || http == peer) {
        return Err(fault("http_listen", "is the same as client_listen or peer_listen"));
    }
    Ok(())
}

fn check_enrolment(
    enrolment: Option<SocketAddr>,
    others: [SocketAddr; 3],
) -> Result<(), ConfigError> {
    match enrolment {
        Some(address) if address.port() != 0 && others.contains(&address) => {
            let what = "is the same as client_listen, peer_listen or http_listen";
            Err(fault("enrolment_listen", what))
        }
        _ => Ok(()),
    }
}

fn tls(layer: TlsLayer) -> Result<TlsPaths, ConfigError> {
    Ok(TlsPaths {
        node_ca: readable("tls.node_ca", layer.node_ca)?,
        agent_ca: readable("tls.agent_ca", layer.agent_ca)?,
        operator_ca: readable("tls.operator_ca", layer.operator_ca)?,
        cert: readable("tls.cert", layer.cert)?,
        key: readable("tls.key", layer.key)?,
    })
}

fn log(layer: LogLayer) -> Result<LogConfig, ConfigError> {
    let level = layer.level.unwrap_or_else(|| "info".to_owned());
    telemetry::check_filter(&level)
        .map_err(|_| fault("log.level", "must be a level such as info, or a filter"))?;
    Ok(LogConfig { format: layer.format.unwrap_or_default(), level })
}

fn raft(layer: RaftLayer) -> Result<RaftConfig, ConfigError> {
    let heartbeat_ms = between("raft.heartbeat_ms", layer.heartbeat_ms, 50, 5..=10_000)?;
    let election_min_ms = between("raft.election_min_ms", layer.election_min_ms, 200, 10..=60_000)?;
    let election_max_ms =
        between("raft.election_max_ms", layer.election_max_ms, 350, 11..=120_000)?;
    if election_min_ms < heartbeat_ms.saturating_mul(2) {
        return Err(fault("raft.election_min_ms", "must be at least twice raft.heartbeat_ms"));
    }
    if election_max_ms <= election_min_ms {
        return Err(fault("raft.election_max_ms", "must be greater than raft.election_min_ms"));
    }
    Ok(RaftConfig {
        heartbeat_ms,
        election_min_ms,
        election_max_ms,
        snapshot_chunk_ms: between(
            "raft.snapshot_chunk_ms",
            layer.snapshot_chunk_ms,
            30_000,
            1000..=3_600_000,
        )?,
        propose_ms: between("raft.propose_ms", layer.propose_ms, 5000, 100..=60_000)?,
    })
}

fn storage(layer: StorageLayer) -> Result<StorageConfig, ConfigError> {
    let bytes =
        |key, value, default, least| between(key, value, default, least..=1024 * 1024 * MIB);
    Ok(StorageConfig {
        wal_segment_bytes: bytes(
            "storage.wal_segment_bytes",
            layer.wal_segment_bytes,
            64 * MIB,
            4 * MIB,
        )?,
        wal_keep_entries: between(
            "storage.wal_keep_entries",
            layer.wal_keep_entries,
            10_000,
            1..=100_000_000,
        )?,
        wal_cache_bytes: bytes("storage.wal_cache_bytes", layer.wal_cache_bytes, 32 * MIB, MIB)?,
        overlay_bytes: bytes("storage.overlay_bytes", layer.overlay_bytes, 64 * MIB, MIB)?,
        overlay_age_ms: between(
            "storage.overlay_age_ms",
            layer.overlay_age_ms,
            5000,
            10..=600_000,
        )?,
        view_cache_bytes: bytes("storage.view_cache_bytes", layer.view_cache_bytes, 64 * MIB, MIB)?,
        snapshot_floor_bytes: bytes(
            "storage.snapshot_floor_bytes",
            layer.snapshot_floor_bytes,
            256 * MIB,
            MIB,
        )?,
    })
}

fn audit(layer: AuditLayer, data_dir: &Path) -> Result<AuditConfig, ConfigError> {
    if let Some(path) = &layer.checkpoint_file {
        check_apart("audit.checkpoint_file", path, data_dir)?;
    }
    let syslog = layer.syslog.map(|text| text.parse::<SyslogTarget>()).transpose();
    let syslog = syslog.map_err(|what| fault("audit.syslog", what))?;
    check_syslog_ca(syslog.as_ref(), layer.syslog_ca.as_deref())?;
    match (&syslog, &layer.syslog_spool) {
        (Some(_), Some(dir)) => check_apart("audit.syslog_spool", dir, data_dir)?,
        (Some(_), None) => return Err(fault("audit.syslog_spool", "is missing")),
        (None, Some(_)) => {
            return Err(fault("audit.syslog", "is missing, and audit.syslog_spool is not"));
        }
        (None, None) => {}
    }
    Ok(AuditConfig {
        checkpoint_file: layer.checkpoint_file,
        checkpoint_records: between(
            "audit.checkpoint_records",
            layer.checkpoint_records,
            1000,
            1..=1_000_000,
        )?,
        syslog,
        syslog_ca: layer.syslog_ca,
        syslog_spool: layer.syslog_spool,
    })
}

/// A place for checkpoints: whoever puts an old copy in the place of the data must not take them along.
fn check_apart(key: &'static str, path: &Path, data_dir: &Path) -> Result<(), ConfigError> {
    if !path.is_absolute() {
        return Err(fault(key, "must be an absolute path"));
    }
    if path.starts_with(data_dir) {
        return Err(fault(key, "must not be in data_dir"));
    }
    Ok(())
}

/// A CA that the server would not use later is refused now.
fn check_syslog_ca(target: Option<&SyslogTarget>, ca: Option<&Path>) -> Result<(), ConfigError> {
    let key = "audit.syslog_ca";
    match (target.is_some_and(|target| target.tls), ca) {
        (true, Some(path)) => Authority::from_pem_file("collector", path)
            .map(drop)
            .map_err(|error| fault(key, error.to_string())),
        (true, None) => Err(fault(key, "is missing: by tls:// the collector has to be known")),
        (false, Some(_)) => Err(fault(key, "is for a collector at tls:// only")),
        (false, None) => Ok(()),
    }
}

fn limits(layer: LimitsLayer) -> Result<LimitsConfig, ConfigError> {
    Ok(LimitsConfig {
        max_connections: count(
            "limits.max_connections",
            layer.max_connections,
            4096,
            1..=1_000_000,
        )?,
        max_requests: count("limits.max_requests", layer.max_requests, 1024, 1..=1_000_000)?,
        handshake_ms: between("limits.handshake_ms", layer.handshake_ms, 5000, 100..=60_000)?,
        drain_ms: between("limits.drain_ms", layer.drain_ms, 10_000, 100..=600_000)?,
    })
}
