//! Changes of the members and of who leads, and servers' words on them.

use serde::{Deserialize, Serialize};

use super::Micros;

/// A change of the members, or of who leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", content = "node", rename_all = "snake_case")]
pub enum Change {
    /// A server gets the log.
    AddLearner(u64),
    /// It gets a vote.
    Promote(u64),
    /// It is no member any more, and never will be again.
    Remove(u64),
    /// It shall lead.
    Transfer(u64),
}

/// What has to come of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "expect", rename_all = "snake_case")]
pub enum Expect {
    /// It is made within this time, however often it has to be asked for: at most one server is faulty.
    Made {
        /// Milliseconds.
        within_ms: u64,
    },
    /// It is not acknowledged: there is no majority.
    NotMade,
}

/// A change was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeEvent {
    /// When it was asked for first.
    pub at: Micros,
    /// When it was acknowledged, or given up.
    pub until: Micros,
    /// What.
    #[serde(flatten)]
    pub change: Change,
    /// What has to come of it.
    #[serde(flatten)]
    pub expect: Expect,
    /// How often it was asked for.
    pub attempts: u32,
    /// Why it was not acknowledged; it may have been made all the same. None if it was.
    pub failed: Option<String>,
}

/// Whom a server held for members when all was well after changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Members {
    /// When.
    pub at: Micros,
    /// The server that said so.
    pub by: u64,
    /// Who has a vote.
    pub voters: Vec<u64>,
    /// Who has none.
    pub learners: Vec<u64>,
}
