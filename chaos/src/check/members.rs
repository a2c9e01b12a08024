//! Changes of the members: those that were acknowledged hold, those that had to be made were, and those that could not be made were
//! not acknowledged.

use std::collections::BTreeMap;

use super::index::History;
use super::live::seconds;
use super::verdict::CheckResult;
use crate::history::{Change, ChangeEvent, Event, Expect, Members};

/// What is known of a server from the changes that were acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    Learner,
    Voter,
    /// For ever.
    Removed,
    /// A change of it may have been made, or may not.
    Either,
}

pub(crate) fn check(history: &History<'_>) -> CheckResult {
    let claim = "acknowledged changes of members hold; with one server faulty each is made in time; without a majority none is acknowledged";
    let mut result = CheckResult::new("members", claim, "changes and servers' words");
    let first = history.begin.map(|begin| begin.nodes.as_slice()).unwrap_or_default();
    let mut known: BTreeMap<u64, Known> = first.iter().map(|id| (*id, Known::Voter)).collect();
    let mut slowest = 0;
    for event in &history.memberships {
        match event {
            Event::Change(change) => {
                in_time(change, &mut result);
                learn(change, &mut known);
                if change.failed.is_none() {
                    slowest = slowest.max(change.until.saturating_sub(change.at));
                }
            }
            Event::Members(members) => hold(members, &known, &mut result),
            _ => {}
        }
    }
    if slowest > 0 {
        result.notes.push(format!("the slowest change took {:.2} s", seconds(slowest)));
    }
    if result.checked == 0 {
        result.not_applicable("no change was asked for");
    }
    result
}

fn in_time(event: &ChangeEvent, result: &mut CheckResult) {
    let ChangeEvent { at, until, change, expect, attempts, failed } = event;
    let from = seconds(*at);
    match (expect, failed) {
        (Expect::Made { within_ms }, failed) => {
            let took = until.saturating_sub(*at);
            let in_time = failed.is_none() && took <= within_ms.saturating_mul(1000);
            result.hold(in_time, &[], || {
                format!(
                    "{change:?} was not made within {} s of {from:.1} s, asked for {attempts} times: {}",
                    within_ms / 1000,
                    failed.as_deref().unwrap_or("it was late")
                )
            });
        }
        (Expect::NotMade, failed) => {
            result.hold(failed.is_some(), &[], || {
                format!("{change:?} was acknowledged at {from:.1} s without a majority")
            });
        }
    }
}

fn learn(event: &ChangeEvent, known: &mut BTreeMap<u64, Known>) {
    let (id, now) = match event.change {
        Change::AddLearner(id) => (id, Known::Learner),
        Change::Promote(id) => (id, Known::Voter),
        Change::Remove(id) => (id, Known::Removed),
        Change::Transfer(_) => return,
    };
    let before = known.get(&id).copied();
    // What was asked for again may have been made long before, and who was removed stays so.
    let now = match (before, now) {
        (Some(Known::Removed), _) => Known::Removed,
        _ if event.failed.is_some() => Known::Either,
        (Some(Known::Voter), Known::Learner) => Known::Voter,
        (_, now) => now,
    };
    known.insert(id, now);
}

fn hold(members: &Members, known: &BTreeMap<u64, Known>, result: &mut CheckResult) {
    let Members { at, by, voters, learners } = members;
    let at = seconds(*at);
    for (id, known) in known {
        let (votes, learns) = (voters.contains(id), learners.contains(id));
        let holds = match known {
            Known::Voter => votes,
            Known::Learner => votes || learns,
            Known::Removed => !votes && !learns,
            Known::Either => true,
        };
        result.hold(holds, &[], || {
            format!(
                "node {id} was acknowledged to be {}, but at {at:.1} s node {by} says: voters {voters:?}, learners {learners:?}",
                match known {
                    Known::Voter => "a voter",
                    Known::Learner => "a learner",
                    Known::Removed | Known::Either => "removed",
                }
            )
        });
    }
    for id in voters.iter().chain(learners).filter(|id| !known.contains_key(id)) {
        let what = format!("node {id} is a member at {at:.1} s by node {by}, and was never added");
        result.violate([], what);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Made, violated_first};
    use super::super::verdict::Status;
    use super::*;
    use Change::{AddLearner, Promote, Remove, Transfer};

    const MADE: Expect = Expect::Made { within_ms: 30_000 };

    fn changes(
        changes: &[(Change, Expect, bool)],
        voters: &[u64],
        learners: &[u64],
    ) -> CheckResult {
        let mut made = Made::new();
        for (change, expect, done) in changes {
            let failed = (!done).then(|| "no leader".to_owned());
            let (change, expect) = (*change, *expect);
            made.events.push(Event::Change(ChangeEvent {
                at: 1_000_000,
                until: 2_000_000,
                change,
                expect,
                attempts: 1,
                failed,
            }));
        }
        let (voters, learners) = (voters.to_vec(), learners.to_vec());
        made.events.push(Event::Members(Members { at: 3_000_000, by: 1, voters, learners }));
        check(&History::new(&made.events))
    }

    #[test]
    fn changes_that_hold_hold() {
        let all =
            [(AddLearner(4), MADE, true), (Promote(4), MADE, true), (Transfer(2), MADE, true)];
        let result = changes(&all, &[1, 2, 3, 4], &[]);
        assert_eq!(result.status, Status::Held, "{result:?}");
        let none = [(AddLearner(4), Expect::NotMade, false)];
        for learners in [&[][..], &[4]] {
            let result = changes(&none, &[1, 2, 3], learners);
            assert_eq!(result.status, Status::Held, "nobody knows whether it was made: {result:?}");
        }
    }

    #[test]
    fn an_acknowledged_change_that_is_gone_is_caught() {
        let added = (AddLearner(4), MADE, true);
        let words = "acknowledged to be";
        violated_first(&changes(&[added], &[1, 2, 3], &[]), words);
        violated_first(&changes(&[added, (Promote(4), MADE, true)], &[1, 2, 3], &[4]), words);
        violated_first(&changes(&[(Remove(3), MADE, true)], &[1, 2, 3], &[]), words);
        violated_first(&changes(&[], &[1, 2], &[]), words);
        violated_first(&changes(&[], &[1, 2, 3, 9], &[]), "never added");
    }

    #[test]
    fn who_was_removed_never_comes_back() {
        let back = [(Remove(3), MADE, true), (AddLearner(3), MADE, true)];
        violated_first(&changes(&back, &[1, 2], &[3]), "acknowledged to be removed");
    }

    #[test]
    fn a_change_that_had_to_be_made_and_one_that_could_not_be_are_caught() {
        violated_first(
            &changes(&[(Promote(4), MADE, false)], &[1, 2, 3], &[]),
            "not made within 30 s",
        );
        let late = Expect::Made { within_ms: 900 };
        violated_first(&changes(&[(Remove(3), late, true)], &[1, 2], &[]), "it was late");
        let hopeless = [(Remove(3), Expect::NotMade, true)];
        violated_first(&changes(&hopeless, &[1, 2], &[]), "without a majority");
    }
}
