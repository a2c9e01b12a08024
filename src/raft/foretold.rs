//! Planted bugs that answer a command before it is committed (`crate::planted`): as soon as it stands in the leader's own
//! log. What apply is going to say is found out by applying the log to the state as it is here, without keeping that.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::node::Node;
use crate::fs::Fs;
use crate::planted::{self, Plant};
use crate::state::{
    Applied, Command, CommandBody, Entry, Machine, Record, Store, StoreError, Table, WriteSet,
    codec,
};
use crate::storage::view::View;
use crate::storage::wal::{LogEntry, Payload};

/// How often the log is looked at.
const LOOK: Duration = Duration::from_millis(1);

/// The state, to try something on.
struct Scratch(Arc<View>);

impl Store for Scratch {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.0.get(table, key)
    }

    fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        from: &[u8],
        limit: usize,
    ) -> Result<Vec<Record>, StoreError> {
        self.0.scan(table, prefix, from, limit)
    }

    fn commit(&self, _changes: WriteSet) -> Result<(), StoreError> {
        Ok(())
    }
}

/// The answer to a command that this leader has in its own log only, if that is the bug.
pub(crate) async fn answer<F: Fs>(node: &Node<F>, command: &Command) -> Option<Applied> {
    let foretell = match command.body {
        CommandBody::Escrow(_) => planted::is(Plant::AckBeforeCommit),
        CommandBody::Disclose(_) => planted::is(Plant::DiscloseBeforeAudit),
        _ => false,
    };
    let leads = node.0.link.leader().is_some_and(|leader| leader.id == node.0.link.id());
    if !foretell || !leads {
        return None;
    }
    let bytes = codec::encode_command(command);
    let link = node.0.link.clone();
    let proposed = bytes.clone();
    let mut proposal = tokio::spawn(async move { link.propose(proposed).await });
    loop {
        tokio::select! {
            biased;
            done = &mut proposal => return done.ok()?.ok(),
            () = tokio::time::sleep(LOOK) => {}
        }
        if let Some(applied) = foresee(node, &bytes) {
            return Some(applied);
        }
    }
}

/// What apply will say to a command that stands in the log and is not applied yet.
fn foresee<F: Fs>(node: &Node<F>, command: &Bytes) -> Option<Applied> {
    let mut machine = Machine::open(Arc::new(Scratch(node.0.applied.view.clone()))).ok()?;
    let next = machine.heads().position?.index + 1;
    let entries = node.0.link.wal.read(next, u64::MAX, usize::MAX).ok()?;
    let is_it =
        |entry: &LogEntry| matches!(&entry.payload, Payload::Command(bytes) if bytes == command);
    let place = entries.iter().position(is_it)?;
    let entries = entries.into_iter().take(place + 1).map(|entry| match entry.payload {
        Payload::Command(bytes) => (entry.id, Entry::Command(bytes)),
        Payload::Blank | Payload::Membership(_) => (entry.id, Entry::Blank),
    });
    machine.apply(entries).ok()?.pop()
}
