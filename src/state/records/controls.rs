//! What bounds disclosures, as the tables hold it.

use super::KeyRef;
use crate::domain::{
    Actor, ApprovalId, DeviceId, DisclosurePolicy, Reason, Text, Timestamp, User, VolumeId,
};

/// A request to disclose a key by leave of another person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approval {
    /// Its number.
    pub id: ApprovalId,
    /// The key version that it is for, and no other.
    pub key: KeyRef,
    /// Device that escrowed it.
    pub device: DeviceId,
    /// Volume that it opens.
    pub volume: VolumeId,
    /// Who asked, and alone may use it.
    pub requester: Actor,
    /// When.
    pub requested_at: Timestamp,
    /// Why.
    pub reason: Reason,
    /// For whom.
    pub user: Option<User>,
    /// Ticket number; may be empty.
    pub ticket: Text,
    /// Until when it may be decided on, or used once it is approved.
    pub expires_at: Timestamp,
    /// Where it stands.
    pub state: ApprovalState,
    /// Who decided, when, and why in words that may be empty; `None` before that.
    pub decision: Option<Decision>,
}

/// Where a request for approval stands. That it is over by time is not stored: it follows from its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApprovalState {
    /// Nobody has decided.
    Pending,
    /// It may be used, once.
    Approved,
    /// It was refused.
    Denied,
    /// It was used.
    Used {
        /// When.
        at: Timestamp,
    },
}

/// A decision on a request for approval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Who decided.
    pub by: Actor,
    /// When.
    pub at: Timestamp,
    /// Why, in words; may be empty.
    pub reason: Text,
}

impl Approval {
    /// Whether something may still come of it.
    pub fn is_open(&self, now: Timestamp) -> bool {
        matches!(self.state, ApprovalState::Pending | ApprovalState::Approved)
            && now < self.expires_at
    }
}

/// The policy in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyRecord {
    /// How often it was set; 0 for the one that the cluster began with.
    pub revision: u64,
    /// The policy.
    pub policy: DisclosurePolicy,
    /// Who set it.
    pub set_by: Actor,
    /// When.
    pub set_at: Timestamp,
}

/// A time in which quotas are lifted, or the proposal of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MassRecovery {
    /// Its number, counted from 1 over the life of the cluster.
    pub number: u64,
    /// For how long, in milliseconds, from its confirmation on.
    pub duration_ms: u64,
    /// Why, in words.
    pub reason: Text,
    /// Who proposed it.
    pub proposed_by: Actor,
    /// When.
    pub proposed_at: Timestamp,
    /// Who confirmed it, and when.
    pub confirmed: Option<(Actor, Timestamp)>,
    /// Who ended it or took the proposal back, and when.
    pub ended: Option<(Actor, Timestamp)>,
}

impl MassRecovery {
    /// Until when quotas are lifted, if it is confirmed and nobody has ended it.
    pub fn until(&self) -> Option<Timestamp> {
        let (_, at) = self.confirmed.as_ref().filter(|_| self.ended.is_none())?;
        Some(Timestamp::from_millis(at.as_millis().saturating_add(self.duration_ms)))
    }
}

/// Disclosures counted by spans of time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::state) struct Tallies {
    /// By the minute.
    pub(in crate::state) minutes: Tally,
    /// By the hour; none for all requesters together.
    pub(in crate::state) hours: Tally,
}

/// Numbers of spans and how often something happened in each, ascending.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::state) struct Tally(pub(in crate::state) Vec<(u64, u32)>);

/// A sliding window, cut into spans. It counts the span that has begun and as many whole ones before it as the window is long,
/// so that no stretch of time as long as the window ever holds more than is allowed, wherever it begins.
#[derive(Debug, Clone, Copy)]
pub(in crate::state) struct Window {
    /// Length of a span, in milliseconds.
    pub(in crate::state) span_ms: u64,
    /// Spans in the window.
    pub(in crate::state) spans: u64,
}

impl Window {
    /// An hour of minutes.
    pub(in crate::state) const HOUR: Self = Self { span_ms: 60_000, spans: 60 };
    /// A day of hours.
    pub(in crate::state) const DAY: Self = Self { span_ms: 3_600_000, spans: 24 };

    fn span(self, now: Timestamp) -> u64 {
        now.as_millis() / self.span_ms
    }

    /// When a span leaves the window.
    fn leaves(self, span: u64) -> Timestamp {
        let next = span.saturating_add(self.spans).saturating_add(1);
        Timestamp::from_millis(next.saturating_mul(self.span_ms))
    }
}

impl Tally {
    /// Counts one more, and forgets what has left the window.
    pub(in crate::state) fn add(&mut self, window: Window, now: Timestamp) {
        let span = window.span(now);
        self.0.retain(|(old, _)| old.saturating_add(window.spans) >= span);
        match self.0.last_mut() {
            Some((last, count)) if *last == span => *count = count.saturating_add(1),
            _ => self.0.push((span, 1)),
        }
    }

    /// When there is room for one more within `limit`; `None` if there is now.
    pub(in crate::state) fn full_until(
        &self,
        window: Window,
        now: Timestamp,
        limit: u32,
    ) -> Option<Timestamp> {
        let span = window.span(now);
        let counted = || self.0.iter().filter(|(old, _)| old.saturating_add(window.spans) >= span);
        let mut used =
            counted().fold(0_u64, |sum, (_, count)| sum.saturating_add(u64::from(*count)));
        if used < u64::from(limit) {
            return None;
        }
        for (old, count) in counted() {
            used = used.saturating_sub(u64::from(*count));
            if used < u64::from(limit) {
                return Some(window.leaves(*old));
            }
        }
        // Only if nothing is allowed at all.
        Some(window.leaves(span))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_millis(ms)
    }

    #[test]
    fn no_hour_holds_more_than_the_limit_wherever_it_begins() {
        let (limit, step) = (5, 7_919);
        let mut tally = Tally::default();
        let mut done: Vec<u64> = Vec::new();
        for now in (0..20_000_000).step_by(step) {
            if tally.full_until(Window::HOUR, at(now), limit).is_none() {
                tally.add(Window::HOUR, at(now));
                done.push(now);
            }
        }
        assert!(done.len() > 20, "{done:?}");
        for first in &done {
            let within = done.iter().filter(|t| (*first..first + 3_600_000).contains(t)).count();
            assert!(within <= 5, "{within} in the hour from {first}");
        }
        assert!(tally.0.len() <= 61);
    }

    #[test]
    fn a_full_window_says_when_there_is_room_and_means_it() {
        let mut tally = Tally::default();
        for now in [30_000, 30_001, 90_000] {
            tally.add(Window::HOUR, at(now));
        }
        assert_eq!(tally.full_until(Window::HOUR, at(100_000), 4), None);
        let until = tally.full_until(Window::HOUR, at(100_000), 3).unwrap();
        assert_eq!(until, at(61 * 60_000));
        assert!(tally.full_until(Window::HOUR, at(until.as_millis() - 1), 3).is_some());
        assert_eq!(tally.full_until(Window::HOUR, until, 3), None);
        // Lowered since: the two of the first minute have to go, and that of the second.
        assert_eq!(tally.full_until(Window::HOUR, at(100_000), 1), Some(at(62 * 60_000)));
    }
}
