//! New epochs, and keys that are sealed anew: nothing that was written meanwhile is taken back.

use super::fixtures::*;
use crate::domain::*;
use crate::state::*;

fn count(accepted: Accepted) -> u32 {
    match accepted {
        Accepted::Resealed { count } => count,
        other => panic!("{other:?}"),
    }
}

fn stored(rig: &Rig, p: u8, v: u32) -> StoredKey {
    query::key(rig.store(), protector(p), version(v)).unwrap().unwrap()
}

/// A cluster with two epochs and a key that is sealed to the first one.
fn rotated() -> Rig {
    let mut rig = Rig::ready();
    rig.escrow(escrow_of(1, 1, 1, 0, 1));
    rig.accept(operator(ROOT), rotate(2));
    rig
}

#[test]
fn a_new_epoch_is_the_current_one_and_the_old_one_stays_accepted() {
    let mut rig = rotated();
    let keyring = query::keyring(rig.store()).unwrap().unwrap();
    assert_eq!(keyring.epochs.iter().map(|e| e.epoch.get()).collect::<Vec<_>>(), [1, 2]);
    rig.escrow(escrow_of(1, 1, 2, 1, 2));
    let mut newer = escrow_of(1, 2, 3, 0, 3);
    newer.key.epoch = Epoch::new(2);
    rig.escrow(newer);
    assert_eq!(rig.last_audit().action, AuditAction::Escrow);
}

#[test]
fn an_epoch_that_does_not_follow_or_that_another_root_key_wrapped_is_refused() {
    let mut rig = rotated();
    for epoch in [1, 2, 4] {
        assert_eq!(rig.refuse(operator(ROOT), rotate(epoch)), Rejection::KeyringChanged);
    }
    let CommandBody::Rotate(next) = rotate(3) else { unreachable!() };
    let foreign = CommandBody::Rotate(Rotate { root_check: [9; 32], ..next });
    assert_eq!(rig.refuse(operator(ROOT), foreign), Rejection::KeyringChanged);
    rig.accept(operator(ROOT), seal("incident"));
    assert_eq!(rig.refuse(operator(ROOT), rotate(3)), Rejection::Sealed);
}

#[test]
fn administrators_alone_make_epochs_and_reseal() {
    let mut rig = rotated();
    let old = escrow_of(1, 1, 1, 0, 1).key;
    for who in [operator(HUGO), operator(ODO), agent(1), node(1)] {
        for body in [rotate(3), reseal_of(1, 1, old.clone(), 2, 9)] {
            let refused = rig.refuse(who.clone(), body);
            assert!(matches!(refused, Rejection::NotGranted { .. }), "{who}: {refused}");
        }
    }
}

#[test]
fn a_resealed_key_keeps_its_receipt_its_state_and_its_answer_to_an_identical_escrow() {
    let mut rig = rotated();
    let escrow = escrow_of(1, 1, 1, 0, 1);
    let before = stored(&rig, 1, 1);
    assert_eq!(count(rig.accept(operator(ROOT), reseal_of(1, 1, escrow.key.clone(), 2, 9))), 1);
    let after = stored(&rig, 1, 1);
    assert_eq!(after.sealed, sealed(2, 9));
    assert_eq!((after.receipt.clone(), after.summary.clone()), (before.receipt, before.summary));
    assert_eq!(rig.escrow(escrow), after.receipt);
    assert_eq!(
        stored(&rig, 1, 1).sealed,
        sealed(2, 9),
        "the escrow did not bring the old one back"
    );
}

#[test]
fn a_disclosure_that_came_in_between_stays_disclosed() {
    let mut rig = rotated();
    let old = escrow_of(1, 1, 1, 0, 1).key;
    rig.disclose(1, 1);
    assert_eq!(count(rig.accept(operator(ROOT), reseal_of(1, 1, old, 2, 9))), 1);
    let key = stored(&rig, 1, 1).summary;
    assert_eq!(key.state, KeyState::RotationDue);
    assert!(key.disclosed_at.is_some());
}

