//! Escrows without end, and what was acknowledged of them.

use std::sync::Arc;

use holdfast::cli::local_cluster::wait_for;
use holdfast::client::{Client, ErrorKind, Receipt, SealedEscrow};
use holdfast::domain::{DeviceId, ProtectorId};
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::harness::{LIMIT, new_escrow, new_key};

type Log = Arc<Mutex<Vec<(SealedEscrow, Receipt)>>>;

/// Writers that go on until they are stopped or dropped.
pub(crate) struct Load {
    written: Written,
    writers: Vec<JoinHandle<()>>,
}

/// What was acknowledged.
#[derive(Clone, Default)]
pub(crate) struct Written(Log);

impl Load {
    /// Each writer escrows one key after the other for a volume of its own.
    pub(crate) fn start(client: &Client, device: DeviceId, writers: usize) -> Self {
        Self::with_package(client, device, writers, 0)
    }

    /// With a key package of so many bytes each.
    pub(crate) fn with_package(
        client: &Client,
        device: DeviceId,
        writers: usize,
        package: usize,
    ) -> Self {
        let written = Written::default();
        let start = |_| tokio::spawn(write(client.clone(), device, package, written.clone()));
        let writers = (0..writers).map(start).collect();
        Self { written, writers }
    }

    /// How many were acknowledged so far.
    pub(crate) fn count(&self) -> usize {
        self.written.0.lock().len()
    }

    /// Waits until so many more are acknowledged.
    pub(crate) async fn more(&self, count: usize) {
        let goal = self.count() + count;
        wait_for("enough writes are acknowledged", LIMIT, || async {
            let count = self.count();
            if count >= goal { Ok(()) } else { Err(format!("{count} of {goal}")) }
        })
        .await
        .unwrap();
    }

    /// Stops, and gives what was acknowledged.
    pub(crate) fn stop(self) -> Written {
        self.written.clone()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.writers.iter().for_each(JoinHandle::abort);
    }
}

impl Written {
    /// Every acknowledged escrow, sent again byte for byte, gives the receipt that it got: it is there, unchanged.
    pub(crate) async fn all_are_there(&self, client: &Client) {
        let all = self.0.lock().clone();
        assert!(!all.is_empty());
        for (sealed, receipt) in all {
            let again = client.send(&sealed).await.unwrap();
            assert_eq!(again.facts, receipt.facts);
        }
    }
}

async fn write(client: Client, device: DeviceId, package: usize, written: Written) {
    let package = (package > 0).then(|| vec![0x5a_u8; package]);
    let mut next = new_escrow(device);
    loop {
        // A failure that comes at once must not keep the others from running.
        tokio::task::yield_now().await;
        // While servers are down either may fail; what was not acknowledged may be lost.
        let sealed = match client.seal(&next, &new_key(), package.as_deref()).await {
            Ok(sealed) => sealed,
            Err(error) => {
                assert_ne!(error.kind(), ErrorKind::Invalid, "{error}");
                continue;
            }
        };
        match client.send(&sealed).await {
            Ok(receipt) => {
                next.expected_version = receipt.facts.version;
                next.protector = ProtectorId::new(Uuid::new_v4());
                written.0.lock().push((sealed, receipt));
            }
            Err(error) => assert_ne!(error.kind(), ErrorKind::Invalid, "{error}"),
        }
    }
}
