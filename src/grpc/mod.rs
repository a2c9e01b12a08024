//! The public API over gRPC: decode, call the service, encode.
//!
//! No rule lives here. `status` is the one error table; `observe` wraps every call, and `bearer` every call of the client port.

mod admin;
mod audit;
mod bearer;
mod cluster;
mod compliance;
mod decode;
mod denials;
mod disclosure;
mod encode;
mod enrolment;
mod escrow;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod gate;
mod groups;
mod guard;
mod observe;
mod operator;
mod page;
mod peer;
mod recovery;
mod routes;
mod status;
#[cfg(test)]
mod tests;

pub use bearer::{Bearer, Borne, TokenMetrics};
pub use cluster::encode_member;
pub use guard::{Guard, Guarded};
pub use observe::{Observe, Observed, RpcMetrics};
pub use peer::PeerApi;
pub use routes::{Services, enrolment_routes, method_names, public_descriptors, routes};
pub use status::DOMAIN;
