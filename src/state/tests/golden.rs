//! Stored bytes of a fixed history, as version 1 wrote them. A difference is a change of the format: released clusters hold
//! these bytes, so make a change that they can be read after, and add a file for the new version.

use std::fmt::Write as _;

use bytes::Bytes;

use super::fixtures::*;
use crate::domain::*;
use crate::state::*;

const GOLDEN: &str = include_str!("../../../tests/state/golden/store-v1.txt");
/// What came to version 1 with the deny-list: fields and records that a history without denials does not have.
const DENIALS: &str = include_str!("../../../tests/state/golden/store-v1-denials.txt");
/// What came to version 1 with shares of the root key, the seal and rotation.
const OPERATOR: &str = include_str!("../../../tests/state/golden/store-v1-operator.txt");

/// What came to version 1 with enrolment.
const ENROLMENT: &str = include_str!("../../../tests/state/golden/store-v1-enrolment.txt");
/// What came to version 1 with quotas by a policy, approvals and mass recovery.
const CONTROLS: &str = include_str!("../../../tests/state/golden/store-v1-controls.txt");

/// What came to version 1 with groups of devices, grants that are limited to them, and imports.
const GROUPS: &str = include_str!("../../../tests/state/golden/store-v1-groups.txt");

/// What came to version 1 with people by access token.
const OIDC: &str = include_str!("../../../tests/state/golden/store-v1-oidc.txt");

fn command(actor: Actor, id: u64, body: CommandBody) -> Command {
    Command {
        actor,
        certificate: None,
        roles: Default::default(),
        request_id: request(id),
        time: at(1_700_000_000_000 + id),
        body,
    }
}

/// One command of each kind, and some that are refused.
fn history() -> Vec<Command> {
    let mut with_package = escrow_of(1, 1, 2, 1, 0x22);
    with_package.package = Some(sealed(1, 0x33));
    with_package.protector_kind = ProtectorKind::Luks2RecoveryKey;
    let refusal = RefusalCount {
        actor: agent(9),
        action: name("EscrowRecoveryKey"),
        reason: name("FOREIGN_DEVICE"),
        count: 12,
    };
    let bodies = [
        (operator(ROOT), bootstrap()),
        (operator(ROOT), grant(HUGO, Role::HelpDesk)),
        (operator(ROOT), grant(ODO, Role::Auditor)),
        (agent(1), CommandBody::Escrow(escrow_of(1, 1, 1, 0, 0x11))),
        (
            agent(1),
            CommandBody::ReportCompliance(report_of(
                1,
                vec![compliance(2, ComplianceStatus::NonCompliant)],
            )),
        ),
        (operator(HUGO), CommandBody::FindKeys(FindQuery::Prefix(protector(1).prefix()))),
        (operator(HUGO), CommandBody::FindKeys(FindQuery::Volume(device(1), volume(1)))),
        (operator(HUGO), disclose_of(1, 0, Some("eve"))),
        (agent(1), CommandBody::Escrow(with_package)),
        (agent(1), CommandBody::Escrow(escrow_of(1, 1, 2, 0, 0x44))),
        (operator(HUGO), disclose_of(1, 1, Some("eve"))),
        (operator(ODO), CommandBody::AuditRead { detail: name("1 to 9") }),
        (operator(ROOT), revoke(ODO, Role::Auditor)),
        (node(2), CommandBody::Refusals(vec![refusal])),
        (operator(ROOT), CommandBody::ClusterChange { detail: name("add node/4") }),
    ];
    bodies.into_iter().zip(1..).map(|((actor, body), id)| command(actor, id, body)).collect()
}

/// Denials, some that are refused, and commands of who is denied.
fn denial_history() -> Vec<Command> {
    let by_certificate = DenialSubject::Certificate(certificate(7).unwrap()).to_string();
    let bodies = [
        (operator(ROOT), 0, bootstrap()),
        (operator(ROOT), 6, deny("agent/01010101-0101-0101-0101-010101010101")),
        (operator(ROOT), 6, deny("operator/hugo")),
        (operator(ROOT), 6, deny(&by_certificate)),
        (operator(ROOT), 6, deny("operator/root")),
        (operator(ROOT), 6, deny("node/1")),
        (operator(ROOT), 7, allow("operator/hugo")),
        (operator(ROOT), 6, allow("operator/hugo")),
        (agent(1), 8, CommandBody::Escrow(escrow_of(1, 1, 1, 0, 0x11))),
    ];
    let numbered = bodies.into_iter().zip(1..);
    let commands = numbered.map(|((actor, shown, body), id)| Command {
        certificate: certificate(shown),
        ..command(actor, id, body)
    });
    commands.collect()
}

