//! Numbers for Prometheus, as OpenMetrics text. No label names a device, a person or a key.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::domain::limits;
use crate::grpc::{RpcMetrics, TokenMetrics};
use crate::oidc::Tokens;
use crate::service::{Context, Sealing};
use crate::state::{Heads, query};
use crate::tls::ConnectionCounters;

use super::checkpoints::Sink as _;
use super::node::ServerNode;
use super::renewal::Renewal;
use super::serve::Checkpoints;

/// Where the numbers come from.
pub(super) struct Sources<N> {
    pub(super) context: Arc<Context<N>>,
    pub(super) sealing: Arc<Sealing>,
    pub(super) client_port: Arc<ConnectionCounters>,
    pub(super) peer_port: Arc<ConnectionCounters>,
    pub(super) enrolment_port: Arc<ConnectionCounters>,
    pub(super) renewal: Arc<Renewal>,
    pub(super) checkpoints: Checkpoints,
    pub(super) tokens: Option<Arc<Tokens>>,
}

/// All numbers of a server.
pub(super) fn registry<N: ServerNode>(
    sources: Sources<N>,
    rpc: &RpcMetrics,
    tokens: &TokenMetrics,
) -> Registry {
    let mut registry = Registry::with_prefix("holdfast");
    let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
    registry.register("build", "The program", build);
    rpc.register(&mut registry);
    if sources.tokens.is_some() {
        tokens.register(&mut registry);
    }
    registry.register_collector(Box::new(sources));
    registry
}

impl<N> fmt::Debug for Sources<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sources")
    }
}

/// Writes metrics one by one.
struct Writer<'a>(DescriptorEncoder<'a>);

impl Writer<'_> {
    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let counter = ConstCounter::new(value);
        let encoder = self.0.encode_descriptor(
            name,
            help,
            None,
            prometheus_client::encoding::EncodeMetric::metric_type(&counter),
        )?;
        counter.encode(encoder)
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.seconds(name, help, value as f64)
    }

    fn seconds(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        let gauge = ConstGauge::new(value);
        let encoder = self.0.encode_descriptor(
            name,
            help,
            None,
            prometheus_client::encoding::EncodeMetric::metric_type(&gauge),
        )?;
        gauge.encode(encoder)
    }
}

impl<N: ServerNode> Sources<N> {
    fn raft(&self, out: &mut Writer<'_>) -> fmt::Result {
        let node = self.context.consensus().metrics();
        let fresh = self.context.consensus().freshness();
        out.gauge("raft_term", "Current term", node.term)?;
        out.gauge(
            "raft_leader",
            "Id of the leader, 0 if none was known to have a quorum within the last second",
            node.leader,
        )?;
        out.gauge(
            "raft_is_leader",
            "Whether this node leads, with a quorum within the last second",
            node.is_leader.into(),
        )?;
        out.gauge(
            "clock_ahead",
            "Whether this node's clock is far ahead of a majority's, so that it proposes nothing",
            node.clock_ahead.into(),
        )?;
        out.gauge("raft_committed_index", "Last committed entry known", node.committed_index)?;
        out.gauge("raft_applied_index", "Last applied entry", node.applied_index)?;
        out.gauge("raft_last_log_index", "Last entry in the log", node.last_log_index)?;
        out.counter("raft_elections", "Elections that this node stood in", node.elections)?;
        out.seconds(
            "quorum_age_seconds",
            "Time since the last proof of a quorum; infinite if there was none",
            if fresh.age == std::time::Duration::MAX {
                f64::INFINITY
            } else {
                fresh.age.as_secs_f64()
            },
        )
    }

