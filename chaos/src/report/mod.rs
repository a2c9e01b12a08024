//! The report: `report.json` for programs, `report.html` for people.
//!
//! The page stands alone: no script, no font, no picture from elsewhere. Everything that comes from the run is escaped.

mod chart;
mod html;
mod page;

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;

use crate::check::Verdict;

/// Writes `report.json` and `report.html` into a directory.
///
/// # Errors
/// If a file can't be written.
pub fn write(out: &Path, verdict: &Verdict) -> anyhow::Result<()> {
    let mut json = serde_json::to_vec_pretty(verdict).context("the report")?;
    json.push(b'\n');
    write_file(&out.join("report.json"), &json)?;
    write_file(&out.join("report.html"), page::page(verdict).as_bytes())
}

/// The page for people.
pub fn page(verdict: &Verdict) -> String {
    page::page(verdict)
}

fn write_file(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let written = File::create(path).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::check_events;
    use crate::history::{
        Begin, Call, Effect, Event, FaultEvent, FaultStep, Invoke, Outcome, Position, Reply, Return,
    };
    use uuid::Uuid;

    const EVIL: &str = "<script>alert('&\"')</script>";

    fn events() -> Vec<Event> {
        let mut events = vec![Event::Begin(Begin {
            unix_ms: 1_700_000_000_000,
            version: EVIL.to_owned(),
            seed: 4711,
            nodes: vec![1, 2, 3],
            seconds: 20,
            faults: vec!["kill".to_owned()],
            left_out: vec![("clock-jump".to_owned(), EVIL.to_owned())],
            command: format!("holdfast-chaos run --seed 4711 {EVIL}"),
        })];
        for op in 1..200 {
            let at = op * 100_000;
            let call = Call::Find { request: Uuid::from_u128(op.into()), query: EVIL.to_owned() };
            events.push(Event::Invoke(Invoke { at, op, client: 1, node: None, call }));
            let position = Position { term: 1, index: op };
            let reply = Reply::Find { keys: vec![], audit: op, position };
            let outcome = Outcome::Ok { reply };
            events.push(Event::Return(Return { at: at + 900, op, outcome }));
        }
        for (step, at) in [(FaultStep::Install, 5_000_000), (FaultStep::Heal, 8_000_000)] {
            events.push(Event::Fault(FaultEvent {
                at,
                until: at + 1000,
                number: 1,
                kind: EVIL.to_owned(),
                target: EVIL.to_owned(),
                nodes: vec![1],
                step,
                effect: Effect::Installed { seen: EVIL.to_owned() },
            }));
        }
        events
    }

    #[test]
    fn the_page_escapes_what_comes_from_the_run_and_fetches_nothing() {
        let page = page(&check_events(&events()));
        assert!(!page.contains("<script"), "{page}");
        assert!(page.contains("&lt;script&gt;alert(&#39;&amp;&quot;&#39;)&lt;/script&gt;"));
        for foreign in ["http:", "https:", "src=", "url(", "@import"] {
            let page = page.replace("http://www.w3.org/2000/svg", "");
            assert!(!page.contains(foreign), "{foreign}");
        }
    }

    #[test]
    fn the_page_says_what_a_reader_needs_to_judge_and_to_repeat_the_run() {
        let page = page(&check_events(&events()));
        for needed in [
            "<title>Holdfast chaos run: invalid",
            "4711",
            "2023-11-14 22:13:20 UTC",
            "holdfast-chaos run --seed 4711",
            "clock-jump",
            "the run was cut off",
            "role=\"img\"",
            "lang=\"en\"",
        ] {
            assert!(page.contains(needed), "{needed}\n{page}");
        }
    }

    #[test]
    fn every_element_is_closed_in_the_order_in_which_it_was_opened() {
        let page = page(&check_events(&events()));
        let mut open: Vec<&str> = Vec::new();
        for tag in page.split('<').skip(1) {
            let tag = tag.split('>').next().unwrap();
            let name = tag.split([' ', '/']).next().unwrap();
            if let Some(closed) = tag.strip_prefix('/') {
                assert_eq!(open.pop(), Some(closed), "{tag}");
            } else if !tag.ends_with('/') && !matches!(name, "!doctype" | "meta") {
                open.push(name);
            }
        }
        assert!(open.is_empty(), "{open:?}");
    }

    #[test]
    fn both_files_are_written() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &check_events(&events())).unwrap();
        let json = std::fs::read_to_string(dir.path().join("report.json")).unwrap();
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["judgement"], "invalid");
        assert_eq!(json["begin"]["seed"], 4711);
        assert!(json["results"].as_array().unwrap().len() > 10);
        assert!(dir.path().join("report.html").exists());
        assert!(write(&dir.path().join("missing"), &check_events(&[])).is_err());
    }
}
