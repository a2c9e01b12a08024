//! Faults from their beginning to their end.

use std::collections::BTreeMap;

use serde::Serialize;

use super::index::History;
use crate::history::{Effect, FaultEvent, FaultStep, Micros};

/// A fault, from when it was put in place to when it was taken away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Window {
    /// Its number in the run.
    pub number: u64,
    /// Kind.
    pub kind: String,
    /// What it hit, for a person.
    pub target: String,
    /// Servers that it hit.
    pub nodes: Vec<u64>,
    /// When putting it in place began.
    pub from: Micros,
    /// When it had been taken away; the end of the run if it never was.
    pub to: Micros,
    /// Whether it was taken away.
    pub healed: bool,
    /// "installed", "skipped" or "indeterminate".
    pub effect: &'static str,
    /// How that was seen, or why.
    pub why: String,
}

impl Window {
    pub(crate) fn installed(&self) -> bool {
        self.effect == INSTALLED
    }

    /// Whether something may be broken because of it.
    pub(crate) fn matters(&self) -> bool {
        self.effect != SKIPPED
    }

    pub(crate) const fn overlaps(&self, from: Micros, to: Micros) -> bool {
        self.from < to && from < self.to
    }
}

const INSTALLED: &str = "installed";
const SKIPPED: &str = "skipped";
const INDETERMINATE: &str = "indeterminate";

fn effect(fault: &FaultEvent) -> (&'static str, String) {
    match &fault.effect {
        Effect::Installed { seen } => (INSTALLED, seen.clone()),
        Effect::Skipped { why } => (SKIPPED, why.clone()),
        Effect::Indeterminate { why } => (INDETERMINATE, why.clone()),
    }
}

/// All faults in the order in which they began.
pub(crate) fn windows(history: &History<'_>) -> Vec<Window> {
    let mut windows: BTreeMap<u64, Window> = BTreeMap::new();
    for fault in &history.faults {
        match fault.step {
            FaultStep::Install => {
                let (effect, why) = effect(fault);
                let window = Window {
                    number: fault.number,
                    kind: fault.kind.clone(),
                    target: fault.target.clone(),
                    nodes: fault.nodes.clone(),
                    from: fault.at,
                    // What was not tried is over at once.
                    to: if effect == SKIPPED { fault.until } else { history.last.max(fault.until) },
                    healed: effect == SKIPPED,
                    effect,
                    why,
                };
                windows.insert(fault.number, window);
            }
            FaultStep::Heal => {
                if let Some(window) = windows.get_mut(&fault.number)
                    && window.matters()
                {
                    window.to = fault.until;
                    window.healed = true;
                }
            }
        }
    }
    let mut windows: Vec<_> = windows.into_values().collect();
    windows.sort_by_key(|window| (window.from, window.number));
    windows
}
