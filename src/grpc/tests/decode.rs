//! Every field is checked, and every limit is exceeded by one.

use bytes::Bytes;
use holdfast_proto::v1;
use holdfast_proto::v1::find_keys_request::Query;

use super::valid::*;
use crate::domain::{FieldError, KeyIdPrefix, Role, limits};
use crate::grpc::admin::decode_grant;
use crate::grpc::audit::decode_filter;
use crate::grpc::cluster::{CERTIFICATE_BYTES, PRIVATE_KEY_BYTES, decode_init};
use crate::grpc::compliance::decode_report;
use crate::grpc::decode;
use crate::grpc::denials::decode_deny;
use crate::grpc::disclosure::{
    decode_decide, decode_numbered, decode_policy, decode_propose, decode_request,
};
use crate::grpc::enrolment::decode_issue;
use crate::grpc::escrow::decode_escrow;
use crate::grpc::groups::{decode_add, decode_grant_role, decode_remove};
use crate::grpc::operator::{decode_seal, decode_share};
use crate::grpc::recovery::{decode_disclose, decode_find, encode_found};
use crate::service::{Found, MOST_NODES};
use crate::state::FindQuery;

fn field<T: std::fmt::Debug>(result: Result<T, FieldError>) -> String {
    result.unwrap_err().field.into_owned()
}

#[test]
fn a_root_key_in_shares_is_taken_at_its_limits_and_refused_beyond_them() {
    assert!(decode_init(split_init()).unwrap().1.split.is_some());
    let fault = |change: fn(&mut v1::InitClusterRequest)| {
        let mut request = split_init();
        change(&mut request);
        field(decode_init(request))
    };
    assert_eq!(fault(|r| r.share_set = None), "share_set");
    assert_eq!(fault(|r| r.root_key = Bytes::new()), "root_key");
    assert_eq!(fault(|r| r.root_key = Bytes::from(vec![1; 33])), "root_key");
    assert_eq!(fault(|r| r.share_set.as_mut().unwrap().id.clear()), "share_set.id");
    assert_eq!(fault(|r| r.share_set.as_mut().unwrap().shares = 33), "share_set.shares");
    assert_eq!(fault(|r| r.share_set.as_mut().unwrap().threshold = 1), "share_set.threshold");
    assert_eq!(fault(|r| r.share_set.as_mut().unwrap().threshold = 1 << 9), "share_set.threshold");
}

#[test]
fn a_share_is_read_and_one_that_is_mistyped_names_the_field_and_not_its_text() {
    assert_eq!(decode_share(share()).unwrap().1.label().number, 2);
    for text in ["", "holdfast-share-v1:", "holdfast-root-key-v1:471207"] {
        let error =
            decode_share(v1::GiveShareRequest { share: text.into(), ..share() }).unwrap_err();
        assert_eq!(error.field, "share");
        assert!(!error.to_string().contains("471207"), "{error}");
    }
}

#[test]
fn a_seal_needs_a_reason() {
    let seal = |reason: &str| {
        decode_seal(v1::SealClusterRequest { request_id: ID.into(), reason: reason.into() })
    };
    assert!(seal(&"r".repeat(limits::NAME_BYTES)).is_ok());
    assert_eq!(field(seal("")), "reason");
    assert_eq!(field(seal(&"r".repeat(limits::NAME_BYTES + 1))), "reason");
}

/// What a change to a valid request makes of it.
fn escrow_fault(change: impl FnOnce(&mut v1::EscrowRecoveryKeyRequest)) -> String {
    let mut request = escrow();
    change(&mut request);
    field(decode_escrow(request))
}

#[test]
fn an_escrow_at_all_its_limits_is_taken() {
    assert_eq!(decode_escrow(escrow()).unwrap().1.users.len(), limits::DEVICE_USERS);
}