#[test]
fn what_is_written_of_denials_has_not_changed_and_can_be_read() {
    let mut rig = Rig::empty();
    rig.entry(membership(b"voters", &[1, 2]));
    let written = written_by(&mut rig, denial_history()) + &records(&rig);
    for (n, (new, old)) in written.lines().zip(DENIALS.lines()).enumerate() {
        assert_eq!(new, old, "line {}", n + 1);
    }
    assert_eq!(written.lines().count(), DENIALS.lines().count());
    let commands = DENIALS.lines().filter_map(|line| line.strip_prefix("command "));
    let commands = commands.map(|line| codec::decode_command(&hex::decode(line).unwrap().into()));
    assert_eq!(commands.collect::<Result<Vec<_>, _>>().unwrap(), denial_history());
    for line in DENIALS.lines().filter_map(|line| line.strip_prefix("applied ")) {
        codec::decode_applied(&hex::decode(line).unwrap().into()).unwrap();
    }
    assert_eq!(query::denials(rig.store(), None, 9).unwrap().len(), 2);
}

/// A root key in shares, seals and their ends, a new epoch, keys that are sealed anew, another root key; some are refused.
fn operator_history() -> Vec<Command> {
    let bodies = [
        (operator(ROOT), bootstrap_with_shares()),
        (operator(ROOT), grant(HUGO, Role::HelpDesk)),
        (agent(1), CommandBody::Escrow(escrow_of(1, 1, 1, 0, 0x11))),
        (operator(ROOT), seal("incident")),
        (operator(HUGO), disclose_of(1, 0, Some("eve"))),
        (operator(HUGO), unseal(1)),
        (operator(HUGO), unseal_by_shares(0)),
        (operator(HUGO), unseal_by_shares(1)),
        (operator(ROOT), seal("once more")),
        (operator(ROOT), unseal(2)),
        (operator(ROOT), rotate(2)),
        (operator(ROOT), reseal_of(1, 1, sealed(1, 0x11), 2, 0x22)),
        (operator(ROOT), rekey(1, 7, 2)),
        (operator(ROOT), rotate(3)),
        (operator(ROOT), seal("and again")),
    ];
    bodies.into_iter().zip(1..).map(|((actor, body), id)| command(actor, id, body)).collect()
}

#[test]
fn what_is_written_of_seals_and_rotation_has_not_changed_and_can_be_read() {
    let mut rig = Rig::empty();
    let written = written_by(&mut rig, operator_history()) + &records(&rig);
    for (n, (new, old)) in written.lines().zip(OPERATOR.lines()).enumerate() {
        assert_eq!(new, old, "line {}", n + 1);
    }
    assert_eq!(written.lines().count(), OPERATOR.lines().count());
    let commands = OPERATOR.lines().filter_map(|line| line.strip_prefix("command "));
    let commands = commands.map(|line| codec::decode_command(&hex::decode(line).unwrap().into()));
    assert_eq!(commands.collect::<Result<Vec<_>, _>>().unwrap(), operator_history());
    for line in OPERATOR.lines().filter_map(|line| line.strip_prefix("applied ")) {
        codec::decode_applied(&hex::decode(line).unwrap().into()).unwrap();
    }
    assert_eq!(query::seal(rig.store()).unwrap().unwrap().reason, name("and again"));
}