#[test]
fn what_is_no_longer_as_it_was_when_it_was_read_stays_as_it_is() {
    let mut rig = rotated();
    let old = escrow_of(1, 1, 1, 0, 1).key;
    rig.accept(operator(ROOT), reseal_of(1, 1, old.clone(), 2, 9));
    // A second run that had read the key before the first one came through, and keys that are not there.
    assert_eq!(count(rig.accept(operator(ROOT), reseal_of(1, 1, old.clone(), 2, 8))), 0);
    assert_eq!(stored(&rig, 1, 1).sealed, sealed(2, 9));
    for (p, v) in [(1, 2), (5, 1), (1, 0)] {
        assert_eq!(count(rig.accept(operator(ROOT), reseal_of(p, v, old.clone(), 2, 8))), 0);
    }
    let mut with_package = resealed(1, 1, &sealed(2, 9), 2, 7);
    with_package.package = Some(sealed(2, 7));
    assert_eq!(count(rig.accept(operator(ROOT), reseal(2, vec![with_package]))), 0);
}

#[test]
fn key_and_package_are_sealed_anew_together() {
    let mut rig = Rig::ready();
    let mut escrow = escrow_of(1, 1, 1, 0, 1);
    escrow.package = Some(sealed(1, 5));
    rig.escrow(escrow.clone());
    rig.accept(operator(ROOT), rotate(2));
    let new = ResealedKey {
        replaces: sealed_digest(&escrow.key, escrow.package.as_ref()),
        package: Some(sealed(2, 6)),
        ..resealed(1, 1, &escrow.key, 2, 9)
    };
    assert_eq!(count(rig.accept(operator(ROOT), reseal(2, vec![new]))), 1);
    let listed = query::sealed_keys(rig.store(), None, 9).unwrap();
    assert_eq!((&listed[0].sealed, &listed[0].package), (&sealed(2, 9), &Some(sealed(2, 6))));
}

#[test]
fn nothing_is_resealed_to_an_epoch_that_is_not_there_or_not_the_one_that_is_named() {
    let mut rig = rotated();
    let old = escrow_of(1, 1, 1, 0, 1).key;
    let refused = rig.refuse(operator(ROOT), reseal_of(1, 1, old.clone(), 3, 9));
    assert_eq!(refused, Rejection::UnknownEpoch(Epoch::new(3)));
    let mixed = reseal(2, vec![resealed(1, 1, &old, 1, 9)]);
    assert_eq!(rig.refuse(operator(ROOT), mixed), Rejection::UnknownEpoch(Epoch::new(1)));
}

#[test]
fn a_retry_has_the_same_answer_and_leaves_no_second_record() {
    let mut rig = rotated();
    let body = reseal_of(1, 1, escrow_of(1, 1, 1, 0, 1).key, 2, 9);
    let first = rig.send(operator(ROOT), 7, body.clone());
    let again = rig.send(operator(ROOT), 7, body);
    assert_eq!((first.outcome, first.audit), (again.outcome, again.audit));
    let record = rig.last_audit();
    assert_eq!((record.action, record.detail), (AuditAction::Reseal, name("1 keys to epoch 2")));
}

#[test]
fn keys_are_listed_in_their_order_page_by_page() {
    let mut rig = Rig::ready();
    for n in 1..=5 {
        rig.escrow(escrow_of(n, 1, n, 0, n));
    }
    rig.escrow(escrow_of(1, 1, 1, 1, 9));
    let all = query::sealed_keys(rig.store(), None, 99).unwrap();
    assert_eq!(all.len(), 6);
    let mut pages = Vec::new();
    let mut after = None;
    loop {
        let page = query::sealed_keys(rig.store(), after, 2).unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.at);
        pages.extend(page);
    }
    assert_eq!(pages, all);
}
