//! `holdfast pki`: a small certificate authority for a cluster, kept in one directory.
//!
//! Three CAs (node, agent, operator), so that a key stolen from one can't make another kind of certificate. All keys are
//! Ed25519. Private keys are written with mode 0600 from the first byte on, and nothing is ever overwritten.
//!
//! [`Pki`] is the library that `dev`, `demo` and tests use too; [`PkiCommand`] is the thin layer over it. Neither talks to
//! a cluster, and neither reads the clock: the time is a parameter.

mod command;
mod error;
mod files;
mod issue;
mod show;
mod store;

pub use command::{CertificateView, IssueArgs, IssueCommand, PkiCommand, PkiView, run};
pub use error::PkiError;
pub use files::write_root_key;
pub(in crate::cli) use files::{create_private_dir, read_private, write_private};
pub use issue::{Issued, IssuedPaths, Subject};
pub use show::{CertificateSummary, summaries};
pub use store::{CaKind, Pki};

#[cfg(test)]
mod tests;
