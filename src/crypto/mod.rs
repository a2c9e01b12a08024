//! Sealing and opening of recovery keys, the keyring behind it, and signatures.
//!
//! The plaintext of a key exists here while it is sealed or opened, and nowhere in the log, the state or a snapshot.
//! `docs/formats-sealing.md` lays down every byte that this module makes, `docs/formats-evidence.md` those of checkpoints.
//!
//! This module does no network I/O, knows neither the replicated state nor the wire, and reads no clock: time and
//! randomness are parameters. It never logs.

mod agent_ca;
mod certificate;
mod csr;
mod device_key;
mod error;
#[cfg(any(all(test, feature = "server"), feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod keyring;
mod root;
mod seal;
mod secret;
mod shares;
mod signing;
mod statement;
#[cfg(test)]
pub(crate) mod testing;
mod token;
#[cfg(test)]
mod vectors;

pub use agent_ca::{AgentCaParts, AgentCaSigner, SignedDevice};
pub(crate) use certificate::read_pem_certificates;
pub use certificate::{
    Authority, CertificateError, Leaf, Purpose, chain_begins, escrow_signer_uri, not_after,
};
pub use csr::{CsrError, read_csr};
pub use device_key::{DeviceKey, certificate_pem};
pub use error::CryptoError;
pub use keyring::{EpochParts, KeyringParts, SignerParts, SigningMaterial, UnlockedKeyring};
pub use root::{ROOT_KEY_BYTES, ROOT_KEY_PREFIX, RootKey, RootKeyFault, WrapPurpose};
pub use seal::{Binding, EscrowPublicKey, KEY_PLAINTEXT_BYTES, Part, PrivateKey, open, seal};
pub use secret::Secret;
pub use shares::{SHARE_PREFIX, Share, ShareFault, ShareLabel};
pub use signing::{NodeSigner, StatementVerifier};
pub use statement::{
    CheckpointFacts, ReceiptFacts, checkpoint_statement, escrow_key_statement, receipt_statement,
};
pub use token::{EnrolmentToken, TOKEN_PREFIX};

/// The operating system's randomness, asked anew for each value: nothing of it stays in this process, and a forked or
/// restored process repeats nothing.
pub type SystemRng = rand::rand_core::UnwrapErr<rand::rngs::OsRng>;

/// The operating system's randomness. It panics should the operating system refuse: there is nothing safe to do then.
pub const fn system_rng() -> SystemRng {
    rand::rand_core::UnwrapErr(rand::rngs::OsRng)
}