#[test]
fn an_escrow_beyond_a_limit_is_refused_with_the_field() {
    let long = || "x".repeat(limits::NAME_BYTES + 1);
    for (expected, found) in [
        ("host_name", escrow_fault(|r| r.host_name = long())),
        ("users", escrow_fault(|r| r.users.push(user("u")))),
        ("users[1].name", escrow_fault(|r| r.users[1].name = long())),
        ("users[2].domain", escrow_fault(|r| r.users[2].domain = long())),
        (
            "sealed_key.ciphertext",
            escrow_fault(|r| r.sealed_key = Some(sealed(limits::SEALED_KEY_BYTES + 1))),
        ),
        (
            "sealed_key_package.ciphertext",
            escrow_fault(|r| r.sealed_key_package = Some(sealed(limits::SEALED_PACKAGE_BYTES + 1))),
        ),
    ] {
        assert_eq!(found, expected);
    }
}

#[test]
fn an_escrow_with_a_malformed_field_is_refused_with_the_field() {
    for (expected, found) in [
        ("request_id", escrow_fault(|r| r.request_id.clear())),
        ("request_id", escrow_fault(|r| r.request_id = "0".repeat(32))),
        ("device_id", escrow_fault(|r| r.device_id = "pc-1".into())),
        ("volume_id", escrow_fault(|r| r.volume_id.push('0'))),
        ("protector_id", escrow_fault(|r| r.protector_id = format!("{{{ID}}}"))),
        ("protector_kind", escrow_fault(|r| r.protector_kind = 0)),
        ("protector_kind", escrow_fault(|r| r.protector_kind = 3)),
        ("volume_kind", escrow_fault(|r| r.volume_kind = 0)),
        ("sealed_key", escrow_fault(|r| r.sealed_key = None)),
        ("sealed_key.epoch", escrow_fault(|r| r.sealed_key.as_mut().unwrap().epoch = 0)),
        (
            "sealed_key.encapsulated_key",
            escrow_fault(|r| {
                r.sealed_key.as_mut().unwrap().encapsulated_key = Bytes::from(vec![1; 31]);
            }),
        ),
        ("host_name", escrow_fault(|r| r.host_name = "a\nb".into())),
        ("users[0].name", escrow_fault(|r| r.users[0].name.clear())),
    ] {
        assert_eq!(found, expected);
    }
}

fn report_fault(change: impl FnOnce(&mut v1::ReportComplianceRequest)) -> String {
    let mut request = report();
    change(&mut request);
    field(decode_report(request))
}

#[test]
fn a_report_at_all_its_limits_is_taken() {
    assert_eq!(decode_report(report()).unwrap().1.volumes.len(), limits::DEVICE_VOLUMES);
}

#[test]
fn a_report_beyond_a_limit_is_refused_with_the_field() {
    let long = || "x".repeat(limits::NAME_BYTES + 1);
    for (expected, found) in [
        ("volumes", report_fault(|r| r.volumes.push(volume(65)))),
        ("users", report_fault(|r| r.users.push(user("u")))),
        ("host_name", report_fault(|r| r.host_name = long())),
        ("operating_system", report_fault(|r| r.operating_system = long())),
        ("manufacturer", report_fault(|r| r.manufacturer = long())),
        ("model", report_fault(|r| r.model = long())),
        ("volumes[3].mount_point", report_fault(|r| r.volumes[3].mount_point = long())),
        ("volumes[4].cipher", report_fault(|r| r.volumes[4].cipher = long())),
        ("volumes[5].protector_types", report_fault(|r| r.volumes[5].protector_types = long())),
        ("volumes[6].reasons", report_fault(|r| r.volumes[6].reasons.push(17))),
        ("volumes[7].status", report_fault(|r| r.volumes[7].status = 0)),
        ("volumes[8].encryption_state", report_fault(|r| r.volumes[8].encryption_state = 6)),
        ("volumes[9].volume_kind", report_fault(|r| r.volumes[9].volume_kind = 0)),
        (
            "volumes[1].volume_id",
            report_fault(|r| r.volumes[1].volume_id = r.volumes[0].volume_id.clone()),
        ),
    ] {
        assert_eq!(found, expected);
    }
}

