//! Closed loops against etcd, measured as `holdfast bench` measures.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use bytes::Bytes;
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use tonic::transport::Channel;

use crate::etcd::{Etcd, unary};
use crate::wire::{self, PutResponse, RangeRequest, RangeResponse, TxnResponse};

const MOST_MICROS: u64 = 120_000_000;
/// As many bytes as an escrow's sealed key and its envelope.
const VALUE_BYTES: usize = 600;
const RECORD_BYTES: usize = 200;
/// Keys that gets ask for.
const KEYS: u64 = 256;
/// How long a write may take before it is given up, with a server dead.
const GAP_CALL: Duration = Duration::from_millis(500);

/// What all clients do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Put 600 bytes under a new key.
    Put,
    /// A transaction that does an escrow's work.
    Txn,
    /// A linearizable get of one key.
    Get,
}

/// What was measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figures {
    /// Operations a second.
    pub(crate) rate: f64,
    /// Milliseconds.
    pub(crate) p50: f64,
    /// Milliseconds.
    pub(crate) p99: f64,
    /// Failed operations.
    pub(crate) errors: u64,
}

async fn step(
    kind: Kind,
    channel: &Channel,
    number: u64,
    value: &Bytes,
    record: &Bytes,
) -> Result<()> {
    match kind {
        Kind::Put => {
            let key = Bytes::from(format!("/key/{number:032x}"));
            let request = wire::put(key, value.clone());
            let _: PutResponse = unary(channel, "/etcdserverpb.KV/Put", request).await?;
        }
        Kind::Txn => {
            let request = wire::escrow(number, value.clone(), record.clone());
            let answer: TxnResponse = unary(channel, "/etcdserverpb.KV/Txn", request).await?;
            if !answer.succeeded {
                bail!("a new key was there already");
            }
        }
        Kind::Get => {
            let key = Bytes::from(format!("/key/{:032x}", number % KEYS));
            let request = RangeRequest { key };
            let answer: RangeResponse = unary(channel, "/etcdserverpb.KV/Range", request).await?;
            if answer.count != 1 {
                bail!("a key is missing");
            }
        }
    }
    Ok(())
}

fn random(length: usize) -> Bytes {
    (0..length).map(|_| rand::random::<u8>()).collect()
}

/// Runs `clients` loops over `connections` for a time.
pub(crate) async fn run(
    etcd: &Etcd,
    kind: Kind,
    clients: usize,
    connections: usize,
    time: Duration,
) -> Result<Figures> {
    let channels = etcd.connect(connections).await?;
    let (value, record) = (random(VALUE_BYTES), random(RECORD_BYTES));
    let first = channels.first().ok_or_else(|| anyhow::anyhow!("no connection"))?;
    for number in 0..KEYS {
        step(Kind::Put, first, number, &value, &record).await?;
    }
    for channel in &channels {
        step(Kind::Get, channel, 0, &value, &record).await?;
    }
    let next = Arc::new(AtomicU64::new(KEYS));
    let begun = Instant::now();
    let tasks: Vec<_> = channels
        .iter()
        .cycle()
        .take(clients)
        .map(|channel| {
            let (channel, next) = (channel.clone(), Arc::clone(&next));
            let (value, record) = (value.clone(), record.clone());
            tokio::spawn(async move {
                let mut latency = Histogram::<u64>::new_with_bounds(1, MOST_MICROS, 3)?;
                let mut errors = 0_u64;
                while begun.elapsed() < time {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let from = Instant::now();
                    match step(kind, &channel, number, &value, &record).await {
                        Ok(()) => latency.saturating_record(micros(from.elapsed())),
                        Err(_) => errors += 1,
                    }
                }
                anyhow::Ok((latency, errors))
            })
        })
        .collect();
    let mut all = Histogram::<u64>::new_with_bounds(1, MOST_MICROS, 3)?;
    let mut errors = 0;
    for task in tasks {
        let (latency, failed) = task.await??;
        all += latency;
        errors += failed;
    }
    let milliseconds =
        |quantile| Duration::from_micros(all.value_at_quantile(quantile)).as_secs_f64() * 1e3;
    let rate = all.len() as f64 / begun.elapsed().as_secs_f64();
    Ok(Figures { rate, p50: milliseconds(0.5), p99: milliseconds(0.99), errors })
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(MOST_MICROS)
}

/// Puts through all members while the leader is killed; the longest time without an acknowledged put.
pub(crate) async fn gap(etcd: &mut Etcd, clients: usize) -> Result<Duration> {
    let channels = etcd.connect(3).await?;
    let value = random(VALUE_BYTES);
    let (stop, acknowledged) = (Arc::new(AtomicU64::new(0)), Arc::new(Mutex::new(Vec::new())));
    let unique: u64 = rand::random();
    let tasks: Vec<_> = (0..clients)
        .map(|client| {
            let (channels, value) = (channels.clone(), value.clone());
            let (stop, acknowledged) = (Arc::clone(&stop), Arc::clone(&acknowledged));
            tokio::spawn(async move {
                let mut number = unique.wrapping_add((client as u64) << 32);
                let mut place = client;
                while stop.load(Ordering::Relaxed) == 0 {
                    let Some(channel) = channels.get(place % channels.len().max(1)) else { return };
                    number = number.wrapping_add(1);
                    let call = step(Kind::Put, channel, number, &value, &value);
                    match tokio::time::timeout(GAP_CALL, call).await {
                        Ok(Ok(())) => acknowledged.lock().push(Instant::now()),
                        // As any client does: the next server.
                        Ok(Err(_)) | Err(_) => {
                            place += 1;
                            tokio::time::sleep(Duration::from_millis(10)).await;
                        }
                    }
                }
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(2)).await;
    etcd.kill_leader().await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    stop.store(1, Ordering::Relaxed);
    for task in tasks {
        task.await?;
    }
    let mut times = std::mem::take(&mut *acknowledged.lock());
    times.sort_unstable();
    let gaps = times.windows(2).filter_map(|pair| match pair {
        [earlier, later] => Some(later.saturating_duration_since(*earlier)),
        _ => None,
    });
    Ok(gaps.max().unwrap_or_default())
}
