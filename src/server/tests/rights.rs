//! Who may call what, over mTLS, for every RPC that the server offers: the whole matrix.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};

use bytes::Bytes;
use prost::Message;
use tonic::Status;
use tonic::codec::Streaming;
use tonic_prost::ProstCodec;

use super::*;
use crate::crypto::DeviceKey;
use crate::domain::{DeviceId, Role};
use crate::grpc::{method_names, public_descriptors};

/// Some other device than the caller's.
const OTHER: DeviceId = DeviceId::from_bytes([0xd2; 16]);

/// The marks of the roles, in their order.
const MARKS: [char; 6] = ['H', 'A', 'R', 'U', 'X', 'M'];

/// Marks in the order of the callers: each role alone, an operator without a role, the device's agent, another agent.
/// A dot is a refusal; a dash is a call that this port does not have, for whomever.
const MATRIX: &str = "\
AdminService/AddDeviceToGroup         . . . . X . . . .
AdminService/AllowCertificate         . . . . X . . . .
AdminService/DenyCertificate          . . . . X . . . .
AdminService/GetDevice                H A R . X . . . .
AdminService/GrantRole                . . . . X . . . .
AdminService/ListDenials              . . . U X . . . .
AdminService/ListDeviceGroups         H A R . X . . . .
AdminService/ListDevices              H A R . X . . . .
AdminService/ListGrants               . . . U X . . . .
AdminService/RemoveDeviceFromGroup    . . . . X . . . .
AdminService/RevokeRole               . . . . X . . . .
AuditService/GetHead                  . . . U . . . . .
AuditService/ListRecords              . . . U . . . . .
CertificateService/CreateAgentCa      . . . . X . . . .
CertificateService/IssueToken         . . . . X . . . .
CertificateService/ListAgentCas       . . . U X . . . .
CertificateService/ListTokens         . . . U X . . . .
CertificateService/RenewCertificate   . . . . . . . a o
CertificateService/RevokeToken        . . . . X . . . .
ClusterService/AddLearner             . . . . X . . . .
ClusterService/GetStatus              H A R U X . . . .
ClusterService/InitCluster            H A R U X M n . .
ClusterService/PromoteNode            . . . . X . . . .
ClusterService/RemoveNode             . . . . X . . . .
ClusterService/TransferLeadership     . . . . X . . . .
ComplianceService/ReportCompliance    . . . . . . . a .
DisclosureService/ConfirmMassRecovery . . . . X . . . .
DisclosureService/DecideApproval      . A . . X . . . .
DisclosureService/EndMassRecovery     . . . . X . . . .
DisclosureService/GetDisclosureStatus H A R U X . . . .
DisclosureService/ListApprovals       H A . U X . . . .
DisclosureService/ProposeMassRecovery . . . . X . . . .
DisclosureService/RequestApproval     H A . . . . . . .
DisclosureService/SetDisclosurePolicy . . . . X . . . .
EnrolmentService/Enrol                - - - - - - - - -
EscrowService/EscrowRecoveryKey       . . . . . M . a .
EscrowService/GetEscrowKey            . . . . . M . a o
OperatorService/GetSealStatus         H A R U X . . . .
OperatorService/GiveShare             H A R U X . . . .
OperatorService/RekeyRootKey          . . . . X . . . .
OperatorService/ResealKeys            . . . . X . . . .
OperatorService/RotateEscrowKey       . . . . X . . . .
OperatorService/SealCluster           . . . . X . . . .
OperatorService/UnsealCluster         . . . . X . . . .
RecoveryService/DiscloseKey           H A . . . . . . .
RecoveryService/FindKeys              H A . . . . . . .
RecoveryService/ListReasons           H A R U X . . . .
";

