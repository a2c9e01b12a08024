//! Random interleavings of requests, approvals, disclosures, quotas, mass recoveries and clocks that run back and forth.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::model::{By, Deed, KEYS, Model, PEOPLE};
use super::*;

/// One of the first, or one of the last.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![1 => 0_u64..4, 3 => (0_u64..4).prop_map(|back| u64::MAX - back)]
}

fn deed() -> impl Strategy<Value = Deed> {
    let key = || prop::sample::select(KEYS.to_vec());
    prop_oneof![
        8 => key().prop_map(|key| Deed::Disclose(key, None)),
        8 => (key(), number()).prop_map(|(key, approval)| Deed::Disclose(key, Some(approval))),
        5 => key().prop_map(Deed::Request),
        6 => (number(), prop::bool::weighted(0.8)).prop_map(|(of, yes)| Deed::Decide(of, yes)),
        1 => (1_u32..5, 1_u32..7, any::<bool>()).prop_map(|(a, b, c)| Deed::Policy(a, b, c)),
        2 => (5_u64..90).prop_map(Deed::Propose),
        3 => number().prop_map(Deed::Confirm),
        1 => number().prop_map(Deed::End),
    ]
}

/// A deed of somebody, how far the proposing node's clock moves before it, and whether it comes twice.
type Step = (usize, i64, Deed, bool);

fn step() -> impl Strategy<Value = Step> {
    let tick = prop_oneof![
        40 => 0_i64..60_000,
        4 => -3_600_000_i64..0,
        6 => 60_000_i64..5_000_000,
        1 => Just(25 * 3_600_000_i64),
    ];
    (0..PEOPLE.len(), tick, deed(), prop::bool::weighted(0.1))
}

/// A number from the end, once it is known how many there are.
fn resolve(number: u64, last: usize) -> u64 {
    let last = last as u64;
    if number < 4 { number } else { last.saturating_sub(u64::MAX - number) }
}

/// Whoever can do it does it, mostly.
fn fitting(who: usize, deed: &Deed, model: &Model) -> usize {
    match deed {
        Deed::Disclose(_, Some(number)) if who != 3 => {
            let asked =
                usize::try_from(*number).ok().and_then(|n| model.asked.get(n.checked_sub(1)?));
            asked.map_or(who, |asked| asked.who)
        }
        Deed::Disclose(..) | Deed::Request(_) => [0, 1, 4, 0, 4][who],
        Deed::Decide(..) => [1, 1, 2, 3, 4][who],
        _ => [2, 3, 2, 3, 4][who],
    }
}

fn body(deed: &Deed, model: &Model) -> CommandBody {
    match deed {
        Deed::Disclose(key, None) => by_hugo(*key),
        Deed::Disclose(key, Some(0)) => by_hugo(*key),
        Deed::Disclose(key, Some(number)) => disclose_by(*key, *number),
        Deed::Request(key) => request_approval(*key),
        Deed::Decide(number, approve) => decide_approval((*number).max(1), *approve),
        Deed::Policy(own, all, mark) => set_policy(model.revision, |parts| {
            (parts.requester_hour, parts.cluster_hour) = (*own, *all);
            if *mark {
                marked(parts);
            }
        }),
        Deed::Propose(minutes) => propose_mass_recovery(*minutes),
        Deed::Confirm(number) => CommandBody::ConfirmMassRecovery(*number),
        Deed::End(number) => CommandBody::EndMassRecovery(*number),
    }
}

fn resolved(deed: &Deed, model: &Model) -> Deed {
    let (asked, proposals) = (model.asked.len(), model.proposals.len());
    match deed {
        Deed::Disclose(key, Some(number)) => {
            // Mostly the key that was asked for.
            let right = *number > u64::MAX - 3;
            let number = resolve(*number, asked);
            let of = usize::try_from(number).ok().and_then(|n| model.asked.get(n.checked_sub(1)?));
            let key = of.filter(|_| right).map_or(*key, |of| of.key);
            Deed::Disclose(key, Some(number).filter(|number| *number > 0))
        }
        Deed::Decide(number, approve) => Deed::Decide(resolve(*number, asked).max(1), *approve),
        Deed::Confirm(number) => Deed::Confirm(resolve(*number, proposals)),
        Deed::End(number) => Deed::End(resolve(*number, proposals)),
        other => other.clone(),
    }
}

