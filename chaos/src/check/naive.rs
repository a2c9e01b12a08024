//! The plainest possible check for linearizability, to hold the real one to account: every order is tried.

use std::collections::BTreeSet;

use super::linear::{Op, Register, What};

/// Whether there is an order.
pub(crate) fn linearizable(ops: &[Op]) -> bool {
    extend(ops, &mut Vec::new())
}

fn extend(ops: &[Op], order: &mut Vec<usize>) -> bool {
    let left: Vec<usize> = (0..ops.len()).filter(|at| !order.contains(at)).collect();
    if left.iter().all(|at| ops[*at].end.is_none()) {
        return true;
    }
    for next in &left {
        // Whatever has ended before this one was sent comes first.
        let too_early =
            left.iter().any(|other| ops[*other].end.is_some_and(|end| end < ops[*next].call));
        if too_early {
            continue;
        }
        order.push(*next);
        if replay(ops, order) && extend(ops, order) {
            return true;
        }
        order.pop();
    }
    false
}

/// Whether each operation of an order says what it must.
fn replay(ops: &[Op], order: &[usize]) -> bool {
    let mut held = Register::EMPTY;
    let mut written = BTreeSet::new();
    order.iter().all(|at| match &ops[*at].what {
        What::Write { expected, protector } => {
            let fits = held.version == *expected;
            held = Register { version: expected + 1, protector: *protector };
            written.insert(*at);
            fits
        }
        What::Read(answer) => *answer == held,
        What::Stale { expected, of } => {
            held.version != *expected && of.is_none_or(|write| !written.contains(&write))
        }
        What::Effects { some, none } => {
            some.iter().all(|group| group.iter().any(|write| written.contains(write)))
                && none.iter().all(|write| !written.contains(write))
        }
    })
}