    fn storage(&self, out: &mut Writer<'_>) -> fmt::Result {
        let node = self.context.consensus().metrics();
        out.counter("wal_fsyncs", "Times that the log was brought to disk", node.wal_fsyncs)?;
        out.counter("wal_written_bytes", "Bytes written to the log", node.wal_written_bytes)?;
        out.gauge("wal_disk_bytes", "Bytes of the log on disk", node.wal_disk_bytes)?;
        out.gauge("view_overlay_bytes", "Applied bytes not yet in the engine", node.overlay_bytes)?;
        out.gauge(
            "view_lag_entries",
            "Applied entries not yet in the engine",
            node.view_lag_entries,
        )?;
        if let Some(age) = node.snapshot_age_ms {
            let seconds = age as f64 / 1000.0;
            out.seconds(
                "snapshot_age_seconds",
                "Time since the newest command in the newest snapshot; absent without one",
                seconds,
            )?;
        }
        out.gauge(
            "state_divergence",
            "Whether the state was found to differ from another member's at the same log index",
            node.divergence.into(),
        )?;
        out.gauge("disk_low", "Whether writes are refused for want of room", node.disk_low.into())
    }

    fn service(&self, out: &mut Writer<'_>) -> fmt::Result {
        let counters = self.context.counters();
        out.counter("disclosures", "Keys that this node opened", counters.disclosures())?;
        out.counter("refusals", "Calls refused for want of a right", counters.refusals())?;
        let until = self.renewal.leaf().not_after.as_millis() / 1000;
        out.gauge(
            "certificate_not_after_seconds",
            "When the certificate of both ports ends, in seconds since the Unix epoch",
            until,
        )?;
        out.gauge(
            "certificate_reload_failed",
            "Whether changed certificate files could not be used, so that older ones are in use",
            self.renewal.failed().into(),
        )?;
        out.counter(
            "self_test_keys",
            "Stored keys that were opened to see whether they open",
            counters.self_tested_keys(),
        )?;
        out.gauge(
            "self_test_failed",
            "Whether a stored key or the escrow key did not open when that was last tested",
            counters.self_test_failed().into(),
        )?;
        let unsealed = self.sealing.sealed_because().is_none();
        out.gauge("unsealed", "Whether this node can open keys", unsealed.into())
    }

    fn audit(&self, out: &mut Writer<'_>) -> fmt::Result {
        out.gauge(
            "audit_chain_conflict",
            "Whether the audit chain here is not the one that was signed before, so that no key is opened",
            self.context.chain_conflict().is_some().into(),
        )?;
        if let Some(file) = &self.checkpoints.file {
            out.gauge(
                "audit_checkpoint_failing",
                "Whether checkpoints of the audit chain can't be written; absent without a file for them",
                file.failing().load(Ordering::Relaxed).into(),
            )?;
        }
        let Some(syslog) = &self.checkpoints.syslog else { return Ok(()) };
        out.gauge(
            "audit_syslog_failing",
            "Whether checkpoints don't reach the collector, or can't be kept for it; absent without one",
            syslog.failing().into(),
        )?;
        out.gauge("audit_syslog_waiting", "Checkpoints that wait", syslog.waiting())?;
        out.seconds(
            "audit_syslog_lag_seconds",
            "For how long the oldest checkpoint that the collector lacks has been waiting; 0 if it has all",
            syslog.lag().as_secs_f64(),
        )?;
        out.counter("audit_syslog_sent", "Checkpoints handed over", syslog.sent())?;
        out.counter(
            "audit_syslog_unconfirmed",
            "Those among them after which the collector ended its connection without the end of TLS",
            syslog.unsaid(),
        )?;
        out.counter("audit_syslog_failures", "Tries that failed", syslog.failures())?;
        out.counter(
            "audit_syslog_replaced",
            "Checkpoints that gave their place to a newer one because too many waited",
            syslog.replaced(),
        )
    }

