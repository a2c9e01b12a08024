//! The page.

use super::chart::{COLOURS, timeline};
use super::html::{around, element, escape, list, moment, table};
use crate::check::{CheckResult, Judgement, KINDS, Spread, Status, Verdict, bound};
use crate::history::Micros;

const STYLE: &str = include_str!("page.css");

pub(super) fn page(verdict: &Verdict) -> String {
    let word = word(verdict.judgement);
    let seed = verdict.begin.as_ref().map_or_else(String::new, |b| format!(", seed {}", b.seed));
    let title = format!("Holdfast chaos run: {word}{seed}");
    let mut main = element("h1", &title);
    main.push_str(&banner(verdict));
    main.push_str(&facts(verdict));
    main.push_str(&picture(verdict));
    main.push_str(&checkers(verdict));
    main.push_str(&faults(verdict));
    main.push_str(&latency(verdict));
    main.push_str(&gaps(verdict));
    main.push_str(&outcomes(verdict));
    main.push_str(&not_tested(verdict));
    main.push_str(&repeat(verdict));
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n{main}</main>\n</body>\n</html>\n",
        escape(&title)
    )
}

const fn word(judgement: Judgement) -> &'static str {
    match judgement {
        Judgement::Green => "green",
        Judgement::Invalid => "invalid",
        Judgement::Red => "red",
    }
}

pub(super) fn seconds(at: Micros) -> f64 {
    std::time::Duration::from_micros(at).as_secs_f64()
}

/// A time for a person.
pub(super) fn time(micros: Micros) -> String {
    match micros {
        0..1000 => format!("{micros} µs"),
        1000..1_000_000 => format!("{:.1} ms", seconds(micros) * 1000.0),
        1_000_000..120_000_000 => format!("{:.2} s", seconds(micros)),
        _ => format!("{} min {:02} s", micros / 60_000_000, micros / 1_000_000 % 60),
    }
}

fn banner(verdict: &Verdict) -> String {
    let word = word(verdict.judgement);
    let meaning = match verdict.judgement {
        Judgement::Green => "Everything was checked, and everything held.",
        Judgement::Invalid => {
            "Nothing is known to be broken, but the run proves less than it should."
        }
        Judgement::Red => "Something that was promised did not hold.",
    };
    let [ok, ..] = verdict.figures.outcomes;
    let faults = verdict.figures.counts.values().fold(0, |sum, count| sum + count.installed);
    format!(
        "<div class=\"verdict {word}\"><p><strong>{}</strong> {}</p><p>{}</p>{}</div>\n",
        escape(&word.to_uppercase()),
        escape(meaning),
        escape(&format!(
            "{ok} operations were acknowledged in {} under {faults} faults.",
            time(verdict.figures.length)
        )),
        list(verdict.reasons.iter().map(String::as_str))
    )
}

fn facts(verdict: &Verdict) -> String {
    let Some(begin) = &verdict.begin else { return String::new() };
    let nodes: Vec<_> = begin.nodes.iter().map(u64::to_string).collect();
    let rows = [
        ("Servers' version", begin.version.clone()),
        ("Began", moment(begin.unix_ms)),
        ("Seed", begin.seed.to_string()),
        ("Servers at the beginning", nodes.join(", ")),
        ("Faults asked for", format!("{} s: {}", begin.seconds, begin.faults.join(", "))),
    ];
    let rows: Vec<_> =
        rows.into_iter().map(|(name, what)| ("", vec![name.to_owned(), what])).collect();
    table("What was run", &["What", "Value"], &rows)
}

fn picture(verdict: &Verdict) -> String {
    let mut markup = element("h2", "Timeline");
    markup.push_str(&timeline(&verdict.figures));
    let mut legend = String::new();
    for (name, colour) in KINDS.iter().zip(COLOURS) {
        legend.push_str(&format!(
            "<li><span class=\"swatch\" style=\"background: {colour}\"></span>{name}</li>"
        ));
    }
    legend.push_str("<li><span class=\"swatch band\"></span>fault</li>");
    legend.push_str(
        "<li><span class=\"swatch gap\"></span>longest times without an acknowledged escrow</li>",
    );
    markup.push_str(&format!("<ul class=\"legend\">{legend}</ul>\n"));
    let columns = verdict.figures.seconds.iter();
    let most = columns.map(|second| second.ok.iter().sum::<u32>()).max().unwrap_or(0);
    markup.push_str(&element("p", &super::chart::describe(&verdict.figures, f64::from(most))));
    markup
}

