//! No bytes from a client make a decoder panic: it takes them, or names the field. And no secret is printed.

use holdfast_proto::v1;
use holdfast_proto::v1::find_keys_request::Query;
use holdfast_proto::v1::issue_token_request::Binding;
use prost::Message;

use super::valid;
use crate::domain::{
    ApprovalId, DeviceId, FieldError, KeyVersion, OperatorName, ProtectorId, Role, TokenId,
};
use crate::grpc::audit::decode_filter;
use crate::grpc::cluster::{decode_init, decode_node};
use crate::grpc::compliance::decode_report;
use crate::grpc::denials::decode_deny;
use crate::grpc::disclosure::{decode_decide, decode_policy, decode_propose, decode_request};
use crate::grpc::enrolment::{decode_enrol, decode_issue};
use crate::grpc::escrow::decode_escrow;
use crate::grpc::groups::{decode_add, decode_grant_role};
use crate::grpc::operator::{decode_seal, decode_share};
use crate::grpc::page::{
    denial_of, grant_of, start_of, token_after, token_after_approval, token_after_denial,
    token_after_grant, token_after_key, token_after_token, token_id_of,
};
use crate::grpc::recovery::{decode_disclose, decode_find};
use crate::state::KeyRef;
use crate::testing::survives;

/// Decodes as the server does: protobuf first, then every field. True if all of it was taken.
fn taken<M: Message + Default, T>(
    bytes: &[u8],
    decode: impl Fn(M) -> Result<T, FieldError>,
) -> bool {
    let Ok(message) = M::decode(bytes) else { return false };
    match decode(message) {
        Ok(_) => true,
        Err(error) => {
            assert!(!error.field.is_empty(), "{error}");
            false
        }
    }
}

#[test]
fn an_escrow_of_any_bytes_is_taken_or_refused() {
    let message = v1::EscrowRecoveryKeyRequest {
        sealed_key: Some(valid::sealed(144)),
        sealed_key_package: Some(valid::sealed(40)),
        host_name: "pc".into(),
        users: vec![valid::user("eve"); 2],
        ..valid::escrow()
    };
    survives(vec![message.encode_to_vec()], |bytes| taken(bytes, decode_escrow));
}

#[test]
fn a_report_of_any_bytes_is_taken_or_refused() {
    let mut message = valid::report();
    message.volumes.truncate(2);
    message.users.truncate(2);
    survives(vec![message.encode_to_vec()], |bytes| taken(bytes, decode_report));
}

#[test]
fn a_search_or_a_disclosure_of_any_bytes_is_taken_or_refused() {
    let volume = v1::VolumeRef { device_id: valid::ID.into(), volume_id: valid::ID.into() };
    let searches = [
        Query::KeyIdPrefix("8c9d0e1f".into()),
        Query::KeyId(valid::ID.into()),
        Query::DeviceId(valid::ID.into()),
        Query::Volume(volume),
    ]
    .map(|query| v1::FindKeysRequest { request_id: valid::ID.into(), query: Some(query) });
    let searches = searches.iter().map(Message::encode_to_vec).collect();
    survives(searches, |bytes| taken(bytes, decode_find));
    survives(vec![valid::disclose().encode_to_vec()], |bytes| taken(bytes, decode_disclose));
}

#[test]
fn what_bounds_disclosures_of_any_bytes_is_taken_or_refused() {
    let request = valid::approval_request().encode_to_vec();
    survives(vec![request], |bytes| taken(bytes, decode_request));
    survives(vec![valid::decision().encode_to_vec()], |bytes| taken(bytes, decode_decide));
    survives(vec![valid::policy().encode_to_vec()], |bytes| taken(bytes, decode_policy));
    survives(vec![valid::proposal().encode_to_vec()], |bytes| taken(bytes, decode_propose));
}

#[test]
fn an_audit_filter_of_any_bytes_is_taken_or_refused() {
    let message = v1::ListRecordsRequest {
        first_sequence: 3,
        last_sequence: 9,
        actor: "operator/alice".into(),
        action: "disclose".into(),
        device_id: valid::ID.into(),
        protector_id: valid::ID.into(),
        since_ms: 5,
        until_ms: 6,
        stale: true,
    };
    survives(vec![message.encode_to_vec()], |bytes| taken(bytes, decode_filter));
}

