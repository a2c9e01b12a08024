//! Random command sequences: the machine agrees with a naive model, and replicas end byte-identical however the log was
//! cut and whether or not they began from a snapshot.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use super::fixtures::*;
use super::model::Model;
use super::oidc::person;
use super::steps::{OPERATORS, PEOPLE, Step, Who, body_of, right_actor, step, tick};
use crate::domain::*;
use crate::state::*;

/// Few enough that requests are forgotten all the time.
const MEMORY: u64 = 6;

fn set_up() -> Vec<Command> {
    let bodies = [
        bootstrap(),
        grant(HUGO, Role::HelpDesk),
        grant(ADA, Role::AdvancedHelpDesk),
        grant(ODO, Role::Auditor),
        grant(MIA, Role::DataMigration),
    ];
    let numbered = bodies.into_iter().zip(1_000_000_000..);
    numbered
        .map(|(body, id)| Command {
            actor: operator(ROOT),
            certificate: None,
            roles: Default::default(),
            request_id: request(id),
            time: at(1_000_000),
            body,
        })
        .collect()
}

/// Runs the steps past the model. Gives the log, and the model's answers but for those that are no commands.
fn run_model(steps: &[(Step, i64)], ready: bool) -> (Model, Vec<(Position, Entry)>, Vec<Outcome>) {
    let mut model = Model::new(usize::try_from(MEMORY).unwrap());
    let (mut log, mut outcomes, mut sent): (Vec<_>, Vec<_>, Vec<Command>) = Default::default();
    let mut clock = 1_000_000_i64;
    let mut submit = |model: &mut Model, log: &mut Vec<_>, command: &Command| {
        let position = Position { term: 1, index: log.len() as u64 };
        outcomes.push(model.apply(position, command));
        log.push((position, Entry::Command(codec::encode_command(command))));
    };
    if ready {
        for command in set_up() {
            submit(&mut model, &mut log, &command);
            sent.push(command);
        }
    }
    let mut others = BTreeMap::new();
    for (step, ticks) in steps {
        clock = (clock + ticks).max(0);
        let now = at(u64::try_from(clock).unwrap());
        let position = Position { term: 1, index: log.len() as u64 };
        let entry = match step {
            Step::Command { actor, certificate: shown, request: id, body } => {
                let mut roles = BTreeSet::new();
                let actor = match actor {
                    Who::Right => right_actor(body),
                    Who::Agent(n) => agent(*n),
                    Who::Operator(n) => operator(OPERATORS[usize::from(*n)]),
                    Who::Node(n) => node(*n),
                    Who::Person(n, bits) => {
                        let given = Role::ALL.into_iter().enumerate();
                        let given = given.filter(|(bit, _)| bits & (1 << bit) != 0);
                        roles = given.map(|(_, role)| role).collect();
                        person(PEOPLE[usize::from(*n)])
                    }
                };
                let body = body_of(body, &model);
                let certificate = certificate(*shown);
                let request_id = request(*id);
                let command = Command { actor, certificate, roles, request_id, time: now, body };
                submit(&mut model, &mut log, &command);
                sent.push(command);
                continue;
            }
            Step::Retry(index) if !sent.is_empty() => {
                let command = Command { time: now, ..index.get(&sent).clone() };
                submit(&mut model, &mut log, &command);
                continue;
            }
            Step::Retry(_) | Step::Blank => Entry::Blank,
            Step::Membership(n) => {
                let members = (0..8).filter(|bit| n & (1 << bit) != 0).map(NodeId::new);
                let members: std::collections::BTreeSet<_> = members.collect();
                model.members.clone_from(&members);
                Entry::Membership { bytes: Bytes::from(vec![*n; 3]), members }
            }
            Step::Garbage(bytes) => Entry::Command(Bytes::from(bytes.clone())),
        };
        let outcome = match &entry {
            Entry::Command(_) => model.unreadable(position),
            Entry::Blank | Entry::Membership { .. } => Ok(Accepted::Nothing),
        };
        others.insert(log.len(), outcome);
        log.push((position, entry));
    }
    for (at, outcome) in others {
        outcomes.insert(at, outcome);
    }
    (model, log, outcomes)
}