/// A call that is well-formed, so that whoever is refused is refused for who they are.
fn message(rpc: &str, bench: &Bench) -> Bytes {
    let request_id = uuid::Uuid::new_v4().to_string();
    let device_id = DEVICE.to_string();
    let node = v1::NodeSpec {
        node_id: 9,
        peer_address: "localhost:9".into(),
        client_address: "localhost:19".into(),
    };
    match rpc {
        "AuditService/GetHead" => v1::GetHeadRequest::default().raw(),
        "AuditService/ListRecords" => v1::ListRecordsRequest::default().raw(),
        "ClusterService/AddLearner" => v1::AddLearnerRequest { request_id, node: Some(node) }.raw(),
        "ClusterService/GetStatus" => v1::GetStatusRequest { all_members: true }.raw(),
        "ClusterService/InitCluster" => v1::InitClusterRequest {
            request_id,
            nodes: vec![node],
            first_administrator: "zoe".to_owned(),
            ..Default::default()
        }
        .raw(),
        "ClusterService/PromoteNode" => v1::PromoteNodeRequest { request_id, node_id: 9 }.raw(),
        "ClusterService/RemoveNode" => v1::RemoveNodeRequest { request_id, node_id: 9 }.raw(),
        "ClusterService/TransferLeadership" => {
            v1::TransferLeadershipRequest { request_id, node_id: 0 }.raw()
        }
        "ComplianceService/ReportCompliance" => {
            v1::ReportComplianceRequest { request_id, device_id, ..Default::default() }.raw()
        }
        "EscrowService/EscrowRecoveryKey" => {
            v1::EscrowRecoveryKeyRequest { request_id, ..escrow_request(bench) }.raw()
        }
        "EscrowService/GetEscrowKey" => v1::GetEscrowKeyRequest {}.raw(),
        other if other.starts_with("AdminService/") => admin_message(other, request_id, device_id),
        other if other.starts_with("RecoveryService/") => recovery(other, request_id, device_id),
        other if other.starts_with("OperatorService/") => {
            operator_message(other, request_id, bench)
        }
        other if other.starts_with("DisclosureService/") => {
            disclosure(other, request_id, device_id)
        }
        other => enrolment(other, request_id, device_id),
    }
}

/// The same for the help desk.
fn recovery(rpc: &str, request_id: String, device_id: String) -> Bytes {
    match rpc {
        "RecoveryService/DiscloseKey" => v1::DiscloseKeyRequest {
            request_id,
            protector_id: device_id,
            reason: Some(v1::Reason { code: "LOST_PIN".into(), text: String::new() }),
            user: Some(v1::User { domain: String::new(), name: "bob".into() }),
            ..Default::default()
        }
        .raw(),
        "RecoveryService/FindKeys" => v1::FindKeysRequest {
            request_id,
            query: Some(v1::find_keys_request::Query::DeviceId(device_id)),
        }
        .raw(),
        "RecoveryService/ListReasons" => v1::ListReasonsRequest {}.raw(),
        other => panic!("{other} has no line here, and nobody said who may call it"),
    }
}

/// The same for what bounds disclosures.
fn disclosure(rpc: &str, request_id: String, protector_id: String) -> Bytes {
    let reason = "let us see".to_owned();
    match rpc {
        "DisclosureService/RequestApproval" => v1::RequestApprovalRequest {
            request_id,
            protector_id,
            reason: Some(v1::Reason { code: "LOST_PIN".into(), text: String::new() }),
            user: Some(v1::User { domain: String::new(), name: "bob".into() }),
            ..Default::default()
        }
        .raw(),
        "DisclosureService/DecideApproval" => {
            v1::DecideApprovalRequest { request_id, approval_id: 1, approve: true, reason }.raw()
        }
        "DisclosureService/ListApprovals" => v1::ListApprovalsRequest::default().raw(),
        "DisclosureService/GetDisclosureStatus" => v1::GetDisclosureStatusRequest {}.raw(),
        "DisclosureService/SetDisclosurePolicy" => {
            let policy = crate::domain::DisclosurePolicy::default();
            let policy = Some(crate::client::wire::disclosure_policy(&policy));
            v1::SetDisclosurePolicyRequest { request_id, revision: 0, policy }.raw()
        }
        "DisclosureService/ProposeMassRecovery" => {
            v1::ProposeMassRecoveryRequest { request_id, duration_ms: 300_000, reason }.raw()
        }
        "DisclosureService/ConfirmMassRecovery" => {
            v1::ConfirmMassRecoveryRequest { request_id, number: 1 }.raw()
        }
        "DisclosureService/EndMassRecovery" => {
            v1::EndMassRecoveryRequest { request_id, number: 1 }.raw()
        }
        other => panic!("{other} has no line here, and nobody said who may call it"),
    }
}