#[test]
fn administration_of_any_bytes_is_taken_or_refused() {
    survives(vec![valid::grant().encode_to_vec()], |bytes| taken(bytes, decode_grant_role));
    let add = v1::AddDeviceToGroupRequest {
        request_id: valid::ID.into(),
        device_id: valid::ID.into(),
        group: "berlin".into(),
    };
    survives(vec![add.encode_to_vec()], |bytes| taken(bytes, decode_add));
    let deny = v1::DenyCertificateRequest {
        request_id: valid::ID.into(),
        subject: format!("sha256:{}", "0f".repeat(32)),
        reason: "stolen".into(),
    };
    let other = v1::DenyCertificateRequest { subject: "operator/bob".into(), ..deny.clone() };
    let both = vec![deny.encode_to_vec(), other.encode_to_vec()];
    survives(both, |bytes| taken(bytes, decode_deny));
    let inits = [valid::init(), valid::split_init()].map(|init| init.encode_to_vec());
    survives(inits.to_vec(), |bytes| taken(bytes, decode_init));
    let seal = v1::SealClusterRequest { request_id: valid::ID.into(), reason: "incident".into() };
    survives(vec![seal.encode_to_vec()], |bytes| taken(bytes, decode_seal));
    survives(vec![valid::share().encode_to_vec()], |bytes| taken(bytes, decode_share));
    survives(vec![valid::node(3).encode_to_vec()], |bytes| {
        taken(bytes, |node: v1::NodeSpec| decode_node("node", node))
    });
}

#[test]
fn enrolment_of_any_bytes_is_taken_or_refused() {
    let enrol = v1::EnrolRequest {
        request_id: valid::ID.into(),
        device_id: valid::ID.into(),
        token: format!("holdfast-enrol-v1:{}", "0f".repeat(48)),
        csr: vec![7; 40].into(),
    };
    survives(vec![enrol.encode_to_vec()], |bytes| taken(bytes, decode_enrol));
    let device = Binding::DeviceId(valid::ID.into());
    let group = Binding::Group(v1::TokenGroup { name: "berlin".into(), count: 7 });
    let issues = [device, group].map(|binding| v1::IssueTokenRequest {
        request_id: valid::ID.into(),
        token_id: valid::ID.into(),
        digest: vec![7; 32].into(),
        ttl_ms: 3_600_000,
        binding: Some(binding),
    });
    let issues = issues.iter().map(Message::encode_to_vec).collect();
    survives(issues, |bytes| taken(bytes, decode_issue));
    assert!(!format!("{enrol:?}").contains("0f0f"), "no token is printed");
}

#[test]
fn a_page_token_of_any_text_is_taken_or_refused() {
    let alice: OperatorName = "alice".parse().unwrap();
    let tokens = [
        token_after(DeviceId::from_bytes([7; 16])).into_bytes(),
        token_after_grant(&alice, Role::Auditor).into_bytes(),
        token_after_denial(&"operator/alice".parse().unwrap()).into_bytes(),
        token_after_token(TokenId::from_bytes([7; 16])).into_bytes(),
    ];
    survives(tokens.to_vec(), |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let (device, grant) = (start_of(&text), grant_of(&text));
        let denial = denial_of(&text);
        let token = token_id_of(&text);
        let faults =
            [device.clone().err(), grant.clone().err(), denial.clone().err(), token.clone().err()];
        assert!(faults.into_iter().flatten().all(|error| error.field == "page_token"));
        matches!(device, Ok(Some(_)))
            || matches!(grant, Ok(Some(_)))
            || matches!(denial, Ok(Some(_)))
            || matches!(token, Ok(Some(_)))
    });
}

#[test]
fn what_carries_a_secret_shows_none_of_it_when_it_is_printed() {
    let text = "471207-278498-422125-177177-561902-537405-468006-693451";
    let disclosed = v1::DiscloseKeyResponse {
        recovery_key: text.into(),
        key_package: b"key package"[..].into(),
        ..Default::default()
    };
    let init =
        v1::InitClusterRequest { signer_private_key: b"private"[..].into(), ..valid::split_init() };
    let (_, decoded) = decode_init(init.clone()).unwrap();
    let shown = [
        format!("{disclosed:?} {disclosed:#?}"),
        format!("{:?}", tonic::Response::new(disclosed)),
        format!("{init:?} {:?}", tonic::Request::new(init.clone())),
        format!("{:?}", decoded.signer),
        format!("{decoded:?}"),
        format!("{:?} {:?}", valid::share(), decode_share(valid::share())),
    ];
    let bytes = |secret: &[u8]| format!("{secret:?}").trim_matches(['[', ']']).to_owned();
    for shown in &shown {
        assert!(!shown.contains("471207") && !shown.contains("693451"), "{shown}");
        for secret in [&b"key package"[..], b"private", &[0x4b; 32], b"holdfast-share-v1:"] {
            let text = std::str::from_utf8(secret).unwrap();
            assert!(!shown.contains(text) && !shown.contains(&bytes(secret)), "{shown}");
        }
    }
}