fn machine(store: MemoryStore) -> Machine<MemoryStore> {
    Machine::open(Arc::new(store)).unwrap().remembering(MEMORY)
}

/// A store with the same records, as a snapshot brings them.
fn restored(from: &MemoryStore) -> MemoryStore {
    let store = MemoryStore::default();
    let mut writes = WriteSet::default();
    for (table, (key, value)) in from.records() {
        writes.0.insert((table, key), Some(value));
    }
    store.commit(writes).unwrap();
    store
}

/// Outcomes without what the model can't know: hashes.
fn without_hashes(outcome: &Outcome) -> Outcome {
    let mut outcome = outcome.clone();
    if let Ok(Accepted::Escrowed(receipt)) = &mut outcome {
        receipt.audit.hash = [0; 32];
    }
    outcome
}

fn check_chain(store: &MemoryStore, heads: &Heads, answers: &[Applied], model: &Model) {
    let records = query::audit_records(store, 0, u64::MAX, usize::MAX).unwrap();
    assert_eq!(verify_chain(AuditPosition::default(), &records), Ok(heads.audit));
    for applied in answers {
        if let Ok(Accepted::Escrowed(receipt)) = &applied.outcome {
            let record = &records[usize::try_from(receipt.audit.sequence).unwrap() - 1];
            assert_eq!(record.head(), receipt.audit);
            assert_eq!(record.protector, Some(receipt.protector));
            assert_eq!(record.log_index, receipt.position.index);
        }
    }
    let seen = records.into_iter().map(|record| model::ModelRecord {
        time: record.time.as_millis(),
        index: record.log_index,
        actor: record.actor.map(|actor| actor.to_string()).unwrap_or_default(),
        action: record.action.as_str(),
        outcome: record.outcome.as_str().to_owned(),
        count: record.count,
        key: record.protector.map(|protector| (protector, record.version.get())),
        user: record.user,
    });
    assert_eq!(seen.collect::<Vec<_>>(), model.audit);
}

use super::model;

fn check_queries(store: &MemoryStore, model: &Model) {
    let devices = query::devices(store, None, 100).unwrap();
    let ids: Vec<_> = devices.iter().map(|device| device.id).collect();
    assert_eq!(ids, model.devices.keys().copied().collect::<Vec<_>>());
    for found in devices {
        let expected = &model.devices[&found.id];
        assert_eq!(query::device(store, found.id).unwrap().as_ref(), Some(&found));
        assert_eq!(found.host_name.as_str(), expected.host_name);
        assert_eq!(found.operating_system.as_str(), expected.operating_system);
        assert_eq!(found.users, expected.users);
        assert_eq!(found.first_seen.as_millis(), expected.first_seen);
        assert_eq!(found.last_contact.as_millis(), expected.last_contact);
        assert_eq!(found.volumes.len(), expected.volumes.len());
        for volume in &found.volumes {
            let (kind, compliance) = &expected.volumes[&volume.id];
            assert_eq!(volume.kind, *kind);
            let reported = volume.compliance.clone().map(|(report, at)| (report, at.as_millis()));
            assert_eq!(&reported, compliance);
            assert_eq!(volume.key_version().get(), model.current(found.id, volume.id));
            let mut chain: Vec<_> = model
                .keys
                .iter()
                .filter(|k| k.escrow.device == found.id && k.escrow.volume == volume.id)
                .map(|k| model.summary(k))
                .collect();
            chain.reverse();
            assert_eq!(volume.key_state(), chain.first().map(|key| key.state));
            let walked = query::keys_of_volume(store, found.id, volume.id, 100).unwrap();
            assert_eq!(walked.into_iter().map(|k| k.summary).collect::<Vec<_>>(), chain);
        }
    }
    for key in &model.keys {
        let version = KeyVersion::new(key.version);
        let found = query::key(store, key.escrow.protector, version).unwrap().unwrap();
        assert_eq!(found.summary, model.summary(key));
        assert_eq!(found.sealed, key.stored.0);
        let package = query::package(store, key.escrow.protector, version).unwrap();
        assert_eq!(package, key.stored.1);
        let digest = sealed_digest(&key.escrow.key, key.escrow.package.as_ref());
        assert_eq!(
            found.receipt.sealed_digest, digest,
            "the receipt is of what was first received"
        );
    }
    let grants = query::grants(store, None, usize::MAX).unwrap();
    let pairs = grants
        .into_iter()
        .map(|grant| ((grant.operator.as_str().to_owned(), grant.role), grant.reach));
    assert_eq!(pairs.collect::<BTreeMap<_, _>>(), model.grants);
    let denials = query::denials(store, None, usize::MAX).unwrap();
    assert_eq!(Heads::load(store).unwrap().denials, denials.len() as u64);
    let denials = denials.into_iter().map(|denial| (denial.subject, denial.reason));
    assert_eq!(denials.collect::<BTreeMap<_, _>>(), model.denied);
    let listed = query::sealed_keys(store, None, usize::MAX).unwrap();
    assert_eq!(listed.len(), model.keys.len());
    let epochs = query::keyring(store).unwrap().map_or(1, |keyring| keyring.epochs.len());
    assert_eq!(epochs, usize::try_from(model.rotations).unwrap() + 1);
    let heads = Heads::load(store).unwrap();
    assert_eq!((heads.seals, heads.sealed), (model.seals, model.sealed.is_some()));
    let sealed = query::seal(store).unwrap().map(|seal| (seal.sealed_by, seal.reason));
    assert_eq!(sealed, model.sealed);
    check_enrolment(store, model);
}