/// The same for the service of administrators and of those who read devices.
fn admin_message(rpc: &str, request_id: String, device_id: String) -> Bytes {
    let (operator, role) = ("zoe".to_owned(), 1);
    match rpc {
        "AdminService/GetDevice" => v1::GetDeviceRequest { device_id, stale: false }.raw(),
        "AdminService/GrantRole" => {
            let groups = vec!["berlin".to_owned()];
            v1::GrantRoleRequest { request_id, operator, role, groups }.raw()
        }
        "AdminService/RevokeRole" => v1::RevokeRoleRequest { request_id, operator, role }.raw(),
        "AdminService/DenyCertificate" => {
            let (subject, reason) = ("operator/zoe".to_owned(), "stolen".to_owned());
            v1::DenyCertificateRequest { request_id, subject, reason }.raw()
        }
        "AdminService/AllowCertificate" => {
            let subject = "operator/zoe".to_owned();
            v1::AllowCertificateRequest { request_id, subject }.raw()
        }
        "AdminService/ListDenials" => v1::ListDenialsRequest::default().raw(),
        "AdminService/ListDevices" => v1::ListDevicesRequest::default().raw(),
        "AdminService/AddDeviceToGroup" => {
            v1::AddDeviceToGroupRequest { request_id, device_id, group: "berlin".into() }.raw()
        }
        "AdminService/RemoveDeviceFromGroup" => {
            let group = "berlin".to_owned();
            v1::RemoveDeviceFromGroupRequest { request_id, device_id, group }.raw()
        }
        "AdminService/ListDeviceGroups" => v1::ListDeviceGroupsRequest { device_id }.raw(),
        "AdminService/ListGrants" => v1::ListGrantsRequest::default().raw(),
        other => panic!("{other} has no line here, and nobody said who may call it"),
    }
}

/// The same for the service of those who hold the root key.
fn operator_message(rpc: &str, request_id: String, bench: &Bench) -> Bytes {
    match rpc {
        "OperatorService/GetSealStatus" => v1::GetSealStatusRequest {}.raw(),
        "OperatorService/GiveShare" => {
            v1::GiveShareRequest { request_id, share: share().into_bytes().into() }.raw()
        }
        // The root key that the server has already: it answers again, and changes nothing.
        "OperatorService/RekeyRootKey" => {
            let root_key = Bytes::copy_from_slice(bench.root_key().expose_secret());
            v1::RekeyRootKeyRequest { root_key, share_set: None }.raw()
        }
        "OperatorService/ResealKeys" => v1::ResealKeysRequest::default().raw(),
        "OperatorService/RotateEscrowKey" => v1::RotateEscrowKeyRequest { current_epoch: 1 }.raw(),
        "OperatorService/SealCluster" => {
            v1::SealClusterRequest { request_id, reason: "incident".into() }.raw()
        }
        "OperatorService/UnsealCluster" => v1::UnsealClusterRequest { request_id }.raw(),
        other => panic!("{other} has no line here, and nobody said who may call it"),
    }
}

