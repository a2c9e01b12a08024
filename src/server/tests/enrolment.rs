//! The enrolment port, and the client port for those who came through it.

use holdfast_proto::v1::certificate_service_client::CertificateServiceClient;
use holdfast_proto::v1::enrolment_service_client::EnrolmentServiceClient;

use super::rights::{Raw as _, call, offered};
use super::*;
use crate::crypto::{DeviceKey, EnrolmentToken, system_rng};
use crate::domain::{DeviceId, Fingerprint};

fn new_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

impl Running {
    /// Connects without a certificate.
    pub(super) async fn stranger(&self, port: u16) -> Result<Channel, tonic::transport::Error> {
        let config = client_config(&self.bench.ca.authority(), None).unwrap();
        let endpoint = Endpoint::from_shared(format!("http://localhost:{port}")).unwrap();
        endpoint.connect_with_connector(Connector::new(config, SECOND * 5)).await
    }

    async fn certificates(&self) -> CertificateServiceClient<Channel> {
        CertificateServiceClient::new(self.alice().await)
    }

    async fn create_ca(&self) {
        let request = v1::CreateAgentCaRequest { request_id: new_id(), number: 1 };
        self.certificates().await.create_agent_ca(request).await.unwrap();
    }

    async fn token(&self, device: DeviceId) -> EnrolmentToken {
        let token = EnrolmentToken::generate(&mut system_rng());
        let request = v1::IssueTokenRequest {
            request_id: new_id(),
            token_id: token.id().to_string(),
            digest: token.digest().to_vec().into(),
            ttl_ms: 3_600_000,
            binding: Some(v1::issue_token_request::Binding::DeviceId(device.to_string())),
        };
        self.certificates().await.issue_token(request).await.unwrap();
        token
    }

    async fn enrol(
        &self,
        token: &EnrolmentToken,
        device: DeviceId,
        csr: Vec<u8>,
    ) -> Result<v1::EnrolResponse, tonic::Status> {
        let channel = self.stranger(self.enrolment).await.unwrap();
        let request = v1::EnrolRequest {
            request_id: new_id(),
            device_id: device.to_string(),
            token: token.expose_text().to_string(),
            csr: csr.into(),
        };
        let answer = EnrolmentServiceClient::new(channel).enrol(request).await?;
        Ok(answer.into_inner())
    }
}

/// The certificate with its key, as the client port is called with.
fn made(answer: &v1::EnrolResponse, key: &DeviceKey) -> Made {
    use rustls_pki_types::PrivatePkcs8KeyDer;
    use rustls_pki_types::pem::PemObject as _;
    let der = PrivatePkcs8KeyDer::from_pem_slice(key.expose_pem().as_bytes()).unwrap();
    Made {
        certificate: answer.chain[0].to_vec().into(),
        private_key: der.secret_pkcs8_der().to_vec(),
    }
}

async fn escrow_key(running: &Running, made: Made) -> Result<(), tonic::Status> {
    let channel = running.connect_with(made).await;
    let asked = EscrowServiceClient::new(channel).get_escrow_key(v1::GetEscrowKeyRequest {}).await;
    asked.map(drop)
}

#[tokio::test]
async fn a_device_that_enrolled_is_served_at_the_client_port_until_it_is_denied() {
    let running = Running::start(100).await;
    running.create_ca().await;
    let token = running.token(DEVICE).await;
    let key = DeviceKey::generate(&mut system_rng()).unwrap();
    let answer = running.enrol(&token, DEVICE, key.csr(None).unwrap()).await.unwrap();
    assert!(!answer.again);
    // The server takes the CA of the cluster as soon as it has looked.
    let deadline = Instant::now() + LONG;
    while let Err(status) = escrow_key(&running, made(&answer, &key)).await {
        assert!(Instant::now() < deadline, "{status}");
    }
    // Those of the configured CA are served as before.
    let configured = running.agents.make(&Order::actor(&Actor::Agent(DEVICE)));
    escrow_key(&running, configured).await.unwrap();
    let request = v1::DenyCertificateRequest {
        request_id: new_id(),
        subject: Fingerprint::of(&answer.chain[0]).to_string(),
        reason: "stolen".to_owned(),
    };
    AdminServiceClient::new(running.alice().await).deny_certificate(request).await.unwrap();
    let refused = escrow_key(&running, made(&answer, &key)).await.unwrap_err();
    assert_eq!(reason(&refused), "CERTIFICATE_DENIED");
    let (_, metrics) = running.get("/metrics").await;
    assert!(metrics.contains("holdfast_enrolments_total 1\n"), "{metrics}");
    assert!(metrics.contains("holdfast_enrolled_devices 1"), "{metrics}");
}

