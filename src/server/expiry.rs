//! Says in time that the server's certificate has to be renewed: once a day when a third of its life is left, every hour in
//! its last three days.

use std::sync::Arc;
use std::time::Duration;

use crate::crypto::Leaf;
use crate::domain::Timestamp;
use crate::service::Context;

use super::node::ServerNode;
use super::renewal::Renewal;

/// How often the certificate is looked at.
const LOOK: Duration = Duration::from_secs(60 * 60);
/// Looks between two words while there is time.
const LOOKS_A_DAY: u64 = 24;
/// When it is said with every look.
const LAST_DAYS_MS: u64 = 3 * 24 * 60 * 60 * 1000;

/// How much of its life a certificate has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    /// More than a third.
    Enough,
    /// A third or less.
    Third,
    /// Three days or less, or nothing.
    LastDays,
}

fn left(leaf: &Leaf, now: Timestamp) -> Left {
    let until = leaf.not_after.as_millis();
    let life = until.saturating_sub(leaf.not_before.as_millis());
    match until.saturating_sub(now.as_millis()) {
        0..=LAST_DAYS_MS => Left::LastDays,
        rest if rest <= life / 3 => Left::Third,
        _ => Left::Enough,
    }
}

/// Whether it is to be said at this look, counted from the start of the server.
const fn is_due(left: Left, look: u64) -> bool {
    match left {
        Left::Enough => false,
        Left::Third => look.is_multiple_of(LOOKS_A_DAY),
        Left::LastDays => true,
    }
}

/// Looks at the server's certificate; for ever.
pub(super) async fn watch<N: ServerNode>(context: Arc<Context<N>>, renewal: Arc<Renewal>) {
    let mut tick = tokio::time::interval(LOOK);
    for look in 0.. {
        tick.tick().await;
        let (now, leaf) = (context.now(), renewal.leaf());
        let left = left(&leaf, now);
        if !is_due(left, look) {
            continue;
        }
        let hours = leaf.not_after.as_millis().saturating_sub(now.as_millis()) / 3_600_000;
        let until = leaf.not_after;
        if left == Left::LastDays {
            tracing::error!(hours, %until, "this server's certificate ends: renew it now");
        } else {
            tracing::warn!(hours, %until, "this server's certificate has to be renewed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 3_600_000;

    fn leaf(days: u64) -> Leaf {
        Leaf {
            uri: String::new(),
            not_before: Timestamp::from_millis(1000 * DAY),
            not_after: Timestamp::from_millis((1000 + days) * DAY),
            serial: String::new(),
            public_key: [0; 32],
        }
    }

    fn days_said(days: u64) -> Vec<(u64, u64)> {
        let leaf = leaf(days);
        let hour = |look: u64| Timestamp::from_millis(1000 * DAY + look * 3_600_000);
        let said = (0..(days + 1) * 24).filter(|look| is_due(left(&leaf, hour(*look)), *look));
        let mut by_day = std::collections::BTreeMap::new();
        for look in said {
            *by_day.entry(look / 24).or_insert(0) += 1;
        }
        by_day.into_iter().collect()
    }

    #[test]
    fn a_certificate_is_called_old_once_a_day_in_its_last_third_and_hourly_in_its_last_three_days()
    {
        let said = days_said(30);
        let once: Vec<_> = (20..27).map(|day| (day, 1)).collect();
        let hourly: Vec<_> = (27..31).map(|day| (day, 24)).collect();
        assert_eq!(said, [once, hourly].concat(), "it goes on when the certificate has ended");
        // One that lives shorter than that is called old from its beginning.
        assert_eq!(days_said(2), [(0, 24), (1, 24), (2, 24)]);
    }
}
