//! No bytes from another node make a decoder panic. A peer is proven by its certificate, and may still be faulty.

use std::collections::BTreeMap;

use bytes::Bytes;
use holdfast_proto::peer::v1 as pb;
use prost::Message;

use super::api::Member;
use super::membership::{Change, change_from_wire, change_to_wire};
use super::types::{Membership, StoredMembership, log_id};
use super::wire::*;
use crate::domain::{Incarnation, NodeId};
use crate::state::Position;
use crate::testing::survives;

fn decoded<M: Message + Default>(bytes: &[u8], take: impl Fn(M) -> bool) -> bool {
    M::decode(bytes).is_ok_and(take)
}

fn member(id: u64) -> Member {
    Member {
        id: NodeId::new(id),
        peer_address: format!("10.0.0.{id}:7402"),
        client_address: format!("10.0.0.{id}:7401"),
        incarnation: Incarnation::from_bytes([7; 16]),
    }
}

fn vote() -> pb::RaftVote {
    pb::RaftVote { term: 3, node_id: Some(1), committed: true }
}

fn membership() -> StoredMembership {
    let members: BTreeMap<_, _> = (1..=3).map(|id| (id, member(id))).collect();
    let membership = Membership::new(vec![[1, 2].into(), [1, 2, 3].into()], members).unwrap();
    StoredMembership::new(Some(log_id(Position { term: 1, index: 4 })), membership)
}

fn append(payloads: Vec<pb::entry::Payload>) -> pb::AppendRequest {
    let entries = payloads.into_iter().zip(8..).map(|(payload, index)| pb::Entry {
        log_id: Some(pb::LogId { term: 3, index }),
        payload: Some(payload),
    });
    pb::AppendRequest {
        vote: Some(vote()),
        prev_log_id: Some(pb::LogId { term: 3, index: 7 }),
        leader_commit: Some(pb::LogId { term: 3, index: 6 }),
        entries: entries.collect(),
        quorum_age_ms: None,
    }
}

#[test]
fn entries_of_any_bytes_are_taken_or_refused() {
    use pb::entry::Payload;
    let stored = membership();
    let message = append(vec![
        Payload::Blank(true),
        Payload::Command(Bytes::from_static(b"x")),
        Payload::Membership(membership_to_wire(stored.membership())),
    ]);
    let last = pb::AppendRequest {
        prev_log_id: Some(pb::LogId { term: 3, index: u64::MAX }),
        ..append(vec![])
    };
    survives(vec![message.encode_to_vec(), last.encode_to_vec()], |bytes| {
        decoded(bytes, |m: pb::AppendRequest| append_from_wire(m).is_ok())
    });
}

#[test]
fn votes_and_answers_of_any_bytes_are_taken_or_refused() {
    let request = pb::VoteRequest {
        vote: Some(vote()),
        last_log_id: Some(pb::LogId { term: 3, index: 7 }),
        leadership_transfer: true,
    };
    survives(vec![request.encode_to_vec()], |bytes| {
        decoded(bytes, |m: pb::VoteRequest| vote_request_from_wire(m).is_ok())
    });
    let response =
        pb::VoteResponse { vote: Some(vote()), granted: true, last_log_id: request.last_log_id };
    survives(vec![response.encode_to_vec()], |bytes| {
        decoded(bytes, |m: pb::VoteResponse| vote_response_from_wire(m).is_ok())
    });
    let results = [
        pb::append_response::Result::Conflict(pb::LogId { term: 3, index: 7 }),
        pb::append_response::Result::HigherVote(vote()),
        pb::append_response::Result::Accepted(pb::AppendAccepted { log_id: None }),
    ];
    let results = results.map(|result| pb::AppendResponse { result: Some(result) });
    survives(results.iter().map(Message::encode_to_vec).collect(), |bytes| {
        decoded(bytes, |m: pb::AppendResponse| append_result_from_wire(m).is_ok())
    });
}

#[test]
fn memberships_and_snapshot_headers_of_any_bytes_are_taken_or_refused() {
    let stored = membership();
    survives(vec![encode_stored_membership(&stored).to_vec()], |bytes| {
        decode_stored_membership(bytes).is_ok()
    });
    let header = pb::SnapshotHeader {
        vote: Some(vote()),
        last_log_id: Some(pb::LogId { term: 3, index: 7 }),
        membership: Some(stored_membership_to_wire(&stored)),
        size_bytes: u64::MAX,
    };
    survives(vec![header.encode_to_vec()], |bytes| {
        decoded(bytes, |m: pb::SnapshotHeader| snapshot_header_from_wire(m).is_ok())
    });
    let changes = [
        Change::AddLearner(member(4)),
        Change::Promote(NodeId::new(4)),
        Change::Remove(NodeId::new(4)),
        Change::Transfer(None),
    ];
    let changes = changes.iter().map(|change| change_to_wire(change).encode_to_vec());
    survives(changes.collect(), |bytes| {
        decoded(bytes, |m: pb::MembershipRequest| change_from_wire(m).is_ok())
    });
}