/// A CA of devices, tokens, enrolments and renewals, and some that are refused.
fn enrolment_history() -> Vec<Command> {
    let day = 86_400_000;
    let begin = 1_700_000_000_000;
    let bodies = [
        (operator(ROOT), 0, 0, bootstrap()),
        (operator(ROOT), 0, 0, agent_ca(1, 0xca)),
        (operator(ROOT), 0, 0, agent_ca(1, 0xcb)),
        (operator(ROOT), 0, 0, issue_for(1, TokenBinding::Device(device(1)))),
        (operator(ROOT), 0, 0, issue_for(1, TokenBinding::Device(device(2)))),
        (operator(ROOT), 0, 0, issue_for(2, group("berlin", 2))),
        (node(1), 0, 0, enrol_of(1, 2, 1, 0x11)),
        (node(1), 0, 0, enrol_of(1, 1, 1, 0x11)),
        (node(1), 0, 0, enrol_of(1, 1, 2, 0x12)),
        (node(2), 0, 0, enrol_of(2, 1, 2, 0x13)),
        (node(2), 0, 0, enrol_of(2, 2, 2, 0x14)),
        (node(2), 0, 0, enrol_of(9, 3, 2, 0x15)),
        (operator(ROOT), 0, 0, CommandBody::RevokeToken(token_id(2))),
        (operator(ROOT), 0, 0, issue_for(3, group("berlin", 2))),
        (node(2), 0, 0, enrol_of(2, 3, 2, 0x16)),
        (agent(1), 7, day, renew_of(1, 3, 0x21, begin)),
        (agent(1), 7, 61 * day, renew_of(1, 3, 0x22, begin)),
        (node(2), 0, 61 * day, enrol_of(3, 3, 2, 0x17)),
    ];
    let numbered = bodies.into_iter().zip(1..);
    let commands = numbered.map(|((actor, shown, later, body), id)| {
        let command = command(actor, id, body);
        let time = at(command.time.as_millis() + later);
        Command { certificate: certificate(shown), time, ..command }
    });
    commands.collect()
}

#[test]
fn what_is_written_of_enrolment_has_not_changed_and_can_be_read() {
    let mut rig = Rig::empty();
    let written = written_by(&mut rig, enrolment_history()) + &records(&rig);
    for (n, (new, old)) in written.lines().zip(ENROLMENT.lines()).enumerate() {
        assert_eq!(new, old, "line {}", n + 1);
    }
    assert_eq!(written.lines().count(), ENROLMENT.lines().count());
    let commands = ENROLMENT.lines().filter_map(|line| line.strip_prefix("command "));
    let commands = commands.map(|line| codec::decode_command(&hex::decode(line).unwrap().into()));
    assert_eq!(commands.collect::<Result<Vec<_>, _>>().unwrap(), enrolment_history());
    for line in ENROLMENT.lines().filter_map(|line| line.strip_prefix("applied ")) {
        codec::decode_applied(&hex::decode(line).unwrap().into()).unwrap();
    }
    assert_eq!(query::tokens(rig.store(), None, 9).unwrap().len(), 3);
    assert_eq!(rig.machine.heads().enrolled, 2);
    assert_eq!(rig.machine.heads().enrolled_again, 1);
}

/// Groups of devices, grants for them, and imports; some are refused.
fn group_history() -> Vec<Command> {
    let bodies = [
        (operator(ROOT), bootstrap()),
        (operator(ROOT), agent_ca(1, 0xca)),
        (operator(ROOT), issue_for(1, group("berlin", 2))),
        (operator(ROOT), issue_for(2, group("munich", 2))),
        (node(1), enrol_of(1, 1, 1, 0x11)),
        (node(1), enrol_of(2, 1, 1, 0x12)),
        (operator(ROOT), add_to_group(2, "vip")),
        (operator(ROOT), add_to_group(2, "berlin")),
        (operator(ROOT), remove_from_group(2, "vip")),
        (operator(ROOT), remove_from_group(1, "munich")),
        (operator(ROOT), grant_for(HUGO, Role::HelpDesk, &["berlin", "vip"])),
        (operator(ROOT), grant_for(MIA, Role::DataMigration, &["berlin"])),
        (operator(HUGO), add_to_group(3, "berlin")),
        (operator(MIA), CommandBody::Escrow(escrow_of(1, 1, 1, 0, 0x11))),
        (operator(MIA), CommandBody::Escrow(escrow_of(3, 1, 2, 0, 0x22))),
        (agent(3), CommandBody::Escrow(escrow_of(3, 1, 2, 0, 0x22))),
        (operator(HUGO), CommandBody::FindKeys(FindQuery::Device(device(1)))),
        (operator(HUGO), disclose_of(1, 0, Some("eve"))),
        (operator(HUGO), disclose_of(2, 0, Some("eve"))),
        (agent(1), CommandBody::Escrow(escrow_of(1, 1, 3, 1, 0x33))),
        (operator(MIA), CommandBody::Escrow(escrow_of(1, 1, 4, 2, 0x44))),
        (operator(ROOT), grant(HUGO, Role::HelpDesk)),
    ];
    bodies.into_iter().zip(1..).map(|((actor, body), id)| command(actor, id, body)).collect()
}

