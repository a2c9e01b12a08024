//! The provider's keys, kept and renewed, and the tokens that they prove.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, Semaphore, watch};

use super::fetch::Fetcher;
use super::jwt::{Checked, Refused, TokenRules};
use super::keys::KeySet;
use super::provider::{Metadata, ProviderError};
use crate::auth::{Caller, TokenError};
use crate::domain::{Fingerprint, Timestamp};

/// Most calls that wait for keys at a time. Whoever comes then is refused at once: strangers may send as many tokens with
/// invented keys as they like, and hold up nobody.
const WAITING: usize = 16;

/// When keys are asked for, and how long they are good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyTimes {
    /// Time between two questions.
    pub refresh: Duration,
    /// How long keys are good that could not be renewed.
    pub max_age: Duration,
    /// Least time between two questions, whoever wants one.
    pub pause: Duration,
    /// How long a call waits for a key that is not known.
    pub patience: Duration,
}

impl KeyTimes {
    /// With the times that are configured, and the others as they always are: ten seconds between two questions, and two for a
    /// call.
    pub const fn new(refresh: Duration, max_age: Duration) -> Self {
        let (pause, patience) = (Duration::from_secs(10), Duration::from_secs(2));
        Self { refresh, max_age, pause, patience }
    }
}

/// Keys that a provider showed once.
struct Known {
    set: Arc<KeySet>,
    at: Instant,
}

/// What is asked at the moment, and when it began.
#[derive(Debug, Default)]
struct Asking {
    running: bool,
    began: Option<Instant>,
}

/// Checks tokens by the keys of their provider.
pub struct Tokens {
    rules: TokenRules,
    fetcher: Fetcher,
    times: KeyTimes,
    known: RwLock<Option<Known>>,
    asking: Mutex<Asking>,
    /// Somebody wants newer keys.
    wanted: Notify,
    /// How often the provider was asked, with success or not.
    rounds: watch::Sender<u64>,
    waiting: Semaphore,
    failures: AtomicU64,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tokens({})", self.rules.issuer)
    }
}

impl Tokens {
    /// Knows no keys before [`Tokens::keep`] has asked for some.
    pub fn new(rules: TokenRules, fetcher: Fetcher, times: KeyTimes) -> Self {
        Self {
            rules,
            fetcher,
            times,
            known: RwLock::default(),
            asking: Mutex::default(),
            wanted: Notify::new(),
            rounds: watch::Sender::new(0),
            waiting: Semaphore::new(WAITING),
            failures: AtomicU64::new(0),
        }
    }

    /// How old the keys are; `None` before there are any.
    pub fn keys_age(&self) -> Option<Duration> {
        self.known.read().as_ref().map(|known| known.at.elapsed())
    }

    /// How often the provider gave no keys, since the start.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Who calls with this token, over a connection with this certificate or none. Waits only if the token's key is not known,
    /// and then not for long.
    ///
    /// # Errors
    /// Why the token is not good.
    pub async fn caller(
        &self,
        token: &str,
        certificate: Option<Fingerprint>,
        now: Timestamp,
    ) -> Result<Caller, Refused> {
        let checked = match self.check(token, now) {
            Err(Refused { error: TokenError::UnknownKey | TokenError::NoKeys, .. })
                if self.refreshed().await =>
            {
                self.check(token, now)
            }
            checked => checked,
        };
        checked?.caller(certificate)
    }

    fn check(&self, token: &str, now: Timestamp) -> Result<Checked, Refused> {
        let keys = self.keys().ok_or(TokenError::NoKeys)?;
        self.rules.check(&keys, token, now)
    }

    /// The keys, if they are not too old.
    fn keys(&self) -> Option<Arc<KeySet>> {
        let known = self.known.read();
        let known = known.as_ref().filter(|known| known.at.elapsed() <= self.times.max_age)?;
        Some(Arc::clone(&known.set))
    }

    /// Waits until the provider was asked once more; `false` if that is not to be, or takes too long.
    async fn refreshed(&self) -> bool {
        let Ok(_place) = self.waiting.try_acquire() else { return false };
        let mut rounds = self.rounds.subscribe();
        if !self.want() {
            return false;
        }
        let asked = tokio::time::timeout(self.times.patience, rounds.changed()).await;
        matches!(asked, Ok(Ok(())))
    }

    /// Has the provider asked, unless that was just done.
    fn want(&self) -> bool {
        let asking = self.asking.lock();
        if asking.running {
            return true;
        }
        if asking.began.is_some_and(|began| began.elapsed() < self.times.pause) {
            return false;
        }
        self.wanted.notify_one();
        true
    }

    /// Asks the provider now and then, and when somebody wants it; for ever.
    pub async fn keep(self: Arc<Self>) {
        loop {
            let pause = match self.ask().await {
                Ok(()) => self.times.refresh,
                Err(error) => {
                    tracing::warn!(%error, "the keys of the OIDC provider can't be read");
                    self.times.pause.min(self.times.refresh)
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.wanted.notified() => {}
            }
        }
    }

    /// One question.
    async fn ask(&self) -> Result<(), ProviderError> {
        *self.asking.lock() = Asking { running: true, began: Some(Instant::now()) };
        let found = self.fetch().await;
        let outcome = match found {
            Ok(set) => {
                *self.known.write() = Some(Known { set: Arc::new(set), at: Instant::now() });
                Ok(())
            }
            Err(error) => {
                self.failures.fetch_add(1, Ordering::Relaxed);
                Err(error)
            }
        };
        self.asking.lock().running = false;
        self.rounds.send_modify(|rounds| *rounds = rounds.wrapping_add(1));
        outcome
    }

    async fn fetch(&self) -> Result<KeySet, ProviderError> {
        let metadata = Metadata::discover(&self.fetcher, &self.rules.issuer).await?;
        metadata.keys(&self.fetcher).await
    }
}
