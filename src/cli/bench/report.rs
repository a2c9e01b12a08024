//! What a measurement says.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::load::Measured;
use super::usage::Used;
use super::{BenchArgs, Workload};
use crate::cli::output::{Sheet, Show};

/// The result.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    workload: &'static str,
    clients: u64,
    connections: u64,
    seconds: f64,
    operations: u64,
    operations_per_second: f64,
    latency_ms: Latency,
    errors: BTreeMap<&'static str, u64>,
    error_samples: BTreeMap<&'static str, String>,
    longest_gap_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    gaps: Option<Vec<Gap>>,
    cpu: Used,
    cpu_micros_per_operation: CpuPerOperation,
}

/// Latencies in milliseconds.
#[derive(Debug, Serialize)]
struct Latency {
    mean: f64,
    p50: f64,
    p90: f64,
    p99: f64,
    p999: f64,
    max: f64,
}

/// A time without an acknowledged write.
#[derive(Debug, Serialize)]
struct Gap {
    at_ms: f64,
    ms: f64,
}

/// Processor time for each operation, in microseconds.
#[derive(Debug, Serialize)]
struct CpuPerOperation {
    servers: f64,
    client: f64,
}

impl Latency {
    fn of(histogram: &Histogram<u64>) -> Self {
        let ms = |micros: u64| Duration::from_micros(micros).as_secs_f64() * 1000.0;
        Self {
            mean: histogram.mean() / 1000.0,
            p50: ms(histogram.value_at_quantile(0.5)),
            p90: ms(histogram.value_at_quantile(0.9)),
            p99: ms(histogram.value_at_quantile(0.99)),
            p999: ms(histogram.value_at_quantile(0.999)),
            max: ms(histogram.max()),
        }
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

impl Report {
    pub(super) fn new(args: &BenchArgs, measured: &Measured, cpu: Used) -> Self {
        let operations = measured.latency.len();
        #[allow(clippy::cast_precision_loss, reason = "a count of operations is far below 2^52")]
        let count = operations.max(1) as f64;
        let seconds = measured.elapsed.as_secs_f64().max(0.001);
        // From 0.0: the sum of nothing would print as a negative zero.
        let servers = cpu.servers.iter().fold(0.0, |sum, server| sum + server.cpu_seconds);
        let cpu_micros_per_operation = CpuPerOperation {
            servers: servers * 1e6 / count,
            client: cpu.client.cpu_seconds * 1e6 / count,
        };
        let gaps =
            measured.gaps.iter().map(|(at, gap)| Gap { at_ms: millis(*at), ms: millis(*gap) });
        Self {
            workload: args.workload.as_str(),
            clients: args.clients,
            connections: args.connections,
            seconds,
            operations,
            operations_per_second: if operations == 0 { 0.0 } else { count / seconds },
            latency_ms: Latency::of(&measured.latency),
            errors: measured.errors.clone(),
            error_samples: measured.samples.clone(),
            longest_gap_ms: millis(measured.longest_gap),
            gaps: (args.workload == Workload::Gap).then(|| gaps.collect()),
            cpu,
            cpu_micros_per_operation,
        }
    }
}

impl Show for Report {
    fn sheet(&self) -> Sheet {
        let latency = &self.latency_ms;
        let mut sheet = Sheet::new()
            .line(format!(
                "{}: {} clients on {} connections, {:.1} s",
                self.workload, self.clients, self.connections, self.seconds
            ))
            .line("")
            .facts([
                ("operations", self.operations.to_string()),
                ("operations/s", format!("{:.0}", self.operations_per_second)),
                ("p50", format!("{:.2} ms", latency.p50)),
                ("p90", format!("{:.2} ms", latency.p90)),
                ("p99", format!("{:.2} ms", latency.p99)),
                ("p99.9", format!("{:.2} ms", latency.p999)),
                ("max", format!("{:.2} ms", latency.max)),
                ("longest gap", format!("{:.0} ms", self.longest_gap_ms)),
            ]);
        for gap in self.gaps.iter().flatten() {
            sheet =
                sheet.line(format!("gap of {:.0} ms after {:.1} s", gap.ms, gap.at_ms / 1000.0));
        }
        for (kind, count) in &self.errors {
            let sample = self.error_samples.get(kind).map(String::as_str).unwrap_or_default();
            sheet = sheet.line(format!("{count} errors, {kind}: {sample}"));
        }
        for server in &self.cpu.servers {
            sheet = sheet.line(format!(
                "node {}: {:.1} s of processor time, {} MiB of memory",
                server.node_id,
                server.cpu_seconds,
                server.rss_bytes / (1024 * 1024)
            ));
        }
        sheet.line(format!(
            "processor time for each operation: servers {:.0} us, load generator {:.0} us",
            self.cpu_micros_per_operation.servers, self.cpu_micros_per_operation.client
        ))
    }
}
