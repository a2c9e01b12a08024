//! People by access token: what an OIDC provider shows of itself, and what its tokens prove.
//!
//! The provider is asked by one task, now and then; a call asks what that task has learned. So no call waits for a provider
//! that is down, but for the short time that a key may take which nobody has seen yet, and callers with a certificate never.
//!
//! Nothing here logs, keeps or repeats a token, and nothing here runs when a command is applied: the node that takes a call
//! checks its token, and what it proves travels in the command.

mod cache;
mod fetch;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod jwt;
mod keys;
mod login;
mod provider;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use cache::{KeyTimes, Tokens};
pub use fetch::{FetchError, Fetcher};
pub use jwt::{Refused, SigningAlgorithm, TokenRules};
pub use keys::{KeySet, KeySetError};
pub use login::{AccessToken, Login, LoginClient, LoginError};
pub use provider::{Metadata, ProviderError};
