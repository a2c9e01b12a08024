//! Use cases, free of any transport.

mod consensus;
mod error;

pub use consensus::Consensus;
pub use error::ServiceError;
