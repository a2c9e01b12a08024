//! Planted bugs that answer a command before it is committed: what apply is going to say is found out by applying it to the
//! state as it is here, without keeping that (`crate::planted`).

use std::sync::Arc;

use bytes::Bytes;

use super::node::Node;
use crate::fs::Fs;
use crate::planted::{self, Plant};
use crate::state::{
    Applied, Command, CommandBody, Entry, Machine, Position, Record, Store, StoreError, Table,
    WriteSet, codec,
};
use crate::storage::view::View;

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

/// The answer to a command that is proposed later, if that is the bug. A refusal is not foretold.
pub(crate) fn answer<F: Fs>(node: &Node<F>, command: &Command) -> Option<Applied> {
    let foretell = match command.body {
        CommandBody::Escrow(_) => planted::is(Plant::AckBeforeCommit),
        CommandBody::Disclose(_) => planted::is(Plant::DiscloseBeforeAudit),
        _ => false,
    };
    if !foretell {
        return None;
    }
    let bytes = codec::encode_command(command);
    let mut machine = Machine::open(Arc::new(Scratch(node.0.applied.view.clone()))).ok()?;
    let Position { term, index } = machine.heads().position?;
    let next = Position { term, index: index + 1 };
    let applied = machine.apply([(next, Entry::Command(bytes.clone()))]).ok()?.pop()?;
    applied.outcome.as_ref().ok()?;
    let link = node.0.link.clone();
    tokio::spawn(async move {
        if let Err(error) = link.propose(bytes).await {
            tracing::warn!(%error, "what was answered already is not done");
        }
    });
    Some(applied)
}