fn check_enrolment(store: &MemoryStore, model: &Model) {
    let heads = Heads::load(store).unwrap();
    assert_eq!(query::agent_cas(store).unwrap(), model.agent_cas);
    let tokens = query::tokens(store, None, usize::MAX).unwrap();
    assert_eq!(heads.tokens, tokens.len() as u64);
    let mut known = model.tokens.clone();
    known.sort_by_key(|token| token.id);
    let found = tokens.into_iter().map(|token| model::ModelToken {
        id: token.id,
        digest: token.digest,
        binding: token.binding,
        used: token.used,
        end: token.expires_at.as_millis(),
        revoked: token.revoked,
    });
    assert_eq!(found.collect::<Vec<_>>(), known);
    assert_eq!(heads.enrolled, model.enrolments.len() as u64);
    assert_eq!(heads.enrolled_again, model.enrolled_again);
    for (device, expected) in &model.enrolments {
        let found = query::enrolment(store, *device).unwrap().unwrap();
        assert_eq!(found.certificate, expected.certificate);
        assert_eq!(found.token, expected.token);
        assert_eq!(found.times, expected.times);
    }
    for d in 0..4 {
        assert_eq!(query::groups_of(store, device(d)).unwrap(), model.groups_of(device(d)));
    }
}

fn check(steps: &[(Step, i64)], ready: bool, cuts: &[usize], restore_at: prop::sample::Index) {
    let (model, log, expected) = run_model(steps, ready);
    let restore_at = restore_at.index(log.len() + 1);

    let mut single = machine(MemoryStore::default());
    let mut late = None;
    let mut answers = Vec::new();
    for (n, entry) in log.iter().enumerate() {
        if n == restore_at {
            late = Some(machine(restored(single.store())));
        }
        answers.extend(single.apply([entry.clone()]).unwrap());
    }
    let outcomes: Vec<_> = answers.iter().map(|a| without_hashes(&a.outcome)).collect();
    for (n, (outcome, expected)) in outcomes.iter().zip(&expected).enumerate() {
        assert_eq!(outcome, expected, "entry {n}");
    }
    assert_eq!(outcomes.len(), expected.len());
    check_chain(single.store(), single.heads(), &answers, &model);
    check_queries(single.store(), &model);
    assert_eq!(
        Digest::recount(single.store().records()),
        (single.heads().sum, single.heads().records)
    );

    let mut batched = machine(MemoryStore::default());
    let (mut rest, mut batch_answers) = (&log[..], Vec::new());
    for size in cuts.iter().copied().cycle() {
        if rest.is_empty() {
            break;
        }
        let (batch, after) = rest.split_at(size.min(rest.len()));
        batch_answers.extend(batched.apply(batch.to_vec()).unwrap());
        rest = after;
    }
    assert_eq!(batch_answers, answers);
    let mut late = late.unwrap_or_else(|| machine(restored(single.store())));
    assert_eq!(late.apply(log[restore_at..].to_vec()).unwrap(), answers[restore_at..]);
    for replica in [&batched, &late] {
        assert_eq!(replica.store().records(), single.store().records());
        assert_eq!(replica.heads(), single.heads());
        assert_eq!(replica.heads().state_digest(), single.heads().state_digest());
        assert_eq!(&Heads::load(replica.store().as_ref()).unwrap(), replica.heads());
    }
}

