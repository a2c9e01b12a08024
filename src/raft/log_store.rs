//! Openraft's log storage over our WAL. Keeps I1: a callback or `save_vote` returns only after fdatasync.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use futures::Stream;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::{EntryPayload, OptionalSend};
use prost::Message as _;
use tokio::sync::oneshot;

use super::types::{
    CommandBytes, Entry, LogId, TypeConfig, Vote, log_id, position, raft_vote, wal_vote,
};
use super::wire::{membership_from_wire, membership_to_wire};
use crate::fs::Fs;
use crate::storage::layout::Joined;
use crate::storage::wal::{LogEntry, Payload, Wal, WalError};

/// Most bytes of entries in one replication request or apply step. A single larger entry still goes.
const READ_BYTES: usize = 512 * 1024;

/// The log, as openraft sees it.
pub(crate) struct LogStore<F: Fs> {
    wal: Wal<F>,
    joined: Arc<Joined<F>>,
    noted: bool,
}

impl<F: Fs> Clone for LogStore<F> {
    fn clone(&self) -> Self {
        Self { wal: self.wal.clone(), joined: self.joined.clone(), noted: self.noted }
    }
}

impl<F: Fs> LogStore<F> {
    /// The log, and where it is noted that the node takes part.
    pub(crate) fn new(wal: Wal<F>, joined: Joined<F>) -> Self {
        Self { wal, joined: Arc::new(joined), noted: false }
    }

    fn read(&self, from: u64, to: u64, most_bytes: usize) -> io::Result<Vec<Entry>> {
        self.wal
            .read(from, to, most_bytes)
            .map_err(io_error)?
            .into_iter()
            .map(entry_from_log)
            .collect()
    }
}

fn io_error(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::other(error)
}

fn entry_to_log(entry: Entry) -> LogEntry {
    let payload = match entry.payload {
        EntryPayload::Blank => Payload::Blank,
        EntryPayload::Normal(command) => Payload::Command(command.0),
        EntryPayload::Membership(membership) => {
            Payload::Membership(membership_to_wire(&membership).encode_to_vec().into())
        }
    };
    LogEntry { id: position(&entry.log_id), payload }
}

fn entry_from_log(entry: LogEntry) -> io::Result<Entry> {
    let payload = match entry.payload {
        Payload::Blank => EntryPayload::Blank,
        Payload::Command(bytes) => EntryPayload::Normal(CommandBytes(bytes)),
        Payload::Membership(bytes) => {
            let wire = holdfast_proto::peer::v1::Membership::decode(bytes).map_err(io_error)?;
            EntryPayload::Membership(membership_from_wire(wire).map_err(io_error)?)
        }
    };
    Ok(Entry { log_id: log_id(entry.id), payload })
}

/// First index and the one after the last of a range; an open end is the end of the log.
fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let from = match range.start_bound() {
        Bound::Included(index) => *index,
        Bound::Excluded(index) => index.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let to = match range.end_bound() {
        Bound::Included(index) => index.saturating_add(1),
        Bound::Excluded(index) => *index,
        Bound::Unbounded => u64::MAX,
    };
    (from, to)
}

/// Waits for a WAL request to be durable.
async fn durable<T>(
    submit: impl FnOnce(crate::storage::wal::Done) -> Result<T, WalError>,
) -> io::Result<()> {
    let (sender, receiver) = oneshot::channel();
    let done: crate::storage::wal::Done = Box::new(move |result| {
        // The receiver is gone only if openraft itself was dropped.
        drop(sender.send(result));
    });
    submit(done).map_err(io_error)?;
    match receiver.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(io::Error::other(error)),
        Err(_) => Err(io::Error::other("the log was closed")),
    }
}

impl<F: Fs> RaftLogReader<TypeConfig> for LogStore<F> {
    async fn try_get_log_entries<R>(&mut self, range: R) -> Result<Vec<Entry>, io::Error>
    where
        R: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (from, to) = bounds(&range);
        self.read(from, to, usize::MAX)
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, io::Error> {
        self.read(start, end, READ_BYTES)
    }

