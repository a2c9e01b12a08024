//! No bytes of a command or of an answer, which come from other nodes and from the log, make a decoder panic.

use bytes::Bytes;

use crate::fuzzing::{Seed, join};
use crate::state::fuzzing::{COMMAND, MEMBERSHIP};

use super::fixtures::*;
use crate::domain::*;
use crate::state::*;
use crate::testing::survives;

fn commands() -> Vec<Command> {
    let mut escrow = escrow_of(1, 1, 1, 0, 1);
    escrow.package = Some(sealed(1, 5));
    let refusal = RefusalCount {
        actor: agent(1),
        action: name("EscrowRecoveryKey"),
        reason: name("FOREIGN_DEVICE"),
        count: 2,
    };
    let report = report_of(1, vec![compliance(1, ComplianceStatus::Compliant)]);
    let bodies = [
        bootstrap(),
        CommandBody::Escrow(escrow),
        CommandBody::ReportCompliance(report),
        CommandBody::FindKeys(FindQuery::Prefix(protector(1).prefix())),
        CommandBody::FindKeys(FindQuery::Volume(device(1), volume(1))),
        disclose_of(1, 0, Some("eve")),
        grant(HUGO, Role::HelpDesk),
        revoke(HUGO, Role::HelpDesk),
        CommandBody::AuditRead { detail: name("all") },
        CommandBody::Refusals(vec![refusal]),
        CommandBody::ClusterChange { detail: name("add node/4") },
        deny("agent/09090909-0909-0909-0909-090909090909"),
        allow("node/9"),
        seal("incident"),
        rekey(1, 2, 2),
        rotate(2),
        reseal_of(1, 1, escrow_of(1, 1, 1, 0, 1).key, 1, 9),
        unseal(1),
        unseal_by_shares(1),
        bootstrap_with_shares(),
        agent_ca(1, 3),
        issue_for(1, TokenBinding::Device(device(1))),
        issue_for(2, group("berlin", 3)),
        CommandBody::RevokeToken(token_id(1)),
        enrol_of(2, 1, 1, 1),
        renew_of(1, 2, 2, 1),
        grant_for(HUGO, Role::HelpDesk, &["berlin", "vip"]),
        grant(MIA, Role::DataMigration),
        add_to_group(1, "vip"),
        remove_from_group(1, "berlin"),
        set_policy(0, |parts| parts.dual_control = ["berlin".parse().unwrap()].into()),
        request_approval(1),
        decide_approval(1, true),
        disclose_by(1, 1),
        decide_approval(1, false),
        propose_mass_recovery(60),
        CommandBody::ConfirmMassRecovery(1),
        CommandBody::EndMassRecovery(1),
    ];
    let all = bodies.into_iter().zip([ROOT, HUGO].into_iter().cycle());
    all.map(|(body, who)| Command {
        actor: operator(who),
        certificate: certificate(7),
        roles: Default::default(),
        request_id: request(7),
        time: at(5),
        body,
    })
    .collect()
}

#[test]
fn a_command_of_any_bytes_is_read_or_refused_and_applied_either_way() {
    let valid = commands().iter().map(|command| codec::encode_command(command).to_vec()).collect();
    let rig = std::cell::RefCell::new(Rig::ready());
    survives(valid, |bytes| {
        let bytes = Bytes::copy_from_slice(bytes);
        let read = codec::decode_command(&bytes).is_ok();
        // Whatever it is, the machine goes on: an entry that nobody can read is refused on every node alike.
        let outcome = rig.borrow_mut().entry(Entry::Command(bytes)).outcome;
        assert!(read || outcome == Err(Rejection::Unreadable), "{outcome:?}");
        read
    });
    let rig = rig.into_inner();
    let heads = rig.machine.heads();
    assert_eq!(Digest::recount(rig.store().records()), (heads.sum, heads.records));
}

#[test]
fn an_answer_of_any_bytes_is_read_or_refused() {
    let mut rig = Rig::ready();
    let answers: Vec<_> = commands().into_iter().map(|c| rig.run(right(&c.body), c.body)).collect();
    let valid = answers.iter().map(|applied| codec::encode_applied(applied).to_vec()).collect();
    survives(valid, |bytes| codec::decode_applied(&Bytes::copy_from_slice(bytes)).is_ok());
}

