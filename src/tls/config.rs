//! The configurations: of the ports, of those who dial them, and of who asks an OIDC provider.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConfig, Resumption};
use rustls::crypto::aws_lc_rs::{self, kx_group};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
#[cfg(feature = "server")]
use rustls::server::{ServerConfig, WebPkiClientVerifier};
use rustls::{
    CertificateError as TlsCertificateError, DigitallySignedStruct, PeerIncompatible,
    RootCertStore, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::crypto::{Authority, CertificateError, Purpose};
use crate::domain::{Actor, ClusterId, NodeId, Timestamp};

use super::{Identity, TlsError};

/// TLS 1.3 and nothing else.
static VERSIONS: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13];
const HTTP2: &[u8] = b"h2";
#[cfg(feature = "server")]
const HTTP1: &[u8] = b"http/1.1";

/// aws-lc-rs with the hybrid of ML-KEM-768 and X25519 first, which a later quantum computer can't undo.
fn provider() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = vec![kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1];
    Arc::new(provider)
}

fn roots(authorities: &[&Authority]) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    for authority in authorities {
        for certificate in authority.certificates() {
            store.add(certificate.clone())?;
        }
    }
    Ok(store)
}

/// Whether a port takes connections without a client certificate.
#[cfg(feature = "server")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nameless {
    /// It does not.
    Refused,
    /// It does: whoever is behind them says so in each call. A certificate that is shown has to be good all the same.
    Taken,
}

/// The client port: takes certificates of the agent CA and of the operator CA, and requires one unless `nameless` connections
/// are taken too.
///
/// # Errors
/// If the two CAs are the same, or the identity can't be used.
#[cfg(feature = "server")]
pub fn client_port_config(
    agent: &Authority,
    operator: &Authority,
    identity: &Identity,
    nameless: Nameless,
) -> Result<Arc<ServerConfig>, TlsError> {
    if agent.overlaps(operator) {
        return Err(TlsError::SharedCa);
    }
    server_config(&[agent, operator], identity, nameless)
}

/// The peer port: takes certificates of the node CA only, and requires one.
///
/// # Errors
/// If the identity can't be used.
#[cfg(feature = "server")]
pub fn peer_port_config(
    node: &Authority,
    identity: &Identity,
) -> Result<Arc<ServerConfig>, TlsError> {
    server_config(&[node], identity, Nameless::Refused)
}

/// The enrolment port: asks for no certificate, since whoever calls it wants one.
///
/// # Errors
/// If the identity can't be used.
#[cfg(feature = "server")]
pub fn enrolment_port_config(identity: &Identity) -> Result<Arc<ServerConfig>, TlsError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(VERSIONS)?
        .with_no_client_auth()
        .with_single_cert(identity.chain().to_vec(), identity.rustls_key())?;
    config.alpn_protocols = vec![HTTP2.to_vec()];
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    Ok(Arc::new(config))
}

#[cfg(feature = "server")]
fn server_config(
    clients: &[&Authority],
    identity: &Identity,
    nameless: Nameless,
) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = provider();
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots(clients)?), provider.clone());
    let verifier = match nameless {
        Nameless::Refused => verifier,
        Nameless::Taken => verifier.allow_unauthenticated(),
    };
    let verifier = verifier.build()?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(VERSIONS)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(identity.chain().to_vec(), identity.rustls_key())?;
    config.alpn_protocols = vec![HTTP2.to_vec()];
    // Each configuration has a ticket key of its own, so that a ticket of one port is worth nothing at the other.
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    Ok(Arc::new(config))
}

