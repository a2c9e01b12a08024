//! How many escrows a second the state machine applies, on a store in memory.
//!
//! Each escrow is the first key of a new volume of one of 10,000 devices. Disk and network are no part of it.

#![forbid(unsafe_code)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use holdfast::domain::{
    Actor, ClusterId, DeviceId, Epoch, KeyVersion, ProtectorId, ProtectorKind, RequestId, Sealed,
    Text, Timestamp, User, VolumeId, VolumeKind,
};
use holdfast::state::{
    Bootstrap, Command, CommandBody, Entry, EpochRecord, Escrow, Machine, MemoryStore, Position,
    Signer, Wrapped, codec,
};

const DEVICES: u128 = 10_000;

fn entry(index: u64, actor: Actor, body: CommandBody) -> (Position, Entry) {
    let command = Command {
        actor,
        certificate: None,
        roles: Default::default(),
        request_id: RequestId::from_bytes(u128::from(index).to_be_bytes()),
        time: Timestamp::from_millis(1_700_000_000_000 + index),
        body,
    };
    (Position { term: 1, index }, Entry::Command(codec::encode_command(&command)))
}

fn bootstrap() -> Result<(Position, Entry), holdfast::domain::FieldError> {
    let body = CommandBody::Bootstrap(Bootstrap {
        disclosure_policy: None,
        cluster: ClusterId::from_bytes([1; 16]),
        administrator: "root".parse()?,
        root_check: [0; 32],
        signer: Signer { chain: vec![], private_key: Wrapped(Bytes::new()) },
        epoch: EpochRecord {
            epoch: Epoch::new(1),
            public_key: [0; 32],
            private_key: Wrapped(Bytes::new()),
            signature: Bytes::new(),
        },
        shares: None,
    });
    Ok(entry(0, Actor::Operator("root".parse()?), body))
}

/// The escrow at a log index. The key id is spread like a random one.
fn escrow(index: u64) -> Result<(Position, Entry), holdfast::domain::FieldError> {
    let number = u128::from(index);
    let device = DeviceId::from_bytes((number % DEVICES).to_be_bytes());
    let spread = number.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    let body = CommandBody::Escrow(Escrow {
        device,
        volume: VolumeId::from_bytes((number / DEVICES % 64).to_be_bytes()),
        protector: ProtectorId::from_bytes(spread.to_be_bytes()),
        protector_kind: ProtectorKind::BitLockerRecoveryPassword,
        volume_kind: VolumeKind::OperatingSystem,
        expected_version: KeyVersion::NONE,
        key: Sealed {
            epoch: Epoch::new(1),
            encapsulated_key: [7; 32],
            ciphertext: Bytes::from_static(&[9; 71]),
        },
        package: None,
        host_name: Text::name("host_name", "pc-0001.corp.example")?,
        users: vec![User::new("CORP", "eve")?],
    });
    Ok(entry(index, Actor::Agent(device), body))
}

type Failure = Box<dyn std::error::Error>;

fn ready() -> Result<Machine<MemoryStore>, Failure> {
    let mut machine = Machine::open(Arc::new(MemoryStore::default()))?;
    machine.apply([bootstrap()?])?;
    Ok(machine)
}

/// Time of `rounds` batches. Making the entries is not timed.
fn timed(rounds: u64, batch: u64) -> Result<Duration, Failure> {
    let mut spent = Duration::ZERO;
    let mut machine = ready()?;
    let mut next = 1;
    for _ in 0..rounds {
        // 64 volumes of every device are all there is: begin anew before they run out.
        if u128::from(next + batch) > DEVICES * 64 {
            machine = ready()?;
            next = 1;
        }
        let entries = (next..next + batch).map(escrow).collect::<Result<Vec<_>, _>>()?;
        next += batch;
        let began = Instant::now();
        let answers = black_box(machine.apply(entries)?);
        spent += began.elapsed();
        if answers.iter().any(|applied| applied.outcome.is_err()) {
            return Err("an escrow was refused".into());
        }
    }
    Ok(spent)
}

#[allow(
    clippy::panic,
    reason = "a benchmark that measures nothing must not look like one that did"
)]
fn apply(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("apply_escrows");
    for batch in [1, 64] {
        group.throughput(Throughput::Elements(batch));
        group.bench_function(format!("batch_of_{batch}"), |bencher| {
            bencher.iter_custom(|rounds| match timed(rounds, batch) {
                Ok(spent) => spent,
                Err(error) => panic!("{error}"),
            });
        });
    }
    group.finish();
}

criterion_group!(benches, apply);
criterion_main!(benches);