    /// In steps of bounded size, so that replaying a long log needs little memory.
    async fn entries_stream<R>(
        &mut self,
        range: R,
    ) -> impl Stream<Item = Result<Entry, io::Error>> + OptionalSend
    where
        R: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (from, to) = bounds(&range);
        let store = self.clone();
        let steps = futures::stream::try_unfold(from, move |next| {
            let store = store.clone();
            async move {
                if next >= to {
                    return Ok(None);
                }
                let entries = store.read(next, to, READ_BYTES)?;
                let Some(last) = entries.last() else { return Ok(None) };
                let after = last.log_id.index.saturating_add(1);
                Ok::<_, io::Error>(Some((
                    futures::stream::iter(entries.into_iter().map(Ok)),
                    after,
                )))
            }
        });
        Box::pin(futures::TryStreamExt::try_flatten(steps))
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.wal.vote().and_then(raft_vote))
    }
}

impl<F: Fs> RaftLogStorage<TypeConfig> for LogStore<F> {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        Ok(LogState {
            last_purged_log_id: self.wal.purged().map(log_id),
            last_log_id: self.wal.last().map(log_id),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    /// Openraft saves a vote before it votes, and before it takes anything of a leader. So the node counts as a member from its first
    /// vote on (I7): not before that is on disk, since a power cut in between would look like a lost log, and not later, since
    /// something may be acknowledged then.
    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let vote = wal_vote(vote);
        durable(|done| self.wal.save_vote(vote, done)).await?;
        if !self.noted {
            self.joined.note().map_err(io_error)?;
            self.noted = true;
        }
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        self.wal.save_committed(committed.as_ref().map(position)).map_err(io_error)
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.wal.committed().map(log_id))
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: IOFlushed<TypeConfig>,
    ) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries = entries.into_iter().map(entry_to_log).collect();
        let done = Box::new(move |result: Result<(), Arc<WalError>>| {
            callback.io_completed(result.map_err(io::Error::other));
        });
        self.wal.append(entries, done).map_err(io_error)
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        durable(|done| self.wal.truncate_after(last.as_ref().map(position), done)).await
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        durable(|done| self.wal.purge(position(&upto), done)).await
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::domain::{ClusterId, NodeId};
    use crate::fs::sim::SimFs;
    use crate::storage::layout::{DataDir, ExpectedIdentity};
    use crate::storage::wal::WalOptions;

    /// The directory, and its log as it is opened at a start.
    fn open(fs: &SimFs) -> (DataDir<SimFs>, Result<Wal<SimFs>, WalError>) {
        let expected =
            ExpectedIdentity { cluster: ClusterId::from_bytes([1; 16]), node: NodeId::new(4) };
        let directory = DataDir::open_or_create(fs.clone(), Path::new("/data"), expected).unwrap();
        let must_exist = directory.joined().is_noted().unwrap();
        let options = WalOptions {
            inline: true,
            must_exist,
            segment_bytes: 16 * 1024,
            ..WalOptions::default()
        };
        let wal = Wal::open(fs.clone(), &directory.wal(), options);
        (directory, wal)
    }

    #[tokio::test]
    async fn a_power_cut_at_the_first_vote_leaves_a_newcomer_or_a_member_with_its_log() {
        let fresh = SimFs::new();
        drop(open(&fresh));
        let (mut voted, mut cuts) = (false, 0);
        while !voted {
            let fs = fresh.restart();
            let (directory, wal) = open(&fs);
            fs.power_cut_at(fs.operations() + cuts);
            let mut store = LogStore::new(wal.unwrap(), directory.joined());
            voted = store.save_vote(&Vote::new(1, 2)).await.is_ok();
            for survivors in 0..20 {
                let (after, wal) = open(&fs.crash(survivors));
                let wal = wal.unwrap_or_else(|error| panic!("cut {cuts}: {error}"));
                assert!(!voted || after.joined().is_noted().unwrap(), "cut {cuts}");
                assert!(!voted || wal.vote().is_some(), "cut {cuts}");
            }
            cuts += 1;
        }
        assert!(cuts > 4, "{cuts}");
    }

    #[tokio::test]
    async fn i9_a_newcomer_on_a_full_disk_votes_and_notes_that_it_has() {
        let fs = SimFs::new();
        let (directory, wal) = open(&fs);
        let mut store = LogStore::new(wal.unwrap(), directory.joined());
        fs.set_capacity(Some(fs.used_bytes()));
        store.save_vote(&Vote::new(1, 2)).await.unwrap();
        assert!(directory.joined().is_noted().unwrap());
    }
}
