//! All services of the client port, with their limits.

use std::collections::BTreeSet;
use std::sync::Arc;

use holdfast_proto::v1::admin_service_server::AdminServiceServer;
use holdfast_proto::v1::audit_service_server::AuditServiceServer;
use holdfast_proto::v1::certificate_service_server::CertificateServiceServer;
use holdfast_proto::v1::cluster_service_server::ClusterServiceServer;
use holdfast_proto::v1::compliance_service_server::ComplianceServiceServer;
use holdfast_proto::v1::disclosure_service_server::DisclosureServiceServer;
use holdfast_proto::v1::enrolment_service_server::EnrolmentServiceServer;
use holdfast_proto::v1::escrow_service_server::EscrowServiceServer;
use holdfast_proto::v1::operator_service_server::OperatorServiceServer;
use holdfast_proto::v1::recovery_service_server::RecoveryServiceServer;
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tokio::sync::watch;
use tonic::service::Routes;

use crate::auth::Authorities;
use crate::crypto::NodeSigner;
use crate::domain::limits::MESSAGE_BYTES;
use crate::service::{
    AdminService, AuditService, ClusterService, ComplianceService, Consensus, Context,
    DisclosureService, EnrolmentService, EscrowService, OperatorService, RecoveryService, Sealing,
};

use super::admin::AdminApi;
use super::audit::AuditApi;
use super::cluster::ClusterApi;
use super::compliance::ComplianceApi;
use super::disclosure::DisclosureApi;
use super::enrolment::{CertificateApi, EnrolmentApi};
use super::escrow::EscrowApi;
use super::gate::Gate;
use super::operator::OperatorApi;
use super::recovery::RecoveryApi;

/// Largest message that the enrolment port takes: whoever sends it is nobody yet.
const ENROLMENT_BYTES: usize = 16 * 1024;
/// Package of the services that everyone may know.
const PUBLIC_PACKAGE: &str = "holdfast.v1";

/// What the services are made of.
pub struct Services<C> {
    /// Consensus, clock, deadlines.
    pub context: Arc<Context<C>>,
    /// The keyring of this node.
    pub sealing: Arc<Sealing>,
    /// Signs receipts and checkpoints, the newest one.
    pub signer: watch::Receiver<Arc<NodeSigner>>,
    /// Who may vouch for whom.
    pub authorities: Arc<Authorities>,
}

/// The services of the public API.
pub fn routes<C: Consensus>(services: Services<C>) -> Routes {
    let Services { context, sealing, signer, authorities } = services;
    let cluster = context.cluster();
    let node_ca = authorities.node();
    let gate = Arc::new(Gate::new(Arc::clone(&context), authorities));
    let shared = || (Arc::clone(&gate), Arc::clone(&context));

    let (gate_, context_) = shared();
    let service = EscrowService::new(context_, Arc::clone(&sealing), signer.clone());
    let escrow = EscrowServiceServer::new(EscrowApi { gate: gate_, service })
        .max_decoding_message_size(MESSAGE_BYTES)
        .max_encoding_message_size(MESSAGE_BYTES);
    let (gate_, context_) = shared();
    let service = ComplianceService::new(context_);
    let compliance = ComplianceServiceServer::new(ComplianceApi { gate: gate_, service })
        .max_decoding_message_size(MESSAGE_BYTES)
        .max_encoding_message_size(MESSAGE_BYTES);
    let (gate_, context_) = shared();
    let service = RecoveryService::new(context_, Arc::clone(&sealing));
    let recovery = RecoveryServiceServer::new(RecoveryApi { gate: gate_, service })
        .max_decoding_message_size(MESSAGE_BYTES)
        .max_encoding_message_size(MESSAGE_BYTES);
    let (gate_, context_) = shared();
    let service = AuditService::new(context_, signer);
    let audit = AuditServiceServer::new(AuditApi { gate: gate_, service })
        .max_decoding_message_size(MESSAGE_BYTES)
        .max_encoding_message_size(MESSAGE_BYTES);
    let (gate_, context_) = shared();
    let service = AdminService::new(context_);
    let admin = AdminServiceServer::new(AdminApi { gate: gate_, service })
        .max_decoding_message_size(MESSAGE_BYTES)
        .max_encoding_message_size(MESSAGE_BYTES);
    let (gate_, context_) = shared();
    let service = OperatorService::new(context_, Arc::clone(&sealing));
    let operator = OperatorServiceServer::new(OperatorApi { gate: gate_, service })
        .max_decoding_message_size(MESSAGE_BYTES)
        .max_encoding_message_size(MESSAGE_BYTES);
    let (gate_, context_) = shared();
    let service = EnrolmentService::new(context_, Arc::clone(&sealing));
    let certificates = CertificateServiceServer::new(CertificateApi { gate: gate_, service })
        .max_decoding_message_size(MESSAGE_BYTES)
        .max_encoding_message_size(MESSAGE_BYTES);
    let (gate_, context_) = shared();
    let service = DisclosureService::new(context_);
    let disclosure = DisclosureServiceServer::new(DisclosureApi { gate: gate_, service })
        .max_decoding_message_size(MESSAGE_BYTES)
        .max_encoding_message_size(MESSAGE_BYTES);
    let service = ClusterService::new(context, sealing, node_ca);
    let cluster = ClusterServiceServer::new(ClusterApi { gate, service, cluster })
        .max_decoding_message_size(MESSAGE_BYTES)
        .max_encoding_message_size(MESSAGE_BYTES);

    Routes::new(escrow)
        .add_service(compliance)
        .add_service(recovery)
        .add_service(audit)
        .add_service(admin)
        .add_service(certificates)
        .add_service(cluster)
        .add_service(operator)
        .add_service(disclosure)
}

/// The one service of the enrolment port.
pub fn enrolment_routes<C: Consensus>(
    context: Arc<Context<C>>,
    sealing: Arc<Sealing>,
    authorities: Arc<Authorities>,
) -> Routes {
    let gate = Arc::new(Gate::new(Arc::clone(&context), authorities));
    let service = EnrolmentService::new(context, sealing);
    let enrolment = EnrolmentServiceServer::new(EnrolmentApi { gate, service })
        .max_decoding_message_size(ENROLMENT_BYTES)
        .max_encoding_message_size(MESSAGE_BYTES);
    Routes::new(enrolment)
}

/// The descriptors of the public API, without those of node-to-node calls and of stored messages.
///
/// # Errors
/// Never expected; if the descriptors that are compiled in are damaged.
pub fn public_descriptors() -> Result<FileDescriptorSet, prost::DecodeError> {
    let mut all = FileDescriptorSet::decode(holdfast_proto::DESCRIPTORS)?;
    all.file.retain(|file| {
        let package = file.package();
        package == PUBLIC_PACKAGE || package.starts_with("google.")
    });
    Ok(all)
}

/// All methods of the public API as `package.Service/Method`.
pub fn method_names(descriptors: &FileDescriptorSet) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for file in &descriptors.file {
        for service in &file.service {
            for method in &service.method {
                names.insert(format!("{}.{}/{}", file.package(), service.name(), method.name()));
            }
        }
    }
    names
}
