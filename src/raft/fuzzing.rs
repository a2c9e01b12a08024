//! Messages of other nodes.

use holdfast_proto::peer::v1 as pb;
use prost::Message;

use super::membership::{change_from_wire, change_to_wire};
use super::types::position;
use super::wire::*;
use super::{compare, forward, status};
use crate::state::codec;

/// Whether a message was read and taken.
fn taken<M: Message + Default>(bytes: &[u8], take: impl FnOnce(M) -> bool) -> bool {
    M::decode(bytes).is_ok_and(take)
}

/// Reads a request of each kind, as the peer port does. What was taken says the same when it is sent on.
pub(crate) fn request(bytes: &[u8]) -> bool {
    [
        taken(bytes, |message: pb::AppendRequest| {
            let Ok(request) = append_from_wire(message) else { return false };
            let sent = append_to_wire(request);
            assert_eq!(append_from_wire(sent.clone()).map(append_to_wire), Ok(sent));
            true
        }),
        taken(bytes, |message: pb::VoteRequest| {
            let Ok(request) = vote_request_from_wire(message) else { return false };
            let sent = vote_request_to_wire(&request);
            let read = vote_request_from_wire(sent).map(|read| vote_request_to_wire(&read));
            assert_eq!(read, Ok(sent));
            true
        }),
        taken(bytes, |message: pb::SnapshotChunk| {
            let Some(header) = message.header else { return true };
            let Ok((_, meta)) = snapshot_header_from_wire(header) else { return false };
            let stored = encode_stored_membership(&meta.last_membership);
            assert_eq!(decode_stored_membership(&stored).as_ref(), Ok(&meta.last_membership));
            true
        }),
        taken(bytes, |message: pb::TransferLeaderRequest| {
            let _last = message.last_log_id.map(log_id_from_wire);
            vote_from_wire(message.from).is_ok()
        }),
        taken(bytes, |message: pb::MembershipRequest| {
            let Ok(change) = change_from_wire(message) else { return false };
            assert!(change_from_wire(change_to_wire(&change)).is_ok_and(|sent| sent == change));
            true
        }),
        taken(bytes, |message: pb::ForwardRequest| {
            let time = codec::command_time(&message.command);
            let command = codec::decode_command(&message.command);
            // What a leader looks at before it proposes is what apply will see.
            command.is_ok_and(|command| {
                assert_eq!(time, Some(command.time));
                true
            })
        }),
        decode_stored_membership(bytes).is_ok(),
    ]
    .contains(&true)
}

/// Reads an answer of each kind, as the node that asked does.
pub(crate) fn answer(bytes: &[u8]) -> bool {
    [
        taken(bytes, |message: pb::AppendResponse| append_result_from_wire(message).is_ok()),
        taken(bytes, |message: pb::VoteResponse| vote_response_from_wire(message).is_ok()),
        taken(bytes, |message: pb::InstallSnapshotResponse| vote_from_wire(message.vote).is_ok()),
        taken(bytes, |message: pb::ForwardResponse| {
            let Ok(applied) = forward::read_answer(message) else { return false };
            let sent = codec::encode_applied(&applied);
            assert!(codec::decode_applied(&sent).is_ok_and(|read| read == applied));
            true
        }),
        taken(bytes, |message: pb::CompareResponse| {
            let states = compare::read(&message);
            assert!(states.len() <= message.states.len());
            !message.states.is_empty()
        }),
        taken(bytes, |message: pb::ReadIndexResponse| {
            message.log_id.map(|id| position(&log_id_from_wire(id))).is_some()
        }),
        status::read(bytes).is_ok_and(|report| {
            assert!(status::read(&status::write(&report)).is_ok());
            true
        }),
    ]
    .contains(&true)
}

#[cfg(test)]
pub(crate) fn seeds() -> Vec<crate::fuzzing::Seed> {
    super::hostile::seeds()
}
