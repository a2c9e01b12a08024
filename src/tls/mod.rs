//! TLS: who may talk to whom, before a byte of a request is read.
//!
//! TLS 1.3 only, by rustls with aws-lc-rs, HTTP/2 by ALPN, mutual at both main ports (at the client port a certificate may be
//! missing where people come with tokens). Two ports, three CAs: the client port
//! takes certificates of the agent CA and of the operator CA, the peer port those of the node CA. A third port, for devices
//! that enrol, asks for none. Whom a certificate names is
//! for `auth` to say; here only a peer's own name is checked, by whoever dials it.
//!
//! No early data, and nothing of a private key is printed.

mod config;
mod connect;
mod error;
mod identity;
#[cfg(feature = "server")]
mod incoming;
#[cfg(feature = "server")]
mod slots;

#[cfg(feature = "server")]
pub use config::{
    Nameless, client_port_config, collector_config, enrolment_port_config, peer_port_config,
    provider_config,
};
pub use config::{client_config, peer_client_config};
pub use connect::Connector;
pub use error::TlsError;
pub use identity::Identity;
#[cfg(feature = "server")]
pub use incoming::{
    Conn, ConnectionCounters, ConnectionCounts, Incoming, IncomingOptions, NamelessLimits,
    PeerCertificates, incoming,
};

#[cfg(feature = "server")]
#[cfg(test)]
mod tests;
