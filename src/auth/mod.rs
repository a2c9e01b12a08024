//! Who asks, and what they may do: certificate or token -> [`Caller`] -> [`Permit`].
//!
//! A [`Permit`] is the proof that a caller may do one action, given the grants that this node has applied. It is no
//! promise: the state machine checks the same again when it applies the command, since grants may have changed by then.
//!
//! This module reads no clock, holds no grants and writes no audit record.

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod identity;
mod permit;
mod token;

pub use identity::{Authorities, Caller, IdentityError, identify, identify_once};
pub use permit::{Action, Denied, Permit, authorize};
pub use token::TokenError;
