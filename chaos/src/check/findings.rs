//! What was found outside of the calls: a panic in a log, a planted key on a disk, a receipt that doesn't verify.

use super::index::History;
use super::verdict::CheckResult;

pub(crate) fn check(history: &History<'_>) -> CheckResult {
    let claim = "no planted key on any disk or in any log, no panic, nothing that doesn't verify";
    let mut result = CheckResult::new("findings", claim, "things looked at");
    for finding in &history.findings {
        result.count();
        let what = format!("{}: {}", finding.checker, finding.what);
        if finding.bad {
            result.violate([], what);
        } else {
            result.notes.push(what);
        }
    }
    if result.checked == 0 {
        result.not_applicable("the run looked at nothing outside of its calls");
    }
    result
}
