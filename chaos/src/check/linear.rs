//! Linearizability, one volume at a time: a volume is a register of (version, key id) that escrows change by
//! compare-and-set.
//!
//! [`search`] is the algorithm of Wing and Gong with Lowe's cache of states that were seen. Volumes share no state, so each
//! is searched alone. A write whose outcome nobody knows may take effect at any time after it was sent, or never. All calls
//! with one request id are one write. A read of a device is a read of each of its volumes; a search or a disclosure says
//! which writes had taken effect; a refusal as stale says that the version was another and that this write had none.

use std::collections::BTreeSet;

use uuid::Uuid;

use super::index::History;
use super::project::volumes;
use super::verdict::CheckResult;
use crate::history::{Micros, OpId};

/// Steps after which the search of one volume is given up.
pub(crate) const STEPS: u64 = 3_000_000;

/// What a volume holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Register {
    /// 0 if there is no key.
    pub(crate) version: u32,
    /// Nil if there is no key.
    pub(crate) protector: Uuid,
}

impl Register {
    pub(crate) const EMPTY: Self = Self { version: 0, protector: Uuid::nil() };
}

/// What an operation does to a register, or says of it. Writes are named by their place in the list of operations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    /// Sets the next version if the last one is `expected`.
    Write { expected: u32, protector: Uuid },
    /// Was answered with this.
    Read(Register),
    /// Was refused because of the version; `of` had not taken effect.
    Stale { expected: u32, of: Option<usize> },
    /// Of each group of writes one had taken effect, and none of the others.
    Effects { some: Vec<Vec<usize>>, none: Vec<usize> },
}

/// An operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Op {
    pub(crate) id: OpId,
    pub(crate) call: Micros,
    /// None if it may take effect at any later time, or never.
    pub(crate) end: Option<Micros>,
    pub(crate) what: What,
}

/// How a search ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// There is an order.
    Order,
    /// There is none: so many could be put in order at most, then the register held this, and these were next.
    Nothing { placed: usize, register: Register, next: Vec<usize> },
    /// It was given up.
    Undecided,
}

/// The register after an operation, or none if it can't be next.
fn apply(what: &What, register: Register, done: &Bits) -> Option<Register> {
    match what {
        What::Write { expected, protector } => (register.version == *expected)
            .then(|| Register { version: expected.saturating_add(1), protector: *protector }),
        What::Read(answer) => (register == *answer).then_some(register),
        What::Stale { expected, of } => {
            let had_effect = of.is_some_and(|write| done.has(write));
            (register.version != *expected && !had_effect).then_some(register)
        }
        What::Effects { some, none } => {
            let all = some.iter().all(|group| group.iter().any(|write| done.has(*write)));
            (all && !none.iter().any(|write| done.has(*write))).then_some(register)
        }
    }
}

/// A set of operations.
#[derive(Debug, Clone, Default)]
struct Bits {
    words: Vec<u64>,
}

impl Bits {
    fn of(operations: usize) -> Self {
        Self { words: vec![0; operations.div_ceil(64)] }
    }

    const fn place(at: usize) -> (usize, u64) {
        (at / 64, 1 << (at % 64))
    }

    fn has(&self, at: usize) -> bool {
        let (word, bit) = Self::place(at);
        self.words.get(word).is_some_and(|word| word & bit != 0)
    }

    fn flip(&mut self, at: usize) {
        let (word, bit) = Self::place(at);
        if let Some(word) = self.words.get_mut(word) {
            *word ^= bit;
        }
    }

    /// A short form that is the same for the same set: full words at the beginning are counted, empty ones at the end left
    /// out.
    fn short(&self) -> (usize, Box<[u64]>) {
        let full = self.words.iter().take_while(|word| **word == u64::MAX).count();
        let end = self.words.iter().rposition(|word| *word != 0).map_or(0, |last| last + 1);
        (full, self.words.get(full..end).unwrap_or_default().into())
    }
}

/// Calls and ends in the order of time, as a list that items are taken out of and put back into.
struct List {
    items: Vec<Item>,
    next: Vec<usize>,
    previous: Vec<usize>,
    /// Where an operation's call and its end are.
    places: Vec<(usize, Option<usize>)>,
}

#[derive(Debug, Clone, Copy)]
enum Item {
    Head,
    Call(usize),
    End,
}

impl List {
    fn new(ops: &[Op]) -> Self {
        let mut moments = Vec::with_capacity(ops.len().saturating_mul(2));
        for (index, op) in ops.iter().enumerate() {
            // Where times are equal the calls come first: then the two overlap, which allows more.
            moments.push((op.call, 0_u8, index));
            moments.extend(op.end.map(|end| (end, 1, index)));
        }
        moments.sort_unstable();
        let mut places = vec![(0, None); ops.len()];
        let mut items = vec![Item::Head];
        for (_, kind, op) in moments {
            let at = items.len();
            items.push(if kind == 0 { Item::Call(op) } else { Item::End });
            if let Some(place) = places.get_mut(op) {
                if kind == 0 { place.0 = at } else { place.1 = Some(at) }
            }
        }
        let length = items.len();
        let next = (0..length).map(|at| (at + 1) % length).collect();
        let previous = (0..length).map(|at| (at + length - 1) % length).collect();
        Self { items, next, previous, places }
    }

