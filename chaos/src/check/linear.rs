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
mod tests {
    use super::super::naive::linearizable;
    use super::super::testing::{
        DEVICE, Made, VOLUME, device, disclose, disclosed, escrow, id, ok, receipt, refused,
        unknown,
    };
    use super::super::verdict::Status;
    use super::*;
    use crate::history::{Call, Position, Reply};
    use proptest::prelude::*;

    fn checked(made: &Made) -> CheckResult {
        check(&History::new(&made.events))
    }

    #[track_caller]
    fn holds(made: &Made) {
        let result = checked(made);
        assert_eq!(result.status, Status::Held, "{result:?}");
    }

    #[track_caller]
    fn violates(made: &Made) -> CheckResult {
        let result = checked(made);
        assert_eq!(result.status, Status::Violated, "{result:?}");
        result
    }

    const READ: Call = Call::ReadDevice { device: DEVICE };

    #[test]
    fn writes_and_reads_one_after_another_hold() {
        let mut made = Made::new();
        made.call(1, 2, READ, device(0, 0, 1));
        made.call(3, 4, escrow(1, 0), receipt(1, 1, 2));
        made.call(5, 6, READ, device(1, 1, 2));
        made.call(7, 8, escrow(2, 0), refused("STALE_VERSION"));
        made.call(9, 10, escrow(3, 1), receipt(3, 2, 3));
        made.call(11, 12, disclose(1, 1), disclosed(1, 1, 4));
        made.call(13, 14, READ, device(2, 3, 4));
        holds(&made);
        assert!(checked(&made).checked >= 6);
    }

    #[test]
    fn a_read_that_misses_an_acknowledged_write_is_caught_with_the_calls_that_show_it() {
        let mut made = Made::new();
        made.call(1, 2, escrow(1, 0), receipt(1, 1, 1));
        let read = made.call(3, 4, READ, device(0, 0, 1));
        let result = violates(&made);
        assert_eq!(result.violations[0].ops, [read]);
        assert!(result.violations[0].what.contains("version 1"), "{result:?}");
    }

    #[test]
    fn two_writes_that_both_follow_the_same_version_are_caught() {
        let mut made = Made::new();
        made.call(1, 9, escrow(1, 0), receipt(1, 1, 1));
        made.call(1, 9, escrow(2, 0), receipt(2, 1, 2));
        violates(&made);
    }

    #[test]
    fn a_read_that_goes_back_in_time_is_caught() {
        let mut made = Made::new();
        made.call(1, 20, escrow(1, 0), receipt(1, 1, 1));
        made.call(2, 3, READ, device(1, 1, 1));
        holds(&made);
        made.call(4, 5, READ, device(0, 0, 1));
        violates(&made);
    }

    #[test]
    fn an_unknown_write_may_take_effect_late_or_never_but_not_twice() {
        let mut made = Made::new();
        made.call(1, 2, escrow(1, 0), unknown());
        made.call(3, 4, READ, device(0, 0, 1));
        holds(&made);
        made.call(50, 51, READ, device(1, 1, 2));
        holds(&made);
        made.call(52, 53, READ, device(0, 0, 2));
        violates(&made);
    }

    #[test]
    fn an_unknown_write_does_not_take_effect_before_it_was_sent() {
        let mut made = Made::new();
        made.call(1, 2, READ, device(1, 1, 1));
        made.call(3, 4, escrow(1, 0), unknown());
        violates(&made);
    }

    #[test]
    fn retries_with_one_request_id_are_one_write() {
        let mut made = Made::new();
        made.call(1, 2, escrow(1, 0), unknown());
        made.call(3, 4, READ, device(1, 1, 1));
        made.call(5, 6, escrow(2, 1), receipt(2, 2, 2));
        // The receipt is the old one, although the volume has gone on.
        made.call(7, 8, escrow(1, 0), receipt(1, 1, 1));
        made.call(9, 10, READ, device(2, 2, 2));
        holds(&made);
    }

    #[test]
    fn a_refusal_as_stale_is_wrong_where_the_version_is_the_expected_one_or_the_write_is_done() {
        let mut made = Made::new();
        made.call(1, 2, escrow(1, 0), refused("STALE_VERSION"));
        violates(&made);
        let mut made = Made::new();
        made.call(1, 2, escrow(1, 0), receipt(1, 1, 1));
        made.call(3, 4, escrow(1, 0), refused("STALE_VERSION"));
        violates(&made);
    }

    #[test]
    fn a_search_and_a_disclosure_know_what_was_acknowledged_before_and_nothing_that_came_after() {
        let find = |query: String| Call::Find { request: id(0x999), query };
        let found = |keys: Vec<(Uuid, u32)>| {
            ok(Reply::Find { keys, audit: 1, position: Position { term: 1, index: 5 } })
        };
        let key = id(0x2001);
        let queries = [key.to_string(), format!("volume {DEVICE} {VOLUME}"), "00000000".to_owned()];
        for query in queries {
            let mut made = Made::new();
            made.call(1, 2, escrow(1, 0), receipt(1, 1, 1));
            made.call(3, 4, find(query.clone()), found(vec![(key, 1)]));
            holds(&made);
            made.call(5, 6, find(query.clone()), found(vec![]));
            violates(&made);
            let mut made = Made::new();
            made.call(1, 2, find(query), found(vec![(key, 1)]));
            made.call(3, 4, escrow(1, 0), receipt(1, 1, 1));
            violates(&made);
        }
        let mut made = Made::new();
        made.call(1, 2, escrow(1, 0), receipt(1, 1, 1));
        made.call(3, 4, disclose(1, 0), refused("UNKNOWN_KEY"));
        violates(&made);
        let mut made = Made::new();
        made.call(1, 2, escrow(1, 0), receipt(1, 1, 1));
        made.call(3, 4, disclose(1, 1), disclosed(7, 1, 4));
        let result = violates(&made);
        assert!(result.violations[0].what.contains("not one that was escrowed"), "{result:?}");
    }