/// The same, for enrolment and certificates.
fn enrolment(rpc: &str, request_id: String, device_id: String) -> Bytes {
    match rpc {
        "CertificateService/CreateAgentCa" => {
            v1::CreateAgentCaRequest { request_id, number: 1 }.raw()
        }
        "CertificateService/ListAgentCas" => v1::ListAgentCasRequest {}.raw(),
        "CertificateService/IssueToken" => v1::IssueTokenRequest {
            request_id,
            token_id: device_id.clone(),
            digest: Bytes::from_static(&[7; 32]),
            ttl_ms: 3_600_000,
            binding: Some(v1::issue_token_request::Binding::DeviceId(device_id)),
        }
        .raw(),
        "CertificateService/RevokeToken" => {
            v1::RevokeTokenRequest { request_id, token_id: device_id }.raw()
        }
        "CertificateService/ListTokens" => v1::ListTokensRequest::default().raw(),
        "CertificateService/RenewCertificate" => {
            let key = DeviceKey::generate(&mut crate::crypto::system_rng()).unwrap();
            let csr = key.csr(None).unwrap().into();
            v1::RenewCertificateRequest { request_id, csr }.raw()
        }
        "EnrolmentService/Enrol" => v1::EnrolRequest::default().raw(),
        other => panic!("{other} has no line here, and nobody said who may call it"),
    }
}

/// A share that is well-formed, of a root key that nobody has.
fn share() -> String {
    let root = crate::crypto::RootKey::from_bytes([1; 32]);
    let mut rng = crate::crypto::testing::rng();
    let shares =
        crate::crypto::Share::split(&root, crate::crypto::testing::CLUSTER, (3, 2), &mut rng);
    shares.unwrap()[0].expose_text().to_string()
}

pub(super) trait Raw {
    fn raw(&self) -> Bytes;
}

impl<M: Message> Raw for M {
    fn raw(&self) -> Bytes {
        self.encode_to_vec().into()
    }
}

/// A message whose fields nobody looks at.
#[derive(Clone, PartialEq, prost::Message)]
struct Any {}

/// Calls by name. A unary answer is a stream of one.
pub(super) async fn call(channel: Channel, rpc: &str, bytes: Bytes) -> Result<(), Status> {
    call_with(channel, None, rpc, bytes).await
}

/// The same, with an access token or without.
pub(super) async fn call_with(
    channel: Channel,
    token: Option<&str>,
    rpc: &str,
    bytes: Bytes,
) -> Result<(), Status> {
    let mut request = Request::new(bytes);
    if let Some(token) = token {
        let value = format!("Bearer {token}").parse().unwrap();
        request.metadata_mut().insert("authorization", value);
    }
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.unwrap();
    let path = format!("/holdfast.v1.{rpc}").parse().unwrap();
    let codec = RawRequest;
    let mut answers: Streaming<Any> =
        grpc.server_streaming(request, path, codec).await?.into_inner();
    while answers.message().await?.is_some() {}
    Ok(())
}

/// Sends bytes as they are, and reads protobuf.
#[derive(Debug, Clone, Copy, Default)]
struct RawRequest;

impl tonic::codec::Codec for RawRequest {
    type Encode = Bytes;
    type Decode = Any;
    type Encoder = Self;
    type Decoder = <ProstCodec<Any, Any> as tonic::codec::Codec>::Decoder;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<Any, Any>::default().decoder()
    }
}

impl tonic::codec::Encoder for RawRequest {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, out: &mut tonic::codec::EncodeBuf<'_>) -> Result<(), Status> {
        bytes::BufMut::put(out, item);
        Ok(())
    }
}

/// The RPCs of a line each.
fn named_in_matrix() -> BTreeSet<String> {
    MATRIX.lines().map(|line| line.split(' ').next().unwrap().to_owned()).collect()
}

pub(super) fn offered() -> BTreeSet<String> {
    let names = method_names(&public_descriptors().unwrap());
    names.iter().map(|name| name.strip_prefix("holdfast.v1.").unwrap().to_owned()).collect()
}

