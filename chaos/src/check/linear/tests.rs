//! Small histories, and random ones against the plainest check.

use super::super::naive::linearizable;
use super::super::testing::{
    DEVICE, Made, VOLUME, device, disclose, disclosed, escrow, id, ok, receipt, refused, unknown,
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
            What::Write { .. } if lost && choices[at].2.is_multiple_of(2) => op.end = None,
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
            What::Effects { some, none } => *none = some.concat(),
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