    fn after(&self, at: usize) -> usize {
        self.next.get(at).copied().unwrap_or(0)
    }

    fn before(&self, at: usize) -> usize {
        self.previous.get(at).copied().unwrap_or(0)
    }

    fn link(&mut self, left: usize, right: usize) {
        if let Some(next) = self.next.get_mut(left) {
            *next = right;
        }
        if let Some(previous) = self.previous.get_mut(right) {
            *previous = left;
        }
    }

    fn take(&mut self, op: usize) {
        let Some(&(call, end)) = self.places.get(op) else { return };
        for at in [Some(call), end].into_iter().flatten() {
            self.link(self.before(at), self.after(at));
        }
    }

    fn put_back(&mut self, op: usize) {
        let Some(&(call, end)) = self.places.get(op) else { return };
        for at in [end, Some(call)].into_iter().flatten() {
            let (left, right) = (self.before(at), self.after(at));
            self.link(left, at);
            self.link(at, right);
        }
    }

    /// The operations that could come next.
    fn candidates(&self) -> Vec<usize> {
        let mut candidates = Vec::new();
        let mut at = self.after(0);
        while let Some(Item::Call(op)) = self.items.get(at) {
            candidates.push(*op);
            at = self.after(at);
        }
        candidates
    }
}

/// Looks for an order of the operations in which each says what it must, and which keeps the order of time.
pub(crate) fn search(ops: &[Op], steps: u64) -> Found {
    let mut list = List::new(ops);
    let mut done = Bits::of(ops.len());
    let mut register = Register::EMPTY;
    let mut stack: Vec<(usize, Register)> = Vec::new();
    let mut seen = BTreeSet::new();
    let mut furthest = (0, register, list.candidates());
    let mut at = list.after(0);
    for _ in 0..steps {
        match list.items.get(at) {
            // No end is left: what remains may never have happened.
            None | Some(Item::Head) => return Found::Order,
            Some(&Item::Call(op)) => {
                let after = ops.get(op).and_then(|op| apply(&op.what, register, &done));
                if let Some(after) = after {
                    done.flip(op);
                    if seen.insert((done.short(), after)) {
                        stack.push((op, register));
                        register = after;
                        list.take(op);
                        if stack.len() > furthest.0 {
                            furthest = (stack.len(), register, Vec::new());
                        }
                        at = list.after(0);
                        continue;
                    }
                    done.flip(op);
                }
                at = list.after(at);
            }
            Some(Item::End) => {
                if stack.len() == furthest.0 && furthest.2.is_empty() {
                    furthest.2 = list.candidates();
                }
                let Some((op, before)) = stack.pop() else {
                    let (placed, register, next) = furthest;
                    return Found::Nothing { placed, register, next };
                };
                list.put_back(op);
                done.flip(op);
                register = before;
                at = list.after(list.places.get(op).map_or(0, |place| place.0));
            }
        }
    }
    Found::Undecided
}

pub(crate) fn check(history: &History<'_>) -> CheckResult {
    check_with(history, STEPS)
}

fn check_with(history: &History<'_>, steps: u64) -> CheckResult {
    let claim =
        "every volume behaves like one register that changes by compare-and-set, in real time";
    let mut result = CheckResult::new("linear", claim, "operations on volumes");
    let mut undecided = Vec::new();
    for volume in volumes(history) {
        for (op, what) in &volume.impossible {
            result.violate([*op], what.clone());
        }
        result.checked = result.checked.saturating_add(volume.ops.len() as u64);
        match search(&volume.ops, steps) {
            Found::Order => {}
            Found::Undecided => undecided.push(volume.id.to_string()),
            Found::Nothing { placed, register, next } => {
                let stuck: Vec<_> = next.iter().filter_map(|at| volume.ops.get(*at)).collect();
                let of = volume.ops.len();
                let (id, version) = (volume.id, register.version);
                let told: Vec<_> = stuck.iter().map(|op| tell(op)).collect();
                result.violate(
                    stuck.iter().map(|op| op.id),
                    format!(
                        "volume {id}: no order of its {of} operations explains the answers; after {placed} of them it holds \
                         version {version}, and none of these can be next: {}",
                        told.join("; ")
                    ),
                );
            }
        }
    }
    if let Some(first) = undecided.first() {
        let count = undecided.len();
        result.undecided(format!("{count} volumes were given up after {steps} steps, as {first}"));
    }
    result
}

fn tell(op: &Op) -> String {
    let what = match &op.what {
        What::Write { expected, .. } => format!("escrow of version {}", expected + 1),
        What::Read(answer) => format!("read of version {}", answer.version),
        What::Stale { expected, .. } => format!("refusal because the version is not {expected}"),
        What::Effects { some, none } => {
            format!("an answer that knows {} keys and lacks {}", some.len(), none.len())
        }
    };
    format!("call {} ({what})", op.id)
}

#[cfg(test)]
mod tests;
