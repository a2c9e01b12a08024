//! A snapshot on its way to a member, piece by piece.

use bytes::Bytes;
use holdfast_proto::peer::v1 as pb;

use crate::fs::Fs;
use crate::storage::snapshot::SnapshotFile;

/// Bytes of a snapshot file in one message.
const CHUNK_BYTES: usize = 256 * 1024;

/// Reads a snapshot file and hands its pieces to the network, until the receiver is denied.
pub(super) async fn send_chunks<F: Fs>(
    file: SnapshotFile<F>,
    header: pb::SnapshotHeader,
    sender: tokio::sync::mpsc::Sender<pb::SnapshotChunk>,
    denied: impl Fn() -> bool,
) -> std::io::Result<()> {
    let size = file.bytes();
    let mut header = Some(header);
    let mut offset = 0u64;
    loop {
        let length =
            CHUNK_BYTES.min(usize::try_from(size.saturating_sub(offset)).unwrap_or(CHUNK_BYTES));
        let from = file.clone();
        let data = crate::turns::blocking(move || from.read_chunk(offset, length))
            .await
            .map_err(std::io::Error::other)??;
        let next = offset.saturating_add(data.len() as u64);
        let chunk = pb::SnapshotChunk {
            header: header.take(),
            offset,
            data: Bytes::from(data),
            done: next >= size,
        };
        let done = chunk.done;
        // The receiver is gone when the call was cancelled; then nothing is left to do.
        if denied() || sender.send(chunk).await.is_err() || done {
            return Ok(());
        }
        offset = next;
    }
}