/// Who may do it, so that accepted answers are among them as well as refused ones.
fn right(body: &CommandBody) -> Actor {
    match body {
        CommandBody::Escrow(_) | CommandBody::ReportCompliance(_) => agent(1),
        CommandBody::FindKeys(_) | CommandBody::Disclose(_) | CommandBody::RequestApproval(_) => {
            operator(HUGO)
        }
        CommandBody::Renew(_) => agent(1),
        CommandBody::Refusals(_) | CommandBody::Enrol(_) => node(1),
        CommandBody::AuditRead { .. } | CommandBody::Unseal(_) => operator(ODO),
        CommandBody::Bootstrap(_)
        | CommandBody::Grant { .. }
        | CommandBody::Revoke { .. }
        | CommandBody::ClusterChange { .. }
        | CommandBody::Deny { .. }
        | CommandBody::Allow { .. }
        | CommandBody::Rotate(_)
        | CommandBody::Reseal(_)
        | CommandBody::Rekey(_)
        | CommandBody::Seal { .. } => operator(ROOT),
        CommandBody::CreateAgentCa(_)
        | CommandBody::IssueToken(_)
        | CommandBody::RevokeToken(_)
        | CommandBody::SetDisclosurePolicy(_)
        | CommandBody::DecideApproval(_)
        | CommandBody::ProposeMassRecovery(_)
        | CommandBody::ConfirmMassRecovery(_)
        | CommandBody::EndMassRecovery(_)
        | CommandBody::AddToGroup { .. }
        | CommandBody::RemoveFromGroup { .. } => operator(ROOT),
    }
}

/// A command and its answer, as they go from node to node.
pub(in crate::state) fn command_and_answer() -> (Bytes, Bytes) {
    let command = Command {
        actor: operator(ROOT),
        certificate: certificate(7),
        roles: Default::default(),
        request_id: request(7),
        time: at(5),
        body: bootstrap(),
    };
    let bytes = codec::encode_command(&command);
    let applied = Rig::empty().entry(Entry::Command(bytes.clone()));
    (bytes, codec::encode_applied(&applied))
}

/// Logs and the states that come of them, for the corpora of `fuzz/`.
pub(in crate::state) fn fuzzing_seeds() -> Vec<Seed> {
    let mut log: Vec<Vec<u8>> = vec![vec![], vec![MEMBERSHIP, 1, 2, 3]];
    let mut rig = Rig::empty();
    let setting_up = [bootstrap(), grant(HUGO, Role::HelpDesk), grant(ODO, Role::Auditor)];
    let bodies = setting_up.into_iter().chain(commands().into_iter().map(|command| command.body));
    for (n, body) in (1..).zip(bodies) {
        let actor = right(&body);
        let command = Command {
            actor,
            certificate: None,
            roles: Default::default(),
            request_id: request(n),
            time: at(n),
            body,
        };
        let bytes = codec::encode_command(&command);
        log.push(bytes.to_vec());
        rig.entry(Entry::Command(bytes));
    }
    let records = rig.store().records();
    let records = records.into_iter().flat_map(|(table, (key, value))| {
        [[&[table.tag()], key.as_ref()].concat(), value.to_vec()]
    });
    let mut records: Vec<Vec<u8>> = records.collect();
    for body in [disclose_of(1, 0, Some("eve")), allow("node/9"), revoke(HUGO, Role::HelpDesk)] {
        let command = Command {
            actor: right(&body),
            certificate: None,
            roles: Default::default(),
            request_id: request(99),
            time: at(99),
            body,
        };
        records.extend([vec![COMMAND], codec::encode_command(&command).to_vec()]);
    }
    vec![
        ("log_entries", "bootstrap".to_owned(), join(&log[..3])),
        ("log_entries", "everything".to_owned(), join(&log)),
        ("state_records", "everything".to_owned(), join(&records)),
        ("state_records", "nothing".to_owned(), join([[0; 0]])),
    ]
}
