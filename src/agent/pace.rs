//! How long to wait before the servers are asked again.

use std::time::Duration;

use rand::Rng;

/// Longest pause that the first failure makes.
const FIRST: Duration = Duration::from_secs(2);
/// Longest pause of all, but for one that a server asks for.
const MOST: Duration = Duration::from_secs(15 * 60);
/// Shortest pause: no fault makes the agent ask without end.
const LEAST: Duration = Duration::from_millis(250);
/// Longest pause that a server may ask for.
const ASKED_MOST: Duration = Duration::from_secs(3600);

/// Pauses with full jitter: each is drawn from all of zero to a bound that doubles. Of machines that an outage has stopped
/// together none come back together.
#[derive(Debug, Clone, Default)]
pub struct Pace {
    failures: u32,
}

impl Pace {
    /// Something went well: the next failure is the first one.
    pub const fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// Failures since the last success.
    pub const fn failures(&self) -> u32 {
        self.failures
    }

    /// The pause after one more failure. What a server asks for is waited at least, up to an hour, and the drawn pause comes
    /// on top of it: it has asked others for the same.
    pub fn failed(&mut self, asked: Option<Duration>, rng: &mut impl Rng) -> Duration {
        let doublings = self.failures.min(16);
        self.failures = self.failures.saturating_add(1);
        let bound =
            FIRST.saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX)).min(MOST);
        let drawn = bound.mul_f64(rng.random_range(0.0..=1.0));
        drawn.saturating_add(asked.unwrap_or_default().min(ASKED_MOST)).max(LEAST)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn pauses_are_drawn_from_all_of_a_range_that_doubles_up_to_a_quarter_of_an_hour() {
        let mut longest = [Duration::ZERO; 14];
        let mut shortest = [MOST; 14];
        for seed in 0..500 {
            let (mut pace, mut rng) = (Pace::default(), StdRng::seed_from_u64(seed));
            for (longest, shortest) in longest.iter_mut().zip(&mut shortest) {
                let pause = pace.failed(None, &mut rng);
                *longest = pause.max(*longest);
                *shortest = pause.min(*shortest);
            }
        }
        for (failures, (longest, shortest)) in (0..).zip(longest.into_iter().zip(shortest)) {
            let bound = FIRST.saturating_mul(1 << failures).min(MOST);
            assert!(longest <= bound && longest > bound.mul_f64(0.9), "{failures}: {longest:?}");
            assert!(shortest >= LEAST && shortest <= LEAST.max(bound.mul_f64(0.1)), "{shortest:?}");
        }
    }

    #[test]
    fn a_success_begins_again() {
        let (mut pace, mut rng) = (Pace::default(), StdRng::seed_from_u64(1));
        let last = (0..20).map(|_| pace.failed(None, &mut rng)).last();
        assert!(last.is_some() && pace.failures() == 20);
        pace.succeeded();
        assert!(pace.failed(None, &mut rng) <= FIRST);
    }

    #[test]
    fn what_a_server_asks_for_is_waited_but_never_longer_than_an_hour_more() {
        let (mut pace, mut rng) = (Pace::default(), StdRng::seed_from_u64(1));
        let asked = Duration::from_secs(30);
        let pause = pace.failed(Some(asked), &mut rng);
        assert!(pause >= asked && pause <= asked + FIRST, "{pause:?}");
        let pause = pace.failed(Some(Duration::MAX), &mut rng);
        assert!(pause <= ASKED_MOST + 2 * FIRST, "{pause:?}");
    }

    #[test]
    fn failures_without_end_never_overflow() {
        let (mut pace, mut rng) = (Pace { failures: u32::MAX - 1 }, StdRng::seed_from_u64(1));
        for _ in 0..3 {
            assert!(pace.failed(None, &mut rng) <= MOST);
        }
    }
}
