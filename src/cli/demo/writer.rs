//! Writers in the background: they escrow all the time, so that it shows how long writes stand still.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::cli::exit::CliError;
use crate::client::{Client, NewEscrow};
use crate::crypto::system_rng;
use crate::domain::{
    DeviceId, KeyVersion, ProtectorId, ProtectorKind, RecoveryKey, Text, VolumeId, VolumeKind,
};

/// What all writers together saw.
#[derive(Debug, Default)]
struct Log {
    acknowledged: u64,
    last: Option<Instant>,
    longest: Duration,
    failure: Option<String>,
}

/// Some writers, each with a volume of its own. They stop when this is dropped.
pub(super) struct Writers {
    log: Arc<Mutex<Log>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Writers {
    /// Starts them.
    pub(super) fn start(client: &Client, device: DeviceId, count: usize) -> Self {
        let log = Arc::new(Mutex::new(Log::default()));
        let tasks = (0..count).map(|_| {
            let (client, log) = (client.clone(), Arc::clone(&log));
            tokio::spawn(async move {
                if let Err(error) = write(&client, device, &log).await {
                    log.lock().failure.get_or_insert_with(|| error.to_string());
                }
            })
        });
        Self { tasks: tasks.collect(), log }
    }

    /// How many writes were acknowledged so far.
    ///
    /// # Errors
    /// If a write was refused or given up.
    pub(super) fn acknowledged(&self) -> Result<u64, CliError> {
        let log = self.log.lock();
        match &log.failure {
            Some(failure) => Err(CliError::failed(format!("a background write failed: {failure}"))),
            None => Ok(log.acknowledged),
        }
    }

    /// Longest time without an acknowledged write since the last call.
    pub(super) fn take_longest_gap(&self) -> Duration {
        let mut log = self.log.lock();
        let longest = log.longest;
        log.longest = Duration::ZERO;
        longest
    }

    /// Stops them and waits until they have stopped; gives the number of acknowledged writes.
    ///
    /// # Errors
    /// If a write was refused or given up.
    pub(super) async fn stop(mut self) -> Result<u64, CliError> {
        for task in self.tasks.drain(..) {
            task.abort();
            match task.await {
                // It was cancelled, or ended after a failure that stands in the log.
                Ok(()) | Err(_) => {}
            }
        }
        self.acknowledged()
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn write(client: &Client, device: DeviceId, log: &Mutex<Log>) -> Result<(), CliError> {
    let mut next = NewEscrow {
        device,
        volume: VolumeId::new(Uuid::new_v4()),
        volume_kind: VolumeKind::FixedData,
        protector: ProtectorId::new(Uuid::new_v4()),
        expected_version: KeyVersion::NONE,
        host_name: Text::name("host_name", "background-writer")?,
        users: Vec::new(),
    };
    loop {
        let kind = ProtectorKind::BitLockerRecoveryPassword;
        let key = RecoveryKey::generate(kind, &mut system_rng());
        let receipt = client.escrow(&next, &key, None).await?;
        next.expected_version = receipt.facts.version;
        next.protector = ProtectorId::new(Uuid::new_v4());
        let now = Instant::now();
        let mut log = log.lock();
        if let Some(last) = log.last {
            log.longest = log.longest.max(now.saturating_duration_since(last));
        }
        log.last = Some(now);
        log.acknowledged = log.acknowledged.saturating_add(1);
    }
}
