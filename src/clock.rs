//! The only place that reads the wall clock.
//!
//! Everything else is handed a [`Clock`] (or a [`Timestamp`] taken from one), so that time is a parameter: the state
//! machine never reads it, and a test or a simulation decides what time it is.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::domain::Timestamp;

/// A source of wall-clock time.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since the Unix epoch. A clock before the epoch reads 0.
    fn now(&self) -> Timestamp;
}

/// A shared clock.
pub type SharedClock = Arc<dyn Clock>;

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}