#[test]
fn a_search_takes_a_key_id_with_or_without_dashes() {
    let find = |query| {
        decode_find(v1::FindKeysRequest { request_id: ID.into(), query: Some(query) })
            .map(|(_, query)| query)
    };
    let prefix: KeyIdPrefix = "8c9d0e1f".parse().unwrap();
    assert_eq!(find(Query::KeyIdPrefix("8C9D0E1F".into())), Ok(FindQuery::Prefix(prefix)));
    let id = FindQuery::Protector(ID.parse().unwrap());
    assert_eq!(find(Query::KeyId(ID.replace('-', ""))), Ok(id.clone()));
    assert_eq!(find(Query::KeyId(ID.into())), Ok(id));
    assert_eq!(field(find(Query::KeyIdPrefix("8c9d0e1".into()))), "key_id_prefix");
    assert_eq!(field(find(Query::KeyId("8c9d0e1f".into()))), "key_id");
    let volume = v1::VolumeRef { device_id: ID.into(), volume_id: "x".into() };
    assert_eq!(field(find(Query::Volume(volume))), "volume.volume_id");
    let empty = v1::FindKeysRequest { request_id: ID.into(), query: None };
    assert_eq!(field(decode_find(empty)), "query");
}

#[test]
fn a_disclosure_without_a_reason_or_beyond_a_limit_is_refused() {
    assert!(decode_disclose(disclose()).is_ok());
    let fault = |change: fn(&mut v1::DiscloseKeyRequest)| {
        let mut request = disclose();
        change(&mut request);
        field(decode_disclose(request))
    };
    assert_eq!(fault(|r| r.reason = None), "reason");
    assert_eq!(fault(|r| r.reason.as_mut().unwrap().text.push('x')), "reason.text");
    assert_eq!(fault(|r| r.reason.as_mut().unwrap().code = "BORED".into()), "reason.code");
    assert_eq!(fault(|r| r.ticket.push('x')), "ticket");
    assert_eq!(fault(|r| r.user = Some(user(""))), "user.name");
    assert_eq!(fault(|r| r.protector_id = "8c9d0e1f".into()), "protector_id");
}

#[test]
fn what_bounds_disclosures_is_taken_at_its_limits_and_refused_beyond_them() {
    assert!(decode_request(approval_request()).is_ok());
    let mut long = approval_request();
    long.ticket.push('x');
    assert_eq!(field(decode_request(long)), "ticket");
    let nothing = v1::RequestApprovalRequest { reason: None, ..approval_request() };
    assert_eq!(field(decode_request(nothing)), "reason");
    assert!(decode_decide(decision()).is_ok());
    let none = v1::DecideApprovalRequest { approval_id: 0, ..decision() };
    assert_eq!(field(decode_decide(none)), "approval_id");
    let fault = |change: fn(&mut v1::DisclosurePolicy)| {
        let mut request = policy();
        change(request.policy.as_mut().unwrap());
        field(decode_policy(request))
    };
    assert!(decode_policy(policy()).is_ok());
    assert_eq!(fault(|p| p.requester_per_hour = 0), "policy.requester_per_hour");
    assert_eq!(fault(|p| p.requester_per_day += 1), "policy.requester_per_day");
    assert_eq!(fault(|p| p.cluster_per_hour += 1), "policy.cluster_per_hour");
    assert_eq!(fault(|p| p.approval_ms += 1), "policy.approval_ms");
    assert_eq!(fault(|p| p.dual_control_groups[1] = "a b".into()), "policy.dual_control_groups[1]");
    let groups = "policy.dual_control_groups";
    assert_eq!(fault(|p| p.dual_control_groups.push("vip".into())), groups);
    let none = v1::SetDisclosurePolicyRequest { policy: None, ..policy() };
    assert_eq!(field(decode_policy(none)), "policy");
    assert!(decode_propose(proposal()).is_ok());
    for duration_ms in [299_999, limits::MASS_RECOVERY_MS.end() + 1] {
        let wrong = v1::ProposeMassRecoveryRequest { duration_ms, ..proposal() };
        assert_eq!(field(decode_propose(wrong)), "duration_ms");
    }
    let silent = v1::ProposeMassRecoveryRequest { reason: String::new(), ..proposal() };
    assert_eq!(field(decode_propose(silent)), "reason");
    assert_eq!(field(decode_numbered(ID, 0)), "number");
}