    #[test]
    fn a_search_that_is_given_up_is_undecided_and_not_green() {
        let mut made = Made::new();
        for number in 1..9 {
            made.call(1, 100, escrow(number, 0), unknown());
        }
        made.call(2, 99, READ, device(1, 8, 1));
        let result = check_with(&History::new(&made.events), 3);
        assert!(matches!(result.status, Status::Undecided { .. }), "{result:?}");
        holds(&made);
    }

    #[test]
    fn a_long_history_of_one_volume_is_searched_fast() {
        let mut made = Made::new();
        for version in 0..2000_u32 {
            let at = u64::from(version) * 10;
            let number = u128::from(version) + 1;
            made.call(at + 1, at + 6, escrow(number, version), receipt(number, version + 1, at));
            // A rival that is never answered, and reads that overlap.
            if version % 50 == 0 {
                made.call(at + 1, at + 6, escrow(number + 100_000, version + 1), unknown());
            }
            made.call(at + 2, at + 14, READ, device(version + 1, number, at));
        }
        holds(&made);
    }

    /// Operations on a register that was played through with the given random numbers: each is put in order at a moment
    /// between its call and its end.
    fn played(choices: &[(u8, u8, u8, u8)]) -> Vec<Op> {
        let mut moments: Vec<(u64, usize)> = Vec::new();
        let mut ops: Vec<Op> = Vec::new();
        for (at, (start, before, after, kind)) in choices.iter().enumerate() {
            let call = u64::from(*start) * 4;
            let moment = call + u64::from(*before % 40);
            let end = moment + u64::from(*after % 40);
            moments.push((moment, at));
            let what = match kind % 8 {
                0..=3 => What::Write { expected: 0, protector: id(u128::from(at as u64) + 1) },
                4 | 5 => What::Read(Register::EMPTY),
                6 => What::Stale { expected: u32::from(kind / 64), of: None },
                _ => What::Effects { some: vec![], none: vec![] },
            };
            ops.push(Op { id: at as u64, call, end: Some(end), what });
        }
        moments.sort_unstable();
        let mut held = Register::EMPTY;
        let mut written: Vec<usize> = Vec::new();
        let writes: Vec<usize> =
            (0..ops.len()).filter(|at| matches!(ops[*at].what, What::Write { .. })).collect();
        for (_, at) in moments {
            let lost = choices[at].3 >= 200;
            let op = &mut ops[at];
            match &mut op.what {
                // A lost answer: done or not, nobody knows.
                What::Write { .. } if lost && choices[at].2 % 2 == 0 => op.end = None,
                What::Write { expected, protector } => {
                    *expected = held.version;
                    held = Register { version: held.version + 1, protector: *protector };
                    written.push(at);
                    if lost {
                        op.end = None;
                    }
                }
                What::Read(answer) => *answer = held,
                What::Stale { expected, .. } => {
                    if *expected == held.version {
                        *expected += 1;
                    }
                }
                What::Effects { some, none } => {
                    *some = written.iter().take(2).map(|write| vec![*write]).collect();
                    *none = writes.iter().copied().filter(|at| !written.contains(at)).collect();
                }
            }
        }
        ops
    }

    /// Changes what one operation says.
    fn mutated(mut ops: Vec<Op>, which: usize, how: u8) -> Vec<Op> {
        let length = ops.len().max(1);
        if let Some(op) = ops.get_mut(which % length) {
            match &mut op.what {
                What::Write { expected, .. } => *expected = u32::from(how % 4),
                What::Read(answer) => answer.version = u32::from(how % 4),
                What::Stale { expected, .. } => *expected = u32::from(how % 4),
                What::Effects { some, none } => std::mem::swap(&mut some.concat(), none),
            }
        }
        ops
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_a_register_has_really_done_is_always_accepted(
            choices in prop::collection::vec(any::<(u8, u8, u8, u8)>(), 1..40),
        ) {
            prop_assert_eq!(search(&played(&choices), STEPS), Found::Order);
        }

        #[test]
        fn the_search_agrees_with_trying_every_order(
            choices in prop::collection::vec((0_u8..20, any::<u8>(), any::<u8>(), any::<u8>()), 1..8),
            mutations in prop::collection::vec((0_usize..8, any::<u8>()), 0..3),
        ) {
            let mut ops = played(&choices);
            for (which, how) in mutations {
                ops = mutated(ops, which, how);
            }
            let found = search(&ops, STEPS);
            prop_assert!(found != Found::Undecided);
            prop_assert_eq!(found == Found::Order, linearizable(&ops), "{:?}", ops);
        }
    }
}