#[tokio::test]
async fn whoever_may_not_enrol_learns_why_by_name() {
    let running = Running::start(100).await;
    let key = DeviceKey::generate(&mut system_rng()).unwrap();
    let csr = || key.csr(None).unwrap();
    let token = running.token(DEVICE).await;
    let why = |answer: Result<v1::EnrolResponse, tonic::Status>| {
        let status = answer.unwrap_err();
        (status.code(), reason(&status))
    };
    let early = running.enrol(&token, DEVICE, csr()).await;
    assert_eq!(why(early), (Code::FailedPrecondition, "NO_AGENT_CA".to_owned()));
    running.create_ca().await;
    let other = DeviceId::from_bytes([9; 16]);
    let denied = |what: &str| (Code::PermissionDenied, what.to_owned());
    assert_eq!(why(running.enrol(&token, other, csr()).await), denied("TOKEN_FOREIGN_DEVICE"));
    let unknown = EnrolmentToken::generate(&mut system_rng());
    let found = why(running.enrol(&unknown, DEVICE, csr()).await);
    assert_eq!(found, (Code::NotFound, "UNKNOWN_TOKEN".to_owned()));
    let foreign = key.csr(Some(&operator("root").spiffe_uri(CLUSTER))).unwrap();
    let found = why(running.enrol(&token, DEVICE, foreign).await);
    assert_eq!(found, (Code::InvalidArgument, "CSR_FOREIGN_NAME".to_owned()));
    running.enrol(&token, DEVICE, csr()).await.unwrap();
    assert_eq!(why(running.enrol(&token, DEVICE, csr()).await), denied("TOKEN_USED"));
    let revoked = running.token(DEVICE).await;
    let request =
        v1::RevokeTokenRequest { request_id: new_id(), token_id: revoked.id().to_string() };
    running.certificates().await.revoke_token(request).await.unwrap();
    assert_eq!(why(running.enrol(&revoked, DEVICE, csr()).await), denied("TOKEN_REVOKED"));
    let request = v1::DenyCertificateRequest {
        request_id: new_id(),
        subject: Actor::Agent(DEVICE).to_string(),
        reason: "stolen".to_owned(),
    };
    AdminServiceClient::new(running.alice().await).deny_certificate(request).await.unwrap();
    let token = running.token(DEVICE).await;
    assert_eq!(why(running.enrol(&token, DEVICE, csr()).await), denied("CERTIFICATE_DENIED"));
}

#[tokio::test]
async fn the_enrolment_port_has_one_call_and_the_client_port_takes_no_stranger() {
    let running = Running::start(100).await;
    let channel = running.stranger(running.enrolment).await.unwrap();
    for rpc in offered() {
        let called = call(channel.clone(), &rpc, v1::EnrolRequest::default().raw()).await;
        let code = called.unwrap_err().code();
        let wanted = match rpc.as_str() {
            "EnrolmentService/Enrol" => Code::InvalidArgument,
            _ => Code::Unimplemented,
        };
        assert_eq!(code, wanted, "{rpc}");
    }
    // The alert comes after the client's own half of the handshake, so that it may be the first call that meets it.
    if let Ok(channel) = running.stranger(running.port).await {
        let mut escrow = EscrowServiceClient::new(channel);
        let refused = escrow.get_escrow_key(v1::GetEscrowKeyRequest {}).await.unwrap_err();
        assert!(std::error::Error::source(&refused).is_some(), "no server answered: {refused:?}");
    }
}