#[test]
fn a_new_cluster_beyond_a_limit_is_refused() {
    assert_eq!(decode_init(init()).unwrap().1.nodes.len(), MOST_NODES);
    let fault = |change: fn(&mut v1::InitClusterRequest)| {
        let mut request = init();
        change(&mut request);
        field(decode_init(request))
    };
    assert_eq!(fault(|r| r.nodes.push(node(10))), "nodes");
    assert_eq!(fault(|r| r.nodes.clear()), "nodes");
    assert_eq!(fault(|r| r.nodes[2].node_id = 0), "nodes[2].node_id");
    assert_eq!(fault(|r| r.nodes[1].peer_address = "host".into()), "nodes[1].peer_address");
    assert_eq!(fault(|r| r.nodes[0].client_address = "host:0".into()), "nodes[0].client_address");
    assert_eq!(fault(|r| r.first_administrator = "a b".into()), "first_administrator");
    assert_eq!(fault(|r| r.signer_chain.push(Bytes::new())), "signer_chain");
    assert_eq!(
        fault(|r| r.signer_chain[1] = Bytes::from(vec![0; CERTIFICATE_BYTES + 1])),
        "signer_chain[1]"
    );
    assert_eq!(
        fault(|r| r.signer_private_key = Bytes::from(vec![0; PRIVATE_KEY_BYTES + 1])),
        "signer_private_key"
    );
}

#[test]
fn grants_and_pages_are_checked() {
    assert_eq!(decode_grant(ID, "alice", 4).unwrap().2, Role::Auditor);
    assert_eq!(field(decode_grant(ID, "alice", 0)), "role");
    assert_eq!(field(decode_grant(ID, "", 1)), "operator");
    assert_eq!(field(decode_grant(ID, &"o".repeat(limits::NAME_BYTES + 1), 1)), "operator");
    assert_eq!(decode::page_size(0), Ok(100));
    assert_eq!(decode::page_size(1000), Ok(limits::PAGE_ITEMS));
    assert_eq!(field(decode::page_size(1001)), "page_size");
}

/// A grant for as many groups as it may have.
#[test]
fn a_grant_is_limited_to_groups_where_its_role_is_about_devices_and_within_limits() {
    let (.., reach) = decode_grant_role(grant()).unwrap();
    assert_eq!(reach.groups().count(), limits::GRANT_GROUPS);
    let fault = |change: fn(&mut v1::GrantRoleRequest)| {
        let mut request = grant();
        change(&mut request);
        field(decode_grant_role(request))
    };
    assert_eq!(fault(|r| r.groups.push("more".into())), "groups");
    assert_eq!(fault(|r| r.groups[3] = "two words".into()), "groups[3]");
    assert_eq!(fault(|r| r.groups[9].clear()), "groups[9]");
    for role in [v1::Role::Auditor, v1::Role::Administrator] {
        let mut request = v1::GrantRoleRequest { role: role.into(), ..grant() };
        assert_eq!(field(decode_grant_role(request.clone())), "groups");
        request.groups.clear();
        assert!(!decode_grant_role(request).unwrap().3.is_limited());
    }
}

#[test]
fn a_change_of_a_group_names_a_device_and_a_group() {
    let add = v1::AddDeviceToGroupRequest {
        request_id: ID.into(),
        device_id: ID.into(),
        group: "g".repeat(limits::GROUP_BYTES),
    };
    decode_add(add.clone()).unwrap();
    let with = |change: fn(&mut v1::AddDeviceToGroupRequest)| {
        let mut changed = add.clone();
        change(&mut changed);
        field(decode_add(changed))
    };
    assert_eq!(with(|r| r.request_id.clear()), "request_id");
    assert_eq!(with(|r| r.device_id = "pc-1".into()), "device_id");
    assert_eq!(with(|r| r.group.push('g')), "group");
    let remove = v1::RemoveDeviceFromGroupRequest { group: "a/b".into(), ..Default::default() };
    assert_eq!(field(decode_remove(remove.clone())), "request_id");
    let (request_id, device_id) = (ID.to_owned(), ID.to_owned());
    let remove = v1::RemoveDeviceFromGroupRequest { request_id, device_id, ..remove };
    assert_eq!(field(decode_remove(remove)), "group");
}