/// The command sequences that are tried.
const CASES: u32 = 2048;

proptest! {
    #![proptest_config(ProptestConfig {
        cases: CASES,
        failure_persistence: None,
        max_shrink_iters: 20_000,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_machine_agrees_with_the_model_and_replicas_with_each_other(
        steps in prop::collection::vec((step(), tick()), 1..60),
        ready in prop::bool::weighted(0.9),
        cuts in prop::collection::vec(1_usize..12, 1..8),
        restore_at: prop::sample::Index,
    ) {
        check(&steps, ready, &cuts, restore_at);
    }
}

/// The sequences would show little if nearly all of their commands were refused for the same reason.
#[test]
fn random_sequences_reach_every_answer_and_nearly_every_refusal() {
    use prop::strategy::ValueTree as _;
    let mut runner = prop::test_runner::TestRunner::deterministic();
    let steps = prop::collection::vec((step(), tick()), 50..60);
    let mut answers: BTreeMap<&str, usize> = BTreeMap::new();
    for _ in 0..700 {
        let steps = steps.new_tree(&mut runner).unwrap().current();
        let (_, _, outcomes) = run_model(&steps, true);
        for outcome in outcomes {
            let name = match &outcome {
                Ok(Accepted::Escrowed(_)) => "escrowed",
                Ok(Accepted::Reported { .. }) => "reported",
                Ok(Accepted::Found { .. }) => "found",
                Ok(Accepted::Disclosed { repeated: true, .. }) => "disclosed again",
                Ok(Accepted::Disclosed { .. }) => "disclosed",
                Ok(Accepted::Granted { .. }) => "granted",
                Ok(Accepted::Resealed { count: 0 }) => "resealed none",
                Ok(Accepted::Resealed { .. }) => "resealed",
                Ok(_) => "other",
                Err(rejection) => rejection.reason(),
            };
            *answers.entry(name).or_default() += 1;
        }
    }
    for (name, least) in [
        ("escrowed", 200),
        ("reported", 100),
        ("found", 100),
        ("disclosed", 100),
        ("disclosed again", 5),
        ("granted", 100),
        ("STALE_VERSION", 20),
        ("FOREIGN_VOLUME", 5),
        ("FOREIGN_DEVICE", 5),
        ("NOT_GRANTED", 20),
        ("UNKNOWN_KEY", 20),
        ("UNKNOWN_DEVICE", 5),
        ("UNKNOWN_EPOCH", 5),
        ("REQUEST_ID_REUSED", 1),
        ("REPEAT_TOO_LATE", 1),
        ("LAST_ADMINISTRATOR", 1),
        ("CERTIFICATE_DENIED", 20),
        ("TOO_MANY_NODES_DENIED", 1),
        ("CLUSTER_SEALED", 20),
        ("resealed", 20),
        ("resealed none", 20),
        ("KEYRING_CHANGED", 5),
        ("SEALED_AGAIN", 5),
        ("UNREADABLE", 20),
        ("OUTSIDE_GROUPS", 20),
        ("ESCROWED_BY_DEVICE", 5),
    ] {
        let found = answers.get(name).copied().unwrap_or_default();
        assert!(found >= least, "{name}: {found} of {least} in {answers:?}");
    }
}