/// For whoever dials the client port: verifies that the server's certificate ends at the node CA and carries the name
/// or address that was dialled.
///
/// # Errors
/// If the identity can't be used.
pub fn client_config(
    node: &Authority,
    identity: Option<&Identity>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(VERSIONS)?
        .with_root_certificates(roots(&[node])?);
    let mut config = match identity {
        Some(identity) => {
            builder.with_client_auth_cert(identity.chain().to_vec(), identity.rustls_key())?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![HTTP2.to_vec()];
    Ok(Arc::new(config))
}

/// For whoever asks an OIDC provider: its certificate has to end at one of these CAs, as they are, and to carry the name that
/// was dialled. TLS 1.2 will do there, since the provider is not ours.
///
/// # Errors
/// If none of them can be used.
#[cfg(feature = "server")]
pub fn provider_config(roots: &[CertificateDer<'static>]) -> Result<Arc<ClientConfig>, TlsError> {
    let mut store = RootCertStore::empty();
    let (usable, _) = store.add_parsable_certificates(roots.iter().cloned());
    if usable == 0 {
        return Err(CertificateError::NotACa.into());
    }
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(rustls::ALL_VERSIONS)?
        .with_root_certificates(store)
        .with_no_client_auth();
    config.alpn_protocols = vec![HTTP1.to_vec()];
    Ok(Arc::new(config))
}

/// For a server that dials a collector of logs (RFC 5425): verifies that its certificate ends at this CA and carries the name or
/// address that was dialled, and shows the server's own if the collector asks for one.
///
/// # Errors
/// If the identity can't be used.
#[cfg(feature = "server")]
pub fn collector_config(
    collectors: &Authority,
    identity: &Identity,
) -> Result<Arc<ClientConfig>, TlsError> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(VERSIONS)?
        .with_root_certificates(roots(&[collectors])?)
        .with_client_auth_cert(identity.chain().to_vec(), identity.rustls_key())?;
    // Each connection is made with a configuration of its own, so that there is nothing to resume.
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// For a node that dials another node's peer port: verifies that the certificate ends at the node CA and names exactly
/// the node that is expected. Its DNS names are not looked at: a node's name is its id, wherever it is reached.
///
/// # Errors
/// If the identity can't be used.
pub fn peer_client_config(
    node: &Authority,
    identity: &Identity,
    cluster: ClusterId,
    expected: NodeId,
) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = provider();
    let verifier = PeerVerifier {
        node: node.clone(),
        uri: Actor::Node(expected).spiffe_uri(cluster),
        provider: provider.clone(),
    };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(VERSIONS)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_auth_cert(identity.chain().to_vec(), identity.rustls_key())?;
    config.alpn_protocols = vec![HTTP2.to_vec()];
    // Peer connections live long, and a resumed one would skip the verifier.
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// Verifies that a server is one exact node.
#[derive(Debug)]
struct PeerVerifier {
    node: Authority,
    uri: String,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let chain: Vec<&[u8]> =
            std::iter::once(end_entity).chain(intermediates).map(AsRef::as_ref).collect();
        let now = Timestamp::from_millis(now.as_secs().saturating_mul(1000));
        let leaf = self.node.verify(&chain, Purpose::Server, now).map_err(tls_error)?;
        if leaf.uri != self.uri {
            let what = format!("the peer is {}, expected {}", leaf.uri, self.uri);
            return Err(other(Refused(what)));
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

/// Why a peer was refused, in words.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refused(String);

fn other(error: impl std::error::Error + Send + Sync + 'static) -> rustls::Error {
    TlsCertificateError::Other(rustls::OtherError(Arc::new(error))).into()
}

fn tls_error(error: CertificateError) -> rustls::Error {
    match error {
        CertificateError::Expired => TlsCertificateError::Expired.into(),
        CertificateError::NotYetValid => TlsCertificateError::NotValidYet.into(),
        CertificateError::ForeignCa(_) => TlsCertificateError::UnknownIssuer.into(),
        CertificateError::WrongPurpose => TlsCertificateError::InvalidPurpose.into(),
        CertificateError::Malformed => TlsCertificateError::BadEncoding.into(),
        error @ (CertificateError::File { .. }
        | CertificateError::Missing
        | CertificateError::NotACa
        | CertificateError::Invalid(_)
        | CertificateError::UriCount(_)
        | CertificateError::KeyType) => other(error),
    }
}
