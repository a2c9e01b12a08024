//! Another root key: the whole keyring is wrapped by it, or nothing is.

use super::fixtures::*;
use crate::domain::*;
use crate::state::*;

fn keyring(rig: &Rig) -> Keyring {
    query::keyring(rig.store()).unwrap().unwrap()
}

#[test]
fn everything_that_the_old_root_key_wrapped_is_wrapped_by_the_new_one_and_nothing_else_changes() {
    let mut rig = Rig::ready();
    rig.accept(operator(ROOT), rotate(2));
    let before = keyring(&rig);
    rig.accept(operator(ROOT), rekey(1, 7, 2));
    let after = keyring(&rig);
    assert_eq!((after.root_check, after.shares), ([7; 32], Some(share_set())));
    assert_eq!(after.signer.private_key.0, vec![7; 9]);
    assert_eq!(after.signer.chain, before.signer.chain);
    for (old, new) in before.epochs.iter().zip(&after.epochs) {
        assert_eq!(new.private_key.0, vec![7; 8]);
        assert_eq!((new.epoch, new.public_key), (old.epoch, old.public_key));
        assert_eq!(new.signature, old.signature);
    }
    let record = rig.last_audit();
    assert_eq!(record.action, AuditAction::Rekey);
    assert_eq!(record.detail, name("root key 3 of 5, set 5555555555555555"));
    let heads = rig.machine.heads();
    assert_eq!(Digest::recount(rig.store().records()), (heads.sum, heads.records));
}

#[test]
fn a_root_key_that_goes_back_to_a_file_leaves_no_shares_that_count() {
    let mut rig = Rig::empty();
    rig.accept(operator(ROOT), bootstrap_with_shares());
    let CommandBody::Rekey(to_file) = rekey(1, 7, 1) else { unreachable!() };
    rig.accept(operator(ROOT), CommandBody::Rekey(Rekey { shares: None, ..to_file }));
    assert_eq!(keyring(&rig).shares, None);
    assert_eq!(rig.last_audit().detail, name("root key in a file"));
}

#[test]
fn what_was_made_for_another_root_key_or_without_an_epoch_that_is_there_by_now_is_refused() {
    let mut rig = Rig::ready();
    rig.accept(operator(ROOT), rotate(2));
    for body in [rekey(1, 7, 1), rekey(1, 7, 3), rekey(9, 7, 2)] {
        assert_eq!(rig.refuse(operator(ROOT), body), Rejection::KeyringChanged);
    }
    rig.accept(operator(ROOT), rekey(1, 7, 2));
    assert_eq!(rig.refuse(operator(ROOT), rekey(1, 8, 2)), Rejection::KeyringChanged);
    // An epoch that the old root key wrapped comes too late, and so does a CA of devices.
    assert_eq!(rig.refuse(operator(ROOT), rotate(3)), Rejection::KeyringChanged);
    assert_eq!(rig.refuse(operator(ROOT), agent_ca_by(1, 1, 3)), Rejection::KeyringChanged);
    rig.accept(operator(ROOT), agent_ca_by(7, 1, 3));
    // A root key that was made before the CA was would leave it behind.
    assert_eq!(rig.refuse(operator(ROOT), rekey(7, 8, 2)), Rejection::KeyringChanged);
    let CommandBody::Rekey(whole) = rekey(7, 8, 2) else { unreachable!() };
    let agent_cas = vec![Wrapped(vec![8; 7].into())];
    rig.accept(operator(ROOT), CommandBody::Rekey(Rekey { agent_cas: agent_cas.clone(), ..whole }));
    let ca = keyring(&rig).agent_cas.remove(0);
    assert_eq!((ca.number, ca.private_key), (1, agent_cas[0].clone()));
}

#[test]
fn no_ca_of_devices_is_made_while_the_cluster_is_sealed() {
    let mut rig = Rig::ready();
    rig.accept(operator(ROOT), seal("incident"));
    assert_eq!(rig.refuse(operator(ROOT), agent_ca(1, 3)), Rejection::Sealed);
}

#[test]
fn administrators_alone_change_the_root_key_and_not_while_it_is_sealed() {
    let mut rig = Rig::ready();
    for who in [operator(HUGO), operator(ODO), agent(1), node(1)] {
        let refused = rig.refuse(who, rekey(1, 7, 1));
        assert!(matches!(refused, Rejection::NotGranted { .. }), "{refused}");
    }
    rig.accept(operator(ROOT), seal("incident"));
    assert_eq!(rig.refuse(operator(ROOT), rekey(1, 7, 1)), Rejection::Sealed);
}
