//! Stored and forwarded bytes: the only place that knows the messages of `proto/holdfast/store/v1/store.proto`.
//!
//! Decoding is strict: a missing part, a value out of its limits or an enum value that this version doesn't know is a
//! [`CodecError`], never a default. Fields are only ever added to the messages; the golden bytes in
//! `src/state/tests/golden.rs` fail when a change is not of that kind. It holds no rule of the state machine.

mod applied;
mod command;
mod common;
mod controls;
mod enrolment;
mod groups;
mod records;

use bytes::Bytes;
use prost::Message;

use crate::domain::FieldError;

pub use applied::{decode_applied, encode_applied};
pub use command::{command_time, decode_command, encode_command};

pub(super) use command::decode_entry;
pub(super) use controls::{
    decode_approval, decode_mass_recovery, decode_policy, decode_tallies, encode_approval,
    encode_mass_recovery, encode_policy, encode_tallies,
};
pub(super) use enrolment::{
    agent_ca_from_bytes, agent_ca_to_bytes, decode_enrolment, decode_token, encode_enrolment,
    encode_token,
};
pub(super) use groups::{decode_groups, encode_groups};
pub(super) use records::*;

/// Bytes are not what this version writes.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// They are no message at all.
    #[error("not a message")]
    Malformed(#[source] prost::DecodeError),
    /// A part is missing.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// An enum has a value that this version doesn't know.
    #[error("{field} has the unknown value {value}")]
    UnknownEnum {
        /// Its field.
        field: &'static str,
        /// The value.
        value: i32,
    },
    /// A part is not well-formed.
    #[error("a field is not well-formed")]
    Invalid(#[from] FieldError),
}

/// Encodes a message. Encoding into a growing buffer can't fail.
fn encode(message: &impl Message) -> Bytes {
    message.encode_to_vec().into()
}

/// Decodes a message; its bytes fields share the memory of `bytes`.
fn decode<M: Message + Default>(bytes: &Bytes) -> Result<M, CodecError> {
    M::decode(bytes.clone()).map_err(CodecError::Malformed)
}

/// A part that has to be there.
fn required<T>(part: Option<T>, field: &'static str) -> Result<T, CodecError> {
    part.ok_or(CodecError::Missing(field))
}