#[test]
fn what_is_written_of_groups_has_not_changed_and_can_be_read() {
    let mut rig = Rig::empty();
    let written = written_by(&mut rig, group_history()) + &records(&rig);
    for (n, (new, old)) in written.lines().zip(GROUPS.lines()).enumerate() {
        assert_eq!(new, old, "line {}", n + 1);
    }
    assert_eq!(written.lines().count(), GROUPS.lines().count());
    let commands = GROUPS.lines().filter_map(|line| line.strip_prefix("command "));
    let commands = commands.map(|line| codec::decode_command(&hex::decode(line).unwrap().into()));
    assert_eq!(commands.collect::<Result<Vec<_>, _>>().unwrap(), group_history());
    for line in GROUPS.lines().filter_map(|line| line.strip_prefix("applied ")) {
        codec::decode_applied(&hex::decode(line).unwrap().into()).unwrap();
    }
    let groups = |d| query::groups_of(rig.store(), device(d)).unwrap().len();
    assert_eq!([1, 2, 3].map(groups), [1, 1, 0]);
    let mia = query::granted(rig.store(), &MIA.parse().unwrap()).unwrap();
    assert_eq!(mia.reach(Right::ImportKeys), Some(reach(&["berlin"])));
}

#[test]
fn grants_that_were_written_before_there_were_groups_are_for_all_devices() {
    let value = |line: &str| Bytes::from(hex::decode(line.rsplit(' ').next().unwrap()).unwrap());
    let grants = GOLDEN.lines().filter(|line| line.starts_with("record 6 "));
    let mut seen = 0;
    for line in grants {
        let key = hex::decode(line.split(' ').nth(2).unwrap()).unwrap();
        let grant = codec::decode_grant(&key, &value(line)).unwrap();
        assert_eq!(grant.reach, Reach::ALL);
        seen += 1;
    }
    assert_eq!(seen, 2);
}

/// A policy from the first entry on, a device under dual control, requests, decisions, disclosures by approval, by quota and in a
/// mass recovery, and some that are refused.
fn controls_history() -> Vec<Command> {
    let CommandBody::Bootstrap(first) = bootstrap() else { unreachable!() };
    let disclosure_policy = Some(DisclosurePolicy::default());
    let hour = 3_600_000;
    let small = |parts: &mut PolicyParts| {
        (parts.requester_hour, parts.requester_day, parts.cluster_hour) = (1, 2, 2);
        parts.dual_control = ["berlin".parse().unwrap()].into();
    };
    let quota = || disclose_of(1, 0, Some("eve"));
    let bodies = [
        (operator(ROOT), 0, CommandBody::Bootstrap(Bootstrap { disclosure_policy, ..first })),
        (operator(ROOT), 0, grant(HUGO, Role::HelpDesk)),
        (operator(ROOT), 0, grant(ADA, Role::AdvancedHelpDesk)),
        (operator(ROOT), 0, grant(RUTH, Role::Administrator)),
        (operator(ROOT), 0, agent_ca(1, 0xca)),
        (operator(ROOT), 0, issue_for(1, group("berlin", 1))),
        (node(1), 0, enrol_of(1, 2, 1, 0x11)),
        (agent(1), 0, CommandBody::Escrow(escrow_of(1, 1, 1, 0, 0x11))),
        (agent(2), 0, CommandBody::Escrow(escrow_of(2, 1, 4, 0, 0x22))),
        (operator(ROOT), 0, set_policy(1, small)),
        (operator(ROOT), 0, set_policy(0, small)),
        (operator(HUGO), 0, disclose_of(4, 0, Some("eve"))),
        (operator(HUGO), 0, quota()),
        (operator(HUGO), 0, quota()),
        (operator(HUGO), hour, request_approval(4)),
        (operator(HUGO), hour, decide_approval(1, true)),
        (operator(ADA), hour, decide_approval(1, true)),
        (operator(HUGO), hour, disclose_by(4, 1)),
        (operator(HUGO), hour, disclose_by(4, 1)),
        (operator(HUGO), hour, request_approval(1)),
        (operator(ROOT), hour, decide_approval(2, false)),
        (operator(HUGO), hour, request_approval(1)),
        (operator(ROOT), hour, decide_approval(3, true)),
        (operator(HUGO), 3 * hour, disclose_by(1, 3)),
        (operator(HUGO), 3 * hour, request_approval(1)),
        (operator(ROOT), 3 * hour, propose_mass_recovery(60)),
        (operator(ROOT), 3 * hour, CommandBody::ConfirmMassRecovery(1)),
        (operator(RUTH), 3 * hour, CommandBody::ConfirmMassRecovery(1)),
        (operator(HUGO), 3 * hour, quota()),
        (operator(ROOT), 3 * hour, propose_mass_recovery(60)),
        (operator(RUTH), 3 * hour, CommandBody::EndMassRecovery(1)),
        (operator(RUTH), 3 * hour, CommandBody::EndMassRecovery(1)),
        (operator(ADA), 3 * hour, quota()),
    ];
    let numbered = bodies.into_iter().zip(1..);
    let commands = numbered.map(|((actor, later, body), id)| {
        let command = command(actor, id, body);
        Command { time: at(command.time.as_millis() + later), ..command }
    });
    commands.collect()
}

