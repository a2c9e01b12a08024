//! What the fuzzers of `fuzz/` run: one function for each kind of bytes that come from outside (`docs/security.md`,
//! "Fuzzing").
//!
//! It is compiled for tests, which replay the corpora, and with the feature `fuzzing`, which only `fuzz/` turns on. Each layer
//! keeps its own functions in a module `fuzzing` beside the decoders that they call; here they get their names. They never
//! fail for bad bytes: a fault is a panic, too much memory or too much time.

mod parts;
mod pki;
#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) use parts::join;
pub(crate) use parts::parts;
pub(crate) use pki::{CLUSTER, NOW, authorities, node_ca};
#[cfg(test)]
pub(crate) use pki::{issue, signer};

/// Well-formed bytes of a target: its name, the seed's, and the bytes.
#[cfg(test)]
pub(crate) type Seed = (&'static str, String, Vec<u8>);

/// Makes a function for each target, and the list of all.
macro_rules! targets {
    ($($(#[$doc:meta])* $name:ident => $run:path;)+) => {
        $(
            $(#[$doc])*
            ///
            /// True if they were taken.
            pub fn $name(bytes: &[u8]) -> bool {
                $run(bytes)
            }
        )+

        /// All targets by name.
        pub const TARGETS: &[(&str, fn(&[u8]) -> bool)] = &[$((stringify!($name), $name)),+];
    };
}

targets! {
    /// A request to `holdfast.v1.EscrowService`.
    rpc_escrow => crate::grpc::fuzzing::escrow;
    /// A request to `holdfast.v1.ComplianceService`.
    rpc_compliance => crate::grpc::fuzzing::compliance;
    /// A request to `holdfast.v1.RecoveryService`.
    rpc_recovery => crate::grpc::fuzzing::recovery;
    /// A request to `holdfast.v1.DisclosureService`.
    rpc_disclosure => crate::grpc::fuzzing::disclosure;
    /// A request to `holdfast.v1.AuditService`.
    rpc_audit => crate::grpc::fuzzing::audit;
    /// A request to `holdfast.v1.AdminService`.
    rpc_admin => crate::grpc::fuzzing::admin;
    /// A request to `holdfast.v1.ClusterService`.
    rpc_cluster => crate::grpc::fuzzing::cluster;
    /// A request to `holdfast.v1.EnrolmentService` or `holdfast.v1.CertificateService`.
    rpc_enrolment => crate::grpc::fuzzing::enrolment;
    /// A request to `holdfast.v1.OperatorService`.
    rpc_operator => crate::grpc::fuzzing::operator;
    /// A request from another node.
    peer_request => crate::raft::fuzzing::request;
    /// An answer of another node.
    peer_answer => crate::raft::fuzzing::answer;
    /// Commands from other nodes and from the log, applied to an empty state.
    log_entries => crate::state::fuzzing::entries;
    /// Records of a state from elsewhere, which is opened, asked and written to.
    state_records => crate::state::fuzzing::records;
    /// A segment of the write-ahead log.
    wal => crate::storage::fuzzing::wal;
    /// A snapshot file from another node or from the disk.
    snapshot => crate::storage::fuzzing::snapshot;
    /// What the view has on disk.
    view => crate::storage::fuzzing::view;
    /// The files that say whose a data directory is.
    data_directory => crate::storage::fuzzing::data_directory;
    /// A sealed key, and what a hostile client sealed in it.
    sealed_key => crate::crypto::fuzzing::sealed_key;
    /// A private key that the root key has wrapped.
    wrapped_key => crate::crypto::fuzzing::wrapped_key;
    /// A certificate of whoever connects.
    certificate => crate::auth::fuzzing::certificate;
    /// A name in a certificate.
    certificate_name => crate::auth::fuzzing::certificate_name;
    /// An access token of whoever calls.
    access_token => crate::oidc::fuzzing::access_token;
    /// What an OIDC provider says of itself, and its keys.
    provider => crate::oidc::fuzzing::provider;
    /// A certificate request of a device.
    csr => crate::crypto::fuzzing::csr;
    /// An enrolment token that somebody has typed.
    enrolment_token => crate::crypto::fuzzing::enrolment_token;
    /// A share of the root key that somebody has typed.
    share => crate::crypto::fuzzing::share;
    /// A recovery key that somebody has typed.
    recovery_key => crate::crypto::fuzzing::recovery_key;
    /// An export of the audit chain.
    audit_export => crate::client::fuzzing::audit_export;
    /// A file of checkpoints of the audit chain.
    audit_checkpoints => crate::client::fuzzing::audit_checkpoints;
    /// A receipt in a file.
    receipt => crate::client::fuzzing::receipt;
    /// What a server answers to an agent or an auditor.
    server_answer => crate::client::fuzzing::server_answer;
}
