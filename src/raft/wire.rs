//! Between openraft's messages and holdfast.peer.v1. Every field from outside is checked; nothing panics on it.

use bytes::Bytes;
use holdfast_proto::peer::v1 as pb;
use openraft::EntryPayload;
use openraft::impls::leader_id_std::LeaderId;
use openraft::raft::{
    AppendEntriesRequest, StreamAppendError, StreamAppendResult, VoteRequest, VoteResponse,
};
use prost::Message as _;

use super::api::Member;
use super::types::{
    CommandBytes, Entry, LogId, Membership, SnapshotMeta, StoredMembership, TypeConfig, Vote,
    log_id, position,
};
use crate::domain::{Incarnation, NodeId};
use crate::state::Position;

/// A message from another node is not well-formed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed peer message: {0}")]
pub(crate) struct WireError(pub(crate) &'static str);

pub(crate) fn log_id_to_wire(id: &LogId) -> pb::LogId {
    let Position { term, index } = position(id);
    pb::LogId { term, index }
}

pub(crate) fn log_id_from_wire(id: pb::LogId) -> LogId {
    log_id(Position { term: id.term, index: id.index })
}

pub(crate) fn vote_to_wire(vote: &Vote) -> pb::RaftVote {
    pb::RaftVote {
        term: vote.leader_id.term,
        node_id: Some(vote.leader_id.voted_for),
        committed: vote.committed,
    }
}

pub(crate) fn vote_from_wire(vote: Option<pb::RaftVote>) -> Result<Vote, WireError> {
    let vote = vote.ok_or(WireError("vote is missing"))?;
    let voted_for = vote.node_id.ok_or(WireError("vote.node_id is missing"))?;
    Ok(Vote { leader_id: LeaderId { term: vote.term, voted_for }, committed: vote.committed })
}

pub(crate) fn member_to_wire(member: &Member) -> pb::Member {
    pb::Member {
        node_id: member.id.get(),
        peer_address: member.peer_address.clone(),
        client_address: member.client_address.clone(),
        incarnation: Bytes::copy_from_slice(member.incarnation.as_bytes()),
    }
}

pub(crate) fn member_from_wire(member: pb::Member) -> Result<Member, WireError> {
    let incarnation = Incarnation::from_slice(&member.incarnation)
        .map_err(|_| WireError("member.incarnation must have 16 bytes"))?;
    Ok(Member {
        id: NodeId::new(member.node_id),
        peer_address: member.peer_address,
        client_address: member.client_address,
        incarnation,
    })
}

pub(crate) fn membership_to_wire(membership: &Membership) -> pb::Membership {
    pb::Membership {
        configs: (membership.get_joint_config().iter())
            .map(|ids| pb::VoterSet { node_ids: ids.iter().copied().collect() })
            .collect(),
        members: membership.nodes().map(|(_, member)| member_to_wire(member)).collect(),
    }
}

pub(crate) fn membership_from_wire(membership: pb::Membership) -> Result<Membership, WireError> {
    let mut members = std::collections::BTreeMap::new();
    for member in membership.members {
        let member = member_from_wire(member)?;
        members.insert(member.id.get(), member);
    }
    let configs =
        membership.configs.into_iter().map(|set| set.node_ids.into_iter().collect()).collect();
    Membership::new(configs, members).map_err(|_| WireError("membership is not consistent"))
}

pub(crate) fn stored_membership_to_wire(stored: &StoredMembership) -> pb::StoredMembership {
    pb::StoredMembership {
        log_id: stored.log_id().as_ref().map(log_id_to_wire),
        membership: Some(membership_to_wire(stored.membership())),
    }
}

/// The bytes of a membership with its own log id, as snapshots and the state's heads keep it.
pub(crate) fn encode_stored_membership(stored: &StoredMembership) -> Bytes {
    stored_membership_to_wire(stored).encode_to_vec().into()
}

pub(crate) fn stored_membership_from_wire(
    stored: pb::StoredMembership,
) -> Result<StoredMembership, WireError> {
    let membership =
        membership_from_wire(stored.membership.ok_or(WireError("membership is missing"))?)?;
    Ok(StoredMembership::new(stored.log_id.map(log_id_from_wire), membership))
}

/// Reads what [`encode_stored_membership`] wrote; no bytes stand for no membership.
pub(crate) fn decode_stored_membership(bytes: &[u8]) -> Result<StoredMembership, WireError> {
    if bytes.is_empty() {
        return Ok(StoredMembership::default());
    }
    let stored = pb::StoredMembership::decode(bytes)
        .map_err(|_| WireError("membership can't be decoded"))?;
    stored_membership_from_wire(stored)
}

pub(crate) fn entry_to_wire(entry: Entry) -> pb::Entry {
    let payload = match entry.payload {
        EntryPayload::Blank => pb::entry::Payload::Blank(true),
        EntryPayload::Normal(command) => pb::entry::Payload::Command(command.0),
        EntryPayload::Membership(membership) => {
            pb::entry::Payload::Membership(membership_to_wire(&membership))
        }
    };
    pb::Entry { log_id: Some(log_id_to_wire(&entry.log_id)), payload: Some(payload) }
}

pub(crate) fn entry_from_wire(entry: pb::Entry) -> Result<Entry, WireError> {
    let id = log_id_from_wire(entry.log_id.ok_or(WireError("entry.log_id is missing"))?);
    let payload = match entry.payload.ok_or(WireError("entry.payload is missing"))? {
        pb::entry::Payload::Blank(_) => EntryPayload::Blank,
        pb::entry::Payload::Command(bytes) => EntryPayload::Normal(CommandBytes(bytes)),
        pb::entry::Payload::Membership(membership) => {
            EntryPayload::Membership(membership_from_wire(membership)?)
        }
    };
    Ok(Entry { log_id: id, payload })
}

pub(crate) fn append_to_wire(request: AppendEntriesRequest<TypeConfig>) -> pb::AppendRequest {
    pb::AppendRequest {
        vote: Some(vote_to_wire(&request.vote)),
        prev_log_id: request.prev_log_id.as_ref().map(log_id_to_wire),
        leader_commit: request.leader_commit.as_ref().map(log_id_to_wire),
        entries: request.entries.into_iter().map(entry_to_wire).collect(),
        quorum_age_ms: None,
    }
}

pub(crate) fn append_from_wire(
    request: pb::AppendRequest,
) -> Result<AppendEntriesRequest<TypeConfig>, WireError> {
    let entries: Result<Vec<_>, _> = request.entries.into_iter().map(entry_from_wire).collect();
    let request = AppendEntriesRequest::<TypeConfig> {
        vote: vote_from_wire(request.vote)?,
        prev_log_id: request.prev_log_id.map(log_id_from_wire),
        leader_commit: request.leader_commit.map(log_id_from_wire),
        entries: entries?,
    };
    // openraft trusts that entries follow one another; a peer that breaks this is refused here.
    let mut next = request.prev_log_id.as_ref().map_or(0, |id| id.index.saturating_add(1));
    for entry in &request.entries {
        if entry.log_id.index != next {
            return Err(WireError("entries are not consecutive"));
        }
        next = next.saturating_add(1);
    }
    Ok(request)
}

pub(crate) fn append_result_to_wire(result: StreamAppendResult<TypeConfig>) -> pb::AppendResponse {
    use pb::append_response::Result as Wire;
    let result = match result {
        Ok(id) => Wire::Accepted(pb::AppendAccepted { log_id: id.as_ref().map(log_id_to_wire) }),
        Err(StreamAppendError::Conflict(id)) => Wire::Conflict(log_id_to_wire(&id)),
        Err(StreamAppendError::HigherVote(vote)) => Wire::HigherVote(vote_to_wire(&vote)),
    };
    pb::AppendResponse { result: Some(result) }
}

pub(crate) fn append_result_from_wire(
    response: pb::AppendResponse,
) -> Result<StreamAppendResult<TypeConfig>, WireError> {
    use pb::append_response::Result as Wire;
    Ok(match response.result.ok_or(WireError("append result is missing"))? {
        Wire::Accepted(accepted) => Ok(accepted.log_id.map(log_id_from_wire)),
        Wire::Conflict(id) => Err(StreamAppendError::Conflict(log_id_from_wire(id))),
        Wire::HigherVote(vote) => Err(StreamAppendError::HigherVote(vote_from_wire(Some(vote))?)),
    })
}

pub(crate) fn vote_request_to_wire(request: &VoteRequest<TypeConfig>) -> pb::VoteRequest {
    pb::VoteRequest {
        vote: Some(vote_to_wire(&request.vote)),
        last_log_id: request.last_log_id.as_ref().map(log_id_to_wire),
        leadership_transfer: request.leadership_transfer,
    }
}

pub(crate) fn vote_request_from_wire(
    request: pb::VoteRequest,
) -> Result<VoteRequest<TypeConfig>, WireError> {
    let mut vote =
        VoteRequest::new(vote_from_wire(request.vote)?, request.last_log_id.map(log_id_from_wire));
    vote.leadership_transfer = request.leadership_transfer;
    Ok(vote)
}

pub(crate) fn vote_response_to_wire(response: &VoteResponse<TypeConfig>) -> pb::VoteResponse {
    pb::VoteResponse {
        vote: Some(vote_to_wire(&response.vote)),
        granted: response.vote_granted,
        last_log_id: response.last_log_id.as_ref().map(log_id_to_wire),
    }
}

pub(crate) fn vote_response_from_wire(
    response: pb::VoteResponse,
) -> Result<VoteResponse<TypeConfig>, WireError> {
    let vote = vote_from_wire(response.vote)?;
    Ok(VoteResponse::new(vote, response.last_log_id.map(log_id_from_wire), response.granted))
}

pub(crate) fn snapshot_header_to_wire(
    vote: &Vote,
    meta: &SnapshotMeta,
    size_bytes: u64,
) -> pb::SnapshotHeader {
    pb::SnapshotHeader {
        vote: Some(vote_to_wire(vote)),
        last_log_id: meta.last_log_id.as_ref().map(log_id_to_wire),
        membership: Some(stored_membership_to_wire(&meta.last_membership)),
        size_bytes,
    }
}

pub(crate) fn snapshot_header_from_wire(
    header: pb::SnapshotHeader,
) -> Result<(Vote, SnapshotMeta), WireError> {
    let vote = vote_from_wire(header.vote)?;
    let last_membership =
        stored_membership_from_wire(header.membership.ok_or(WireError("membership is missing"))?)?;
    Ok((
        vote,
        SnapshotMeta { last_log_id: header.last_log_id.map(log_id_from_wire), last_membership },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64) -> Entry {
        Entry {
            log_id: log_id(Position { term: 3, index }),
            payload: EntryPayload::Normal(CommandBytes(Bytes::from_static(b"x"))),
        }
    }

    fn request(indexes: &[u64]) -> pb::AppendRequest {
        append_to_wire(AppendEntriesRequest {
            vote: Vote { leader_id: LeaderId { term: 3, voted_for: 1 }, committed: true },
            prev_log_id: Some(log_id(Position { term: 2, index: 6 })),
            leader_commit: None,
            entries: indexes.iter().map(|index| entry(*index)).collect(),
        })
    }

    #[test]
    fn an_append_request_round_trips() {
        let back = append_from_wire(request(&[7, 8])).unwrap();
        assert_eq!(append_to_wire(back), request(&[7, 8]));
    }

    #[test]
    fn an_append_request_with_a_hole_is_refused() {
        assert_eq!(
            append_from_wire(request(&[7, 9])).err(),
            Some(WireError("entries are not consecutive"))
        );
        assert_eq!(
            append_from_wire(request(&[8])).err(),
            Some(WireError("entries are not consecutive"))
        );
    }

    #[test]
    fn a_message_without_its_vote_is_refused() {
        let mut bad = request(&[7]);
        bad.vote = None;
        assert_eq!(append_from_wire(bad).err(), Some(WireError("vote is missing")));
        assert!(vote_request_from_wire(pb::VoteRequest::default()).is_err());
    }

    #[test]
    fn a_membership_round_trips_with_its_incarnations() {
        let member = |id: u64| Member {
            id: NodeId::new(id),
            peer_address: format!("10.0.0.{id}:7402"),
            client_address: format!("10.0.0.{id}:7401"),
            incarnation: Incarnation::from_bytes([u8::try_from(id).unwrap(); 16]),
        };
        let members: std::collections::BTreeMap<_, _> =
            (1..=3).map(|id| (id, member(id))).collect();
        let membership = Membership::new(vec![[1, 2].into(), [1, 2, 3].into()], members).unwrap();
        let stored =
            StoredMembership::new(Some(log_id(Position { term: 1, index: 4 })), membership);
        assert_eq!(decode_stored_membership(&encode_stored_membership(&stored)).unwrap(), stored);
    }
}