#[test]
fn what_is_written_of_quotas_and_approvals_has_not_changed_and_can_be_read() {
    let mut rig = Rig::empty();
    let written = written_by(&mut rig, controls_history()) + &records(&rig);
    for (n, (new, old)) in written.lines().zip(CONTROLS.lines()).enumerate() {
        assert_eq!(new, old, "line {}", n + 1);
    }
    assert_eq!(written.lines().count(), CONTROLS.lines().count());
    let commands = CONTROLS.lines().filter_map(|line| line.strip_prefix("command "));
    let commands = commands.map(|line| codec::decode_command(&hex::decode(line).unwrap().into()));
    assert_eq!(commands.collect::<Result<Vec<_>, _>>().unwrap(), controls_history());
    for line in CONTROLS.lines().filter_map(|line| line.strip_prefix("applied ")) {
        codec::decode_applied(&hex::decode(line).unwrap().into()).unwrap();
    }
    let states = query::approvals(rig.store(), None, 9).unwrap();
    let states: Vec<_> = states.into_iter().map(|approval| approval.state).collect();
    use ApprovalState::{Approved, Denied, Pending, Used};
    assert!(matches!(states[..], [Used { .. }, Denied, Approved, Pending]), "{states:?}");
    assert!(query::mass_recovery(rig.store()).unwrap().unwrap().ended.is_some());
    assert_eq!(query::disclosure_policy(rig.store()).unwrap().unwrap().revision, 1);
}

#[test]
fn what_is_written_of_people_with_tokens_has_not_changed_and_can_be_read() {
    let mut rig = Rig::empty();
    let written = written_by(&mut rig, super::oidc::history()) + &records(&rig);
    for (n, (new, old)) in written.lines().zip(OIDC.lines()).enumerate() {
        assert_eq!(new, old, "line {}", n + 1);
    }
    assert_eq!(written.lines().count(), OIDC.lines().count());
    let commands = OIDC.lines().filter_map(|line| line.strip_prefix("command "));
    let commands = commands.map(|line| codec::decode_command(&hex::decode(line).unwrap().into()));
    assert_eq!(commands.collect::<Result<Vec<_>, _>>().unwrap(), super::oidc::history());
    for line in OIDC.lines().filter_map(|line| line.strip_prefix("applied ")) {
        codec::decode_applied(&hex::decode(line).unwrap().into()).unwrap();
    }
    assert_eq!(query::denials(rig.store(), None, 9).unwrap().len(), 1);
}