fn set_up() -> Vec<(Actor, CommandBody)> {
    let mut bodies = vec![(operator(ROOT), bootstrap())];
    for (who, roles) in PEOPLE {
        bodies.extend(roles.iter().map(|role| (operator(ROOT), grant(who, *role))));
    }
    let first = |parts: &mut PolicyParts| {
        (parts.requester_hour, parts.cluster_hour) = (3, 5);
        marked(parts);
    };
    bodies.extend([
        (operator(ROOT), agent_ca(1, 1)),
        (operator(ROOT), issue_for(1, group("vip", 1))),
        (node(1), enrol_of(1, 2, 1, 1)),
        (agent(1), CommandBody::Escrow(escrow_of(1, 1, 1, 0, 1))),
        (agent(2), CommandBody::Escrow(escrow_of(2, 1, 4, 0, 1))),
        (operator(ROOT), set_policy(0, first)),
    ]);
    bodies
}

const BEGIN: u64 = 500_000 * HOUR;

/// Runs the steps past the model: the log, and what the model expects of each entry after the set-up.
fn run_model(steps: &[Step]) -> (Model, Vec<Entry>, Vec<Result<(), &'static str>>) {
    let (mut model, mut expected) = (Model::new(BEGIN), Vec::new());
    let mut log = Vec::new();
    let mut add = |actor, body, time| {
        let request_id = request(log.len() as u64 + 1);
        let command = Command {
            actor,
            certificate: None,
            roles: Default::default(),
            request_id,
            time: at(time),
            body,
        };
        log.push(Entry::Command(codec::encode_command(&command)));
    };
    for (actor, body) in set_up() {
        add(actor, body, BEGIN);
    }
    let mut clock = BEGIN;
    for (who, tick, deed, twice) in steps {
        clock = clock.saturating_add_signed(*tick);
        for _ in 0..=u8::from(*twice) {
            let deed = resolved(deed, &model);
            let who = fitting(*who, &deed, &model);
            add(operator(PEOPLE[who].0), body(&deed, &model), clock);
            expected.push(model.apply(who, clock, &deed));
        }
    }
    (model, log, expected)
}

/// What must never be, whatever the rules are in detail.
fn check_promises(model: &Model) {
    let all = &model.disclosed;
    for (n, one) in all.iter().enumerate() {
        let before = |who: Option<usize>| {
            let within = |of: &&model::Disclosed| {
                of.by == By::Quota && one.at - of.at < HOUR && who.is_none_or(|who| of.who == who)
            };
            all[..=n].iter().filter(within).count() as u32
        };
        match one.by {
            By::Quota => {
                assert!(before(Some(one.who)) <= one.quotas.0, "{one:?}");
                assert!(before(None) <= one.quotas.1, "{one:?}");
                assert!(!(one.marked && one.key == KEYS[1]), "{one:?}");
            }
            By::Approval(number) => {
                let asked = &model.asked[usize::try_from(number).unwrap() - 1];
                assert_eq!((asked.who, asked.key, asked.used), (one.who, one.key, 1));
                assert!(asked.approved_by.is_some_and(|by| by != one.who), "{asked:?}");
                assert!(one.at < asked.end, "{one:?} {asked:?}");
            }
            By::MassRecovery => {
                let on = |of: &model::Proposal| {
                    // What was disclosed in the very millisecond of its end came before it in the log.
                    let within =
                        |from, to| from <= one.at && (one.at < to || of.ended && one.at == to);
                    of.on.is_some_and(|(by, from, to)| by != of.by && within(from, to))
                };
                assert!(model.proposals.iter().any(on), "{one:?}");
                assert!(!(one.marked && one.key == KEYS[1]), "{one:?}");
            }
        }
    }
}

/// The records of disclosures that were made, as the chain has them: who, of which key, and by what.
fn on_record(store: &MemoryStore) -> Vec<(String, ProtectorId, String)> {
    let records = query::audit_records(store, 0, u64::MAX, usize::MAX).unwrap();
    let made = records.into_iter().filter(|record| {
        record.action == AuditAction::Disclose && record.outcome == AuditOutcome::Ok
    });
    made.map(|record| {
        let who = record.actor.unwrap().to_string();
        (who, record.protector.unwrap(), record.detail.to_string())
    })
    .collect()
}

fn check_record(store: &MemoryStore, model: &Model) {
    let found = on_record(store);
    assert_eq!(found.len(), model.disclosed.len());
    for ((who, key, detail), one) in found.iter().zip(&model.disclosed) {
        assert_eq!((who, *key), (&format!("operator/{}", PEOPLE[one.who].0), protector(one.key)));
        match one.by {
            By::Quota => assert_eq!(detail, ""),
            By::Approval(number) => {
                let begins = format!("approval {number} by operator/");
                assert!(detail.starts_with(&begins), "{detail}");
            }
            By::MassRecovery => assert!(detail.starts_with("mass recovery "), "{detail}"),
        }
    }
}

fn positioned(log: &[Entry], first: usize) -> Vec<(Position, Entry)> {
    let entries = log.iter().cloned().zip(first as u64..);
    entries.map(|(entry, index)| (Position { term: 1, index }, entry)).collect()
}

