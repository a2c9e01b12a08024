//! A snapshot that comes from the leader, piece by piece, until it is installed.

use holdfast_proto::peer::v1 as pb;
use openraft::type_config::alias::SnapshotOf;
use tonic::{Status, Streaming};

use super::api::Refusal;
use super::peer::PeerHandle;
use super::types::{TypeConfig, Vote, position};
use super::wire::{snapshot_header_from_wire, vote_to_wire};
use crate::fs::Fs;
use crate::storage::snapshot::{SnapshotError, SnapshotFile};

/// How many times its size a snapshot takes on disk until it is installed: the file, and the new view beside the old one.
const INSTALL_AMPLIFICATION: u64 = 5;

impl<F: Fs> PeerHandle<F> {
    pub(super) async fn take_in(
        &self,
        mut chunks: Streaming<pb::SnapshotChunk>,
    ) -> Result<pb::InstallSnapshotResponse, Status> {
        let unavailable = |error: &dyn std::fmt::Display| Status::unavailable(error.to_string());
        let malformed = |what: &str| Status::invalid_argument(what.to_owned());
        let first = chunks.message().await?.ok_or_else(|| malformed("the snapshot is empty"))?;
        let header =
            first.header.clone().ok_or_else(|| malformed("the first chunk has no header"))?;
        // I9: openraft takes a snapshot that can't be installed for the end of the node.
        let needed = header.size_bytes.saturating_mul(INSTALL_AMPLIFICATION);
        let free = self.0.0.snapshots.free_bytes().map_err(|error| unavailable(&error))?;
        if self.0.0.link.disk_low() || free < needed {
            return Err(Status::resource_exhausted(Refusal::DiskLow.to_string()));
        }
        let (vote, meta) = snapshot_header_from_wire(header).map_err(|error| malformed(error.0))?;
        let mut receiver = self.0.0.snapshots.receiver().map_err(|error| unavailable(&error))?;
        let mut next = Some(first);
        loop {
            let Some(chunk) = next else { return Err(malformed("the snapshot ends early")) };
            let done = chunk.done;
            receiver = crate::turns::blocking(move || {
                receiver.write_chunk(chunk.offset, &chunk.data).map(|()| receiver)
            })
            .await
            .map_err(|error| unavailable(&error))?
            .map_err(|error| unavailable(&error))?;
            if done {
                break;
            }
            next = chunks.message().await?;
        }
        let file = crate::turns::blocking(move || receiver.finish())
            .await
            .map_err(|error| unavailable(&error))?
            .map_err(|error| match error {
                SnapshotError::Damaged { .. } => Status::data_loss(error.to_string()),
                other => unavailable(&other),
            })?;
        // Openraft believes the header; it must say what the file holds.
        let membership = super::wire::decode_stored_membership(&file.meta().membership);
        let same = membership.is_ok_and(|held| held == meta.last_membership)
            && file.meta().last == meta.last_log_id.as_ref().map(position);
        if !same {
            self.0.0.snapshots.discard(&file);
            return Err(malformed("the header of the snapshot does not describe its file"));
        }
        let snapshot: SnapshotOf<TypeConfig, SnapshotFile<F>> =
            openraft::storage::Snapshot { meta, snapshot: file };
        let vote: Vote = vote;
        let response = self.0.0.link.raft.install_full_snapshot(vote, snapshot).await;
        let response = response.map_err(|error| unavailable(&error))?;
        Ok(pb::InstallSnapshotResponse { vote: Some(vote_to_wire(&response.vote)) })
    }
}
