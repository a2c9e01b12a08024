//! Shares that a node was given so far. They are in its memory only, and not for long: they are wiped once they are enough,
//! when the cluster is sealed or its root key split anew, and when nobody goes on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::crypto::{CryptoError, RootKey, Share};
use crate::domain::{ClusterId, FieldError, RequestId, ShareSet};

use super::Sealing;

/// How long shares are kept after the last one was given.
pub const SHARES_KEPT: Duration = Duration::from_secs(900);

/// Shares of one splitting.
pub(super) struct Progress {
    set: ShareSet,
    /// How often the cluster had been sealed when the first one was given.
    seals: u64,
    /// By their numbers, each with the request that brought it.
    shares: BTreeMap<u8, (Share, RequestId)>,
    last: Instant,
}

/// What a share led to.
pub(super) enum Step {
    /// More are needed: how many there are now.
    More(u8),
    /// They are enough: what they give, and their numbers.
    Enough(Arc<RootKey>, Vec<u8>),
}

/// What a splitting a share has to be of, and when.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    pub(super) cluster: ClusterId,
    pub(super) set: ShareSet,
    pub(super) seals: u64,
}

impl Sealing {
    /// How many shares were given so far.
    pub fn shares_given(&self) -> u8 {
        self.progress.lock().as_ref().map_or(0, Progress::given)
    }

    /// Wipes shares that count no more.
    pub(super) fn forget_old_shares(&self, seals: u64) {
        let mut progress = self.progress.lock();
        if progress.as_ref().is_some_and(|begun| begun.is_over(seals)) {
            *progress = None;
        }
    }

    /// Wipes all shares: one of them is not what it says.
    pub(super) fn forget_shares(&self) {
        *self.progress.lock() = None;
    }

    /// Takes a share in. The same request again is no second share.
    ///
    /// # Errors
    /// Of another cluster, of another splitting, or there already. What was given before stays.
    pub(super) fn take_share(
        &self,
        share: Share,
        request_id: RequestId,
        wanted: Wanted,
    ) -> Result<Step, FieldError> {
        check_label(&share, wanted)?;
        let mut slot = self.progress.lock();
        let current = |begun: &Progress| begun.set == wanted.set && !begun.is_over(wanted.seals);
        let progress = match &mut *slot {
            Some(begun) if current(begun) => begun,
            other => other.insert(Progress {
                set: wanted.set,
                seals: wanted.seals,
                shares: BTreeMap::new(),
                last: Instant::now(),
            }),
        };
        let number = share.label().number;
        match progress.shares.get(&number) {
            Some((_, known)) if *known == request_id => {}
            Some(_) => {
                let what = format!(
                    "share {number} was given already; this server has {} of the {} that it takes",
                    progress.given(),
                    wanted.set.threshold()
                );
                return Err(fault(what));
            }
            None => {
                progress.shares.insert(number, (share, request_id));
            }
        }
        progress.last = Instant::now();
        if progress.given() < wanted.set.threshold() {
            return Ok(Step::More(progress.given()));
        }
        progress.combine().map_err(|error| fault(error.to_string()))
    }
}

impl Progress {
    fn given(&self) -> u8 {
        // There are never more than `limits::KEY_SHARES`.
        u8::try_from(self.shares.len()).unwrap_or(u8::MAX)
    }

    fn is_over(&self, seals: u64) -> bool {
        self.seals != seals || self.last.elapsed() > SHARES_KEPT
    }

    fn combine(&self) -> Result<Step, CryptoError> {
        let shares: Vec<&Share> = self.shares.values().map(|(share, _)| share).collect();
        let root = Share::combine(&shares)?;
        Ok(Step::Enough(Arc::new(root), self.shares.keys().copied().collect()))
    }
}

fn check_label(share: &Share, wanted: Wanted) -> Result<(), FieldError> {
    let label = share.label();
    if label.cluster != wanted.cluster {
        let what = format!(
            "share {} is of cluster {}, and this is cluster {}",
            label.number, label.cluster, wanted.cluster
        );
        return Err(fault(what));
    }
    if label.set != wanted.set {
        let what = format!(
            "share {} is of set {}, and the shares that count are of set {}: the root key was split anew since",
            label.number,
            label.set.id(),
            wanted.set.id()
        );
        return Err(fault(what));
    }
    Ok(())
}

pub(super) fn fault(what: impl Into<String>) -> FieldError {
    FieldError::new("share", what.into())
}