/// Well-formed requests of each kind, for the corpora of `fuzz/`.
pub(super) fn seeds() -> Vec<crate::fuzzing::Seed> {
    let id = || valid::ID.to_owned();
    let escrow = v1::EscrowRecoveryKeyRequest {
        sealed_key: Some(valid::sealed(144)),
        sealed_key_package: Some(valid::sealed(40)),
        host_name: "pc".into(),
        users: vec![valid::user("eve"); 2],
        ..valid::escrow()
    };
    let mut report = valid::report();
    report.volumes.truncate(2);
    report.users.truncate(2);
    let volume = v1::VolumeRef { device_id: id(), volume_id: id() };
    let find = |query| v1::FindKeysRequest { request_id: id(), query: Some(query) }.encode_to_vec();
    let records = v1::ListRecordsRequest {
        first_sequence: 3,
        last_sequence: 9,
        actor: "operator/alice".into(),
        action: "disclose".into(),
        device_id: id(),
        protector_id: id(),
        since_ms: 5,
        until_ms: 6,
        stale: true,
    };
    let deny = v1::DenyCertificateRequest {
        request_id: id(),
        subject: format!("sha256:{}", "0f".repeat(32)),
        reason: "stolen".into(),
    };
    let group =
        v1::AddDeviceToGroupRequest { request_id: id(), device_id: id(), group: "berlin".into() };
    let allow = v1::AllowCertificateRequest { request_id: id(), subject: "operator/bob".into() };
    let device = v1::GetDeviceRequest { device_id: id(), stale: true };
    let list = |page_token| {
        v1::ListDevicesRequest { page_size: 7, page_token, ..Default::default() }.encode_to_vec()
    };
    let init = v1::InitClusterRequest {
        signer_chain: vec![b"leaf"[..].into(), b"ca"[..].into()],
        signer_private_key: b"private"[..].into(),
        ..valid::init()
    };
    let alice: OperatorName = "alice".parse().unwrap();
    [
        ("rpc_escrow", "escrow", escrow.encode_to_vec()),
        ("rpc_compliance", "report", report.encode_to_vec()),
        ("rpc_recovery", "find-prefix", find(Query::KeyIdPrefix("8c9d0e1f".into()))),
        ("rpc_recovery", "find-key", find(Query::KeyId(id()))),
        ("rpc_recovery", "find-device", find(Query::DeviceId(id()))),
        ("rpc_recovery", "find-volume", find(Query::Volume(volume))),
        ("rpc_recovery", "disclose", valid::disclose().encode_to_vec()),
        ("rpc_audit", "records", records.encode_to_vec()),
        ("rpc_admin", "grant", valid::grant().encode_to_vec()),
        ("rpc_admin", "group", group.encode_to_vec()),
        ("rpc_admin", "deny", deny.encode_to_vec()),
        ("rpc_admin", "allow", allow.encode_to_vec()),
        ("rpc_admin", "device", device.encode_to_vec()),
        ("rpc_admin", "devices", list(token_after(DeviceId::from_bytes([7; 16])))),
        ("rpc_admin", "grants", list(token_after_grant(&alice, Role::Auditor))),
        ("rpc_admin", "denials", list(token_after_denial(&"operator/alice".parse().unwrap()))),
        ("rpc_cluster", "init", init.encode_to_vec()),
    ]
    .into_iter()
    .chain(enrolment_seeds())
    .chain(operator_seeds())
    .map(|(target, name, bytes)| (target, name.to_owned(), bytes))
    .chain(member_seeds())
    .chain(disclosure_seeds())
    .collect()
}

type Made = (&'static str, &'static str, Vec<u8>);