const fn status(result: &CheckResult) -> (&'static str, &'static str) {
    match result.status {
        Status::Held => ("held", "holds"),
        Status::Violated => ("violated", "VIOLATED"),
        Status::Undecided { .. } => ("undecided", "undecided"),
        Status::NotChecked { .. } => ("not-checked", "not checked"),
        Status::NotApplicable { .. } => ("not-applicable", "nothing to check"),
    }
}

fn checkers(verdict: &Verdict) -> String {
    let mut markup = element("h2", "Checkers");
    let mut rows = Vec::new();
    for result in &verdict.results {
        let (class, word) = status(result);
        let mut notes = result.notes.clone();
        if let Status::Undecided { why }
        | Status::NotChecked { why }
        | Status::NotApplicable { why } = &result.status
        {
            notes.insert(0, why.clone());
        }
        let violated =
            if result.violated > 0 { result.violated.to_string() } else { String::new() };
        let checked = format!("{} {}", result.checked, result.unit);
        let cells = vec![
            result.name.to_owned(),
            word.to_owned(),
            checked,
            violated,
            result.claim.to_owned(),
            notes.join("; "),
        ];
        rows.push((class, cells));
    }
    let head = ["Checker", "Result", "Looked at", "Violations", "What it proves", "Notes"];
    markup.push_str(&table("Each reads the recorded history and nothing else.", &head, &rows));
    for result in verdict.results.iter().filter(|result| !result.violations.is_empty()) {
        let items: Vec<_> = result
            .violations
            .iter()
            .map(|violation| {
                let ops: Vec<_> = violation.ops.iter().take(12).map(u64::to_string).collect();
                let calls = if ops.is_empty() {
                    String::new()
                } else {
                    format!(" [calls {}]", ops.join(", "))
                };
                format!("{}{calls}", violation.what)
            })
            .collect();
        let summary =
            element("summary", &format!("Violations of {}: {}", result.name, result.violated));
        let items = list(items.iter().map(String::as_str));
        markup.push_str(&format!("<details open=\"\">{summary}{items}</details>\n"));
    }
    markup
}

fn faults(verdict: &Verdict) -> String {
    let figures = &verdict.figures;
    let mut markup = element("h2", "Faults");
    let longest = |outage: Option<_>| outage.map_or_else(String::new, time);
    let spread = |spread: Spread| match spread.count {
        0 => String::new(),
        1 => time(spread.max),
        _ => format!("{}, {}, {}", time(spread.p50), time(spread.p99), time(spread.max)),
    };
    let rows: Vec<_> = figures
        .counts
        .iter()
        .map(|(kind, count)| {
            (
                "",
                vec![
                    kind.clone(),
                    count.installed.to_string(),
                    count.skipped.to_string(),
                    count.indeterminate.to_string(),
                    longest(count.escrow),
                    longest(count.disclose),
                    bound(kind).map_or_else(|| "several are faulty".to_owned(), time),
                    spread(count.write_gaps),
                ],
            )
        })
        .collect();
    let head = [
        "Kind",
        "Took effect",
        "Skipped",
        "Nobody knows",
        "Longest outage, escrow",
        "Longest outage, disclosure",
        "At most",
        "Without an acknowledged escrow: median, 99 of 100 within, longest",
    ];
    markup.push_str(&table(
        "Outages are measured where one server alone was faulty, through the others; times without an acknowledged escrow over all clients while the fault was in place.",
        &head,
        &rows,
    ));
    let rows: Vec<_> = figures
        .faults
        .iter()
        .map(|fault| {
            let until = if fault.healed {
                time(fault.to.saturating_sub(fault.from))
            } else {
                "to the end".to_owned()
            };
            (
                "",
                vec![
                    fault.number.to_string(),
                    fault.kind.clone(),
                    fault.target.clone(),
                    time(fault.from),
                    until,
                    fault.effect.to_owned(),
                    fault.why.clone(),
                ],
            )
        })
        .collect();
    let head = ["No.", "Kind", "Target", "At", "For", "Effect", "How that was seen, or why not"];
    let summary = element("summary", &format!("The schedule: {} faults", rows.len()));
    let schedule = table("In the order in which they began", &head, &rows);
    markup.push_str(&format!("<details>{summary}{schedule}</details>\n"));
    markup
}

