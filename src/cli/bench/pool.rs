//! Escrows that are sealed and encoded before the clock starts.
//!
//! A volume's keys follow one another by version, and the version is bound into the sealed key. So each client has a
//! volume of its own and escrows to it again and again, each time a new key with a new id.

use std::sync::Arc;

use uuid::Uuid;

use crate::cli::exit::CliError;
use crate::client::{ClientError, EncodedEscrow, EscrowKey, NewEscrow, SealedEscrow};
use crate::crypto::system_rng;
use crate::domain::{
    DeviceId, KeyVersion, ProtectorId, ProtectorKind, RecoveryKey, Text, User, VolumeId, VolumeKind,
};

/// Most escrows that are sealed beforehand; at some 700 bytes each.
const MOST: u64 = 400_000;

/// Makes the escrows of one volume, one after the other.
#[derive(Clone)]
pub(super) struct VolumeKeys {
    key: EscrowKey,
    next: NewEscrow,
}

impl VolumeKeys {
    /// Of a new volume.
    pub(super) fn new(key: EscrowKey, device: DeviceId) -> Result<Self, CliError> {
        let next = NewEscrow {
            device,
            volume: VolumeId::new(Uuid::new_v4()),
            volume_kind: VolumeKind::OperatingSystem,
            protector: ProtectorId::new(Uuid::new_v4()),
            expected_version: KeyVersion::NONE,
            host_name: Text::name("host_name", "bench-host-0042")?,
            users: vec![User::new("CORP", "alice")?],
        };
        Ok(Self { key, next })
    }

    /// Seals a new key for the next version.
    pub(super) fn seal(&mut self) -> Result<(ProtectorId, SealedEscrow), ClientError> {
        let kind = ProtectorKind::BitLockerRecoveryPassword;
        let secret = RecoveryKey::generate(kind, &mut system_rng());
        let sealed = SealedEscrow::seal(&self.key, &self.next, &secret, None)?;
        let protector = self.next.protector;
        self.next.protector = ProtectorId::new(Uuid::new_v4());
        self.next.expected_version = sealed.version();
        Ok((protector, sealed))
    }
}

/// The escrows of one client.
pub(super) struct Pool {
    ready: std::vec::IntoIter<EncodedEscrow>,
    more: VolumeKeys,
}

impl Pool {
    /// The next escrow: one that is ready, or one that is sealed now.
    pub(super) fn next(&mut self) -> Result<EncodedEscrow, ClientError> {
        match self.ready.next() {
            Some(escrow) => Ok(escrow),
            None => Ok(EncodedEscrow::new(&self.more.seal()?.1)),
        }
    }

    /// The escrow key that all are sealed to.
    pub(super) const fn key(&self) -> &EscrowKey {
        &self.more.key
    }
}

/// Seals for all clients, on all processors. `devices` holds each client's device.
pub(super) async fn fill(
    key: &EscrowKey,
    devices: &[DeviceId],
    wanted: u64,
) -> Result<Vec<Pool>, CliError> {
    let clients = u64::try_from(devices.len().max(1)).unwrap_or(1);
    let each = wanted.min(MOST).div_ceil(clients);
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    let chunk = devices.len().div_ceil(threads).max(1);
    let shared: Arc<[DeviceId]> = devices.into();
    let mut tasks = Vec::new();
    for start in (0..devices.len()).step_by(chunk) {
        let (key, devices) = (key.clone(), Arc::clone(&shared));
        tasks.push(tokio::task::spawn_blocking(move || {
            let mine = devices.iter().skip(start).take(chunk);
            mine.map(|device| fill_one(&key, *device, each)).collect::<Result<Vec<_>, CliError>>()
        }));
    }
    let mut pools = Vec::with_capacity(devices.len());
    for task in tasks {
        let filled = task.await.map_err(|error| CliError::failed(format!("sealing: {error}")))?;
        pools.extend(filled?);
    }
    Ok(pools)
}

fn fill_one(key: &EscrowKey, device: DeviceId, count: u64) -> Result<Pool, CliError> {
    let mut more = VolumeKeys::new(key.clone(), device)?;
    let mut ready = Vec::with_capacity(usize::try_from(count).unwrap_or(0));
    for _ in 0..count {
        ready.push(EncodedEscrow::new(&more.seal()?.1));
    }
    Ok(Pool { ready: ready.into_iter(), more })
}