#[test]
fn every_rpc_of_the_public_api_has_its_line_in_the_matrix_of_rights() {
    assert_eq!(offered(), named_in_matrix());
}

#[tokio::test]
async fn each_rpc_is_open_to_its_callers_over_mtls_and_to_nobody_else() {
    let running = Running::start(100).await;
    let mut callers = Vec::new();
    for ((n, role), mark) in (60..).zip(Role::ALL).zip(MARKS) {
        running.bench.grant(n, role.as_str(), role).await;
        let channel = running.connect(&running.operators, &operator(role.as_str())).await;
        callers.push((mark, channel, None));
    }
    let nobody = running.connect(&running.operators, &operator("nobody")).await;
    callers.push(('n', nobody, None));
    callers.push(('a', running.agent().await, None));
    let other = running.connect(&running.agents, &Actor::Agent(OTHER)).await;
    callers.push(('o', other, None));
    assert_eq!(Table(&found(&running, &callers).await), Table(MATRIX));
}

#[tokio::test]
async fn each_rpc_is_open_to_a_person_with_a_token_as_to_an_operator_of_the_same_role() {
    let (running, provider) = super::oidc::running().await;
    let channel = running.stranger(running.port).await.unwrap();
    // The last role, which imports keys, is for certificates only.
    let roles = Role::ALL.into_iter().zip(MARKS).filter(|(role, _)| *role != Role::DataMigration);
    let callers: Vec<_> = roles
        .map(|(role, mark)| (mark, channel.clone(), Some(provider.token(&[role.as_str()]))))
        .collect();
    // The first columns of the matrix: of whom nothing else is known, nothing else is asked.
    let roles_only: String =
        MATRIX.lines().map(|line| format!("{}\n", &line[..35 + 2 * MARKS.len()])).collect();
    assert_eq!(Table(&found(&running, &callers).await), Table(&roles_only));
}

/// What each caller may call, found by calling it.
async fn found(running: &Running, callers: &[(char, Channel, Option<String>)]) -> String {
    let mut found = String::new();
    for rpc in offered() {
        write!(found, "{rpc:<37}").unwrap();
        for (mark, channel, token) in callers {
            let fake = &running.bench.fake;
            let before = (
                fake.proposed.lock().len(),
                crate::service::Consensus::view(fake.as_ref()).records(),
            );
            let bytes = message(&rpc, &running.bench);
            let answer = call_with(channel.clone(), token.as_deref(), &rpc, bytes).await;
            let mark = match answer {
                Err(status) if status.code() == Code::PermissionDenied => {
                    let reasons =
                        ["ROLE_MISSING", "NOT_AN_AGENT", "NOT_AN_OPERATOR", "FOREIGN_DEVICE"];
                    assert!(reasons.contains(&reason(&status).as_str()), "{rpc} {mark}: {status}");
                    let after = (
                        fake.proposed.lock().len(),
                        crate::service::Consensus::view(fake.as_ref()).records(),
                    );
                    assert!(before == after, "{rpc} {mark}: what is refused proposes nothing");
                    '.'
                }
                Err(status) if status.code() == Code::Unimplemented => '-',
                Err(status) if passed(&status) => *mark,
                Err(status) => panic!("{rpc} {mark}: {status}"),
                Ok(()) => *mark,
            };
            write!(found, " {mark}").unwrap();
        }
        found.push('\n');
    }
    found
}

/// Whether a caller got past the gate: these are about what was asked, not about who asks. What is disclosed was sealed
/// for another key, so that it does not open.
fn passed(status: &Status) -> bool {
    let about_what = [Code::NotFound, Code::FailedPrecondition, Code::DataLoss];
    about_what.contains(&status.code()) || status.message().starts_with("share: ")
}

/// Shown as it is when it differs.
#[derive(PartialEq)]
struct Table<'a>(&'a str);

impl fmt::Debug for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\n{}", self.0)
    }
}