#[test]
fn an_audit_filter_that_can_match_nothing_is_refused() {
    let fault = |change: fn(&mut v1::ListRecordsRequest)| {
        let mut request = v1::ListRecordsRequest::default();
        change(&mut request);
        field(decode_filter(request))
    };
    assert!(decode_filter(v1::ListRecordsRequest::default()).is_ok());
    assert_eq!(fault(|r| (r.first_sequence, r.last_sequence) = (5, 4)), "last_sequence");
    assert_eq!(fault(|r| (r.since_ms, r.until_ms) = (5, 5)), "until_ms");
    assert_eq!(fault(|r| r.actor = "alice".into()), "actor");
    assert_eq!(fault(|r| r.action = "steal".into()), "action");
    assert_eq!(fault(|r| r.protector_id = "x".into()), "protector_id");
}

#[test]
fn a_search_that_finds_too_much_for_a_message_says_so() {
    let users =
        (0..32).map(|_| crate::domain::User::new("d".repeat(256), "u".repeat(256)).unwrap());
    let key = crate::state::KeySummary {
        protector: ID.parse().unwrap(),
        version: crate::domain::KeyVersion::new(1),
        device: ID.parse().unwrap(),
        volume: ID.parse().unwrap(),
        protector_kind: crate::domain::ProtectorKind::Luks2RecoveryKey,
        volume_kind: crate::domain::VolumeKind::FixedData,
        state: crate::domain::KeyState::Active,
        escrowed_at: crate::domain::Timestamp::from_millis(1),
        disclosed_at: None,
        has_package: false,
        host_name: crate::domain::Text::default(),
        users: users.collect(),
        imported_by: None,
    };
    let found = Found {
        keys: vec![key; limits::REPLY_KEYS],
        truncated: false,
        audit: Default::default(),
        position: Default::default(),
    };
    let reply = encode_found(&found);
    assert!(reply.truncated);
    assert!(prost::Message::encoded_len(&reply) <= limits::MESSAGE_BYTES);
}

#[test]
fn a_token_is_for_somebody_and_within_its_limits() {
    use v1::issue_token_request::Binding;
    let issue = v1::IssueTokenRequest {
        request_id: ID.into(),
        token_id: ID.into(),
        digest: vec![7; 32].into(),
        ttl_ms: 60_000,
        binding: Some(Binding::Group(v1::TokenGroup { name: "berlin".into(), count: 100_000 })),
    };
    decode_issue(issue.clone()).unwrap();
    let with = |change: fn(&mut v1::IssueTokenRequest)| {
        let mut changed = issue.clone();
        change(&mut changed);
        field(decode_issue(changed))
    };
    let group =
        |name: &str, count| Some(Binding::Group(v1::TokenGroup { name: name.into(), count }));
    assert_eq!(with(|issue| issue.request_id.clear()), "request_id");
    assert_eq!(with(|issue| issue.token_id.clear()), "token_id");
    assert_eq!(with(|issue| issue.digest.clear()), "digest");
    assert_eq!(with(|issue| issue.ttl_ms = 59_999), "ttl_ms");
    assert_eq!(with(|issue| issue.ttl_ms = 90 * 86_400_000 + 1), "ttl_ms");
    assert_eq!(with(|issue| issue.binding = None), "binding");
    let none = Some(Binding::DeviceId(String::new()));
    let bad = [
        (group("two words", 1), "group.name"),
        (group("berlin", 0), "group.count"),
        (none, "device_id"),
    ];
    for (binding, wanted) in bad {
        let changed = v1::IssueTokenRequest { binding, ..issue.clone() };
        assert_eq!(field(decode_issue(changed)), wanted);
    }
}

#[test]
fn a_denial_names_somebody_and_has_a_reason_of_at_most_256_bytes() {
    let deny = v1::DenyCertificateRequest {
        request_id: ID.into(),
        subject: "operator/bob".into(),
        reason: "r".repeat(256),
    };
    decode_deny(deny.clone()).unwrap();
    let with = |change: fn(&mut v1::DenyCertificateRequest)| {
        let mut changed = deny.clone();
        change(&mut changed);
        field(decode_deny(changed))
    };
    assert_eq!(with(|deny| deny.request_id.clear()), "request_id");
    assert_eq!(with(|deny| deny.subject = "bob".into()), "subject");
    assert_eq!(with(|deny| deny.subject = "sha256:00".into()), "subject");
    assert_eq!(with(|deny| deny.reason.clear()), "reason");
    assert_eq!(with(|deny| deny.reason.push('r')), "reason");
}