fn latency(verdict: &Verdict) -> String {
    let rows: Vec<_> = verdict
        .figures
        .latency
        .iter()
        .map(|latency| {
            (
                "",
                vec![
                    format!("{}, {} the faults", latency.what, latency.part),
                    latency.count.to_string(),
                    time(latency.p50),
                    time(latency.p99),
                    time(latency.max),
                ],
            )
        })
        .collect();
    let head = ["Operations", "Acknowledged", "Median", "99 of 100 within", "Slowest"];
    let mut markup = element("h2", "Latency");
    markup.push_str(&table("As the clients saw it, retries and all", &head, &rows));
    markup
}

fn gaps(verdict: &Verdict) -> String {
    let mut rows: Vec<_> = verdict
        .figures
        .gaps
        .iter()
        .take(10)
        .map(|gap| {
            let under = format!("{} (fault {})", gap.kind, gap.fault);
            (
                gap.to.saturating_sub(gap.from),
                vec![
                    gap.what.to_owned(),
                    time(gap.from),
                    time(gap.to.saturating_sub(gap.from)),
                    under,
                ],
            )
        })
        .collect();
    rows.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
    let rows: Vec<_> = rows.into_iter().map(|(_, cells)| ("", cells)).collect();
    let mut markup = element("h2", "Longest outages");
    markup.push_str(&table(
        "Through healthy servers, while one server was faulty",
        &["Operation", "At", "For", "Under"],
        &rows,
    ));
    let rows: Vec<_> = verdict
        .figures
        .pauses
        .iter()
        .take(10)
        .map(|(from, to)| {
            ("", vec!["escrow".to_owned(), time(*from), time(to.saturating_sub(*from))])
        })
        .collect();
    markup.push_str(&table(
        "Over the whole run, whatever was broken",
        &["Operation", "At", "For"],
        &rows,
    ));
    markup
}

fn outcomes(verdict: &Verdict) -> String {
    let [ok, refused, unknown] = verdict.figures.outcomes;
    let mut rows = vec![
        ("", vec!["acknowledged".to_owned(), ok.to_string()]),
        ("", vec!["unknown".to_owned(), unknown.to_string()]),
        ("", vec!["refused".to_owned(), refused.to_string()]),
    ];
    for (reason, count) in &verdict.figures.refusals {
        rows.push(("", vec![format!("refused: {reason}"), count.to_string()]));
    }
    let mut markup = element("h2", "Outcomes");
    markup.push_str(&table(
        "A call that no server answered is unknown, whatever its error says.",
        &["Outcome", "Calls"],
        &rows,
    ));
    markup
}

fn not_tested(verdict: &Verdict) -> String {
    let mut items = Vec::new();
    for (kind, why) in verdict.begin.iter().flat_map(|begin| &begin.left_out) {
        items.push(format!("{kind}: {why}"));
    }
    for result in &verdict.results {
        if let Status::Undecided { why }
        | Status::NotChecked { why }
        | Status::NotApplicable { why } = &result.status
        {
            items.push(format!("checker {}: {why}", result.name));
        }
    }
    let skipped = verdict.figures.counts.iter().filter(|(_, count)| count.installed == 0);
    items.extend(skipped.map(|(kind, _)| format!("{kind}: never seen to take effect in this run")));
    let mut markup = element("h2", "Not tested");
    if items.is_empty() {
        markup.push_str(&element("p", "Nothing of what was asked for was left out."));
    }
    markup.push_str(&list(items.iter().map(String::as_str)));
    markup
}

fn repeat(verdict: &Verdict) -> String {
    let Some(begin) = &verdict.begin else { return String::new() };
    let mut markup = element("h2", "Once more");
    markup.push_str(&around("pre", &around("code", &escape(&begin.command))));
    markup
}
