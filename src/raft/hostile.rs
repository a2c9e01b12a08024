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

/// Well-formed messages of each kind, for the corpora of `fuzz/`.
pub(super) fn seeds() -> Vec<crate::fuzzing::Seed> {
    use pb::entry::Payload;
    use pb::{append_response, forward_response};

    let stored = membership();
    let log_id = Some(pb::LogId { term: 3, index: 7 });
    let payloads = vec![
        Payload::Blank(true),
        Payload::Command(Bytes::from_static(b"x")),
        Payload::Membership(membership_to_wire(stored.membership())),
    ];
    let header = pb::SnapshotHeader {
        vote: Some(vote()),
        last_log_id: log_id,
        membership: Some(stored_membership_to_wire(&stored)),
        size_bytes: 12_345,
    };
    let chunk =
        pb::SnapshotChunk { header: Some(header), offset: 0, data: "data".into(), done: true };
    let transfer = pb::TransferLeaderRequest { from: Some(vote()), to: 2, last_log_id: log_id };
    let change = change_to_wire(&Change::AddLearner(member(4)));
    let request = pb::VoteRequest { vote: Some(vote()), last_log_id: log_id, ..Default::default() };
    let (command, applied) = crate::state::fuzzing::command_and_answer();
    let forward = pb::ForwardRequest { sequence: 5, command };
    let requests = [
        ("append", append(payloads).encode_to_vec()),
        ("heartbeat", append(vec![]).encode_to_vec()),
        ("vote", request.encode_to_vec()),
        ("snapshot", chunk.encode_to_vec()),
        ("transfer", transfer.encode_to_vec()),
        ("membership", change.encode_to_vec()),
        ("stored-membership", encode_stored_membership(&stored).to_vec()),
        ("forward", forward.encode_to_vec()),
    ];
    let granted = pb::VoteResponse { vote: Some(vote()), granted: true, last_log_id: log_id };
    let conflict = append_response::Result::Conflict(pb::LogId { term: 3, index: 7 });
    let conflict = pb::AppendResponse { result: Some(conflict) };
    let installed = pb::InstallSnapshotResponse { vote: Some(vote()) };
    let result = Some(forward_response::Result::Applied(applied));
    let forwarded = pb::ForwardResponse { sequence: 5, result };
    let state = pb::StateDigest { index: 1024, digest: vec![7; 32].into() };
    let compared = pb::CompareResponse {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        states: vec![state],
        ..Default::default()
    };
    let report = holdfast_proto::v1::MemberStatus {
        term: 3,
        state_digest: vec![7; 32].into(),
        audit_head: Some(holdfast_proto::v1::AuditHead { sequence: 3, hash: vec![8; 32].into() }),
        version: "1.0".to_owned(),
        ..Default::default()
    };
    let answers = [
        ("vote", granted.encode_to_vec()),
        ("append", conflict.encode_to_vec()),
        ("snapshot", installed.encode_to_vec()),
        ("forward", forwarded.encode_to_vec()),
        ("compare", compared.encode_to_vec()),
        ("read-index", pb::ReadIndexResponse { log_id }.encode_to_vec()),
        ("status", report.encode_to_vec()),
    ];
    let requests = requests.map(|(name, bytes)| ("peer_request", name.to_owned(), bytes));
    let answers = answers.map(|(name, bytes)| ("peer_answer", name.to_owned(), bytes));
    requests.into_iter().chain(answers).collect()
}
