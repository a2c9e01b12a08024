//! What an append to the write-ahead log costs on real files: one write and one fdatasync a batch, with its callback.
//!
//! The files lie in the directory for temporary files; name another disk by `TMPDIR`. The number to compare with is the
//! disk's own fdatasync.

#![forbid(unsafe_code)]

use std::sync::mpsc;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use holdfast::fs::StdFs;
use holdfast::state::Position;
use holdfast::storage::wal::{LogEntry, Payload, Wal, WalOptions};

/// Bytes of an entry: about those of an escrow.
const ENTRY: usize = 600;
/// Entries after which the front of the log is purged, so that the disk does not fill.
const PURGE: u64 = 200_000;

fn append(c: &mut Criterion) {
    let mut group = c.benchmark_group("wal_append");
    for batch in [1_u64, 16, 128] {
        let Ok(dir) = tempfile::tempdir() else { return };
        let Ok(wal) = Wal::open(StdFs, &dir.path().join("wal"), WalOptions::default()) else {
            return;
        };
        let payload = Payload::Command(Bytes::from(vec![7; ENTRY]));
        let mut next = 0_u64;
        group.throughput(Throughput::Elements(batch));
        group.bench_function(BenchmarkId::from_parameter(batch), |b| {
            b.iter(|| {
                let entries = (next..next + batch)
                    .map(|index| LogEntry {
                        id: Position { term: 1, index },
                        payload: payload.clone(),
                    })
                    .collect();
                next += batch;
                let durable = write(|done| wal.append(entries, done));
                assert!(durable, "the disk failed");
                if next % PURGE < batch {
                    let upto = Position { term: 1, index: next - 1 };
                    assert!(write(|done| wal.purge(upto, done)), "the disk failed");
                }
            });
        });
        wal.close();
    }
    group.finish();
}

/// Asks for something and waits until it is durable.
fn write<E>(ask: impl FnOnce(holdfast::storage::wal::Done) -> Result<(), E>) -> bool {
    let (sender, receiver) = mpsc::channel();
    let asked = ask(Box::new(move |result| sender.send(result.is_ok()).unwrap_or_default()));
    asked.is_ok() && receiver.recv() == Ok(true)
}

criterion_group!(benches, append);
criterion_main!(benches);
