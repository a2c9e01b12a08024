//! A snapshot on its way to a member, piece by piece.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use holdfast_proto::peer::v1 as pb;

use crate::fs::Fs;
use crate::storage::snapshot::SnapshotFile;

/// Bytes of a snapshot file in one message.
const CHUNK_BYTES: usize = 256 * 1024;

/// How long the network may take for one piece: a connection can live and take nothing.
const PIECE_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a member may take to verify and install a snapshot once it has all of it.
const INSTALL_TIMEOUT: Duration = Duration::from_secs(600);

/// Reads a snapshot file and hands its pieces to the network, until the receiver is denied.
///
/// # Errors
/// If the file can't be read, and with [`io::ErrorKind::TimedOut`] if a piece is not taken for 20 s.
pub(super) async fn send_chunks<F: Fs>(
    file: SnapshotFile<F>,
    header: pb::SnapshotHeader,
    sender: tokio::sync::mpsc::Sender<pb::SnapshotChunk>,
    denied: impl Fn() -> bool,
) -> io::Result<()> {
    let size = file.bytes();
    let mut header = Some(header);
    let mut offset = 0u64;
    loop {
        let length =
            CHUNK_BYTES.min(usize::try_from(size.saturating_sub(offset)).unwrap_or(CHUNK_BYTES));
        let from = file.clone();
        let data = crate::turns::blocking(move || from.read_chunk(offset, length))
            .await
            .map_err(io::Error::other)??;
        let next = offset.saturating_add(data.len() as u64);
        let chunk = pb::SnapshotChunk {
            header: header.take(),
            offset,
            data: Bytes::from(data),
            done: next >= size,
        };
        let done = chunk.done;
        if denied() {
            return Ok(());
        }
        if !hand_over(&sender, chunk).await? || done {
            return Ok(());
        }
        offset = next;
    }
}

/// False if the call was cancelled: then nothing is left to do.
async fn hand_over<T>(sender: &tokio::sync::mpsc::Sender<T>, piece: T) -> io::Result<bool> {
    match tokio::time::timeout(PIECE_TIMEOUT, sender.send(piece)).await {
        Ok(taken) => Ok(taken.is_ok()),
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the connection takes nothing")),
    }
}

/// Why a snapshot does not get through, as the side that sends it sees it. Pending for as long as all goes well.
pub(super) async fn why_unsent(sending: tokio::task::JoinHandle<io::Result<()>>) -> io::Error {
    match sending.await {
        Ok(Err(error)) => return error,
        Ok(Ok(())) => tokio::time::sleep(INSTALL_TIMEOUT).await,
        Err(error) => return io::Error::other(error),
    }
    let what = "the member does not say that it has installed it";
    io::Error::new(io::ErrorKind::TimedOut, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_takes_nothing_is_given_up_and_a_cancelled_call_is_no_fault() {
        let (sender, mut taken) = tokio::sync::mpsc::channel(1);
        assert!(hand_over(&sender, 1).await.unwrap());
        let began = tokio::time::Instant::now();
        let stuck = hand_over(&sender, 2).await.unwrap_err();
        assert_eq!((stuck.kind(), began.elapsed()), (io::ErrorKind::TimedOut, PIECE_TIMEOUT));
        assert_eq!(taken.recv().await, Some(1));
        assert!(hand_over(&sender, 3).await.unwrap());
        drop(taken);
        assert!(!hand_over(&sender, 4).await.unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn a_member_that_has_everything_and_never_answers_is_given_up() {
        let began = tokio::time::Instant::now();
        let late = why_unsent(tokio::spawn(async { Ok(()) })).await;
        assert_eq!((late.kind(), began.elapsed()), (io::ErrorKind::TimedOut, INSTALL_TIMEOUT));
        let broken = async { Err(io::Error::from(io::ErrorKind::InvalidData)) };
        assert_eq!(why_unsent(tokio::spawn(broken)).await.kind(), io::ErrorKind::InvalidData);
    }
}
