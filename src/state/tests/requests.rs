//! The bounded memory of requests.

use std::sync::Arc;

use super::fixtures::*;
use crate::domain::limits::REMEMBERED_REQUESTS;
use crate::domain::{AuditOutcome, Role};
use crate::state::*;

#[test]
fn the_oldest_request_is_forgotten_first_and_its_record_removed() {
    let mut rig = Rig::ready().remembering(2);
    for d in 1..=3 {
        let body = CommandBody::ReportCompliance(report_of(d, vec![]));
        rig.send(agent(d), 7, body).outcome.unwrap();
    }
    let requests = rig.machine.heads().requests.clone();
    assert_eq!(requests.end - requests.start, 2);
    assert_eq!(rig.store().scan(Table::Requests, &[], &[], 9).unwrap().len(), 2);
    let mut other = report_of(1, vec![]);
    other.host_name = name("other");
    let forgotten = CommandBody::ReportCompliance(other.clone());
    rig.send(agent(1), 7, forgotten).outcome.unwrap();
    other.device = device(3);
    let remembered = CommandBody::ReportCompliance(other);
    assert_eq!(rig.refuse_as(agent(3), 7, remembered), Rejection::RequestIdReused);
}

#[test]
fn requests_are_remembered_across_a_restart() {
    let mut rig = Rig::ready();
    let body = CommandBody::ReportCompliance(report_of(1, vec![]));
    rig.send(agent(1), 7, body).outcome.unwrap();
    rig.machine = Machine::open(Arc::clone(rig.machine.store())).unwrap();
    let mut other = report_of(1, vec![]);
    other.model = name("Anvil 4");
    let other = CommandBody::ReportCompliance(other);
    assert_eq!(rig.refuse_as(agent(1), 7, other), Rejection::RequestIdReused);
}

#[test]
fn a_refused_request_is_not_remembered_and_may_succeed_later() {
    let mut rig = Rig::ready();
    let body = CommandBody::Escrow(escrow_of(1, 1, 2, 1, 1));
    let refused = rig.refuse_as(agent(1), 7, body.clone());
    assert!(matches!(refused, Rejection::StaleVersion { .. }));
    rig.escrow(escrow_of(1, 1, 1, 0, 1));
    assert!(rig.send(agent(1), 7, body).outcome.is_ok());
}

#[test]
fn a_machine_remembers_65536_requests_and_not_one_more() {
    let mut rig = Rig::empty();
    let first = rig.send(operator(ROOT), 0, bootstrap());
    let commands = (1..=REMEMBERED_REQUESTS).map(|n| {
        let command = Command {
            actor: node(1),
            certificate: None,
            roles: Default::default(),
            request_id: request(n),
            time: at(rig.now),
            body: CommandBody::Refusals(vec![]),
        };
        let position = Position { term: 1, index: first.position.index + n };
        (position, Entry::Command(codec::encode_command(&command)))
    });
    rig.machine.apply(commands).unwrap();
    assert_eq!(rig.machine.heads().requests, 1..REMEMBERED_REQUESTS + 1);
    let reopened = Machine::open(Arc::clone(rig.machine.store())).unwrap();
    assert_eq!(reopened.heads(), rig.machine.heads());
}

/// Everything but what is written down about requests.
fn effects(rig: &Rig) -> Vec<Vec<(bytes::Bytes, bytes::Bytes)>> {
    let tables = [
        Table::Devices,
        Table::Keys,
        Table::Grants,
        Table::Quotas,
        Table::Keyring,
        Table::DeviceGroups,
    ];
    tables.map(|table| rig.store().scan(table, &[], &[], 1000).unwrap()).into()
}

/// A node proposes a command again when it does not know what became of it.
#[test]
fn a_command_of_any_kind_that_is_proposed_twice_has_one_effect() {
    let mut rig = Rig::empty();
    let refusal = RefusalCount {
        actor: agent(9),
        action: name("EscrowRecoveryKey"),
        reason: name("FOREIGN_DEVICE"),
        count: 3,
    };
    let commands = [
        (operator(ROOT), bootstrap()),
        (operator(ROOT), grant(HUGO, Role::HelpDesk)),
        (operator(ROOT), grant(ODO, Role::Auditor)),
        (agent(1), CommandBody::Escrow(escrow_of(1, 1, 1, 0, 1))),
        (agent(1), CommandBody::ReportCompliance(report_of(1, vec![]))),
        (operator(HUGO), CommandBody::FindKeys(FindQuery::Device(device(1)))),
        (operator(HUGO), disclose_of(1, 0, Some("bob"))),
        (operator(ODO), CommandBody::AuditRead { detail: name("all") }),
        (operator(ROOT), CommandBody::ClusterChange { detail: name("remove node 2") }),
        (node(1), CommandBody::Refusals(vec![refusal])),
        (operator(ROOT), seal("incident")),
        (operator(ODO), unseal_by_shares(1)),
        (operator(ROOT), unseal(1)),
        (operator(ROOT), rotate(2)),
        (operator(ROOT), reseal_of(1, 1, sealed(1, 1), 2, 9)),
        (operator(ROOT), rekey(1, 7, 2)),
        (operator(ROOT), revoke(HUGO, Role::HelpDesk)),
        (operator(ROOT), add_to_group(1, "vip")),
        (operator(ROOT), remove_from_group(1, "vip")),
    ];
    for (id, (actor, body)) in (1..).zip(commands) {
        rig.send(actor.clone(), id, body.clone()).outcome.unwrap();
        let once = (effects(&rig), rig.machine.heads().requests.clone());
        let audit = rig.machine.heads().audit.sequence;
        rig.send(actor, id, body.clone()).outcome.unwrap();
        let twice = (effects(&rig), rig.machine.heads().requests.clone());
        assert_eq!(once, twice, "{body:?}");
        // What only looks, or is about to act outside the state, may leave a record that says it is a repeat.
        let more = rig.machine.heads().audit.sequence - audit;
        let says_so = more == 1 && rig.last_audit().outcome == AuditOutcome::Repeated;
        assert!(more == 0 || says_so, "{body:?}");
    }
}
