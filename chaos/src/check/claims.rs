//! What a client is told of a call that failed: "nothing was done" must be true.
//!
//! The client says of each call that no server answered whether it may have been carried out. The workload writes a call
//! that was not carried out by the client's word down as unknown all the same, with a message that begins with [`NOT_DONE`].

use std::collections::BTreeSet;

use super::chain::longest;
use super::index::History;
use super::verdict::CheckResult;
use crate::history::Outcome;

/// How the message of such a call begins.
pub const NOT_DONE: &str = "nothing was done: ";

pub(crate) fn check(history: &History<'_>) -> CheckResult {
    let claim = "what the client says was not carried out was not carried out";
    let mut result = CheckResult::new("claims", claim, "escrows that were said not to be done");
    let Some(chain) = longest(history) else {
        result.not_checked("nobody could read the audit chain".to_owned());
        return result;
    };
    let escrowed = chain.records.iter().filter(|r| r.action == "escrow" && r.outcome == "ok");
    let escrowed: BTreeSet<&str> = escrowed.map(|record| record.request.as_str()).collect();
    for write in &history.writes {
        let not_done = write.calls.iter().all(|call| {
            matches!(call.returned, Some((_, Outcome::Unknown { message })) if message.starts_with(NOT_DONE))
        });
        if not_done {
            result.hold(
                !escrowed.contains(write.request.to_string().as_str()),
                &write.ops(),
                || {
                    format!(
                        "escrow {} took effect, but the client said that nothing was done",
                        write.request
                    )
                },
            );
        }
    }
    if result.checked == 0 {
        result.not_applicable("no escrow ended so");
    }
    result
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Made, escrow, filler, id, listing, record, unknown};
    use super::super::verdict::Status;
    use super::*;
    use crate::history::Call;

    fn run(effect: bool, also_unknown: bool) -> CheckResult {
        let mut made = Made::new();
        let message = format!("{NOT_DONE}no leader");
        made.call(1, 2, escrow(1, 0), Outcome::Unknown { message });
        if also_unknown {
            made.call(3, 4, escrow(1, 0), unknown());
        }
        let mut records = filler(5);
        if effect {
            records[3] = record(4, "escrow", id(0x1001), 1, 1);
        }
        made.call(9, 10, Call::AuditList, listing(records));
        check(&History::new(&made.events))
    }

    #[test]
    fn what_was_said_not_to_be_done_and_was_not_done_holds() {
        assert_eq!(run(false, false).status, Status::Held);
    }

    #[test]
    fn what_was_said_not_to_be_done_and_was_done_is_caught() {
        assert_eq!(run(true, false).status, Status::Violated);
    }

    #[test]
    fn another_call_of_the_same_request_may_have_done_it() {
        assert!(matches!(run(true, true).status, Status::NotApplicable { .. }));
    }
}