/// The history's commands, answers and records, a line each.
fn written() -> String {
    let mut rig = Rig::empty();
    let mut out = written_by(&mut rig, history());
    rig.entry(Entry::Command(Bytes::from_static(b"\xff")));
    rig.entry(membership(b"more voters", &[1, 2, 3, 300]));
    rig.entry(membership(b"voters", &[1, 3, 4]));
    out.push_str(&records(&rig));
    out
}

fn written_by(rig: &mut Rig, history: Vec<Command>) -> String {
    let mut out = String::new();
    for command in history {
        let bytes = codec::encode_command(&command);
        let applied = rig.entry(Entry::Command(bytes.clone()));
        writeln!(out, "command {}", hex::encode(&bytes)).unwrap();
        writeln!(out, "applied {}", hex::encode(codec::encode_applied(&applied))).unwrap();
    }
    out
}

/// The records and their digest, a line each.
fn records(rig: &Rig) -> String {
    let mut out = String::new();
    for (table, (key, value)) in rig.store().records() {
        let (key, value) = (hex::encode(key), hex::encode(value));
        writeln!(out, "record {} {key} {value}", table.tag()).unwrap();
    }
    writeln!(out, "digest {}", hex::encode(rig.machine.heads().state_digest())).unwrap();
    out
}

#[test]
fn what_is_written_has_not_changed() {
    let written = written();
    for (n, (new, old)) in written.lines().zip(GOLDEN.lines()).enumerate() {
        assert_eq!(new, old, "line {}", n + 1);
    }
    assert_eq!(written.lines().count(), GOLDEN.lines().count());
}

#[test]
fn what_was_written_can_be_read() {
    let unhex = |text: &str| Bytes::from(hex::decode(text).unwrap());
    let store = MemoryStore::default();
    let mut commands = Vec::new();
    let mut writes = WriteSet::default();
    for line in GOLDEN.lines() {
        let parts: Vec<_> = line.split(' ').collect();
        match parts[..] {
            ["command", hex] => commands.push(codec::decode_command(&unhex(hex)).unwrap()),
            ["applied", hex] => drop(codec::decode_applied(&unhex(hex)).unwrap()),
            ["record", tag, key, value] => {
                let table = Table::from_tag(tag.parse().unwrap()).unwrap();
                writes.0.insert((table, unhex(key)), Some(unhex(value)));
            }
            ["digest", _] => {}
            _ => panic!("{line}"),
        }
    }
    store.commit(writes).unwrap();
    assert_eq!(commands, history());
    let machine = Machine::open(std::sync::Arc::new(store)).unwrap();
    let heads = machine.heads();
    assert_eq!(Digest::recount(machine.store().records()), (heads.sum, heads.records));
    let store = machine.store().as_ref();
    let records = query::audit_records(store, 0, u64::MAX, 100).unwrap();
    assert_eq!(verify_chain(AuditPosition::default(), &records), Ok(heads.audit));
    assert_eq!(query::devices(store, None, 9).unwrap().len(), 1);
    assert_eq!(query::keys_of_volume(store, device(1), volume(1), 9).unwrap().len(), 2);
    assert_eq!(query::package(store, protector(2), version(2)).unwrap(), Some(sealed(1, 0x33)));
    assert_eq!(query::grants(store, None, usize::MAX).unwrap().len(), 2);
    assert!(query::keyring(store).unwrap().is_some());
}

#[test]
#[ignore = "prints the bytes for a new version's file"]
fn print_what_is_written() {
    print!("{}", written());
    let mut rig = Rig::empty();
    rig.entry(membership(b"voters", &[1, 2]));
    print!("{}", written_by(&mut rig, denial_history()) + &records(&rig));
    let mut rig = Rig::empty();
    print!("{}", written_by(&mut rig, operator_history()) + &records(&rig));
    let mut rig = Rig::empty();
    print!("{}", written_by(&mut rig, enrolment_history()) + &records(&rig));
    let mut rig = Rig::empty();
    print!("{}", written_by(&mut rig, group_history()) + &records(&rig));
    let mut rig = Rig::empty();
    print!("{}", written_by(&mut rig, controls_history()) + &records(&rig));
    let mut rig = Rig::empty();
    print!("{}", written_by(&mut rig, super::oidc::history()) + &records(&rig));
}