    fn disclosure(&self, out: &mut Writer<'_>) -> fmt::Result {
        let counters = self.context.counters();
        out.counter(
            "disclosures_by_approval",
            "Keys that this node opened by the approval of another person",
            counters.by_approval(),
        )?;
        out.counter(
            "disclosures_over_quota",
            "Disclosures that were refused at this node because a quota was used up",
            counters.over_quota(),
        )?;
        out.counter(
            "disclosures_unapproved",
            "Disclosures that were refused at this node for want of an approval",
            counters.unapproved(),
        )?;
        let view = self.context.consensus().view();
        // A store that can't be read stops the node elsewhere, and says so there.
        let Ok(heads) = Heads::load(view) else { return Ok(()) };
        let now = self.context.now().max(heads.time);
        let until = heads.mass_recovery_until;
        out.gauge(
            "mass_recovery",
            "Whether quotas of disclosures are lifted in the cluster",
            (now < until).into(),
        )?;
        out.gauge(
            "mass_recovery_until_seconds",
            "When the last mass recovery ends or ended by itself, in seconds since the Unix epoch; 0 if it was ended early",
            until.as_millis() / 1000,
        )?;
        let most = usize::try_from(limits::APPROVALS).unwrap_or(usize::MAX);
        let Ok(approvals) = query::approvals(view, None, most) else { return Ok(()) };
        let waiting = approvals.iter().filter(|of| of.is_open(now) && of.decision.is_none());
        out.gauge(
            "approvals_waiting",
            "Requests for approval in the cluster that nobody has decided on",
            u64::try_from(waiting.count()).unwrap_or(u64::MAX),
        )
    }

    fn enrolment(&self, out: &mut Writer<'_>) -> fmt::Result {
        let counters = self.context.counters();
        out.counter("enrolments", "Devices that this node enrolled", counters.enrolments())?;
        out.counter(
            "enrolments_again",
            "Devices that this node enrolled which had enrolled before",
            counters.enrolments_again(),
        )?;
        out.counter(
            "enrolments_refused",
            "Enrolments and renewals of certificates that this node refused",
            counters.enrolments_refused(),
        )?;
        out.counter(
            "certificate_renewals",
            "Certificates of devices that this node renewed",
            counters.renewals(),
        )?;
        // A store that can't be read stops the node elsewhere, and says so there.
        let Ok(heads) = Heads::load(self.context.consensus().view()) else { return Ok(()) };
        out.gauge(
            "enrolled_devices",
            "Devices with a certificate of the cluster's CA",
            heads.enrolled,
        )?;
        out.gauge(
            "enrolled_again",
            "How often a device of the cluster enrolled that had enrolled before",
            heads.enrolled_again,
        )
    }

    fn oidc(&self, out: &mut Writer<'_>) -> fmt::Result {
        let Some(tokens) = &self.tokens else { return Ok(()) };
        if let Some(age) = tokens.keys_age() {
            out.seconds(
                "oidc_keys_age_seconds",
                "Time since the keys of the OIDC provider were read; absent before",
                age.as_secs_f64(),
            )?;
        }
        out.counter(
            "oidc_key_failures",
            "Times that the keys of the OIDC provider could not be read",
            tokens.failures(),
        )
    }

    fn ports(&self, out: &mut Writer<'_>) -> fmt::Result {
        let ports = [
            ("client", &self.client_port),
            ("peer", &self.peer_port),
            ("enrolment", &self.enrolment_port),
        ];
        for (port, counters) in ports {
            let counts = counters.counts();
            let name = |what: &str| format!("{port}_{what}");
            out.counter(&name("connections"), "TLS handshakes that succeeded", counts.accepted)?;
            out.counter(
                &name("tls_handshake_failures"),
                "TLS handshakes that failed or took too long",
                counts.handshake_failed.saturating_add(counts.handshake_timed_out),
            )?;
            out.counter(
                &name("connections_refused"),
                "Connections closed because there were too many",
                counts.refused,
            )?;
        }
        Ok(())
    }
}

impl<N: ServerNode> Collector for Sources<N> {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Writer(encoder);
        self.raft(&mut out)?;
        self.storage(&mut out)?;
        self.service(&mut out)?;
        self.audit(&mut out)?;
        self.disclosure(&mut out)?;
        self.enrolment(&mut out)?;
        self.oidc(&mut out)?;
        self.ports(&mut out)
    }
}