fn enrolment_seeds() -> [Made; 7] {
    let id = || valid::ID.to_owned();
    let token = "holdfast-enrol-v1:".to_owned() + &"07".repeat(48);
    let csr: bytes::Bytes = vec![0x30; 150].into();
    let enrol = v1::EnrolRequest { request_id: id(), device_id: id(), token, csr: csr.clone() };
    let issue = |binding| v1::IssueTokenRequest {
        request_id: id(),
        token_id: id(),
        digest: vec![7; 32].into(),
        ttl_ms: 60_000,
        binding: Some(binding),
    };
    let group = v1::TokenGroup { name: "berlin".into(), count: 200 };
    let (device_token, group_token) =
        (issue(Binding::DeviceId(id())), issue(Binding::Group(group)));
    let revoke = v1::RevokeTokenRequest { request_id: id(), token_id: id() };
    let create = v1::CreateAgentCaRequest { request_id: id(), number: 1 };
    let renew = v1::RenewCertificateRequest { request_id: id(), csr };
    let page_token = token_after_token(TokenId::from_bytes([7; 16]));
    let tokens = v1::ListTokensRequest { page_size: 7, page_token };
    [
        ("rpc_enrolment", "enrol", enrol.encode_to_vec()),
        ("rpc_enrolment", "issue-device", device_token.encode_to_vec()),
        ("rpc_enrolment", "issue-group", group_token.encode_to_vec()),
        ("rpc_enrolment", "revoke", revoke.encode_to_vec()),
        ("rpc_enrolment", "create", create.encode_to_vec()),
        ("rpc_enrolment", "renew", renew.encode_to_vec()),
        ("rpc_enrolment", "tokens", tokens.encode_to_vec()),
    ]
}

fn operator_seeds() -> [Made; 6] {
    let id = || valid::ID.to_owned();
    let seal = v1::SealClusterRequest { request_id: id(), reason: "theft".into() };
    let unseal = v1::UnsealClusterRequest { request_id: id() };
    let rotate = v1::RotateEscrowKeyRequest { current_epoch: 3 };
    let set = v1::ShareSet { id: "0f".repeat(8), shares: 5, threshold: 3 };
    let rekey = v1::RekeyRootKeyRequest { root_key: vec![0x4b; 32].into(), share_set: Some(set) };
    let key = KeyRef { protector: ProtectorId::from_bytes([7; 16]), version: KeyVersion::new(2) };
    let reseal = v1::ResealKeysRequest { page_token: token_after_key(key) };
    [
        ("rpc_operator", "share", valid::share().encode_to_vec()),
        ("rpc_operator", "seal", seal.encode_to_vec()),
        ("rpc_operator", "unseal", unseal.encode_to_vec()),
        ("rpc_operator", "rotate", rotate.encode_to_vec()),
        ("rpc_operator", "rekey", rekey.encode_to_vec()),
        ("rpc_operator", "reseal", reseal.encode_to_vec()),
    ]
}

fn member_seeds() -> [crate::fuzzing::Seed; 3] {
    let learner =
        v1::AddLearnerRequest { request_id: valid::ID.into(), node: Some(valid::node(4)) };
    let promote = v1::PromoteNodeRequest { request_id: valid::ID.into(), node_id: 4 };
    let transfer = v1::TransferLeadershipRequest { request_id: valid::ID.into(), node_id: 0 };
    [
        ("learner", learner.encode_to_vec()),
        ("promote", promote.encode_to_vec()),
        ("transfer", transfer.encode_to_vec()),
    ]
    .map(|(name, bytes)| ("rpc_cluster", name.to_owned(), bytes))
}

fn disclosure_seeds() -> [crate::fuzzing::Seed; 6] {
    let confirm = v1::ConfirmMassRecoveryRequest { request_id: valid::ID.into(), number: 3 };
    let page_token = token_after_approval(ApprovalId::after(16));
    let approvals = v1::ListApprovalsRequest { page_size: 7, page_token };
    [
        ("request", valid::approval_request().encode_to_vec()),
        ("decision", valid::decision().encode_to_vec()),
        ("policy", valid::policy().encode_to_vec()),
        ("proposal", valid::proposal().encode_to_vec()),
        ("confirmation", confirm.encode_to_vec()),
        ("approvals", approvals.encode_to_vec()),
    ]
    .map(|(name, bytes)| ("rpc_disclosure", name.to_owned(), bytes))
}
