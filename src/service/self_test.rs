//! Whether what is stored still opens: a sample of it is opened now and then, by every node that can.
//!
//! What is opened is dropped at once. A key that does not open is named by its first digits, and counted.

use crate::crypto::{EscrowPublicKey, Part};
use crate::domain::{KeyVersion, ProtectorId};
use crate::state::{KeyRef, SealedKey, query};

use super::rotation::binding_of;
use super::{Consensus, Context, Opener, Sealing, ServiceError};

/// Keys that one test opens.
pub const SAMPLE: usize = 20;

/// What a test of stored keys found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SelfTest {
    /// Keys that were opened or could not be.
    pub tested: u64,
    /// First eight digits of the ids of those that don't open.
    pub failed: Vec<String>,
    /// Whether what is sealed to the escrow key that this node gives out opens.
    pub escrow_key_opens: bool,
}

impl SelfTest {
    /// Whether everything opens.
    pub fn passed(&self) -> bool {
        self.failed.is_empty() && self.escrow_key_opens
    }
}

impl<C: Consensus> Context<C> {
    /// Opens a random sample of the stored keys, and something that is sealed to the newest escrow key. `None` if this node
    /// is sealed, or there is no cluster yet.
    ///
    /// # Errors
    /// If the local store fails.
    pub async fn self_test(&self, sealing: &Sealing) -> Result<Option<SelfTest>, ServiceError> {
        let Ok(opener) = sealing.opener() else { return Ok(None) };
        let Some(newest) = sealing.newest_opened() else { return Ok(None) };
        let cluster = self.cluster();
        // From a random place on, and from the beginning if the end comes too soon.
        let from = ProtectorId::new(crate::turns::draw_uuid());
        let from = KeyRef { protector: from, version: KeyVersion::NONE };
        let test = self.scan(move |view| {
            let keyring = query::keyring(view)?;
            let epoch =
                keyring.iter().flat_map(|keyring| &keyring.epochs).find(|e| e.epoch == newest);
            let public =
                epoch.map(|e| EscrowPublicKey { cluster, epoch: e.epoch, key: e.public_key });
            let mut sample = query::sealed_keys(view, Some(from), SAMPLE)?;
            let rest = SAMPLE.saturating_sub(sample.len());
            if rest > 0 {
                let begin = query::sealed_keys(view, None, rest)?;
                sample
                    .extend(begin.into_iter().take_while(|key| key.at.protector < from.protector));
            }
            let failed = sample.iter().filter(|key| !opens(key, opener.as_ref(), cluster));
            Ok(SelfTest {
                failed: failed.map(|key| key.at.protector.prefix().to_string()).collect(),
                tested: u64::try_from(sample.len()).unwrap_or(u64::MAX),
                escrow_key_opens: public.is_some_and(|public| opener.opens_to(&public)),
            })
        });
        let test = test.await?;
        self.counters().self_tested(&test);
        Ok(Some(test))
    }
}

fn opens(key: &SealedKey, opener: &dyn Opener, cluster: crate::domain::ClusterId) -> bool {
    let binding = binding_of(key, cluster);
    opener.open(&binding, Part::Key, &key.sealed).is_ok()
        && key
            .package
            .as_ref()
            .is_none_or(|package| opener.open(&binding, Part::Package, package).is_ok())
}