fn machine(store: MemoryStore) -> Machine<MemoryStore> {
    Machine::open(std::sync::Arc::new(store)).unwrap()
}

/// A store with the same records, as a snapshot brings them.
fn restored(from: &MemoryStore) -> MemoryStore {
    let store = MemoryStore::default();
    let records = from.records().into_iter();
    let records = records.map(|(table, (key, value))| ((table, key), Some(value)));
    store.commit(WriteSet(records.collect())).unwrap();
    store
}

fn check(steps: &[Step], cuts: &[usize], restore_at: prop::sample::Index) {
    let (model, log, expected) = run_model(steps);
    let before = log.len() - expected.len();
    let restore_at = restore_at.index(log.len());
    let mut single = machine(MemoryStore::default());
    let (mut answers, mut late) = (Vec::new(), None);
    for (n, entry) in positioned(&log, 0).into_iter().enumerate() {
        if n == restore_at {
            late = Some(machine(restored(single.store())));
        }
        answers.extend(single.apply([entry]).unwrap());
    }
    for (n, answer) in answers.iter().enumerate() {
        let found = answer.outcome.as_ref().map(|_| ()).map_err(Rejection::reason);
        let wanted = n.checked_sub(before).map_or(Ok(()), |n| expected[n]);
        assert_eq!(found, wanted, "entry {n}");
    }
    check_promises(&model);
    check_record(single.store(), &model);
    let heads = single.heads();
    assert_eq!(Digest::recount(single.store().records()), (heads.sum, heads.records));
    assert_eq!(
        heads.approvals_kept,
        query::approvals(single.store().as_ref(), None, usize::MAX).unwrap().len() as u64
    );

    let mut batched = machine(MemoryStore::default());
    let (mut rest, mut again) = (positioned(&log, 0), Vec::new());
    for size in cuts.iter().copied().cycle() {
        if rest.is_empty() {
            break;
        }
        let after = rest.split_off(size.min(rest.len()));
        again.extend(batched.apply(std::mem::replace(&mut rest, after)).unwrap());
    }
    assert_eq!(again, answers);
    let mut late = late.unwrap();
    let tail = late.apply(positioned(&log[restore_at..], restore_at)).unwrap();
    assert_eq!(tail, answers[restore_at..]);
    for replica in [&batched, &late] {
        assert_eq!(replica.store().records(), single.store().records());
        assert_eq!(replica.heads().state_digest(), single.heads().state_digest());
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1024,
        failure_persistence: None,
        max_shrink_iters: 20_000,
        ..ProptestConfig::default()
    })]

    #[test]
    fn never_more_is_disclosed_than_quotas_approvals_and_mass_recoveries_allow(
        steps in prop::collection::vec(step(), 1..80),
        cuts in prop::collection::vec(1_usize..12, 1..8),
        restore_at: prop::sample::Index,
    ) {
        check(&steps, &cuts, restore_at);
    }
}

/// The sequences would show little if nearly all were refused for the same reason.
#[test]
fn random_sequences_disclose_in_each_way_and_are_refused_for_each_reason() {
    use prop::strategy::ValueTree as _;
    let mut runner = prop::test_runner::TestRunner::deterministic();
    let steps = prop::collection::vec(step(), 60..80);
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for _ in 0..300 {
        let steps = steps.new_tree(&mut runner).unwrap().current();
        let (model, _, expected) = run_model(&steps);
        for one in &model.disclosed {
            let by = match one.by {
                By::Quota => "by quota",
                By::Approval(_) => "by approval",
                By::MassRecovery => "by mass recovery",
            };
            *seen.entry(by).or_default() += 1;
        }
        for why in expected.into_iter().filter_map(Result::err) {
            *seen.entry(why).or_default() += 1;
        }
    }
    for (what, least) in [
        ("by quota", 500),
        ("by approval", 100),
        ("by mass recovery", 20),
        ("QUOTA_EXCEEDED", 100),
        ("APPROVAL_REQUIRED", 100),
        ("APPROVAL_MISMATCH", 50),
        ("APPROVAL_PENDING", 50),
        ("APPROVAL_USED", 20),
        ("APPROVAL_DENIED", 5),
        ("APPROVAL_DECIDED", 50),
        ("APPROVAL_EXPIRED", 20),
        ("SECOND_PERSON_REQUIRED", 50),
        ("NO_MASS_RECOVERY", 20),
        ("MASS_RECOVERY_ON", 2),
    ] {
        let found = seen.get(what).copied().unwrap_or_default();
        assert!(found >= least, "{what}: {found} of {least} in {seen:?}");
    }
}
